//! What the service can do to a writer, and what must come of it.

use super::*;

fn inserts(count: u64) -> Vec<Change> {
    (1..=count).map(|lsn| insert(lsn, 0, lsn as i32, "x")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_requests_lose_and_double_nothing() {
    let server = server().await;
    let table = items();
    for (at, (what, faults)) in [
        (
            "429 and 500 of rows",
            json!([{ "route": "rows", "status": 429, "times": 3 }, { "route": "rows", "status": 500, "times": 2, "after": 3 }]),
        ),
        ("rows carried out, answer 500", json!([{ "route": "rows", "status": 500, "apply": true, "times": 2, "after": 1 }])),
        ("rows carried out, connection closed", json!([{ "route": "rows", "close": true, "apply": true, "after": 1 }])),
        ("rows carried out, no answer in time", json!([{ "route": "rows", "hang_ms": 4000, "apply": true, "after": 1 }])),
        ("token refused", json!([{ "route": "rows", "status": 401, "code": "390144", "after": 1 }])),
        ("channel invalid", json!([{ "route": "rows", "status": 409, "code": "ERR_CHANNEL_MUST_BE_REOPENED", "after": 2 }])),
        ("open and status fail", json!([{ "route": "open", "status": 503 }, { "route": "status", "status": 500, "times": 2 }])),
        ("a bare wish for another try", json!([{ "route": "rows", "status": 500, "body": "\"ERR_GENERAL_EXCEPTION_RETRY_REQUEST\"" }])),
        (
            "SQL fails, carried out and not",
            json!([{ "route": "sql", "status": 500, "apply": true, "times": 3 }, { "route": "sql", "status": 503, "times": 3 }]),
        ),
        (
            "statements in progress that the account forgot",
            json!([{ "route": "handle", "status": 404, "code": "391404", "times": 3 }, { "route": "handle", "status": 404, "after": 4 }]),
        ),
        ("SQL late", json!([{ "route": "sql", "hang_ms": 4000, "apply": true, "after": 6 }])),
    ]
    .into_iter()
    .enumerate()
    {
        let schema = format!("S{at}");
        let sink = sink(&server, json!({ "schema": schema, "request_timeout": "2s" }));
        let run = Run::start(&sink).await;
        // statements are asked for by their handle at once
        server.faults(json!({ "fail": faults, "commit_delay_ms": 20, "sync_wait_ms": 0 })).await;
        let changes = inserts(12);
        for (nth, piece) in changes.chunks(2).enumerate() {
            run.rows(batch(&table, piece));
            run.upper(piece.last().unwrap().lsn);
            if nth < 4 {
                // In a request of its own.
                run.settled().await;
            }
        }
        run.finish().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(server.state().await["fail"], json!([]), "{what}: every planned failure came");
        let landed = format!(r#"SELECT COUNT(*), COUNT(DISTINCT "_SEQ") FROM RAW.{schema}."ITEMS__CHANGES""#);
        assert_eq!(rows(&server, &landed).await, ["12 12"], "{what}");
        assert_eq!(rows(&server, &format!("SELECT COUNT(*), SUM(N) FROM RAW.{schema}.ITEMS")).await, ["12 78"], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_takes_the_turn_and_rows_stay_single() {
    let server = server().await;
    let table = items();
    let (first, second) = (sink(&server, json!({})), sink(&server, json!({})));
    let old = Run::start(&first).await;
    let changes = inserts(40);
    old.rows(batch(&table, &changes[..10]));
    old.settled().await;
    // A new process delivers from the start; the old one does not know and goes on.
    let new = Run::start(&second).await;
    new.rows(batch(&table, &changes[..20]));
    new.settled().await;
    old.rows(batch(&table, &changes[10..30]));
    old.settled().await;
    new.rows(batch(&table, &changes[20..40]));
    new.upper(40);
    new.finish().await.unwrap();
    old.crash().await;
    let landed = r#"SELECT COUNT(*), COUNT(DISTINCT "_SEQ") FROM RAW.SHOP."ITEMS__CHANGES""#;
    assert_eq!(rows(&server, landed).await, ["40 40"]);
    assert_eq!(rows(&server, "SELECT COUNT(*), SUM(N) FROM RAW.SHOP.ITEMS").await, ["40 820"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_stop_the_pipeline_and_stay_in_mind() {
    let server = server().await;
    let sink = sink(&server, json!({ "dead_letter": "stop" }));
    let table = items();
    let run = Run::start(&sink).await;
    run.rows(batch(&table, &inserts(3)));
    run.settled().await;
    server.faults(json!({ "reject_rows_matching": "secret" })).await;
    run.rows(batch(&table, &[insert(4, 0, 4, "secret"), insert(5, 0, 5, "fine")]));
    let error = run.failed().await;
    assert_eq!(error.code.id, "SF0007");
    assert!(!error.report().contains("secret"), "{error:?}");
    server.faults(json!({ "reject_rows_matching": null })).await;
    // The token is committed, so nothing would ever tell of the row again.
    let run = Run::start(&sink).await;
    run.rows(batch(&table, &[insert(5, 0, 5, "fine"), insert(6, 0, 6, "fine")]));
    assert_eq!(run.failed().await.code.id, "SF0007");
    // A new snapshot has the row.
    let run = Run::start(&sink).await;
    run.mark(Mark::SnapshotBegin { table: Arc::clone(&table), lsn: 9, replaces: None });
    let again: Vec<Change> = (1..=6).map(|id| Change { op: Op::Read, ..insert(9, id, id as i32, "again") }).collect();
    run.rows(batch(&table, &again));
    run.mark(Mark::SnapshotEnd { table, lsn: 9 });
    run.upper(9);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, "SELECT COUNT(*), MIN(A) FROM RAW.SHOP.ITEMS").await, ["6 again"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_cannot_be_written_are_told_of_first() {
    let server = server().await;
    let prepare = async |settings: Value| sink(&server, settings).prepare(&context()).await.map_err(|e| e.code.id);
    assert_eq!(prepare(json!({})).await, Ok(()));
    assert_eq!(prepare(json!({ "database": "NOPE" })).await, Err("SF0004"));
    assert_eq!(prepare(json!({ "schema": "NOPE", "create_schema": false })).await, Err("SF0004"));
    let quick = json!({ "initial": "1ms", "max": "1ms", "give_up_after": "20ms" });
    assert_eq!(prepare(json!({ "url": "http://127.0.0.1:1", "retry": quick })).await, Err("SF0002"));
    server.faults(json!({ "fail": { "route": "sql", "status": 401, "code": "390144", "times": 9 } })).await;
    assert_eq!(prepare(json!({})).await, Err("SF0003"));
    server.faults(json!({ "clear_failures": true })).await;
    // Another session made it at the same moment.
    server.faults(json!({ "fail": { "route": "sql", "status": 422, "code": "002002", "times": 2 } })).await;
    assert_eq!(prepare(json!({})).await, Ok(()));
    // Two tables of one target, and a table without a key: nothing is made for them.
    let sink = sink(&server, json!({}));
    let table = items();
    let run = Run::start(&sink).await;
    run.rows(batch(&table, &inserts(1)));
    run.settled().await;
    let mut other = (*table).clone();
    other.schema = "other".into();
    run.rows(batch(&Arc::new(other.clone()), &inserts(1)));
    let error = run.failed().await;
    assert_eq!((error.code.id, error.hint.unwrap().contains("{schema}_{table}")), ("SF0005", true));
    // Also in another process, where only the bookkeeping remembers.
    let again = super::sink(&server, json!({}));
    let run = Run::start(&again).await;
    run.rows(batch(&Arc::new(other), &inserts(1)));
    assert_eq!(run.failed().await.code.id, "SF0005");
    let mut keyless = (*table).clone();
    keyless.name = "keyless".into();
    keyless.columns[0].key = None;
    let run = Run::start(&again).await;
    run.rows(batch(&Arc::new(keyless), &inserts(1)));
    assert_eq!(run.failed().await.code.id, "SF0006");
    assert!(server.try_sql("SELECT * FROM RAW.SHOP.\"KEYLESS__CHANGES\"").await.is_err());
}
