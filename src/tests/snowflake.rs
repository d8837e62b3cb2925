//! Whole pipelines, run by the real binary: PostgreSQL to the local Snowflake.

use crate::harness::{Project, signal};
use crate::warehouse::{Rows, account, assert_same, in_postgres, in_snowflake, number, snowflake, until, value};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const SHOP: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric(12,2), paid boolean, day date, placed timestamptz, detail jsonb, tags text[],
        digest bytea, note text);
    ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;
    CREATE TABLE lines (order_id bigint, line int, name varchar(40), PRIMARY KEY (order_id, line));
    INSERT INTO orders SELECT i, 'new', i * 1.25, i % 2 = 0, '2024-01-01'::date + i, '2024-01-01 12:00+02'::timestamptz + i * interval '1 minute',
        jsonb_build_object('i', i), ARRAY['x', NULL, 'y\"' || i], decode(md5(i::text), 'hex'), repeat(md5(i::text), 100) FROM generate_series(1, 1000) i;
    INSERT INTO lines SELECT i, i % 7, 'v' || i FROM generate_series(1, 300) i;";

/// Changes of every kind; values of over 2 kB are not sent with updates that leave them.
const CHANGES: &str = "
    BEGIN; UPDATE orders SET status = 'paid' WHERE id % 3 = 0; DELETE FROM orders WHERE id % 10 = 0; COMMIT;
    BEGIN; DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (1, 'again', 1); COMMIT;
    BEGIN; UPDATE orders SET id = -1 WHERE id = 2; UPDATE orders SET id = 2 WHERE id = 3; UPDATE orders SET id = 3 WHERE id = -1; COMMIT;
    BEGIN; INSERT INTO orders VALUES (5000, 'rolled back', 0); ROLLBACK;
    TRUNCATE lines; INSERT INTO lines VALUES (1, 1, 'after');
    ALTER TABLE lines ADD COLUMN price numeric(8,3); UPDATE lines SET price = 1.5; INSERT INTO lines VALUES (2, 1, NULL, -0.001);";

/// A query for PostgreSQL that gives the columns as the SQL API does.
const SOURCE: &str = "SELECT id, status, total, CASE WHEN paid THEN 'true' ELSE 'false' END, day - date '1970-01-01', extract(epoch FROM placed)::bigint, detail,
    to_jsonb(tags), upper(encode(digest, 'hex')), note FROM orders";
const TARGET: &str = "SELECT id, status, total, IFF(paid, 'true', 'false'), day, DATE_PART(epoch_second, placed), detail, tags, digest, note FROM RAW.SHOP.ORDERS";

fn pipeline(postgres: &Postgres, snowflake: &LocalSnowflake, more: &str) -> Project {
    Project::new(&format!(
        "sources:
  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }}, snapshot: {{ workers: 2 }} }}
sinks:
  warehouse: {{ inputs: [shop], {}, schema: SHOP, {more} }}
server: none
",
        postgres.url("shop"),
        account(snowflake)
    ))
}

async fn assert_equal(client: &Client, snowflake: &LocalSnowflake) {
    assert_same("orders", &in_snowflake(snowflake, TARGET).await, &in_postgres(client, SOURCE).await);
    let columns = in_postgres(
        client,
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'lines'::regclass AND attnum > 0",
    )
    .await;
    let lines = |table: &str| format!("SELECT {} FROM {table}", columns[0][0]);
    assert_same("lines", &in_snowflake(snowflake, &lines("RAW.SHOP.LINES")).await, &in_postgres(client, &lines("lines")).await);
    for table in ["ORDERS", "LINES"] {
        let counts = in_snowflake(snowflake, &format!("SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.SHOP.{table}__CHANGES")).await;
        assert_eq!(counts[0][0], counts[0][1], "{table}: tokens land once");
    }
}

/// Transactions until told to stop, few enough that the pipeline keeps up.
fn workload(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut round = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let base = 10_000 + round * 5;
            let sql = format!(
                "BEGIN; INSERT INTO orders SELECT {base} + i, 'w', i, true, '2024-02-29', now(), '{{\"w\": {round}}}', '{{}}', '\\x00ff', repeat('n', 3000) FROM generate_series(1, 5) i;
                 UPDATE orders SET total = total + 1 WHERE id <= 1000 AND id % 100 = {round} % 100; DELETE FROM orders WHERE id = {base} - 3;
                 UPDATE lines SET name = 'r{round}' WHERE order_id % 30 = {round} % 30; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            round += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
}

fn running(child: &mut Child, project: &Project) {
    assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
}

const LANDED: &str = "SELECT COUNT(*) FROM RAW.SHOP.ORDERS__CHANGES";
/// Rows that the stream brought.
const STREAMED: &str = "SELECT COUNT(*) FROM RAW.SHOP.ORDERS__CHANGES WHERE _OP <> 'r'";
const FENCE: &str = "SELECT FENCE FROM RAW.SHOP._ETL_STREAM_PROGRESS WHERE TABLE_NAME = 'orders'";

#[tokio::test]
async fn snapshot_then_changes() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    let project = pipeline(&postgres, &snowflake, "channels: 3");
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&client, &snowflake).await;
    client.batch_execute(CHANGES).await.unwrap();
    project.succeeds(&["run", "--until", "caught-up", "--workers", "3"]);
    assert_equal(&client, &snowflake).await;
    let landed = number(&snowflake, LANDED).await;
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_eq!(number(&snowflake, LANDED).await, landed, "a run without changes writes nothing");
}

