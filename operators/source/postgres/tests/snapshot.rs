//! The snapshot, and its seam with the stream.

use super::driver::{Setup, lsn, rows};
use crate::contract::{MemoryState, Phase, StateKey, StateStore, Ts};
use crate::testing::postgres::Postgres;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::Client;

/// Changes a table until told to stop: inserts, updates of values and keys, deletes.
async fn write(client: Client, writer: i32, stop: Arc<AtomicBool>) {
    let mut turn = 0;
    while !stop.load(Ordering::Acquire) {
        let id = writer * 10_000_000 + turn;
        let sql = format!(
            "BEGIN; INSERT INTO items VALUES ({id}, 'new'), ({id} + 1, 'new'); UPDATE items SET note = 'seen {turn}' WHERE id = {turn} * 7 % 5000;
             UPDATE items SET id = -id WHERE id = {id}; DELETE FROM items WHERE id = -({id} - 40);
             INSERT INTO parted VALUES ({id}, 'p'); UPDATE parted SET id = -id WHERE id = {id} - 20; COMMIT"
        );
        client.batch_execute(&sql).await.unwrap();
        turn += 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_missing_or_doubled_between_snapshot_and_stream() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE items (id int PRIMARY KEY, note text);
             INSERT INTO items SELECT i, repeat('x', 100) FROM generate_series(0, 4999) i;
             CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
             CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (0);
             CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (0) TO (MAXVALUE);
             INSERT INTO parted SELECT i, 'old' FROM generate_series(-500, 500) i;
             CREATE TABLE empty (id int PRIMARY KEY);
             CREATE TABLE childless (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE SCHEMA \"Schéma\";
             CREATE TABLE \"Schéma\".\"Täble\"\" x'\" (\"Id \"\"q\"\"\" int PRIMARY KEY, \"sélect\" text, host inet, letter \"char\");
             INSERT INTO \"Schéma\".\"Täble\"\" x'\" VALUES (1, 'né', '10.0.0.1', 'z'), (2, NULL, NULL, NULL), (3, '', '10.0.0.0/8', '');
             CREATE TABLE skipped (id int PRIMARY KEY); INSERT INTO skipped VALUES (1);
             CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 1..=2 {
        writers.push(tokio::spawn(write(server.client("shop").await, writer, Arc::clone(&stop))));
    }
    let mut setup = Setup::new(&server, "shop", json!({ "tables": { "exclude": ["public.skipped"] } }));
    setup.range_bytes = 64 << 10;
    let source = setup.start();
    source.until("streaming", |replica| replica.log.iter().any(|line| line.starts_with("U public.items"))).await;
    source.until("more changes", |replica| replica.rows > 8_000).await;
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    source.caught_up(&client).await;
    assert_eq!(source.status.phase().0, Phase::Streaming);
    let status = source.status.tables();
    assert_eq!(status.len(), 5, "{:?}", status.keys());
    assert!(status["public.items"].snapshot_rows >= 5_000);
    let replica = source.stop().await;
    for (name, sql, columns) in [
        ("public.items", "items", &["id", "note"][..]),
        ("public.parted", "parted", &["id", "note"]),
        ("public.empty", "empty", &["id"]),
        ("public.childless", "childless", &["id"]),
    ] {
        assert_eq!(replica.tables[name], rows(&client, sql, columns).await, "{name}");
        assert!(replica.log.contains(&format!("begin {name}")) && replica.log.contains(&format!("end {name}")), "{name}");
    }
    assert!(!replica.tables.contains_key("public.skipped"));
    // an inet's text is that of the stream, without the netmask of a cast
    let odd = &replica.tables["Schéma.\"Täble\"\" x'\""];
    let text = |v: &str| Some(v.to_owned());
    assert_eq!(odd["1"], [text("1"), text("né"), text("10.0.0.1"), text("z")]);
    assert_eq!(odd["2"], [text("2"), None, None, None]);
    assert_eq!(odd["3"], [text("3"), text(""), text("10.0.0.0/8"), text("")]);
    let tokens = &replica.tokens["public.items"];
    let snapshot = tokens.iter().take_while(|t| t.commit_lsn == tokens[0].commit_lsn).count();
    assert!(tokens.iter().take(snapshot).enumerate().all(|(i, token)| token.ordinal == i as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_snapshot_starts_anew_and_a_finished_one_is_not_repeated() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));
    setup.auto = false;
    let source = setup.start();
    source.until("the first copy", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    let first = source.replica(|replica| replica.tokens["public.t"][0].commit_lsn);
    assert_eq!(source.crash().await.replaced, [("public.t".to_owned(), None)]);
    client.batch_execute("INSERT INTO t VALUES (101)").await.unwrap();
    // everything was sent, and durable in a sink for all that the source knows: it does not count, and every later
    // attempt says from which one on sinks remove what they have
    let mut second = first;
    for attempt in 2..4 {
        let source = setup.start();
        source.until("another copy", |replica| replica.log.contains(&"end public.t".to_owned())).await;
        let again = source.replica(|replica| replica.tokens["public.t"][0].commit_lsn);
        assert!(again > second);
        second = again;
        assert_eq!(source.crash().await.replaced, [("public.t".to_owned(), Some(first))], "attempt {attempt}");
        client.batch_execute(&format!("INSERT INTO t VALUES ({attempt}00)")).await.unwrap();
    }
    let source = setup.start();
    source.until("the last copy", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    let second = source.replica(|replica| replica.tokens["public.t"][0].commit_lsn);
    assert_eq!(source.status.phase().0, Phase::Snapshot);
    source.release();
    client.batch_execute("INSERT INTO t VALUES (102)").await.unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.t"], rows(&client, "t", &["id"]).await);
    let table = setup.state.load(&StateKey::table("test", "shop", "public.t")).unwrap().unwrap();
    assert_eq!(table["snapshot_lsn"], json!(second));
    setup.auto = true;
    let source = setup.start();
    client.batch_execute("INSERT INTO t VALUES (103)").await.unwrap();
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.tables["public.t"].keys().collect::<Vec<_>>(), ["103"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_comes_back_while_the_snapshot_runs_and_the_slot_waits_for_all_of_it() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, filler text); INSERT INTO t SELECT i, repeat('y', 1000) FROM generate_series(1, 6000) i",
        )
        .await
        .unwrap();
    let mut setup = Setup::new(&server, "shop", json!({ "snapshot": { "workers": 3 } }));
    (setup.credit, setup.auto, setup.range_bytes) = (1 << 20, false, 1 << 20);
    let source = setup.start();
    source.until("credit is used up", |replica| replica.credit > 700_000).await;
    assert!(source.credit_left() < 256 << 10);
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'etl_stream_test_shop'";
    let before = lsn(&client, confirmed).await;
    source.release();
    client.batch_execute("INSERT INTO t VALUES (0, 'later')").await.unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.t"].len(), 6001);
    assert!(lsn(&client, confirmed).await > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_snapshot_and_with_filters_of_the_publication() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text, twice int GENERATED ALWAYS AS (id * 2) STORED);
             INSERT INTO t SELECT i, 'a', 'b' FROM generate_series(1, 10) i;
             CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
             INSERT INTO p VALUES (1);
             CREATE PUBLICATION own FOR TABLE t (id, b) WHERE (id > 7), p",
        )
        .await
        .unwrap();
    let never = Setup::new(&server, "shop", json!({ "publication": "own", "slot": "never", "snapshot": { "mode": "never" } }));
    let initial = Setup::new(&server, "shop", json!({ "publication": "own", "slot": "initial" }));
    let state: &MemoryState = &never.state;
    let (changes, everything) = (never.start(), initial.start());
    changes.until("started", |replica| replica.upper > Ts::default()).await;
    everything.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    client.batch_execute("INSERT INTO t VALUES (11, 'a', 'c'), (5000, 'a', 'd'), (0, 'a', 'e'); INSERT INTO p VALUES (2)").await.unwrap();
    changes.caught_up(&client).await;
    everything.caught_up(&client).await;
    let changes = changes.stop().await;
    assert_eq!(changes.tables["public.t"].keys().collect::<Vec<_>>(), ["11", "5000"]);
    assert_eq!(changes.log[0], "schema public.t(id,b)");
    assert!(state.load(&StateKey::table("test", "shop", "public.t")).unwrap().unwrap()["snapshot_lsn"].is_null());
    let everything = everything.stop().await;
    assert_eq!(everything.tables["public.t"], rows(&client, "t WHERE id > 7", &["id", "b"]).await);
    // this publication gives partitions as tables of their own
    assert_eq!(everything.tables["public.p1"].keys().collect::<Vec<_>>(), ["1", "2"]);
}
