//! `via: sdk`: the official SDK, unmodified, in worker processes, against the local Snowflake.

use super::super::errors::{SF_FENCED, SF_SDK};
use super::*;
use crate::contract::Token;
use crate::testing::python::python;
use std::process::Command;
use tempfile::TempDir;

/// A server that the SDK can speak to, and the folder of its certificate.
async fn tls_server() -> (LocalSnowflake, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = LocalSnowflake::start_tls(&folder.path().join("ca.pem"));
    server.sql("CREATE DATABASE RAW").await;
    (server, folder)
}

fn sdk(server: &LocalSnowflake, folder: &TempDir, more: Value) -> Arc<dyn Sink> {
    let ca = folder.path().join("ca.pem");
    let mut settings = json!({ "via": "sdk", "sdk": { "workers": 2, "python": python(), "url": server.tls_url(), "ca_file": ca } });
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        settings[name] = value;
    }
    sink(server, settings)
}

fn inserts(lsns: std::ops::RangeInclusive<u64>) -> Vec<Change> {
    lsns.flat_map(|lsn| (0..10).map(move |ordinal| insert(lsn, ordinal, (lsn * 10 + ordinal) as i32, "x"))).collect()
}

const LANDED: &str = r#"SELECT COUNT(*), COUNT(DISTINCT "_SEQ"), MIN("_SEQ"), MAX("_SEQ") FROM RAW.SHOP."ITEMS__CHANGES""#;

/// The processes that this one has started and that run the SDK's worker.
fn workers() -> Vec<String> {
    let own = std::process::id().to_string();
    let found = Command::new("pgrep").args(["-P", &own, "-f", "etl-stream-worker"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_way_to_the_other_and_back_after_crashes() {
    let (server, folder) = tls_server().await;
    let table = items();
    let changes = inserts(1..=40);
    server.faults(json!({ "commit_delay_ms": 50 })).await;
    for (life, (way, from, piece)) in
        [("sdk", 0, 7), ("rest", 0, 11), ("sdk", 30, 3), ("sdk", 60, 40), ("rest", 100, 9)].into_iter().enumerate()
    {
        let channels = json!({ "channels": 3 });
        let sink = if way == "sdk" { sdk(&server, &folder, channels) } else { sink(&server, channels) };
        let run = Run::start(&sink).await;
        let part = &changes[from..(from + 70 * (life + 1)).min(changes.len())];
        for piece in part.chunks(piece) {
            run.rows(batch(&table, piece));
        }
        if life % 2 == 0 {
            until("some acknowledgements", || run.acked() > 2).await;
            run.crash().await;
        } else {
            run.upper(part.last().unwrap().lsn - 1);
            run.finish().await.unwrap();
        }
    }
    let run = Run::start(&sdk(&server, &folder, json!({ "channels": 3 }))).await;
    for piece in changes.chunks(17) {
        run.rows(batch(&table, piece));
    }
    run.upper(40);
    run.finish().await.unwrap();
    let ends = (Token::new(1, 0), Token::new(40, 9));
    assert_eq!(rows(&server, LANDED).await, [format!("400 400 {} {}", ends.0, ends.1)]);
    let merged = "SELECT COUNT(*), COUNT(DISTINCT ID), SUM(N) FROM RAW.SHOP.ITEMS";
    assert_eq!(rows(&server, merged).await, [format!("400 400 {}", (10..410).sum::<i32>())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_started_again_and_sends_again() {
    let (server, folder) = tls_server().await;
    let table = items();
    server.faults(json!({ "commit_paused": true })).await;
    let run = Run::start(&sdk(&server, &folder, json!({ "channels": 2 }))).await;
    for piece in inserts(1..=20).chunks(10) {
        run.rows(batch(&table, piece));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.state().await["requests"]["rows"].as_u64().unwrap_or(0) == 0 {
        assert!(Instant::now() < deadline, "rows are sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let killed = workers();
    assert!(!killed.is_empty());
    for pid in &killed {
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    }
    server.faults(json!({ "commit_paused": false })).await;
    for piece in inserts(21..=30).chunks(10) {
        run.rows(batch(&table, piece));
    }
    run.upper(30);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, LANDED).await, [format!("300 300 {} {}", Token::new(1, 0), Token::new(30, 9))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_are_dead_letters_as_the_native_way_s() {
    let (server, folder) = tls_server().await;
    server.faults(json!({ "reject_rows_matching": "\"A\":\"bad\"" })).await;
    let run = Run::start(&sdk(&server, &folder, json!({}))).await;
    run.rows(batch(&items(), &[insert(1, 0, 1, "good"), insert(1, 1, 2, "bad"), insert(1, 2, 3, "good")]));
    run.upper(1);
    run.settled().await;
    run.finish().await.unwrap();
    assert_eq!(rows(&server, "SELECT ID FROM RAW.SHOP.ITEMS ORDER BY ID").await, ["1", "3"]);
    assert_eq!(rows(&server, "SELECT CODE FROM RAW.SHOP._ETL_STREAM_DEAD_LETTER").await, ["SF0007"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_another_client_keeps_taking() {
    let (server, folder) = tls_server().await;
    let table = items();
    let run = Run::start(&sdk(&server, &folder, json!({}))).await;
    run.rows(batch(&table, &inserts(1..=1)));
    run.settled().await;
    // Another process with the same pipeline's name, over and over.
    let other = tokio::spawn({
        let other = sink(&server, json!({}));
        let table = Arc::clone(&table);
        async move {
            loop {
                let run = Run::start(&other).await;
                run.rows(batch(&table, &inserts(1..=1)));
                run.settled().await;
                run.crash().await;
            }
        }
    });
    let changes = inserts(2..=1000);
    let mut pieces = changes.chunks(10);
    while !run.task.is_finished() {
        run.rows(batch(&table, pieces.next().expect("it is found out before")));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    other.abort();
    let error = run.failed().await;
    assert_eq!(error.code, SF_FENCED, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_is_missing() {
    let (server, folder) = tls_server().await;
    let bare = folder.path().join("bare");
    assert!(Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(&bare).status().unwrap().success());
    let settings = json!({ "sdk": { "python": bare.join("bin/python"), "url": server.tls_url() } });
    let run = Run::start(&sdk(&server, &folder, settings)).await;
    run.rows(batch(&items(), &inserts(1..=1)));
    let error = run.failed().await;
    assert_eq!(error.code, SF_SDK, "{error:?}");
    assert!(error.report().contains("pip install snowpipe-streaming"), "{error:?}");
}