#[tokio::test]
async fn killed_at_any_moment_each_change_arrives_once() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    let project = pipeline(&postgres, &snowflake, "batch: { max_rows: 37, max_age: 20ms }, merge: { interval: 100ms }");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = workload(postgres.client("shop").await, Arc::clone(&stop));
    for round in 0..7_u64 {
        let (streamed, fence) = (number(&snowflake, STREAMED).await, value(&snowflake, FENCE).await);
        let mut child = project.start(&["run"]);
        match round {
            0 => {
                until(
                    "the tables",
                    &snowflake,
                    "SELECT COUNT(*) FROM RAW.INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME = 'ORDERS__CHANGES'",
                    |n| n > 0,
                )
                .await
            }
            1 => until("the snapshot", &snowflake, LANDED, |n| n > 300).await,
            2 => until("the snapshot's end", &snowflake, LANDED, |n| n >= 1000).await,
            3 | 4 => until("changes", &snowflake, STREAMED, |n| n > streamed + 20).await,
            _ => {
                let other = fence.unwrap_or_default();
                let merged =
                    format!("SELECT COUNT(*) FROM RAW.SHOP._ETL_STREAM_PROGRESS WHERE TABLE_NAME = 'orders' AND FENCE > '{other}'");
                until("a merge", &snowflake, &merged, |n| n > 0).await;
            }
        }
        running(&mut child, &project);
        signal(&child, "KILL");
        let _ = child.wait();
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&client, &snowflake).await;
    assert!(number(&snowflake, STREAMED).await > 60, "the workload came through");
}

#[tokio::test]
async fn append_keeps_the_history() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY, status text); CREATE TABLE bare (v text); INSERT INTO orders VALUES (1, 'a'), (2, 'b'); INSERT INTO bare VALUES ('x'), ('x')").await.unwrap();
    let project = pipeline(&postgres, &snowflake, "write_mode: append");
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("UPDATE orders SET status = 'c' WHERE id = 1; DELETE FROM orders WHERE id = 2; INSERT INTO bare VALUES ('y'); UPDATE orders SET id = 9 WHERE id = 1").await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    let history = snowflake.sql("SELECT _OP, id, status FROM RAW.SHOP.ORDERS__CHANGES ORDER BY _SEQ").await;
    let mut history: Vec<String> =
        history.iter().map(|row| row.iter().map(|c| c.as_deref().unwrap_or("∅")).collect::<Vec<_>>().join(" ")).collect();
    history[..2].sort();
    assert_eq!(history, ["r 1 a", "r 2 b", "u 1 c", "d 2 ∅", "d 1 ∅", "i 9 c"]);
    let bare = in_snowflake(&snowflake, "SELECT _OP, v FROM RAW.SHOP.BARE__CHANGES").await;
    assert_eq!(bare, [["i", "y"], ["r", "x"], ["r", "x"]]);
    let tables: Rows =
        in_snowflake(&snowflake, "SELECT TABLE_NAME FROM RAW.INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME IN ('ORDERS', 'BARE')").await;
    assert!(tables.is_empty(), "append has no target: {tables:?}");
}

#[tokio::test]
async fn a_history_has_one_snapshot_whatever_became_of_the_attempts_before() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 500)").await.unwrap();
    let mut project = pipeline(&postgres, &snowflake, "write_mode: append");
    // The second is whole and durable in the sink, and its source has not noted that.
    for (at, point) in ["snapshot.end=kill@1", "snapshot.durable=kill@1", "snapshot.durable=kill@1"].iter().enumerate() {
        project.env = vec![("ETL_STREAM_FAILPOINTS".into(), (*point).into())];
        assert_eq!(project.run(&["run", "--until", "caught-up"]).status.code(), None, "{point}: it was killed");
        client.batch_execute(&format!("DELETE FROM orders WHERE id = {}; INSERT INTO orders VALUES ({})", at + 1, at + 501)).await.unwrap();
    }
    project.env.clear();
    project.succeeds(&["run", "--until", "caught-up"]);
    let history = in_snowflake(&snowflake, "SELECT id FROM RAW.SHOP.ORDERS__CHANGES").await;
    assert_same("orders", &history, &in_postgres(&client, "SELECT id FROM orders").await);
}

#[tokio::test]
async fn sigterm_drains_and_merges() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    // No merge is due before the end: only the drain merges.
    let project = pipeline(&postgres, &snowflake, "merge: { interval: 1h }");
    let mut child = project.start(&["run"]);
    until("the snapshot", &snowflake, LANDED, |n| n == 1000).await;
    client
        .batch_execute("UPDATE orders SET status = 'last', total = -1 WHERE id BETWEEN 7 AND 9; DELETE FROM orders WHERE id = 10")
        .await
        .unwrap();
    until("the last commit", &snowflake, STREAMED, |n| n == 4).await;
    assert_eq!(number(&snowflake, "SELECT COUNT(*) FROM RAW.SHOP.ORDERS WHERE status = 'last'").await, 0, "merged before the drain");
    running(&mut child, &project);
    signal(&child, "TERM");
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", project.log());
    assert_equal(&client, &snowflake).await;
}
