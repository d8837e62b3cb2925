//! A sink that takes nothing for a while: memory stays bounded, the connection lives, nothing is confirmed
//! early, and everything arrives in the end.

use crate::harness::{Project, history, signal, wait_for};
use crate::warehouse::{account, number, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::json;
use std::time::{Duration, Instant};

/// Rows of about a kilobyte each.
const ROWS: i64 = 120_000;
const CREDIT_MIB: u64 = 32;
/// What a process has beside the credit: code, threads, parsed and encoded forms of what the credit counts as
/// wire bytes (see `docs/faults.md`).
const OVERHEAD_MIB: u64 = 288;

/// The resident set of a process in MiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_nothing_is_confirmed_early() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start_with(&["wal_sender_timeout=3s"]));
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await.unwrap();
    let project = Project::new(&format!(
        "sources:
  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }} }}
sinks:
  warehouse: {{ inputs: [shop], {}, schema: SHOP, write_mode: append }}
  files: {{ type: file, inputs: [shop], path: out }}
engine: {{ source_credit: {CREDIT_MIB}MiB, credit: {CREDIT_MIB}MiB }}
server: none
",
        postgres.url("shop"),
        account(&snowflake)
    ));
    let mut child = project.start(&["run"]);
    client.batch_execute("INSERT INTO t VALUES (0, 'first')").await.unwrap();
    let landed = "SELECT COUNT(*) FROM RAW.SHOP.T__CHANGES";
    crate::warehouse::until("the first row", &snowflake, landed, |n| n == 1).await;
    // From here on rows are accepted and never committed.
    snowflake.faults(json!({ "commit_paused": true, "discard": true })).await;
    let confirmed = async || -> String {
        let row = client.query_one("SELECT confirmed_flush_lsn::text FROM pg_replication_slots", &[]).await.unwrap();
        row.get(0)
    };
    let pid = async || -> Option<i32> { client.query_one("SELECT active_pid FROM pg_replication_slots", &[]).await.unwrap().get(0) };
    client.batch_execute("INSERT INTO t VALUES (-1, 'the first that waits')").await.unwrap();
    let wanted = "SELECT pg_current_wal_lsn()::text";
    let stalled_at: String = client.query_one(wanted, &[]).await.unwrap().get(0);
    for from in (1..ROWS).step_by(10_000) {
        let sql = format!("INSERT INTO t SELECT i, repeat(md5(i::text), 32) FROM generate_series({from}, {from} + 9999) i");
        client.batch_execute(&sql).await.unwrap();
    }
    let (walsender, began) = (pid().await, Instant::now());
    let mut most = 0;
    // Four times the server's patience.
    while began.elapsed() < Duration::from_secs(12) {
        most = most.max(resident(child.id()));
        assert!(child.try_wait().unwrap().is_none(), "{}", project.log());
        let past = format!("SELECT '{}'::pg_lsn > '{stalled_at}'::pg_lsn", confirmed().await);
        assert!(!client.query_one(&past, &[]).await.unwrap().get::<_, bool>(0), "confirmed what is not durable");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pid().await, walsender, "the connection was lost: {}", project.log());
    assert!(walsender.is_some());
    let waiting: i64 = client
        .query_one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots", &[])
        .await
        .unwrap()
        .get(0);
    assert!(waiting > (3 * CREDIT_MIB as i64) << 20, "only {waiting} bytes wait");
    assert!(most < CREDIT_MIB + OVERHEAD_MIB, "{most} MiB resident");
    eprintln!("{} MiB of log waited, {most} MiB resident", waiting >> 20);
    snowflake.faults(json!({ "commit_paused": false })).await;
    let end: String = client.query_one(wanted, &[]).await.unwrap().get(0);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !client.query_one(&format!("SELECT '{}'::pg_lsn >= '{end}'::pg_lsn", confirmed().await), &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "what waited has not arrived: {}", project.log());
        most = most.max(resident(child.id()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(most < CREDIT_MIB + OVERHEAD_MIB, "{most} MiB resident while catching up");
    signal(&child, "TERM");
    wait_for("the end", || child.try_wait().unwrap().is_some());
    let mut ids: Vec<i64> = history(&project.path().join("out"), "public.t").iter().map(|(_, row)| row["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    let rows = client.query("SELECT id FROM t ORDER BY id", &[]).await.unwrap();
    let source: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert!(ids == source, "{} rows in files, {} in the source", ids.len(), source.len());
    assert_eq!(number(&snowflake, landed).await, 1, "the service was to discard");
}
