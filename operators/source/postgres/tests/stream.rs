//! The stream: order, schemas, progress.

use super::driver::{Setup, current, lsn, rows, until};
use crate::contract::Ts;
use crate::testing::postgres::Postgres;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const CONFIRMED: &str = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'etl_stream_test_shop'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_in_order_under_their_own_schema() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('good');
             CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (id int PRIMARY KEY, big text);
             CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE b ALTER big SET STORAGE EXTERNAL",
        )
        .await
        .unwrap();
    let setup = Setup::new(&server, "shop", json!({ "tables": { "include": ["public.*"], "exclude": ["public.hidden"] } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 4).await;
    // hidden joins the publication behind the source's back: its changes count, and do not come
    client.batch_execute("ALTER PUBLICATION etl_stream_test_shop ADD TABLE hidden").await.unwrap();
    client
        .batch_execute(
            "BEGIN; INSERT INTO a VALUES (1, 'x'), (2, 'y'); INSERT INTO hidden VALUES (1); UPDATE a SET id = 3 WHERE id = 2;
             ALTER TABLE a ADD extra mood DEFAULT 'good'; INSERT INTO a VALUES (4, 'z'); ALTER TABLE a DROP note;
             DELETE FROM a WHERE id = 1; INSERT INTO b VALUES (1, repeat('b', 100000)); COMMIT;
             UPDATE b SET id = 2; TRUNCATE hidden, b, a; INSERT INTO b VALUES (7, NULL)",
        )
        .await
        .unwrap();
    source.caught_up(&client).await;
    let changes = source.status.changes.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(changes, 7 + 1 + 3 + 1);
    let mut replica = source.stop().await;
    assert_eq!(replica.tables["public.b"], rows(&client, "b", &["id", "big"]).await);
    assert!(replica.tables["public.a"].is_empty());
    let only = |table: &str| replica.log.iter().filter(|l| l.contains(table)).skip(2).cloned().collect::<Vec<_>>();
    assert_eq!(
        only("public.a"),
        [
            "I public.a 0",
            "I public.a 2",
            "U public.a 6",
            "schema public.a(id,note,extra)",
            "I public.a 8",
            "schema public.a(id,extra)",
            "D public.a 10",
            only("public.a")[7].as_str(),
        ]
    );
    let truncates: Vec<String> = replica.log.iter().filter(|l| l.starts_with("truncate")).cloned().collect();
    assert_eq!(truncates.len(), 2, "{truncates:?}");
    replica.log.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_and_the_slot_move_without_rows() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)").await.unwrap();
    let setup = Setup::new(&server, "shop", json!({ "tables": { "include": ["public.t"] }, "heartbeat": { "interval": "1s" } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    client.batch_execute("INSERT INTO other SELECT generate_series(1, 1000)").await.unwrap();
    let there = current(&client).await;
    source.until("time passes the other table's rows", |replica| replica.upper >= Ts::new(there, 0)).await;
    until("the slot follows", || async { lsn(&client, CONFIRMED).await >= Some(there) }).await;
    // nobody writes: the heartbeat does
    until("the heartbeat moves the slot", || async { lsn(&client, CONFIRMED).await > Some(there) }).await;
    assert_eq!(source.stop().await.rows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_has_its_answer_from_a_quiet_source() {
    let mut server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let setup = Setup::new(&server, "shop", json!({ "heartbeat": { "interval": "1s" } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    // Positions that only time has moved are noted, and told, seldom.
    let (mut told, mut ends, deadline) = (None, BTreeSet::new(), Instant::now() + Duration::from_secs(60));
    while ends.len() < 5 {
        assert!(Instant::now() < deadline, "each beat is told at once");
        let confirmed = lsn(&client, CONFIRMED).await;
        if confirmed != told {
            (told, ends) = (confirmed, BTreeSet::new());
        }
        ends.insert(current(&client).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = source.status.bytes.load(Ordering::Relaxed);
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    let asked = source.status.bytes.load(Ordering::Relaxed) - before;
    assert!(asked < 10_000, "it asked again and again: {asked} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_confirms_and_a_restart_goes_on() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let there = current(&client).await;
    source.until("the row", |replica| replica.tables["public.t"].len() == 2).await;
    let _ = source.stop().await;
    assert!(lsn(&client, CONFIRMED).await >= Some(there), "the end of the stream is confirmed");
    until("the slot is free", || async {
        let active: bool = client.query_one("SELECT active FROM pg_replication_slots", &[]).await.unwrap().get(0);
        !active
    })
    .await;
    // what is not durable is not confirmed, and comes again
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    setup.auto = false;
    let source = setup.start();
    source.until("the third row", |replica| replica.rows == 1).await;
    drop(source.crash().await);
    setup.auto = true;
    let source = setup.start();
    client.batch_execute("INSERT INTO t VALUES (4)").await.unwrap();
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.tables["public.t"].keys().collect::<Vec<_>>(), ["3", "4"]);
}
