//! The WAL monitor in whole pipelines: rows through an operator into files, metrics, and an alert's life at a webhook.

use crate::harness::{Project, history, signal, wait_for};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::Value;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

type Received = Arc<Mutex<Vec<Value>>>;

/// A webhook's receiver: its port, and what it got.
async fn receiver() -> (u16, Received) {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let take = |State(received): State<Received>, body: String| async move {
        received.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    };
    let router = Router::new().route("/hook", post(take)).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, received)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pipeline(url: &str, hook: u16, listen: u16) -> String {
    format!(
        "sources:
  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.t\"] }} }}
  wal: {{ type: wal_monitor, interval: 200ms }}
operators:
  mine: {{ type: filter, inputs: [wal], tables: [\"etl_stream.wal_slots\"], where: \"source = 'shop' AND retained_bytes >= 0\" }}
sinks:
  rows: {{ type: file, inputs: [shop], path: out }}
  slots: {{ type: file, inputs: [mine], path: slots, batch: {{ max_age: 100ms }} }}
alerts:
  grows: {{ when: slot.retained_wal > 1MiB, danger: slot.retained_wal > 20MiB, only: [theirs], notify: [ops, old] }}
notifiers:
  ops: {{ type: webhook, url: {{ plain: \"http://127.0.0.1:{hook}/hook\" }} }}
  old: {{ type: webhook, url: {{ plain: \"http://127.0.0.1:{hook}/hook\" }}, format: predecessor }}
server: {{ listen: \"127.0.0.1:{listen}\" }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_metrics_and_alerts_of_a_slot_that_nobody_reads() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (v text)").await.unwrap();
    client.batch_execute("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await.unwrap();
    let (hook, received) = receiver().await;
    let listen = free_port();
    let project = Project::new(&pipeline(&postgres.url("shop"), hook, listen));
    let events =
        || -> Vec<String> { received.lock().unwrap().iter().filter_map(|body| body["event"].as_str().map(str::to_owned)).collect() };
    let fill = "INSERT INTO filler SELECT repeat(md5(i::text), 60) FROM generate_series(1, 1500) i";
    let mut child = project.start(&["run"]);
    let mut ended = || child.try_wait().unwrap().is_some();
    let slots = project.path().join("slots");
    wait_for("rows of the source's slot", || history(&slots, "etl_stream.wal_slots").len() >= 3 || ended());
    assert!(events().is_empty());
    client.batch_execute(fill).await.unwrap();
    wait_for("the alert", || !events().is_empty() || ended());
    for _ in 0..8 {
        client.batch_execute(fill).await.unwrap();
    }
    wait_for("danger", || events().len() >= 2 || ended());
    let get = async |path: &str| reqwest::get(format!("http://127.0.0.1:{listen}{path}")).await.unwrap().text().await.unwrap();
    let (metrics, alerts) = (get("/metrics").await, get("/api/v1/alerts").await);
    let server = format!("127.0.0.1:{}", postgres.port());
    for part in [
        format!("etl_stream_slot_retained_bytes{{pipeline=\"pipeline\",server=\"{server}\",slot=\"theirs\",source=\"\"}}"),
        format!("etl_stream_slot_active{{pipeline=\"pipeline\",server=\"{server}\",slot=\"etl_stream_pipeline_shop\",source=\"shop\"}} 1"),
        format!("etl_stream_server_up{{pipeline=\"pipeline\",server=\"{server}\"}} 1"),
        format!("etl_stream_connections{{server=\"{server}\",state=\"replication\"}} 1"),
        "etl_stream_alert_firing{".to_owned(),
        "etl_stream_monitor_checks_total{".to_owned(),
    ] {
        assert!(metrics.contains(&part), "{part}\n{metrics}");
    }
    let alerts: Value = serde_json::from_str(&alerts).unwrap();
    assert_eq!((&alerts["alerts"][0]["alert"], &alerts["alerts"][0]["severity"]), (&"grows".into(), &"page".into()), "{alerts}");
    client.batch_execute("SELECT pg_drop_replication_slot('theirs')").await.unwrap();
    wait_for("its end", || events().len() >= 3 || ended());
    assert_eq!(events(), ["started", "escalated", "resolved"], "{}", project.log());
    wait_for("the earlier form", || received.lock().unwrap().len() >= 6 || ended());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
    let bodies = received.lock().unwrap().clone();
    let own: Vec<&Value> = bodies.iter().filter(|body| body["type"] == "etl_stream.alert").collect();
    assert_eq!(own[0]["subject"]["slot"], "theirs");
    assert!(own[0]["hint"].as_str().unwrap().contains("SELECT pg_drop_replication_slot('theirs')"), "{}", own[0]);
    assert!(own[0]["value"].as_f64().unwrap() > f64::from(1 << 20));
    let old: Vec<&str> = bodies.iter().filter(|body| body["type"] == "wal_alert").map(|body| body["status"].as_str().unwrap()).collect();
    assert_eq!(old, ["warning", "danger", "normal"]);
    // Rows of other slots did not pass the filter, and tokens rise over a restart.
    let before = history(&slots, "etl_stream.wal_slots");
    assert!(before.iter().all(|(_, row)| row["source"] == "shop" && row["slot_name"] == "etl_stream_pipeline_shop"));
    assert!(history(&slots, "etl_stream.wal_servers").len() > 2, "the filter lets other tables pass");
    project.succeeds(&["run", "--until", "caught-up"]);
    let after = history(&slots, "etl_stream.wal_slots");
    assert!(after.len() > before.len() && after.windows(2).all(|pair| pair[0].0 < pair[1].0));
}
