//! Transactions that come while they are in progress. The oracle is a second source of the same database whose
//! server streams nothing: both must send the same rows under the same tokens.

use super::driver::{Driver, Replica, Setup, current, lsn, rows, until};
use crate::contract::{Phase, Ts};
use crate::testing::postgres::Postgres;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_postgres::Client;

/// A server that streams every transaction of a few hundred rows.
fn server(more: &[&str]) -> Postgres {
    Postgres::start_with(&[&["logical_decoding_work_mem=64kB", "max_prepared_transactions=5"], more].concat())
}

/// A source with a spill folder of its own.
struct Streaming {
    setup: Setup,
    folder: tempfile::TempDir,
}

impl Streaming {
    fn new(server: &Postgres, slot: &str, streaming: &str, settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spill = json!({ "folder": folder.path(), "memory": "64KiB" });
        let mut all = json!({ "slot": slot, "streaming": streaming, "spill": spill, "tables": { "exclude": ["public.hidden"] } });
        settings.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        Self { setup: Setup::new(server, "shop", all), folder }
    }

    /// Starts for the first time.
    async fn first(&self) -> Driver {
        let source = self.setup.start();
        source.until("streaming", |_| source.status.phase().0 == Phase::Streaming).await;
        source
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }
}

fn get(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// A chunk's rows are by table: order between tables is the tokens'.
fn same(streamed: &Replica, whole: &Replica) {
    for table in ["public.t", "public.u", "public.big"] {
        let of = |replica: &Replica| replica.log.iter().filter(|line| line.contains(table)).cloned().collect::<Vec<_>>();
        let (streamed, whole) = (of(streamed), of(whole));
        for (i, (a, b)) in streamed.iter().zip(&whole).enumerate() {
            assert_eq!(a, b, "line {i} of {table}");
        }
        assert_eq!(streamed.len(), whole.len(), "{table}");
    }
    assert_eq!(streamed.tokens, whole.tokens);
    assert!(streamed.tables == whole.tables && streamed.schemas == whole.schemas);
}

/// Every kind of transaction that the stream treats in its own way.
async fn workload(server: &Postgres, client: &Client) {
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    let fill =
        |table: &str, from: i32, to: i32| format!("INSERT INTO {table} SELECT i, repeat('n', 50) FROM generate_series({from}, {to}) i");
    let (a, b) = (fill("t", 1, 2000), fill("u", 1, 2000));
    run(&format!("BEGIN; {a}; {b}; UPDATE t SET id = -id WHERE id % 9 = 0; DELETE FROM u WHERE id < 300; COMMIT")).await;
    run(&format!("BEGIN; {}; ROLLBACK", fill("t", 10_000, 14_000))).await;
    // subtransactions: within each other, released, rolled back, and over several blocks
    let (c, d, e) = (fill("t", 3000, 3600), fill("hidden", 1, 900), fill("t", 5000, 6000));
    run(&format!(
        "BEGIN; {c}; SAVEPOINT a; UPDATE t SET note = 'x' WHERE id > 3000; SAVEPOINT b; {d}; {e}; RELEASE b; ROLLBACK TO a;
         SAVEPOINT c; {e}; RELEASE c; SAVEPOINT d; DELETE FROM t WHERE id > 5000; ROLLBACK TO d; {b} ON CONFLICT DO NOTHING; COMMIT"
    ))
    .await;
    run("DO $$ BEGIN FOR i IN 1..60 LOOP BEGIN
             INSERT INTO t SELECT 20000 + i * 100 + j, repeat('s', 80) FROM generate_series(1, 60) j;
             IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
         EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$")
    .await;
    // two at a time, and small ones between them
    let other = server.client("shop").await;
    run(&format!("BEGIN; {}", fill("t", 30_000, 31_000))).await;
    for sql in ["BEGIN".to_owned(), fill("u", 30_000, 31_000), "SAVEPOINT a".into(), fill("u", 32_000, 33_000)] {
        other.batch_execute(&sql).await.unwrap();
    }
    run(&fill("t", 32_000, 33_000)).await;
    server.client("shop").await.batch_execute("INSERT INTO t VALUES (40000, 'small'); INSERT INTO hidden VALUES (-1)").await.unwrap();
    other.batch_execute(&format!("ROLLBACK TO a; {}", fill("u", 34_000, 35_000))).await.unwrap();
    run(&format!("{}; COMMIT", fill("t", 34_000, 35_000))).await;
    other.batch_execute("COMMIT").await.unwrap();
    // schemas within one transaction, one of them rolled back; messages; a truncate
    run(&format!(
        "BEGIN; {}; ALTER TABLE u ADD extra mood DEFAULT 'good'; UPDATE u SET extra = 'bad' WHERE id > 34500; {};
         SELECT pg_logical_emit_message(true, 'p', repeat('m', 1000)), pg_logical_emit_message(false, 'p', 'm');
         SAVEPOINT a; ALTER TABLE u ADD gone int; INSERT INTO u SELECT i, 'y', 'bad', 7 FROM generate_series(50000, 51000) i; ROLLBACK TO a;
         INSERT INTO u SELECT i, 'z' FROM generate_series(50000, 51000) i; TRUNCATE t, hidden; ALTER TABLE u DROP note;
         INSERT INTO u SELECT i FROM generate_series(60000, 61000) i; {}; COMMIT; INSERT INTO u VALUES (-5)",
        fill("u", 40_000, 41_000),
        fill("u", 42_000, 43_000),
        fill("t", 1, 1000)
    ))
    .await;
    // a schema that never came to be
    run("BEGIN; ALTER TABLE u ADD never int; INSERT INTO u SELECT i FROM generate_series(70000, 73000) i; ROLLBACK").await;
    run("INSERT INTO u VALUES (70000); UPDATE u SET extra = 'good' WHERE id = 70000").await;
    // prepared: they come at COMMIT PREPARED
    for sql in [fill("t", 80_000, 82_000), fill("t", 83_000, 83_005), fill("t", 84_000, 86_000)] {
        run(&format!(
            "BEGIN; {sql}; PREPARE TRANSACTION 'p'; INSERT INTO t VALUES (-{0}, 'between')",
            sql.len() + sql.matches('4').count()
        ))
        .await;
        run(if sql.contains("84000") { "ROLLBACK PREPARED 'p'" } else { "COMMIT PREPARED 'p'" }).await;
        run("DELETE FROM t WHERE id < 0").await;
    }
    // values of many sizes
    run("BEGIN; INSERT INTO big SELECT i, repeat('b', i * 2000) FROM generate_series(1, 60) i; UPDATE big SET id = -id; COMMIT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_tokens_are_those_of_a_stream_without_blocks() {
    let server = server(&[]);
    let client = server.database("shop").await;
    let tables = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE t (id int PRIMARY KEY, note text);
                  CREATE TABLE u (id int PRIMARY KEY, note text); CREATE TABLE hidden (id int, note text);
                  CREATE TABLE big (id int PRIMARY KEY, body text); ALTER TABLE big ALTER body SET STORAGE EXTERNAL";
    client.batch_execute(tables).await.unwrap();
    let live = Streaming::new(&server, "live", "on", json!({}));
    let streamed = Streaming::new(&server, "streamed", "on", json!({}));
    let whole = Streaming::new(&server, "whole", "off", json!({}));
    for source in [&streamed, &whole] {
        let _ = source.first().await.stop().await;
    }
    client.batch_execute("ALTER PUBLICATION etl_stream_test_shop ADD TABLE hidden").await.unwrap();
    let live_source = live.first().await;
    workload(&server, &client).await;
    // both read the log when the catalog has changed for the last time
    let run = async |source: &Streaming| {
        let driver = source.setup.start();
        driver.caught_up(&client).await;
        let counts = (get(&driver.status.streamed_transactions), get(&driver.status.spilled_bytes), get(&driver.status.changes));
        (driver.stop().await, counts)
    };
    let (streamed_end, (transactions, spilled, changes)) = run(&streamed).await;
    let (whole_end, counts) = run(&whole).await;
    assert_eq!(counts, (0, 0, changes));
    assert!(transactions >= 8 && spilled > 100_000, "{transactions} {spilled}");
    same(&streamed_end, &whole_end);
    assert_eq!(streamed_end.tables["public.t"], rows(&client, "t", &["id", "note"]).await);
    // a default of the rows that were there is not sent: the catalog has it, and sinks ask there
    assert!(streamed_end.tables["public.u"].keys().eq(rows(&client, "u", &["id"]).await.keys()));
    assert_eq!(streamed_end.tables["public.big"], rows(&client, "big", &["id", "body"]).await);
    // one that was there all the time: rolled back parts were sent to it
    live_source.caught_up(&client).await;
    assert_eq!((get(&live_source.status.open_transactions), get(&live_source.status.held_bytes)), (0, 0));
    let live_end = live_source.stop().await;
    assert!(live_end.tokens == whole_end.tokens && live_end.tables == whole_end.tables);
    assert_eq!((live.files(), streamed.files(), whole.files()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_progress_is_held_and_disturbs_no_other() {
    let server = server(&[]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE u (id int PRIMARY KEY)").await.unwrap();
    let streaming = Streaming::new(&server, "streamed", "on", json!({}));
    let source = streaming.first().await;
    let open = server.client("shop").await;
    let fill = |from: i32, to: i32| format!("INSERT INTO t SELECT i, repeat('n', 100) FROM generate_series({from}, {to}) i");
    let held = async |least: u64| source.until("it is held", |_| get(&source.status.held_bytes) > least).await;
    open.batch_execute(&format!("BEGIN; {}", fill(1, 5000))).await.unwrap();
    held(400_000).await;
    assert_eq!((streaming.files(), get(&source.status.open_transactions)), (1, 1));
    // memory is bounded: what is held is in the file
    assert!(get(&source.status.held_bytes).saturating_sub(get(&source.status.spilled_bytes)) < 130_000);
    client.batch_execute("INSERT INTO u VALUES (1)").await.unwrap();
    source.until("another transaction", |replica| replica.rows == 1).await;
    // an open transaction holds back neither time nor the slot
    let there = current(&client).await;
    source.until("time", |replica| replica.upper >= Ts::new(there, 0)).await;
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'streamed'";
    until("the slot", || async { lsn(&client, confirmed).await >= Some(there) }).await;
    open.batch_execute(&format!("SAVEPOINT a; {}", fill(6000, 9000))).await.unwrap();
    held(800_000).await;
    open.batch_execute("ROLLBACK TO a").await.unwrap();
    source.until("its space is given back", |_| get(&source.status.held_bytes) < 700_000).await;
    open.batch_execute(&format!("{}; COMMIT", fill(9000, 9005))).await.unwrap();
    source.caught_up(&client).await;
    assert_eq!((streaming.files(), get(&source.status.open_transactions), get(&source.status.held_bytes)), (0, 0, 0));
    open.batch_execute(&format!(
        "BEGIN; ALTER TABLE u ADD extra int; INSERT INTO u SELECT generate_series(2, 5000); {}",
        fill(10_000, 12_000)
    ))
    .await
    .unwrap();
    held(200_000).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    source.until("it is gone", |_| get(&source.status.open_transactions) == 0).await;
    assert_eq!(streaming.files(), 0);
    client.batch_execute("INSERT INTO u VALUES (2)").await.unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tables["public.t"], rows(&client, "t", &["id", "note"]).await);
    assert_eq!(replica.tables["public.u"], rows(&client, "u", &["id"]).await);
    // the limit: an error that says what to do, and nothing lost
    let mut setup = streaming.setup.clone();
    setup.config["spill"]["max_bytes"] = json!("200KB");
    let source = setup.start();
    open.batch_execute(&format!("BEGIN; {}", fill(20_000, 24_000))).await.unwrap();
    let error = source.error().await;
    assert_eq!(error.code.id, "PG0030", "{error:?}");
    open.batch_execute("COMMIT").await.unwrap();
    let source = streaming.setup.start();
    source.caught_up(&client).await;
    assert_eq!((source.stop().await.rows, streaming.files()), (4001, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_repeats_the_same_tokens() {
    let server = server(&["wal_sender_timeout=2s"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, filler text)").await.unwrap();
    let mut streamed = Streaming::new(&server, "streamed", "on", json!({}));
    let whole = Streaming::new(&server, "whole", "off", json!({}));
    for source in [&streamed, &whole] {
        let _ = source.first().await.stop().await;
    }
    let fill = |from: i32, to: i32| format!("INSERT INTO t SELECT i, repeat('z', 500) FROM generate_series({from}, {to}) i");
    let (a, b, c) = (fill(1, 3000), fill(3001, 6000), fill(3001, 7000));
    client.batch_execute(&format!("BEGIN; {a}; SAVEPOINT a; {b}; ROLLBACK TO a; {c}; DELETE FROM t WHERE id < 50; COMMIT")).await.unwrap();
    let source = whole.setup.start();
    source.caught_up(&client).await;
    let expected = source.stop().await.tokens;
    assert_eq!(expected["public.t"].len(), 7049);
    let prefix = |replica: &Replica| {
        let tokens = &replica.tokens["public.t"];
        assert_eq!(tokens[..], expected["public.t"][..tokens.len()]);
        tokens.len()
    };
    let stale = |name: &str| streamed.folder.path().join(format!("{name}-7.spill"));
    // killed, and stopped, in the middle: by the stream, then by the server's spill
    (streamed.setup.credit, streamed.setup.auto) = (600 << 10, false);
    for way in ["on", "off"] {
        streamed.setup.config["streaming"] = json!(way);
        let source = streamed.setup.start();
        source.until("a part", |replica| replica.credit > 256 << 10).await;
        let part = source.replica(|replica| prefix(replica));
        assert!((1..7049).contains(&part), "{part}");
        source.crash().await;
        let source = streamed.setup.start();
        source.until("a part", |replica| replica.credit > 256 << 10).await;
        let part = prefix(&source.stop_stalled().await);
        assert!((1..7049).contains(&part), "{part}");
    }
    streamed.setup.config["streaming"] = json!("on");
    // a leftover of a process that was killed goes; the files of others stay
    let ours = stale(
        &crate::source::postgres::config::Settings::new(&serde_json::from_value(streamed.setup.config.clone()).unwrap(), "test", "shop")
            .spill_name,
    );
    std::fs::write(&ours, "left").unwrap();
    std::fs::write(stale("other"), "left").unwrap();
    // a sink that stalls in the middle, for three times the server's patience: status goes out all the same
    let source = streamed.setup.start();
    source.until("a part", |replica| replica.credit > 256 << 10).await;
    assert!(!ours.exists() && stale("other").exists());
    let walsender = "FROM pg_stat_replication WHERE application_name LIKE 'etl-stream%'";
    let pid = async || client.query_one(&format!("SELECT pid {walsender}"), &[]).await.unwrap().get::<_, i32>(0);
    let before = pid().await;
    let age = format!("SELECT extract(epoch FROM clock_timestamp() - backend_start)::float8 {walsender}");
    until("the connection is old", || async { client.query_one(&age, &[]).await.unwrap().get::<_, f64>(0) > 6.5 }).await;
    assert_eq!(pid().await, before);
    assert!(source.replica(|replica| prefix(replica)) < 7049);
    // the connection is lost in the middle: what was sent is not sent again
    client.execute("SELECT pg_terminate_backend($1)", &[&before]).await.unwrap();
    source.release();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    assert_eq!(replica.tokens, expected);
    assert_eq!(replica.tables["public.t"], rows(&client, "t", &["id", "filler"]).await);
    assert_eq!(streamed.files(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_reads_nothing_past_what_is_left_out() {
    let server = server(&[]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, filler text)").await.unwrap();
    let mut streamed = Streaming::new(&server, "streamed", "on", json!({}));
    let _ = streamed.first().await.stop().await;
    client.batch_execute("INSERT INTO t SELECT i, repeat('z', 500) FROM generate_series(1, 3000) i").await.unwrap();
    let whole = current(&client).await;
    client.batch_execute("INSERT INTO t VALUES (3001, 'later')").await.unwrap();
    let there = current(&client).await;
    // Two pieces of the transaction, and then enough to read on, but not for a third.
    (streamed.setup.credit, streamed.setup.auto) = (600 << 10, false);
    // Which of a stop and a read is met first is chance.
    for _ in 0..12 {
        let source = streamed.setup.start();
        source.until("a part", |replica| replica.credit > 400 << 10).await;
        let sent = "SELECT sent_lsn::text FROM pg_stat_replication WHERE state = 'streaming'";
        until("what follows is sent", || async { lsn(&client, sent).await >= Some(there) }).await;
        // What a wait has of its credit so far is given back with it.
        until("the replay waits", || async { source.credit_left() == 0 }).await;
        let tokens = source.stop_stalled().await.tokens.remove("public.t").unwrap();
        assert!(tokens.iter().all(|token| token.commit_lsn < whole) && tokens.len() < 3000, "{} rows", tokens.len());
        let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'streamed'";
        assert!(lsn(&client, confirmed).await < Some(whole), "what was left out is not confirmed");
    }
    streamed.setup.auto = true;
    let source = streamed.setup.start();
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.tables["public.t"], rows(&client, "t", &["id", "filler"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_two_phase_slot_is_refused() {
    let server = server(&[]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    client.batch_execute("SELECT pg_create_logical_replication_slot('odd', 'pgoutput', false, true)").await.unwrap();
    let error = Setup::new(&server, "shop", json!({ "slot": "odd" })).start().error().await;
    assert!(error.code.id == "PG0032" && error.hint.is_some(), "{error:?}");
}
