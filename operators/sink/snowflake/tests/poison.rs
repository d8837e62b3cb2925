//! Rows that Snowflake does not take: each in the dead letter once, everything else where it belongs, and the
//! same as if nothing had happened once they are replayed.

use super::*;
use arrow::array::Date32Array;
use std::collections::{BTreeMap, BTreeSet};

/// Rejects rows of every fourth transaction, whatever they do.
const EVERY_FOURTH: &str = r#""_SEQ":"[0-9a-f]{15}[37bf]/"#;

fn rejected(lsn: u64) -> bool {
    lsn % 4 == 3
}

/// A history of a few keys: inserts, updates that send all, one or no text, deletes, inserts again. One row a
/// transaction.
fn history(seed: u64, length: u64) -> Vec<Change> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % below
    };
    let mut there = BTreeSet::new();
    let mut all = Vec::new();
    for lsn in 1..=length {
        let id = random(5) as i32;
        let mut change = Change { b: Ok(Some(format!("b{lsn}"))), n: Some(lsn as i32), ..insert(lsn, 0, id, &format!("a{lsn}")) };
        if there.contains(&id) {
            match random(5) {
                0 => {
                    there.remove(&id);
                    change = Change { op: Op::Delete, a: Ok(None), b: Ok(None), n: None, ..change };
                }
                1 => change = Change { op: Op::Update, ..change },
                2 => change = Change { op: Op::Update, a: Err(()), ..change },
                3 => change = Change { op: Op::Update, b: Err(()), ..change },
                _ => change = Change { op: Op::Update, a: Err(()), b: Err(()), ..change },
            }
        } else {
            there.insert(id);
        }
        all.push(change);
    }
    all
}

/// Delivers a history with its fences, in pieces.
fn deliver(run: &Run, table: &Arc<TableSchema>, changes: &[Change], piece: usize) {
    for piece in changes.chunks(piece) {
        run.rows(batch(table, piece));
        run.upper(piece.last().unwrap().lsn);
    }
}

/// The dead letters, by token: code, operation, key and row.
async fn letters(sink: &Arc<dyn Sink>) -> BTreeMap<Token, (String, char, String, String)> {
    let all = sink.dead_letters("shop").unwrap().list(None, true).await.unwrap();
    let count = all.len();
    let by_token: BTreeMap<_, _> = all.into_iter().map(|l| (l.token, (l.code, l.op, l.key, l.row))).collect();
    assert_eq!(by_token.len(), count, "a row has one letter");
    by_token
}

