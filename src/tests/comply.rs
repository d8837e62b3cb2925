//! Every node type of the binary keeps to what every node must keep to. A new one is found here by itself: an operator runs
//! on its example, a source or sink needs the servers it speaks to.

use crate::harness::history;
use crate::warehouse::snowflake;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use etl_stream::testing::comply::{Held, Subject};
use etl_stream::{Kind, Registry, Token};
use etl_stream_operators::source::replay::{Capture, record};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::PRIVATE_KEY;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

/// What stands behind the nodes: servers live as long as the runtime.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The types of a kind, each of which must be among those that are handled.
fn types(registry: &Registry, kind: Kind, handled: Option<&[&str]>) -> Vec<&'static str> {
    let types: Vec<_> = registry.types().filter(|node| node.kind == kind).map(|node| node.name).collect();
    if let Some(handled) = handled {
        let forgotten: Vec<_> = types.iter().filter(|name| !handled.contains(name)).collect();
        assert!(forgotten.is_empty(), "{} types without a test here: {forgotten:?}", kind.noun());
    }
    types
}

#[test]
fn operators() {
    let registry = Registry::builtin();
    for name in types(&registry, Kind::Operator, None) {
        if name != "python" {
            Subject::of(&registry, Kind::Operator, name).comply();
        }
    }
}

#[test]
fn python() {
    let (registry, folder) = (Registry::builtin(), tempfile::tempdir().unwrap());
    let module =
        "import pyarrow.compute as pc\n\ndef clean(batch):\n    return batch.filter(pc.equal(pc.bit_wise_and(batch['id'], 1), 1))\n";
    std::fs::write(folder.path().join("my_operators.py"), module).unwrap();
    let python = etl_stream_operators::testing::python::python();
    Subject::of(&registry, Kind::Operator, "python").folder(folder.path()).set("python", json!(python)).comply();
}

#[test]
fn sinks_that_keep_nothing() {
    let registry = Registry::builtin();
    types(&registry, Kind::Sink, Some(&["blackhole", "stdout", "webhook", "file", "snowflake"]));
    for name in ["blackhole", "stdout"] {
        Subject::of(&registry, Kind::Sink, name).comply();
    }
    let runtime = runtime();
    let url = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(|| async { StatusCode::NO_CONTENT }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    });
    Subject::of(&registry, Kind::Sink, "webhook").set("url", json!({ "plain": url })).comply();
}

/// The tokens of every table below a file sink's folder.
fn in_files(folder: &Path) -> Held {
    let tables = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.file_name().into_string().unwrap()).collect());
    let tables: Vec<String> = tables.unwrap_or_default();
    let tokens = |table: &String| history(folder, table).iter().map(|(token, _)| token.parse().unwrap()).collect();
    tables.iter().filter(|name| name.starts_with("public.")).map(|table| (table.clone(), tokens(table))).collect()
}

#[test]
fn file() {
    let (registry, folder) = (Registry::builtin(), tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let subject = Subject::of(&registry, Kind::Sink, "file").folder(folder.path());
    subject.set("format", json!("ndjson")).held(move || in_files(&out)).comply();
}

#[test]
fn snowflake_streams() {
    let (registry, runtime, folder) = (Registry::builtin(), runtime(), tempfile::tempdir().unwrap());
    let server = Arc::new(runtime.block_on(snowflake()));
    let held = {
        let server = Arc::clone(&server);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut held = Held::new();
            for table in ["orders", "customers", "everything", "blank"] {
                let query = format!("SELECT _SEQ FROM RAW.SHOP.{table}__CHANGES ORDER BY _SEQ");
                // Without a row there is no table yet.
                let rows = runtime.block_on(server.try_sql(&query)).unwrap_or_default();
                let tokens: Vec<Token> = rows.iter().flatten().flatten().map(|token| token.parse().unwrap()).collect();
                held.insert(format!("public.{table}"), tokens);
            }
            held
        }
    };
    let subject = Subject::of(&registry, Kind::Sink, "snowflake").folder(folder.path()).held(held);
    subject.set("url", json!(server.url())).set("private_key", json!({ "plain": PRIVATE_KEY })).set("write_mode", json!("append")).comply();
}

#[test]
fn synthetic() {
    let registry = Registry::builtin();
    types(&registry, Kind::Source, Some(&["synthetic", "replay", "postgres", "wal_monitor"]));
    Subject::of(&registry, Kind::Source, "synthetic").set("rate", json!(null)).comply();
}

const ROWS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT n, 'row ' || n FROM generate_series(1, 50) n;";
const MORE: &str = "INSERT INTO orders SELECT n, 'more ' || n FROM generate_series(51, 90) n; UPDATE orders SET id = id + 1000, note = 'moved' WHERE id < 10; DELETE FROM orders WHERE id = 20;";

#[test]
fn postgres() {
    let (registry, runtime, server) = (Registry::builtin(), runtime(), Postgres::start());
    runtime.block_on(async { server.database("shop").await.batch_execute(ROWS).await.unwrap() });
    let subject =
        Subject::of(&registry, Kind::Source, "postgres").set("url", json!({ "plain": server.url("shop") })).set("keys", json!(null));
    let change = || runtime.block_on(async { server.client("shop").await.batch_execute(MORE).await.unwrap() });
    subject.changes(change).comply();
}

#[test]
fn wal_monitor() {
    let (registry, runtime, server) = (Registry::builtin(), runtime(), Postgres::start());
    runtime.block_on(async {
        let client = server.database("shop").await;
        client.batch_execute("SELECT pg_create_logical_replication_slot('watched', 'pgoutput')").await.unwrap();
    });
    let servers = json!({ "shop": { "url": { "plain": server.url("shop") } } });
    Subject::of(&registry, Kind::Source, "wal_monitor").set("servers", servers).set("interval", json!("200ms")).observes().comply();
}

#[test]
fn replay() {
    let (registry, runtime, server, folder) = (Registry::builtin(), runtime(), Postgres::start(), tempfile::tempdir().unwrap());
    let path = folder.path().join("orders.capture");
    runtime.block_on(async {
        let client = server.database("shop").await;
        client.batch_execute(&format!("{ROWS} CREATE PUBLICATION p FOR ALL TABLES")).await.unwrap();
        let (started, start) = oneshot::channel();
        let mut started = Some(started);
        let (capture, path) = (Capture { url: server.url("shop").into(), slot: None, publication: "p".into(), rows: 50 }, path.clone());
        let recording = tokio::spawn(async move {
            let begin = || started.take().map_or((), |started| started.send(()).unwrap());
            record(&capture, &path, watch::channel(false).1, begin).await
        });
        start.await.unwrap();
        client.batch_execute(MORE).await.unwrap();
        assert_eq!(recording.await.unwrap().unwrap().changes, 50);
    });
    Subject::of(&registry, Kind::Source, "replay").set("path", json!(path)).comply();
}
