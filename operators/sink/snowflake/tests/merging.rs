//! The target is what the changes fold to, however they are cut into batches and merges.

use super::model::{Dice, Row, fold, history};
use super::*;
use std::collections::BTreeMap;

async fn target(server: &LocalSnowflake, schema: &str, soft: bool) -> BTreeMap<i32, Row> {
    let deleted = if soft { "\"_ETL_DELETED\"" } else { "FALSE" };
    let rows = server.sql(&format!("SELECT ID, A, B, N, \"_ETL_SEQ\", {deleted} FROM RAW.{schema}.ITEMS")).await;
    let count = rows.len();
    let read = |row: Vec<Option<String>>| {
        let [id, a, b, n, seq, deleted] = <[Option<String>; 6]>::try_from(row).unwrap();
        let row = Row { a, b, n: n.map(|n| n.parse().unwrap()), seq: seq.unwrap(), deleted: deleted.as_deref() == Some("true") };
        (id.unwrap().parse().unwrap(), row)
    };
    let all: BTreeMap<i32, Row> = rows.into_iter().map(read).collect();
    assert_eq!(all.len(), count, "a key stands twice in {schema}");
    all
}

fn expected(changes: &[Change], soft: bool) -> BTreeMap<i32, Row> {
    fold(changes).into_iter().filter(|(_, row)| soft || !row.deleted).collect()
}

/// Runs changes through a sink, cut at random into batches, merges and lives; compares after each life.
async fn check(server: &LocalSnowflake, schema: &str, soft: bool, channels: u16, seed: u64, changes: &[Change]) {
    let mut dice = Dice(seed);
    let settings = json!({
        "schema": schema, "deletes": if soft { "soft" } else { "hard" }, "channels": channels,
        "landing_retention": if seed.is_multiple_of(2) { "0s" } else { "7d" }
    });
    let sink = sink(server, settings);
    let table = items();
    let last = changes.last().unwrap().lsn;
    let mut done = 0;
    while done < last {
        let until_lsn = (done + 1 + dice.roll(last)).min(last);
        let run = Run::start(&sink).await;
        // Delivered again from the start: an acknowledgement may have been lost.
        let part: Vec<Change> = changes.iter().filter(|c| c.lsn <= until_lsn && (done == 0 || c.lsn + 3 > done)).cloned().collect();
        let mut at = 0;
        while at < part.len() {
            let end = (at + 1 + dice.roll(5) as usize).min(part.len());
            run.rows(batch(&table, &part[at..end]));
            let whole = part[end - 1].lsn - u64::from(end < part.len());
            run.upper(whole);
            if dice.roll(4) == 0 {
                run.settled().await;
                tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
            }
            at = end;
        }
        if dice.roll(3) == 0 && until_lsn < last {
            run.settled().await;
            run.crash().await;
        } else {
            run.upper(until_lsn);
            run.finish().await.unwrap_or_else(|e| panic!("{schema}: {e:?}"));
            let so_far: Vec<Change> = changes.iter().filter(|c| c.lsn <= until_lsn).cloned().collect();
            assert_eq!(target(server, schema, soft).await, expected(&so_far, soft), "{schema} up to {until_lsn}");
        }
        done = until_lsn;
    }
}