/// Checks that every row is either in the landing table or a dead letter, once.
async fn exact(server: &LocalSnowflake, sink: &Arc<dyn Sink>, schema: &str, changes: &[Change]) {
    let landed = rows(server, &format!(r#"SELECT "_SEQ" FROM RAW.{schema}."ITEMS__CHANGES" ORDER BY "_SEQ""#)).await;
    let token = |c: &&Change| Token::new(c.lsn, c.ordinal).to_string();
    let (bad, good): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|c| rejected(c.lsn));
    assert_eq!(landed, good.iter().map(token).collect::<Vec<_>>());
    let letters = letters(sink).await;
    assert_eq!(letters.keys().map(ToString::to_string).collect::<Vec<_>>(), bad.iter().map(token).collect::<Vec<_>>());
    for change in bad {
        let (code, op, key, row) = &letters[&Token::new(change.lsn, change.ordinal)];
        assert_eq!((code.as_str(), *op, key), ("SF0007", char::from(change.op.letter()), &format!("{{\"id\":{}}}", change.id)));
        let row: Value = serde_json::from_str(row).unwrap();
        let text = |value: &Result<Option<String>, ()>| json!(value.clone().unwrap_or_default());
        assert_eq!((&row["A"], &row["B"], &row["N"]), (&text(&change.a), &text(&change.b), &json!(change.n)));
        let mut unchanged: Vec<&str> = Vec::new();
        unchanged.extend(change.a.is_err().then_some("A"));
        unchanged.extend(change.b.is_err().then_some("B"));
        assert_eq!(row["_UNCHANGED"], if unchanged.is_empty() { Value::Null } else { json!(unchanged) });
    }
}

const ITEMS: &str = r#"ID, A, B, N, "_ETL_SEQ""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_go_to_the_dead_letter_and_come_back_in_their_place() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let table = items();
    for (at, (what, settings)) in [
        ("table", json!({})),
        ("four channels", json!({ "channels": 4 })),
        ("folder", json!({ "channels": 2, "dead_letter": { "folder": folder.path() } })),
        ("another table", json!({ "dead_letter": { "table": "poison" }, "deletes": "soft" })),
    ]
    .into_iter()
    .enumerate()
    {
        let changes = history(at as u64 + 1, 120);
        let mut settings = settings;
        let soft = settings["deletes"] == "soft";
        settings["landing_retention"] = "25000d".into();
        settings["schema"] = format!("C{at}").into();
        let clean = sink(&server, settings.clone());
        let run = Run::start(&clean).await;
        deliver(&run, &table, &changes, 7);
        run.finish().await.unwrap();

        settings["schema"] = format!("P{at}").into();
        let poisoned = sink(&server, settings);
        let run = Run::start(&poisoned).await;
        server.faults(json!({ "reject_rows_matching": EVERY_FOURTH, "commit_delay_ms": 10 })).await;
        for part in changes.chunks(40) {
            deliver(&run, &table, part, 7);
            run.settled().await;
        }
        run.finish().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        exact(&server, &poisoned, &format!("P{at}"), &changes).await;

        // Still refused: everything stays.
        let replay = async || poisoned.dead_letters("shop").unwrap().replay(Some("public.items")).await.unwrap();
        let again = replay().await;
        assert_eq!(again.iter().filter(|r| r.outcome == "kept").count(), 30, "{what}: {again:?}");
        server.faults(json!({ "reject_rows_matching": null, "commit_delay_ms": 0 })).await;
        let done = replay().await;
        assert!(done.iter().all(|r| r.outcome != "kept"), "{what}: {done:?}");
        assert!(done.iter().any(|r| r.outcome == "replayed") && done.len() == 30, "{what}: {done:?}");
        assert_eq!(replay().await, [], "{what}");
        let order = if soft { r#"ID, A, B, N, "_ETL_SEQ", "_ETL_DELETED""# } else { ITEMS };
        // A soft-deleted row's values are those it had when it was deleted, which a superseded row may have set.
        let alive = if soft { r#"WHERE NOT "_ETL_DELETED""# } else { "" };
        let state = |schema: &str| format!("SELECT {order} FROM RAW.{schema}{at}.ITEMS {alive} ORDER BY ID");
        assert_eq!(rows(&server, &state("P")).await, rows(&server, &state("C")).await, "{what}");
        // The history is whole too, and every row of it as it would have been.
        let landed = |schema: &str| format!(r#"SELECT * FROM RAW.{schema}{at}."ITEMS__CHANGES" ORDER BY "_SEQ""#);
        assert_eq!(rows(&server, &landed("P")).await, rows(&server, &landed("C")).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ended_before_it_knew_loses_and_doubles_nothing() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let table = items();
    for (at, (what, settings)) in [
        ("table", json!({ "channels": 3 })),
        ("folder", json!({ "dead_letter": { "folder": folder.path() } })),
        ("append", json!({ "write_mode": "append", "channels": 2 })),
    ]
    .into_iter()
    .enumerate()
    {
        let mut settings = settings;
        let schema = format!("K{at}");
        settings["schema"] = schema.clone().into();
        let changes = history(17 + at as u64, 200);
        server.faults(json!({ "reject_rows_matching": EVERY_FOURTH, "commit_delay_ms": 15 })).await;
        let (mut from, mut crashes) = (0, 0);
        for round in 1.. {
            let sink = sink(&server, settings.clone());
            let run = Run::start(&sink).await;
            let piece = 3 + round % 5;
            if round > 12 {
                deliver(&run, &table, &changes[from..], piece);
                run.finish().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                exact(&server, &sink, &schema, &changes).await;
                break;
            }
            // Ends at any moment, sometimes as soon as a delivery is acknowledged.
            let some = &changes[from..changes.len().min(from + 30)];
            deliver(&run, &table, some, piece);
            let wanted = (round % 3).min(some.len() / piece);
            until("acknowledgements", || run.acked() >= wanted || run.task.is_finished()).await;
            tokio::time::sleep(Duration::from_millis(round as u64 * 37 % 23)).await;
            if run.task.is_finished() {
                panic!("{what}, round {round}: {:?}", run.failed().await);
            }
            let acked = run.acked();
            crashes += 1;
            run.crash().await;
            // The source hears of acknowledgements late.
            from = (from + (acked * piece).min(some.len()).saturating_sub(round % 4 * 3)).min(changes.len() - 1);
        }
        assert_eq!(crashes, 12);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_no_column_holds() {
    let server = server().await;
    let columns = [("id", ColumnType::Int4), ("d", ColumnType::Date)];
    let table = schema("pg", "public", "days", &columns, 1);
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(1..=6));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 9_999_999, 2, 9_999_999, 9_999_999, 1]));
    let whole = batch_of(&table, vec![ids, days]);
    // Strict, and the last rows of the delivery among the refused ones.
    for (schema_name, part) in [("A", 6), ("B", 5)] {
        let strict = sink(&server, json!({ "strict": true, "schema": schema_name, "channels": 2 }));
        for _ in 0..2 {
            let run = Run::start(&strict).await;
            run.rows(whole.slice(0, part));
            run.upper(1);
            run.finish().await.unwrap();
        }
        let found = letters(&strict).await;
        assert_eq!(found.keys().map(|t| t.ordinal).collect::<Vec<_>>(), [1, 3, 4]);
        assert!(found.values().all(|(code, _, _, row)| code == "SF0015" && row.contains(r#""_ETL_EXACT":{"D":"29349-"#)), "{found:?}");
        let ids = format!("SELECT ID FROM RAW.{schema_name}.DAYS ORDER BY ID");
        assert_eq!(rows(&server, &ids).await, if part == 6 { vec!["1", "3", "6"] } else { vec!["1", "3"] });
        let replayed = strict.dead_letters("shop").unwrap().replay(None).await.unwrap();
        assert!(replayed.iter().all(|r| r.outcome == "kept" && r.note.contains("strict")), "{replayed:?}");
        let lenient = sink(&server, json!({ "schema": schema_name, "channels": 2, "landing_retention": "25000d" }));
        let replayed = lenient.dead_letters("shop").unwrap().replay(None).await.unwrap();
        assert!(replayed.iter().all(|r| r.outcome == "replayed"), "{replayed:?}");
        let exact = format!(r#"SELECT COUNT(*), COUNT("_ETL_EXACT") FROM RAW.{schema_name}.DAYS"#);
        assert_eq!(rows(&server, &exact).await, [format!("{part} 3")]);
    }
    // Without a place for letters they stop the pipeline.
    let stop = sink(&server, json!({ "schema": "STOP", "strict": true, "dead_letter": "stop" }));
    assert!(stop.dead_letters("shop").is_none());
    let run = Run::start(&stop).await;
    run.rows(whole);
    assert_eq!(run.failed().await.code.id, "SF0015");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replay_must_not_do() {
    let server = server().await;
    let table = items();
    let bad = |lsn: u64, id: i32| insert(lsn, 0, id, "bad");
    let gone = |lsn: u64, op: Op, id: i32| Change { op, a: Ok(None), n: None, ..insert(lsn, 0, id, "") };
    let moved = |lsn: u64, id: i32| Change { a: Err(()), ..insert(lsn, 1, id, "") };
    for (at, (what, retention, changes, outcome, target)) in [
        ("deleted since", "7d", vec![bad(1, 1), gone(2, Op::Delete, 1)], "superseded", vec![]),
        ("truncated since", "7d", vec![bad(1, 1), gone(2, Op::Truncate, 1)], "superseded", vec![]),
        ("inserted again since", "7d", vec![bad(1, 1), gone(2, Op::Delete, 1), insert(3, 0, 1, "new")], "superseded", vec!["1 new"]),
        ("its values moved on", "7d", vec![bad(1, 1), gone(2, Op::Delete, 1), moved(2, 2)], "kept", vec!["2 ∅"]),
        ("nothing since, and the landing table has less", "0s", vec![insert(1, 0, 1, "old"), bad(2, 1)], "replayed", vec!["1 bad"]),
        ("nobody knows what came since", "0s", vec![bad(1, 1), gone(2, Op::Delete, 1)], "kept", vec![]),
        ("newer, and the landing table has less", "0s", vec![bad(1, 1), insert(2, 0, 1, "new")], "superseded", vec!["1 new"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut changes = changes;
        for change in &mut changes {
            // The landing table keeps what was committed within its retention.
            change.lsn += 2_000_000_000;
        }
        let schema = format!("M{at}");
        let sink = sink(&server, json!({ "schema": schema, "landing_retention": retention }));
        server.faults(json!({ "reject_rows_matching": "\"A\":\"bad\"" })).await;
        let run = Run::start(&sink).await;
        deliver(&run, &table, &changes, 3);
        run.finish().await.unwrap();
        server.faults(json!({ "reject_rows_matching": null })).await;
        let done = sink.dead_letters("shop").unwrap().replay(None).await.unwrap();
        assert_eq!(done.iter().map(|r| r.outcome).collect::<Vec<_>>(), [outcome], "{what}: {done:?}");
        assert_eq!(rows(&server, &format!("SELECT ID, A FROM RAW.{schema}.ITEMS ORDER BY ID")).await, target, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_row_is_kept_whole() {
    let server = server().await;
    let table = items();
    // Does not compress, has quotes, backslashes and characters of several bytes, and takes several parts.
    let mut x = 88_172_645_463_325_252_u64;
    let mut large = String::new();
    while large.len() < 7_000_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        large.extend(char::from_u32((x % 0x2fff) as u32 + 32));
    }
    let sink = sink(&server, json!({}));
    let run = Run::start(&sink).await;
    run.rows(batch(&table, &[insert(1, 0, 1, "x"), insert(1, 1, 2, &large), insert(1, 2, 3, "y")]));
    run.upper(1);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, "SELECT ID FROM RAW.SHOP.ITEMS ORDER BY ID").await, ["1", "3"]);
    let found = letters(&sink).await;
    let (code, _, key, row) = &found[&Token::new(1, 1)];
    assert_eq!((found.len(), code.as_str(), key.as_str()), (1, "SF0011", "{\"id\":2}"));
    assert_eq!(serde_json::from_str::<Value>(row).unwrap()["A"].as_str(), Some(large.as_str()));
    let done = sink.dead_letters("shop").unwrap().replay(None).await.unwrap();
    assert_eq!(done.iter().map(|r| r.outcome).collect::<Vec<_>>(), ["kept"]);
}
