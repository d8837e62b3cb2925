//! Tables that are stopped while others go on: nothing is acknowledged that is neither there nor noted, whenever a
//! process ends.

use super::*;
use crate::contract::StateKey;

/// `items` with a column that no statement can fill for rows that are there.
fn drawn() -> Arc<TableSchema> {
    let mut table = (*items()).clone();
    let mut column = table.columns[3].clone();
    (column.name, column.number, column.filled) = ("drawn".into(), Some(5), true);
    table.columns.push(column);
    Arc::new(table)
}

fn with_drawn(changes: &[Change]) -> RowBatch {
    let mut rows = batch(&drawn(), changes);
    rows.columns.push(Arc::new(changes.iter().map(|c| c.n).collect::<Int32Array>()));
    rows
}

/// Another table of the same source.
fn other() -> Arc<TableSchema> {
    let mut table = (*items()).clone();
    (table.name, table.id) = ("other".into(), 2);
    Arc::new(table)
}

fn read(lsn: u64, id: i32, a: &str) -> Change {
    Change { op: Op::Read, ..insert(lsn, 0, id, a) }
}

/// The note in the bookkeeping.
async fn noted(server: &LocalSnowflake, schema: &str) -> String {
    rows(server, &format!("SELECT STOPPED FROM RAW.{schema}._ETL_STREAM_PROGRESS WHERE TABLE_NAME = 'items'")).await.join("|")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_stops_and_a_snapshot_takes_it_up_again() {
    let server = server().await;
    for (schema, settings) in [
        ("MERGED", json!({})),
        ("REFUSED", json!({ "schema_changes": "refuse" })),
        ("SHARDED", json!({ "channels": 3, "deletes": "soft" })),
        ("APPENDED", json!({ "write_mode": "append", "schema_changes": "refuse" })),
    ] {
        let mut settings = settings;
        settings["schema"] = schema.into();
        let appends = settings["write_mode"] == "append";
        // A process has a sink of its own.
        let start = async || Run::start(&sink(&server, settings.clone())).await;
        let items_of = format!("SELECT ID, A FROM RAW.{schema}.ITEMS{} ORDER BY ID", if appends { "__CHANGES" } else { "" });
        let others_of = format!("SELECT COUNT(*) FROM RAW.{schema}.OTHER__CHANGES");
        // The change stands in the middle of a transaction.
        let deliver = |run: &Run, upto: u64| {
            run.rows(batch(&items(), &[insert(1, 0, 1, "x"), insert(2, 0, 2, "y")]));
            run.rows(batch(&other(), &[insert(2, 2, 1, "o")]));
            run.rows(with_drawn(&[insert(2, 4, 3, "z"), insert(3, 0, 4, "w")]));
            for lsn in 4..=upto {
                run.rows(with_drawn(&[insert(lsn, 0, lsn as i32, "late")]));
                run.rows(batch(&other(), &[insert(lsn, 2, lsn as i32, "o")]));
            }
            run.upper(upto);
        };
        let run = start().await;
        deliver(&run, 5);
        run.settled().await;
        let [(table, since, discarded, _)] = &run.stopped()[..] else { panic!("{schema}: {:?}", run.stopped()) };
        assert_eq!((table.as_str(), *since, *discarded), ("public.items", Token::new(2, 4), 4), "{schema}");
        let note = noted(&server, schema).await;
        assert!(note.contains("0000000000000002/0000000000000004"), "{note}");
        run.crash().await;
        assert_eq!(rows(&server, &items_of).await, ["1 x", "2 y"], "{schema}: all before the stop");
        // As after a crash: all of it comes again, and is known before any of it does.
        let run = start().await;
        until("it is known", || run.stopped().len() == 1).await;
        deliver(&run, 7);
        run.settled().await;
        assert_eq!((run.stopped()[0].1, run.stopped()[0].2), (Token::new(2, 4), 6), "{schema}: those before it are there");
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &items_of).await, ["1 x", "2 y"], "{schema}");
        assert_eq!(rows(&server, &others_of).await, ["5"], "{schema}: the other goes on");
        assert_eq!(noted(&server, schema).await, note, "{schema}");
        // Copied anew by a process that ends before the copy does, and then by another.
        let run = start().await;
        until("it is known", || run.stopped().len() == 1).await;
        run.mark(Mark::SnapshotBegin { table: drawn(), lsn: 10, replaces: None });
        run.rows(with_drawn(&[read(10, 7, "old")]));
        run.settled().await;
        assert_eq!((run.stopped().len(), noted(&server, schema).await.as_str()), (0, "∅"), "{schema}");
        run.crash().await;
        let run = start().await;
        run.mark(Mark::SnapshotBegin { table: drawn(), lsn: 20, replaces: Some(10) });
        run.rows(with_drawn(&[read(20, 7, "new")]));
        run.mark(Mark::SnapshotEnd { table: drawn(), lsn: 20 });
        run.rows(with_drawn(&[insert(21, 0, 8, "later")]));
        run.upper(21);
        run.settled().await;
        assert!(run.stopped().is_empty(), "{schema}");
        run.finish().await.unwrap();
        let history: &[&str] = if appends { &["1 x", "2 y"] } else { &[] };
        let wanted: Vec<&str> = history.iter().copied().chain(["7 new", "8 later"]).collect();
        let live =
            if schema == "SHARDED" { items_of.replace(" ORDER", " WHERE NOT COALESCE(_ETL_DELETED, FALSE) ORDER") } else { items_of };
        assert_eq!(rows(&server, &live).await, wanted, "{schema}");
        assert_eq!(noted(&server, schema).await, "∅", "{schema}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_not_noted_acknowledges_nothing() {
    let server = server().await;
    // Snowflake answers so many statements more, and then none.
    for more in 0.. {
        assert!(more < 40, "it never stops");
        let schema = format!("S{more}");
        let retry = json!({ "initial": "20ms", "max": "50ms", "give_up_after": "300ms" });
        let settings = json!({ "schema": schema, "retry": retry, "merge": { "interval": "1h" } });
        let start = async || Run::start(&sink(&server, settings.clone())).await;
        let run = start().await;
        run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
        run.settled().await;
        server.faults(json!({ "fail": { "route": "sql", "after": more, "times": 1_000_000, "status": 503 } })).await;
        run.rows(with_drawn(&[insert(2, 0, 2, "y")]));
        run.rows(with_drawn(&[insert(3, 0, 3, "z")]));
        run.settled().await;
        let acked = run.acked();
        server.faults(json!({ "clear_failures": true })).await;
        let is_noted = noted(&server, &schema).await != "∅";
        assert!(acked == 1 || is_noted && acked == 3, "{more}: {acked} acknowledged, noted: {is_noted}");
        let ended = acked == 3;
        if ended {
            run.crash().await
        } else {
            assert_eq!(run.failed().await.code.id, "SF0002", "{more}")
        }
        // The same rows come again, and it is where it would have been.
        let run = start().await;
        run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
        run.rows(with_drawn(&[insert(2, 0, 2, "y")]));
        run.settled().await;
        assert_eq!(run.stopped()[0].1, Token::new(2, 0));
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &format!("SELECT ID, A FROM RAW.{schema}.ITEMS")).await, ["1 x"], "{more}");
        if ended {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_altered_while_it_is_copied_is_copied_again_by_itself() {
    let server = server().await;
    let request = StateKey::resync("shop", "pg", "public.items");
    for (schema, mode, known, asks) in
        [("KNOWN", "evolve", true, true), ("RENAMED", "evolve", false, false), ("MINDED", "refuse", true, false)]
    {
        let start = async || Run::start(&sink(&server, json!({ "schema": schema, "schema_changes": mode }))).await;
        let run = start().await;
        run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
        run.upper(1);
        run.finish().await.unwrap();
        let run = start().await;
        if known {
            run.cx.state.store(&[(StateKey::table("shop", "pg", "public.items"), Some(true.into()))]).unwrap();
        }
        run.mark(Mark::SnapshotBegin { table: items(), lsn: 5, replaces: None });
        run.rows(batch(&items(), &[read(5, 1, "copied")]));
        run.rows(with_drawn(&[insert(6, 0, 2, "y")]));
        run.mark(Mark::SnapshotEnd { table: drawn(), lsn: 5 });
        run.upper(7);
        run.settled().await;
        assert_eq!(run.stopped()[0].1, Token::new(6, 0), "{schema}");
        assert_eq!(run.cx.state.load(&request).unwrap().is_some(), asks, "{schema}");
        let target = format!("SELECT ID, A FROM RAW.{schema}.ITEMS ORDER BY ID");
        assert_eq!(rows(&server, &target).await, ["1 x"], "{schema}: nobody sees half of a copy");
        run.mark(Mark::SnapshotBegin { table: drawn(), lsn: 9, replaces: None });
        run.rows(with_drawn(&[read(9, 1, "copied"), Change { ordinal: 1, ..read(9, 2, "y") }]));
        run.mark(Mark::SnapshotEnd { table: drawn(), lsn: 9 });
        run.upper(10);
        run.settled().await;
        assert!(run.stopped().is_empty(), "{schema}");
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &target).await, ["1 copied", "2 y"], "{schema}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_of_somebody_else_stops_its_table_until_it_is_out_of_the_way() {
    let server = server().await;
    server.sql("CREATE SCHEMA RAW.SHOP").await;
    server.sql("CREATE TABLE RAW.SHOP.ITEMS (ID NUMBER(10,0), A VARCHAR)").await;
    let sink = sink(&server, json!({}));
    let run = Run::start(&sink).await;
    let copy = |run: &Run, lsn: u64| {
        run.mark(Mark::SnapshotBegin { table: items(), lsn, replaces: None });
        run.rows(batch(&items(), &[read(lsn, 1, "x")]));
        run.mark(Mark::SnapshotEnd { table: items(), lsn });
        run.rows(batch(&other(), &[insert(lsn + 1, 0, 1, "o")]));
        run.upper(lsn + 1);
    };
    copy(&run, 5);
    run.settled().await;
    assert!(run.stopped()[0].3.contains("was not made by this program"), "{:?}", run.stopped());
    // Again in vain: since when is as before.
    copy(&run, 7);
    run.settled().await;
    assert_eq!(run.stopped()[0].1, Token::new(5, 0));
    server.sql("DROP TABLE RAW.SHOP.ITEMS").await;
    copy(&run, 9);
    run.settled().await;
    assert!(run.stopped().is_empty());
    run.finish().await.unwrap();
    assert_eq!(rows(&server, "SELECT ID, A FROM RAW.SHOP.ITEMS").await, ["1 x"]);
    assert_eq!(rows(&server, "SELECT COUNT(*) FROM RAW.SHOP.OTHER__CHANGES").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_copied_anew_is_not_merged_before_its_copy() {
    let server = server().await;
    let whole = (StateKey::table("shop", "pg", "public.items"), Some(json!({ "stage": "streaming" })));
    let copying = (StateKey::table("shop", "pg", "public.items"), Some(json!({ "stage": "copying" })));
    let asked = (StateKey::resync("shop", "pg", "public.items"), Some(true.into()));
    for (schema, deletes, state, waits) in [
        ("PLAIN", "hard", &whole, false),
        ("BEGUN", "hard", &copying, true),
        ("ASKED", "hard", &asked, true),
        ("SOFT", "soft", &asked, true),
    ] {
        let sink = sink(&server, json!({ "schema": schema, "deletes": deletes, "merge": { "interval": "1h" } }));
        let run = Run::start(&sink).await;
        run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
        run.upper(1);
        run.finish().await.unwrap();
        // Half of a transaction lands, with a value that nobody knows, and the process ends.
        let run = Run::start(&sink).await;
        run.rows(batch(&items(), &[insert(2, 0, 2, "half"), Change { op: Op::Update, a: Err(()), ..insert(2, 2, 3, "") }]));
        run.settled().await;
        run.crash().await;
        let cx = context();
        cx.state.store(std::slice::from_ref(state)).unwrap();
        let run = Run::start_with(&sink, cx).await;
        run.rows(batch(&other(), &[insert(3, 0, 1, "o")]));
        run.upper(3);
        let target = format!(
            "SELECT ID, A FROM RAW.{schema}.ITEMS WHERE NOT COALESCE({}, FALSE) ORDER BY ID",
            if deletes == "soft" { "_ETL_DELETED" } else { "FALSE" }
        );
        if !waits {
            assert_eq!(run.finish().await.unwrap_err().code.id, "SF0012", "{schema}");
            continue;
        }
        run.settled().await;
        assert_eq!(rows(&server, &target).await, ["1 x"], "{schema}");
        run.mark(Mark::SnapshotBegin { table: items(), lsn: 5, replaces: None });
        run.rows(batch(&items(), &[read(5, 1, "copied")]));
        run.mark(Mark::SnapshotEnd { table: items(), lsn: 5 });
        run.rows(batch(&items(), &[insert(6, 0, 4, "later")]));
        run.upper(6);
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &target).await, ["1 copied", "4 later"], "{schema}");
    }
}
