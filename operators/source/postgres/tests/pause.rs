//! A source that is paused, before it has begun and while it streams.

use super::driver::{Setup, rows, until};
use crate::contract::{MemoryState, Phase, StateKey, StateStore};
use crate::testing::postgres::Postgres;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_source_keeps_its_slot_reads_nothing_and_goes_on() {
    // Silence would cost the connection soon.
    let server = Postgres::start_with(&["wal_sender_timeout=1s"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let mut setup = Setup::new(&server, "shop", json!({}));

    // Before its first copy it does not begin one.
    setup.paused = true;
    let source = setup.start();
    until("paused", || async { source.status.phase().0 == Phase::Paused }).await;
    let slots: i64 = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!((slots, source.replica(|replica| replica.rows)), (0, 0));
    source.pause.send_replace(false);
    source.until("copied", |replica| replica.rows == 1).await;
    until("streaming", || async { source.status.phase().0 == Phase::Streaming }).await;

    // While it streams.
    let pid = async || -> Option<i32> { client.query_one("SELECT active_pid FROM pg_replication_slots", &[]).await.unwrap().get(0) };
    let before = pid().await;
    source.pause.send_replace(true);
    until("paused", || async { source.status.phase().0 == Phase::Paused }).await;
    let read = source.replica(|replica| replica.rows);
    // More than the sockets hold.
    client.batch_execute("INSERT INTO t SELECT i, repeat(md5(i::text), 100) FROM generate_series(2, 10000) i").await.unwrap();
    let answered = "SELECT coalesce(max(reply_time) > $1::timestamptz + interval '3 seconds', false) FROM pg_stat_replication";
    let now: std::time::SystemTime = client.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
    until("status goes on for longer than the server's patience", || async { client.query_one(answered, &[&now]).await.unwrap().get(0) })
        .await;
    assert_eq!(source.replica(|replica| replica.rows), read, "nothing is read");
    assert_eq!(pid().await, before, "the connection is the same");
    assert!(source.status.lag_bytes() > 1 << 20, "the log waits");
    source.pause.send_replace(false);
    source.until("the rest", |replica| replica.rows == 10_000).await;
    source.caught_up(&client).await;

    // A stop ends a pause; another run is paused at once, and takes its slot.
    source.pause.send_replace(true);
    until("paused", || async { source.status.phase().0 == Phase::Paused }).await;
    let mut replica = source.stop().await;
    client.batch_execute("UPDATE t SET v = 'b' WHERE id = 1").await.unwrap();
    let source = setup.start_after(std::mem::take(&mut replica));
    until("paused", || async { source.status.phase().0 == Phase::Paused }).await;
    until("in use", || async { pid().await.is_some() }).await;
    source.pause.send_replace(false);
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.tables["public.t"], rows(&client, "t", &["id", "v"]).await);
    assert!(MemoryState::default().load(&StateKey::paused("test", "shop")).unwrap().is_none(), "the engine remembers, not the source");
}
