//! Rows land exactly once: across restarts, other batch boundaries, commit delays and several channels.

use super::*;
use crate::contract::Token;

const LANDED: &str = r#"SELECT COUNT(*), COUNT(DISTINCT "_SEQ"), MIN("_SEQ"), MAX("_SEQ") FROM RAW.SHOP."ITEMS__CHANGES""#;

fn inserts(lsns: std::ops::RangeInclusive<u64>) -> Vec<Change> {
    lsns.flat_map(|lsn| (0..10).map(move |ordinal| insert(lsn, ordinal, (lsn * 10 + ordinal) as i32, "x"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_across_restarts_and_batch_boundaries() {
    let server = server().await;
    let table = items();
    let changes = inserts(1..=30);
    for (channels, schema) in [(1, "ONE"), (2, "TWO")] {
        let sink = sink(&server, json!({ "channels": channels, "schema": schema }));
        server.faults(json!({ "commit_delay_ms": 30 })).await;
        // Each life delivers from a point that is surely not past what was acknowledged, in other pieces.
        for (life, (from, piece)) in [(0, 7), (0, 11), (50, 3), (120, 40)].into_iter().enumerate() {
            let run = Run::start(&sink).await;
            let part = &changes[from..(from + 60 * (life + 1)).min(changes.len())];
            for piece in part.chunks(piece) {
                run.rows(batch(&table, piece));
            }
            if life % 2 == 0 {
                until("some acknowledgements", || run.acked() > 3).await;
                run.crash().await;
            } else {
                run.upper(part.last().unwrap().lsn - 1);
                run.finish().await.unwrap();
            }
        }
        let run = Run::start(&sink).await;
        for piece in changes.chunks(17) {
            run.rows(batch(&table, piece));
        }
        run.upper(30);
        run.finish().await.unwrap();
        let ends = (Token::new(1, 0), Token::new(30, 9));
        assert_eq!(rows(&server, &LANDED.replace("SHOP", schema)).await, [format!("300 300 {} {}", ends.0, ends.1)], "{channels}");
        let merged = format!("SELECT COUNT(*), COUNT(DISTINCT ID), SUM(N) FROM RAW.{schema}.ITEMS");
        assert_eq!(rows(&server, &merged).await, [format!("300 300 {}", (10..310).sum::<i32>())]);
        let fence = rows(&server, &format!("SELECT FENCE, CHANNELS FROM RAW.{schema}._ETL_STREAM_PROGRESS")).await;
        assert_eq!(fence, [format!("{} {channels}", Token::end_of(30))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_deliveries_share_requests_and_questions() {
    let server = server().await;
    let table = items();
    for (channels, schema) in [(1, "ONE"), (4, "FOUR")] {
        let sink = sink(&server, json!({ "channels": channels, "schema": schema, "write_mode": "append" }));
        server.faults(json!({ "latency_ms": { "rows": 200 } })).await;
        let asked = async |route: &str| server.state().await["requests"][route].as_u64().unwrap_or(0);
        let before = (asked("rows").await, asked("status").await);
        let run = Run::start(&sink).await;
        let changes = inserts(1..=20);
        changes.chunks(2).for_each(|piece| run.rows(batch(&table, piece)));
        run.settled().await;
        // One hundred deliveries; the channels of a table are asked about together.
        let (sent, polled) = (asked("rows").await - before.0, asked("status").await - before.1);
        assert!(sent <= 10 * channels && polled < 50, "{channels}: {sent} requests, {polled} questions");
        let order = run.order();
        assert!(order.len() == 100 && order.is_sorted(), "acknowledged in order: {order:?}");
        run.finish().await.unwrap();
        let ends = (Token::new(1, 0), Token::new(20, 9));
        assert_eq!(rows(&server, &LANDED.replace("SHOP", schema)).await, [format!("200 200 {} {}", ends.0, ends.1)], "{channels}");
        // What comes again after a restart is known by its token, whatever shared a request with it.
        let run = Run::start(&sink).await;
        changes.chunks(7).for_each(|piece| run.rows(batch(&table, piece)));
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &LANDED.replace("SHOP", schema)).await, [format!("200 200 {} {}", ends.0, ends.1)], "{channels}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_means_committed() {
    let server = server().await;
    let sink = sink(&server, json!({ "write_mode": "append" }));
    let table = items();
    server.faults(json!({ "commit_paused": true })).await;
    let run = Run::start(&sink).await;
    for piece in inserts(1..=3).chunks(10) {
        run.rows(batch(&table, piece));
    }
    // All is accepted, and nothing committed.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let pending = server.state().await["channels"][0]["pending_batches"].as_u64().unwrap_or(0);
        if pending >= 1 {
            break;
        }
        assert!(Instant::now() < deadline, "rows were not sent");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(run.acked(), 0);
    server.faults(json!({ "commit_paused": false })).await;
    run.settled().await;
    run.finish().await.unwrap();
    let landed = r#"SELECT "_OP", "_UNCHANGED", "_ETL_EXACT", COUNT(*) FROM RAW.SHOP."ITEMS__CHANGES" GROUP BY 1, 2, 3"#;
    assert_eq!(rows(&server, landed).await, ["i ∅ ∅ 30"]);
    let commits = r#"SELECT COUNT(DISTINCT "_COMMIT_TS") FROM RAW.SHOP."ITEMS__CHANGES""#;
    assert_eq!(rows(&server, commits).await, ["3"]);
    assert!(server.try_sql("SELECT * FROM RAW.SHOP.ITEMS").await.is_err(), "append mode has no target");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_process_landed_is_merged_without_new_rows() {
    let server = server().await;
    let slow = sink(&server, json!({ "merge": { "interval": "1h" } }));
    let table = items();
    let run = Run::start(&slow).await;
    run.rows(batch(&table, &inserts(1..=2)));
    run.settled().await;
    run.crash().await;
    assert_eq!(rows(&server, "SELECT COUNT(*) FROM RAW.SHOP.ITEMS").await, ["0"]);
    let run = Run::start(&slow).await;
    run.upper(2);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, "SELECT COUNT(*) FROM RAW.SHOP.ITEMS").await, ["20"]);
}
