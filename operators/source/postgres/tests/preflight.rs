//! Every refusal before the first row.

use super::driver::{Setup, until};
use crate::contract::{MemoryState, Phase, StateKey, StateStore};
use crate::testing::postgres::Postgres;
use serde_json::{Value, json};
use std::time::Duration;

const SLOT: &str = "etl_stream_test_shop";

fn state(change: impl FnOnce(&mut Value), base: &MemoryState) -> MemoryState {
    let key = StateKey::node("test", "shop");
    let mut document = base.load(&key).unwrap().unwrap();
    change(&mut document);
    let changed = MemoryState::default();
    changed.store(&[(key, Some(document))]).unwrap();
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_problem_has_its_code() {
    let server = Postgres::start_with(&["max_replication_slots=3"]);
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE secret (id int PRIMARY KEY);
             CREATE ROLE plain LOGIN; CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON t TO reader;
             CREATE PUBLICATION theirs FOR TABLE t, secret",
        )
        .await
        .unwrap();
    let user = |name: &str| json!({ "plain": server.url("shop").replace("postgres@", &format!("{name}@")) });
    let fails = async |settings: Value, code: &str| {
        let mut setup = Setup::new(&server, "shop", settings);
        setup.slot_patience = Duration::from_millis(300);
        let error = setup.start().error().await;
        assert_eq!(error.code.id, code, "{error:?}");
        assert!(error.hint.is_some(), "{error:?}");
        error
    };
    fails(json!({ "url": user("plain") }), "PG0008").await;
    let error = fails(json!({ "url": user("reader"), "tables": { "include": ["public.t"] } }), "PG0011").await;
    assert!(error.hint.as_deref().unwrap_or_default().contains("CREATE PUBLICATION \"etl_stream_test_shop\" FOR TABLE \"public\".\"t\""));
    let error = fails(json!({ "url": user("reader"), "publication": "theirs" }), "PG0020").await;
    assert!(error.hint.as_deref().unwrap_or_default().contains("GRANT SELECT ON \"public\".\"secret\""), "{error:?}");
    fails(json!({ "tables": { "include": ["public.none"] } }), "PG0017").await;
    fails(json!({ "publication": "theirs", "tables": { "include": ["public.none"] } }), "PG0017").await;
    client.batch_execute("CREATE TABLE keyless (a int, b int); ALTER PUBLICATION theirs ADD TABLE keyless").await.unwrap();
    client.batch_execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY").await.unwrap();
    let rows_hidden = json!({ "url": user("reader"), "publication": "theirs", "slot": "secure", "tables": { "include": ["public.t"] } });
    fails(rows_hidden, "PG0020").await;
    fails(json!({ "publication": "theirs", "keys": { "public.keyless": ["nope"] } }), "PG0026").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_and_state_must_agree() {
    let server = Postgres::start_with(&["max_replication_slots=3"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    server.database("elsewhere").await;
    let make = async |name: &str, sql: &str| {
        let elsewhere = server.client("elsewhere").await;
        elsewhere.batch_execute(&format!("SELECT {sql}")).await.unwrap();
        let drop = format!("SELECT pg_drop_replication_slot('{name}')");
        drop
    };
    let started = Setup::new(&server, "shop", json!({}));
    let with = |state: MemoryState, settings: Value| {
        let mut setup = Setup::new(&server, "shop", settings);
        setup.state = state.into();
        setup.slot_patience = Duration::from_millis(300);
        setup
    };
    let fails = async |setup: Setup, code: &str| {
        let error = setup.start().error().await;
        assert_eq!(error.code.id, code, "{error:?}");
        assert!(error.hint.is_some(), "{error:?}");
        error
    };
    // slots that are not for this source
    for sql in ["pg_create_physical_replication_slot('odd')", "pg_create_logical_replication_slot('odd', 'pgoutput')"] {
        let drop = make("odd", sql).await;
        fails(with(MemoryState::default(), json!({ "slot": "odd" })), "PG0019").await;
        client.batch_execute(&drop).await.unwrap();
    }
    // in use
    let source = started.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    until("in use", || async { client.query_one("SELECT active FROM pg_replication_slots", &[]).await.unwrap().get(0) }).await;
    let state_of = |change: fn(&mut Value)| state(change, &started.state);
    let error = fails(with(state_of(|_| ()), json!({})), "PG0012").await;
    assert!(error.message.contains("etl-stream"), "{error}");
    let _ = source.stop().await;
    // the state is of another server, database, timeline, slot, or was lost
    fails(with(state_of(|s| s["system_identifier"] = json!("1")), json!({})), "PG0014").await;
    fails(with(state_of(|s| s["database"] = json!("x")), json!({})), "PG0014").await;
    fails(with(state_of(|s| s["timeline"] = json!(9)), json!({})), "PG0014").await;
    fails(with(state_of(|s| s["slot"] = json!("x")), json!({})), "PG0023").await;
    fails(with(MemoryState::default(), json!({})), "PG0015").await;
    // every slot is taken
    let one = make("one", "pg_create_physical_replication_slot('one')").await;
    let two = make("two", "pg_create_physical_replication_slot('two')").await;
    let error = fails(with(MemoryState::default(), json!({ "slot": "more" })), "PG0018").await;
    assert!(error.hint.as_deref().unwrap_or_default().contains("one, two"), "{error:?}");
    client.batch_execute(&format!("{one}; {two}")).await.unwrap();
    // the publication went, then the slot
    client.batch_execute(&format!("DROP PUBLICATION {SLOT}")).await.unwrap();
    fails(with(state_of(|_| ()), json!({})), "PG0011").await;
    client.batch_execute(&format!("CREATE PUBLICATION {SLOT} FOR TABLE t; SELECT pg_drop_replication_slot('{SLOT}')")).await.unwrap();
    fails(with(state_of(|_| ()), json!({})), "PG0016").await;
    // an unfinished start with nothing there begins anew
    let again = with(state_of(|s| s["stage"] = json!("creating")), json!({}));
    let source = again.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    assert_eq!(source.stop().await.tables["public.t"].len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_logical_wal_and_a_slot_that_is_lost() {
    let server = Postgres::start_with(&["wal_level=replica"]);
    let error = Setup::new(&server, "postgres", json!({})).start().error().await;
    assert_eq!(error.code.id, "PG0010", "{error:?}");
    drop(server);
    let server = Postgres::start_with(&["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=48MB"]);
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (t text)").await.unwrap();
    let setup = Setup::new(&server, "shop", json!({ "tables": { "include": ["public.t"] } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.len() == 2).await;
    until("it streams", || async { source.status.phase().0 == Phase::Streaming }).await;
    let _ = source.stop().await;
    until("the slot is lost", || async {
        let fill =
            "INSERT INTO filler SELECT repeat(md5(i::text), 100) FROM generate_series(1, 5000) i; SELECT pg_switch_wal(); CHECKPOINT";
        for sql in fill.split("; ") {
            client.batch_execute(sql).await.unwrap();
        }
        let status: Option<String> = client.query_one("SELECT wal_status FROM pg_replication_slots", &[]).await.unwrap().get(0);
        status.as_deref() == Some("lost")
    })
    .await;
    let error = setup.start().error().await;
    assert_eq!(error.code.id, "PG0013", "{error:?}");
}