fn change(lsn: u64, ordinal: u64, op: Op, id: i32, a: Result<&str, ()>) -> Change {
    let a = a.map(|a| Some(a.to_owned()));
    Change { lsn, ordinal, op, id, b: a.clone(), a, n: Some(lsn as i32) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_history() {
    use Op::{Delete as D, Insert as I, Truncate as T, Update as U};
    const LEFT: Result<&str, ()> = Err(());
    let none = Ok("");
    // Setup rows come in their own transaction and may be merged before; the rest is cut anywhere.
    let cases: Vec<(&str, Vec<Change>)> = vec![
        (
            "insert, update, delete",
            vec![change(1, 0, I, 1, Ok("x")), change(2, 0, U, 1, Ok("y")), change(3, 0, D, 1, none), change(4, 0, I, 1, Ok("z"))],
        ),
        ("values left out, over merges", vec![change(1, 0, I, 1, Ok("x")), change(2, 0, U, 1, LEFT), change(3, 0, U, 1, LEFT)]),
        ("left out, then deleted", vec![change(1, 0, I, 1, Ok("x")), change(2, 0, U, 1, LEFT), change(3, 0, D, 1, none)]),
        (
            "deleted and again",
            vec![change(1, 0, I, 1, Ok("x")), change(2, 0, D, 1, none), change(2, 1, I, 1, Ok("y")), change(3, 0, U, 1, LEFT)],
        ),
        ("key changed", vec![change(1, 0, I, 1, Ok("x")), change(2, 0, D, 1, none), change(2, 1, I, 2, LEFT), change(3, 0, U, 2, LEFT)]),
        (
            "key changed, after an update",
            vec![change(1, 0, I, 1, Ok("x")), change(2, 0, U, 1, Ok("y")), change(2, 2, D, 1, none), change(2, 3, I, 2, LEFT)],
        ),
        (
            "chain",
            vec![
                change(1, 0, I, 1, Ok("x")),
                change(2, 0, D, 1, none),
                change(2, 1, I, 2, LEFT),
                change(2, 2, D, 2, none),
                change(2, 3, I, 3, LEFT),
                change(3, 0, D, 3, none),
                change(3, 1, I, 1, LEFT),
            ],
        ),
        (
            "swap",
            vec![
                change(1, 0, I, 1, Ok("one")),
                change(1, 1, I, 2, Ok("two")),
                change(2, 0, D, 1, none),
                change(2, 1, I, 9, LEFT),
                change(2, 2, D, 2, none),
                change(2, 3, I, 1, LEFT),
                change(2, 4, D, 9, none),
                change(2, 5, I, 2, LEFT),
            ],
        ),
        (
            "truncate",
            vec![
                change(1, 0, I, 1, Ok("x")),
                change(1, 1, I, 2, Ok("x")),
                change(2, 0, U, 1, LEFT),
                change(2, 1, T, 0, none),
                change(2, 2, I, 1, Ok("y")),
                change(3, 0, T, 0, none),
                change(3, 1, I, 3, Ok("z")),
                change(4, 0, D, 3, none),
                change(4, 1, I, 4, LEFT),
            ],
        ),
        ("truncate alone", vec![change(1, 0, I, 1, Ok("x")), change(2, 0, T, 0, none)]),
    ];
    let server = server().await;
    for (at, (what, mut changes)) in cases.into_iter().enumerate() {
        for change in changes.iter_mut().filter(|c| matches!(c.op, D | T)) {
            (change.a, change.b, change.n) = (Ok(None), Ok(None), None);
        }
        eprintln!("{at}: {what}");
        let runs = [(false, 1, 1), (false, 2, 2), (true, 1, 1), (true, 2, 2)].map(|(soft, seed, channels)| {
            let (server, changes) = (&server, &changes);
            async move {
                let schema = format!("K{at}_{soft}_{seed}").to_uppercase();
                check(server, &schema, soft, channels, seed, changes).await;
            }
        });
        futures::future::join_all(runs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories() {
    let server = server().await;
    let runs = (0..8).map(|seed| {
        let server = &server;
        async move {
            let changes = history(seed, 14);
            check(server, &format!("R{seed}"), seed % 2 == 1, 1 + (seed % 3) as u16, seed * 7 + 1, &changes).await;
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_attempt_is_replaced_as_a_whole() {
    let server = server().await;
    let read = |lsn: u64, ids: std::ops::Range<i32>| -> Vec<Change> {
        ids.map(|id| Change { op: Op::Read, ..insert(lsn, id as u64, id, &format!("at {lsn}")) }).collect()
    };
    let table = items();
    for (schema, soft) in [("HARD", false), ("SOFT", true)] {
        let sink = sink(&server, json!({ "schema": schema, "deletes": if soft { "soft" } else { "hard" } }));
        let begin = |lsn| Mark::SnapshotBegin { table: Arc::clone(&table), lsn };
        let end = |lsn| Mark::SnapshotEnd { table: Arc::clone(&table), lsn };
        // An attempt that does not end.
        server.faults(json!({ "commit_delay_ms": 200 })).await;
        let run = Run::start(&sink).await;
        run.mark(begin(10));
        run.rows(batch(&table, &read(10, 0..50)));
        until("the begin", || run.acked() >= 1).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        run.crash().await;
        // The next one, in two lives: the second continues it.
        server.faults(json!({ "commit_delay_ms": 0 })).await;
        let run = Run::start(&sink).await;
        run.mark(begin(20));
        run.rows(batch(&table, &read(20, 0..10)));
        run.settled().await;
        let landed = format!("SELECT COUNT(*), MIN(\"_SEQ\") FROM RAW.{schema}.\"ITEMS__CHANGES\"");
        assert_eq!(rows(&server, &landed).await, ["10 0000000000000014/0000000000000000"]);
        run.crash().await;
        let run = Run::start(&sink).await;
        run.mark(begin(20));
        run.rows(batch(&table, &read(20, 0..30)));
        run.mark(end(20));
        run.rows(batch(&table, &[Change { op: Op::Update, ..insert(21, 0, 3, "later") }]));
        run.upper(21);
        run.finish().await.unwrap();
        let mut changes = read(20, 0..30);
        changes.push(Change { op: Op::Update, ..insert(21, 0, 3, "later") });
        assert_eq!(target(&server, schema, soft).await, expected(&changes, soft));
        // A second snapshot, of fewer rows: what it does not have is gone.
        let run = Run::start(&sink).await;
        run.mark(begin(30));
        run.rows(batch(&table, &read(30, 5..8)));
        run.mark(end(30));
        run.upper(30);
        run.finish().await.unwrap();
        let now = target(&server, schema, soft).await;
        let live: Vec<i32> = now.iter().filter(|(_, row)| !row.deleted).map(|(id, _)| *id).collect();
        assert_eq!(live, [5, 6, 7]);
        assert_eq!(now.len(), if soft { 30 } else { 3 });
        assert_eq!(now.get(&0).map(|row| (row.deleted, row.a.as_deref())), soft.then_some((true, Some("at 20"))));
        // It ended, and the source died before it noted that: what landed of it is removed, and the target follows.
        let run = Run::start(&sink).await;
        run.mark(begin(40));
        run.rows(batch(&table, &read(40, 5..7)));
        run.mark(end(40));
        run.upper(40);
        run.finish().await.unwrap();
        let landed = |lsn: u64| format!("SELECT COUNT(*) FROM RAW.{schema}.\"ITEMS__CHANGES\" WHERE \"_SEQ\" LIKE '{lsn:016x}/%'");
        for (lsn, count) in [(10, "0"), (20, "30"), (30, "0"), (40, "2")] {
            assert_eq!(rows(&server, &landed(lsn)).await, [count], "{lsn}");
        }
        let now = target(&server, schema, soft).await;
        let live: Vec<i32> = now.iter().filter(|(_, row)| !row.deleted).map(|(id, _)| *id).collect();
        assert_eq!((live, now.len()), (vec![5, 6], if soft { 30 } else { 2 }));
        // One from before: another cluster.
        let run = Run::start(&sink).await;
        run.mark(begin(25));
        assert_eq!(run.failed().await.code.id, "SF0013");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_texts_stay_with_their_values() {
    let server = server().await;
    for (schema, interval) in [("APART", "10ms"), ("TOGETHER", "1h")] {
        let sink = sink(&server, json!({ "schema": schema, "merge": { "interval": interval } }));
        let run = Run::start(&sink).await;
        let table = items();
        let deliver = async |change: Change, exact: &[(usize, &str)]| {
            let lsn = change.lsn;
            let mut rows = batch(&table, &[change]);
            for (column, text) in exact {
                rows.exact.push(0, *column, (*text).into());
            }
            run.rows(rows);
            run.upper(lsn);
            if interval == "10ms" {
                run.settled().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let update = |lsn, id, a, b| Change { op: Op::Update, a, b, ..insert(lsn, 0, id, "") };
        let sent = || Ok(Some("s".to_owned()));
        deliver(insert(1, 0, 1, "x"), &[(1, "A exact"), (2, "B exact")]).await;
        deliver(insert(2, 0, 2, "x"), &[(2, "B exact")]).await;
        deliver(update(3, 1, Err(()), sent()), &[(3, "N exact")]).await;
        deliver(update(4, 2, sent(), Err(())), &[]).await;
        deliver(update(5, 2, Err(()), Err(())), &[]).await;
        run.finish().await.unwrap();
        let query = format!(
            "SELECT ID, GET(\"_ETL_EXACT\", 'A'), GET(\"_ETL_EXACT\", 'B'), GET(\"_ETL_EXACT\", 'N') FROM RAW.{schema}.ITEMS ORDER BY ID"
        );
        assert_eq!(rows(&server, &query).await, ["1 \"A exact\" ∅ \"N exact\"", "2 ∅ \"B exact\" ∅"], "{schema}");
    }
}
