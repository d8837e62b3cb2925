//! Tables that join while the source runs, and those that leave.

use super::driver::{Driver, PLENTY, Setup, current, lsn, rows, until};
use crate::contract::{Phase, StateKey, StateStore};
use crate::testing::postgres::Postgres;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const CONFIRMED: &str = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'etl_stream_test_shop'";

/// Changes both tables in each transaction until told to stop: inserts, updates of values and keys, deletes.
fn write(client: Client, writer: i32, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut turn = 0;
        while !stop.load(Ordering::Acquire) {
            let id = writer * 10_000_000 + turn;
            let sql = format!(
                "BEGIN; INSERT INTO t VALUES ({id}, 'new'), ({id} + 1, 'new'); INSERT INTO n VALUES ({id}, 'new');
                 UPDATE n SET note = 'seen {turn}' WHERE id = {turn} * 7 % 20000; UPDATE n SET id = -id WHERE id = {id};
                 UPDATE t SET id = -id WHERE id = {id}; DELETE FROM n WHERE id = -({id} - 40); COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            turn += 2;
        }
    })
}

fn document(setup: &Setup, table: &str) -> Value {
    setup.state.load(&StateKey::table("test", "shop", table)).unwrap().unwrap_or_default()
}

/// Waits until a table's copy is noted.
async fn joined(source: &Driver, setup: &Setup, table: &str, copies: usize) {
    let end = format!("end {table}");
    source.until(&end, |replica| replica.log.iter().filter(|line| **line == end).count() == copies).await;
    until("the copy is noted", || async { document(setup, table)["stage"] == "streaming" }).await;
    until("nothing is on its way", || async { source.status.joining.load(Ordering::Relaxed) == 0 }).await;
}

fn quick(server: &Postgres, more: Value) -> Setup {
    let mut settings = json!({ "discovery": { "interval": "200ms" } });
    more.as_object().unwrap().iter().for_each(|(key, value)| settings[key] = value.clone());
    let mut setup = Setup::new(server, "shop", settings);
    setup.range_bytes = 256 << 10;
    setup
}

