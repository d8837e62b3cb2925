//! Lost connections and stalled sinks.

use super::driver::{DEADLINE, Setup, rows, until};
use crate::contract::Phase;
use crate::testing::postgres::Postgres;
use serde_json::json;
use std::time::Duration;
use tokio_postgres::Client;

const WALSENDERS: &str = "FROM pg_stat_replication WHERE application_name LIKE 'etl-stream%'";

async fn walsender(client: &Client) -> Option<i32> {
    client.query_opt(&format!("SELECT pid {WALSENDERS}"), &[]).await.unwrap().map(|row| row.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_not_sent_again_after_a_lost_connection() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, filler text)").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));
    (setup.credit, setup.auto) = (600 << 10, false);
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    source.release();
    source.until("streaming", |_| source.status.phase().0 == Phase::Streaming).await;
    source.hold();
    // one transaction larger than the credit: half of it is sent, then the connection goes
    client.batch_execute("INSERT INTO t SELECT i, repeat('z', 500) FROM generate_series(1, 4000) i").await.unwrap();
    source.until("a part of the transaction", |replica| replica.rows > 0 && replica.credit > 300_000).await;
    let part = source.replica(|replica| replica.rows);
    assert!(part < 4000);
    let victim = walsender(&client).await.unwrap();
    client.execute("SELECT pg_terminate_backend($1)", &[&victim]).await.unwrap();
    source.release();
    source.caught_up(&client).await;
    assert_eq!(source.replica(|replica| replica.rows), 4000);
    // and again and again, with transactions committing meanwhile
    for round in 0..5 {
        let before = walsender(&client).await;
        client.execute(&format!("SELECT pg_terminate_backend(pid) {WALSENDERS}"), &[]).await.unwrap();
        for i in 0..20 {
            let id = 10_000 + round * 100 + i;
            client.batch_execute(&format!("INSERT INTO t VALUES ({id}, 'n'); UPDATE t SET id = -id WHERE id = {id}")).await.unwrap();
        }
        until("another connection", || async { walsender(&client).await.is_some_and(|pid| Some(pid) != before) }).await;
    }
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.t"], rows(&client, "t", &["id", "filler"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_sink_stops_reading_and_not_the_connection() {
    let server = Postgres::start_with(&["wal_sender_timeout=2s"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, filler text)").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));
    (setup.credit, setup.auto) = (512 << 10, true);
    let source = setup.start();
    source.until("streaming", |_| source.status.phase().0 == Phase::Streaming).await;
    source.hold();
    client.batch_execute("INSERT INTO t SELECT i, repeat('z', 500) FROM generate_series(1, 20000) i").await.unwrap();
    source.until("credit is used up", |replica| replica.credit > 256 << 10).await;
    let pid = walsender(&client).await.unwrap();
    // three times the timeout, by the server's clock
    let age = format!("SELECT extract(epoch FROM clock_timestamp() - backend_start)::float8 {WALSENDERS}");
    until("the connection is old", || async { client.query_one(&age, &[]).await.unwrap().get::<_, f64>(0) > 6.5 }).await;
    assert_eq!(walsender(&client).await, Some(pid));
    assert!(source.replica(|replica| replica.rows) < 20_000);
    source.release();
    source.caught_up(&client).await;
    assert_eq!(walsender(&client).await, Some(pid));
    assert_eq!(source.stop().await.tables["public.t"].len(), 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_waited_for_and_one_that_is_gone_is_given_up() {
    let mut server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));
    let source = setup.start();
    source.until("streaming", |_| source.status.phase().0 == Phase::Streaming).await;
    server.kill();
    source.until("retrying", |_| source.status.phase().0 == Phase::Retrying).await;
    assert!(source.status.phase().1.is_some(), "it says why");
    server.resume();
    let client = server.client("shop").await;
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.tables["public.t"].len(), 2);
    server.stop();
    setup.config["retry"] = json!({ "initial": "10ms", "max": "20ms", "give_up_after": "100ms" });
    let error = setup.start().error().await;
    assert!(error.is_transient() && error.code.id == "PG0001", "{error:?}");
    assert!(DEADLINE > Duration::from_millis(100));
}