/// Publishes a new table so that its lock keeps nobody from seeing that: with a list of columns, since without one PostgreSQL 16
/// and later open the table to say that it is published, and wait for its lock.
const PUBLISH_N: &str = "ALTER PUBLICATION everything ADD TABLE n (id, filler)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_table_joins_while_it_and_another_are_written() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (0, 'first')").await.unwrap();
    let setup = quick(&server, json!({}));
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    client
        .batch_execute(
            "CREATE TABLE n (id int PRIMARY KEY, note text); INSERT INTO n SELECT i, repeat('x', 100) FROM generate_series(0, 19999) i",
        )
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 1..=2 {
        writers.push(write(server.client("shop").await, writer, Arc::clone(&stop)));
    }
    joined(&source, &setup, "public.n", 1).await;
    let there = source.replica(|replica| replica.rows);
    source.until("changes after the hand-over", |replica| replica.rows > there + 500).await;
    // crashed with the writers going on: the stream gives no change that the copy had
    source.hold();
    let before = source.crash().await;
    let from = document(&setup, "public.n")["from_lsn"].as_u64().unwrap();
    let again = setup.start_after(before);
    again.until("changes of the second run", |replica| replica.rows > 1000).await;
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    again.caught_up(&client).await;
    let replica = again.stop().await;
    assert!(replica.first["public.n"].commit_lsn >= from);
    assert!(replica.replaced.is_empty(), "nothing is copied again");
    for (name, sql) in [("public.t", "t"), ("public.n", "n")] {
        assert_eq!(replica.tables[name], rows(&client, sql, &["id", "note"]).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_a_joined_table_is_right() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, note text)").await.unwrap();
    let setup = quick(&server, json!({ "snapshot": { "workers": 2 } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    client
        .batch_execute(
            "CREATE TABLE n (id int PRIMARY KEY, note text); INSERT INTO n SELECT i, repeat('x', 100) FROM generate_series(0, 19999) i;
             CREATE TABLE none (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [write(server.client("shop").await, 1, Arc::clone(&stop)), write(server.client("shop").await, 2, Arc::clone(&stop))];
    joined(&source, &setup, "public.n", 1).await;
    joined(&source, &setup, "public.none", 1).await;
    client.batch_execute("INSERT INTO none VALUES (1)").await.unwrap();
    // one that is there already is copied anew when that is asked for, and again while it is written
    setup.state.store(&[(StateKey::resync("test", "shop", "public.n"), Some(json!(true)))]).unwrap();
    joined(&source, &setup, "public.n", 2).await;
    assert!(setup.state.list("test", "shop/resync").unwrap().is_empty());
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    source.caught_up(&client).await;
    assert_eq!(source.status.tables()["public.n"].phase, Phase::Streaming);
    let replica = source.stop().await;
    for (name, sql, columns) in
        [("public.t", "t", &["id", "note"][..]), ("public.n", "n", &["id", "note"]), ("public.none", "none", &["id"])]
    {
        assert_eq!(replica.tables[name], rows(&client, sql, columns).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_flow_while_a_copy_waits_and_a_copy_leaves_them_credit() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION everything FOR TABLE t (id)").await.unwrap();
    let mut setup = quick(&server, json!({ "publication": "everything" }));
    setup.credit = 4 << 20;
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    let locker = server.client("shop").await;
    locker
        .batch_execute(&format!(
            "BEGIN; CREATE TABLE n (id int PRIMARY KEY, filler text); INSERT INTO n SELECT i, repeat('y', 1000) FROM generate_series(1, 8000) i;
             {PUBLISH_N}; COMMIT; BEGIN; LOCK TABLE n IN ACCESS EXCLUSIVE MODE"
        ))
        .await
        .unwrap();
    source.until("the copy has begun", |replica| replica.log.contains(&"begin public.n".to_owned())).await;
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 500)").await.unwrap();
    let there = current(&client).await;
    source.caught_up(&client).await;
    until("the slot follows", || async { lsn(&client, CONFIRMED).await >= Some(there) }).await;
    source.replica(|replica| {
        assert_eq!(replica.tables["public.t"].len(), 500);
        assert!(replica.tables["public.n"].is_empty());
    });
    // now it can copy, and nothing becomes durable: it takes its half of the credit, and the stream goes on
    source.hold();
    locker.batch_execute("COMMIT").await.unwrap();
    source.until("the copy's credit is used up", |replica| replica.credit > (3 << 19)).await;
    client.batch_execute("INSERT INTO t SELECT generate_series(501, 1000)").await.unwrap();
    source.until("changes of the other table", |replica| replica.tables["public.t"].len() == 1000).await;
    assert!(source.credit_left() > 1 << 20, "{}", source.credit_left());
    assert_ne!(document(&setup, "public.n")["stage"], "streaming");
    // dies in the middle of it: starts again from nothing, and says what is to be removed
    let first = source.replica(|replica| replica.tokens["public.n"][0].commit_lsn);
    drop(source.crash().await);
    client.batch_execute("UPDATE n SET filler = 'changed' WHERE id % 100 = 0").await.unwrap();
    setup.credit = PLENTY;
    let source = setup.start();
    joined(&source, &setup, "public.n", 1).await;
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.replaced, [("public.n".to_owned(), Some(first))]);
    assert!(replica.tokens["public.n"][0].commit_lsn > first);
    assert_eq!(replica.tables["public.n"], rows(&client, "n", &["id", "filler"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_leave_and_come_back_are_copied_anew() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1)")
        .await
        .unwrap();
    let setup = quick(&server, json!({}));
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.n".to_owned())).await;
    client
        .batch_execute("INSERT INTO n VALUES (2); ALTER PUBLICATION etl_stream_test_shop DROP TABLE n; INSERT INTO n VALUES (3)")
        .await
        .unwrap();
    until("it is noted", || async { document(&setup, "public.n")["stage"] == "removed" }).await;
    source.caught_up(&client).await;
    assert_eq!(source.status.tables()["public.n"].phase, Phase::Removed);
    source.replica(|replica| assert_eq!(replica.tables["public.n"].keys().collect::<Vec<_>>(), ["1", "2"]));
    client.batch_execute("ALTER PUBLICATION etl_stream_test_shop ADD TABLE n; INSERT INTO n VALUES (4)").await.unwrap();
    joined(&source, &setup, "public.n", 2).await;
    // out and in again between two looks
    client
        .batch_execute("ALTER PUBLICATION etl_stream_test_shop DROP TABLE n; INSERT INTO n VALUES (5); ALTER PUBLICATION etl_stream_test_shop ADD TABLE n")
        .await
        .unwrap();
    joined(&source, &setup, "public.n", 3).await;
    // made anew, with another column
    client.batch_execute("DROP TABLE n; CREATE TABLE n (id int PRIMARY KEY, extra text); INSERT INTO n VALUES (7, 'x')").await.unwrap();
    joined(&source, &setup, "public.n", 4).await;
    client.batch_execute("INSERT INTO n VALUES (8, 'y'); INSERT INTO t VALUES (1)").await.unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.n"], rows(&client, "n", &["id", "extra"]).await);
    assert_eq!(replica.tables["public.t"].len(), 1);
    assert!(replica.replaced.iter().all(|(_, replaces)| replaces.is_none()), "{:?}", replica.replaced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_new_between_two_runs_join_and_without_snapshots_only_stream() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let never = quick(&server, json!({ "slot": "never", "publication": "never", "snapshot": { "mode": "never" } }));
    client.batch_execute("CREATE PUBLICATION never FOR ALL TABLES").await.unwrap();
    let setup = quick(&server, json!({}));
    let (source, changes) = (setup.start(), never.start());
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    changes.until("started", |replica| replica.upper.lsn > 0).await;
    until("the snapshot is noted", || async { document(&setup, "public.t")["stage"] == "streaming" }).await;
    source.stop().await;
    client
        .batch_execute("CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1); CREATE TABLE secret (id int PRIMARY KEY); INSERT INTO n VALUES (2)")
        .await
        .unwrap();
    let source = setup.start();
    joined(&source, &setup, "public.n", 1).await;
    client.batch_execute("INSERT INTO n VALUES (3); INSERT INTO t VALUES (2)").await.unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.n"].keys().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!(replica.tables["public.t"].keys().collect::<Vec<_>>(), ["2"]);
    changes.caught_up(&client).await;
    let changes = changes.stop().await;
    assert_eq!(changes.tables["public.n"].keys().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(changes.replaced.is_empty());
    // asked for by name, it is copied also there
    never.state.store(&[(StateKey::resync("test", "shop", "public.n"), Some(json!(true)))]).unwrap();
    let changes = never.start();
    joined(&changes, &never, "public.n", 1).await;
    assert_eq!(changes.stop().await.tables["public.n"].len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_table_that_is_not_copied_loses_no_change() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let setup = quick(&server, json!({ "publication": "everything", "snapshot": { "mode": "never" } }));
    let source = setup.start();
    source.until("started", |replica| replica.upper.lsn > 0).await;
    for sql in ["INSERT INTO t VALUES (1)", "ALTER TABLE t RENAME TO s", "INSERT INTO s VALUES (2)"] {
        client.batch_execute(sql).await.unwrap();
    }
    until("the old name is gone", || async { document(&setup, "public.t")["stage"] == "removed" }).await;
    client.batch_execute("INSERT INTO s VALUES (3)").await.unwrap();
    source.caught_up(&client).await;
    // and in the next run
    let before = source.stop().await;
    client.batch_execute("INSERT INTO s VALUES (4)").await.unwrap();
    let source = setup.start_after(before);
    source.caught_up(&client).await;
    let replica = source.stop().await;
    let keys = |table: &str| replica.tables[table].keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys("public.t"), keys("public.s")), (vec!["1".to_owned()], vec!["2".into(), "3".into(), "4".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_and_a_copy_do_not_keep_credit_from_each_other() {
    let server = Postgres::start_with(&["logical_decoding_work_mem=64kB"]);
    let client = server.database("shop").await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, filler text); CREATE PUBLICATION everything FOR TABLE t (id, filler)")
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spill = json!({ "folder": folder.path(), "memory": "64KiB" });
    let mut setup = quick(&server, json!({ "publication": "everything", "spill": spill, "snapshot": { "workers": 1 } }));
    // Enough for one piece of either, and not of both.
    setup.credit = 300 << 10;
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    let locker = server.client("shop").await;
    let fill = |table: &str| format!("INSERT INTO {table} SELECT i, repeat('y', 1000) FROM generate_series(1, 16000) i");
    let made = format!("BEGIN; CREATE TABLE n (id int PRIMARY KEY, filler text); {}; {PUBLISH_N}; COMMIT", fill("n"));
    locker.batch_execute(&format!("{made}; BEGIN; LOCK TABLE n IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    source.until("the copy has begun", |replica| replica.log.contains(&"begin public.n".to_owned())).await;
    // A transaction is replayed, and stands still where nothing becomes durable; then the copy wants credit too.
    source.hold();
    client.batch_execute(&fill("t")).await.unwrap();
    source.until("the replay has begun", |replica| replica.tables["public.t"].len() > 100).await;
    locker.batch_execute("COMMIT").await.unwrap();
    let copies =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'BEGIN ISOLATION LEVEL REPEATABLE READ%'";
    until("the copy wants credit", || async { client.query_one(copies, &[]).await.unwrap().get::<_, i64>(0) == 1 }).await;
    assert!(source.replica(|replica| replica.tables["public.t"].len()) < 16_000);
    source.release();
    joined(&source, &setup, "public.n", 1).await;
    source.caught_up(&client).await;
    let replica = source.stop().await;
    for table in ["t", "n"] {
        assert_eq!(replica.tables[&format!("public.{table}")], rows(&client, table, &["id", "filler"]).await, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_looked_for_while_nobody_commits() {
    let server = Postgres::start_with(&["autovacuum=off", "log_statement=all"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    // The log moves with each beat, and no transaction with it.
    let setup = Setup::new(&server, "shop", json!({ "discovery": { "interval": "5s" }, "heartbeat": { "interval": "2s" } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.contains(&"end public.t".to_owned())).await;
    let counted = || ["LIKE p.schema", "pg_logical_emit_message"].map(|part| server.log().matches(part).count());
    let mut last = counted();
    for _ in 0..20 {
        let [looks, beats] = last;
        // Ten seconds at the least.
        until("beats", || async { counted()[1] >= beats + 6 }).await;
        last = counted();
        if last[0] == looks {
            break;
        }
        assert!(last[1] < 60, "it looks all the time: {last:?}");
    }
    client.batch_execute("CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (7)").await.unwrap();
    joined(&source, &setup, "public.n", 1).await;
    source.stop().await;
}
