//! What the process takes of a server: connections within the budget, and a slot's log within its limit.

use crate::harness::{Project, fold, signal, source_rows, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::Value;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const SOURCES: usize = 16;

/// Has the statements for every database run.
async fn everywhere(postgres: &Postgres, sql: &str) {
    for at in 0..SOURCES {
        postgres.client(&format!("d{at}")).await.batch_execute(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sources_share_few_connections() {
    let postgres = Postgres::start();
    for at in 0..SOURCES {
        let _ = postgres.database(&format!("d{at}")).await;
    }
    everywhere(&postgres, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'first' FROM generate_series(1, 50) i")
        .await;
    let node = |at: usize| {
        let url = postgres.url(&format!("d{at}"));
        format!(
            "  s{at}: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.*\"] }}, discovery: {{ interval: 500ms }} }}\n"
        )
    };
    let sink =
        |at: usize| format!("  f{at}: {{ type: file, inputs: [s{at}], path: out/{at}, format: ndjson, batch: {{ max_age: 20ms }} }}\n");
    let listen = free_port();
    let project = Project::new(&format!(
        "sources:\n{}  wal: {{ type: wal_monitor, interval: 200ms }}\nsinks:\n{}engine: {{ connections: {{ total: 5, per_server: 3 }} }}\nserver: {{ listen: \"127.0.0.1:{listen}\" }}\n",
        (0..SOURCES).map(node).collect::<String>(),
        (0..SOURCES).map(sink).collect::<String>()
    ));
    // Sampled as an administrator would, from before the start on.
    let (most, done) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = {
        let (client, most, done) = (postgres.client("postgres").await, Arc::clone(&most), Arc::clone(&done));
        tokio::spawn(async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name LIKE 'etl-stream%'";
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(client.query_one(sql, &[]).await.unwrap().get(0), Ordering::Relaxed);
            }
        })
    };
    let child = project.start(&["run"]);
    let rows = |at: usize, table: &str| fold(&project.path().join(format!("out/{at}")), table, &["id"]);
    wait_for("every first row", || (0..SOURCES).all(|at| rows(at, "public.t").len() == 50));
    everywhere(&postgres, "ALTER TABLE t ADD COLUMN w int; INSERT INTO t VALUES (51, 'second', 7); CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1)").await;
    wait_for("changes and new tables", || (0..SOURCES).all(|at| rows(at, "public.t").len() == 51 && rows(at, "public.n").len() == 1));
    let get = async |path: &str| reqwest::get(format!("http://127.0.0.1:{listen}{path}")).await.unwrap().text().await.unwrap();
    let servers: Value = serde_json::from_str(&get("/api/v1/servers").await).unwrap();
    let own = &servers["connections"]["servers"][0];
    assert_eq!(
        (own["replication"].as_u64(), own["open"].as_u64().is_some_and(|open| open <= 3)),
        (Some(SOURCES as u64), true),
        "{servers}"
    );
    signal(&child, "TERM");
    assert_eq!({ child }.wait().unwrap().code(), Some(0), "{}", project.log());
    done.store(true, Ordering::Relaxed);
    watch.await.unwrap();
    for at in 0..SOURCES {
        let database = format!("d{at}");
        let columns = |rows: std::collections::BTreeMap<String, Value>| {
            rows.into_values().map(|row| (row["id"].clone(), row["v"].clone(), row["w"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(columns(rows(at, "public.t")), columns(source_rows(&postgres, &database, "t", &["id"]).await), "{database}");
    }
    let most = most.load(Ordering::Relaxed);
    assert!((2..=3).contains(&most), "{most} connections at once\n{}", project.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_slot_holds_back_too_much_is_paused_once() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (v text); INSERT INTO t VALUES (1)").await.unwrap();
    let listen = free_port();
    let project = Project::new(&format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.t\"] }} }}\n\
         \x20 wal: {{ type: wal_monitor, interval: 100ms, retained_wal_limit: 4MiB, on_limit: pause }}\n\
         sinks:\n  files: {{ type: file, inputs: [shop], path: out, format: ndjson, batch: {{ max_age: 20ms }} }}\nserver: {{ listen: \"127.0.0.1:{listen}\" }}\n",
        postgres.url("shop")
    ));
    let child = project.start(&["run"]);
    let shop = || -> Value {
        let status: Value = serde_json::from_slice(&project.run(&["status", "--format", "json"]).stdout).unwrap_or_default();
        status["sources"].as_array().into_iter().flatten().find(|source| source["source"] == "shop").cloned().unwrap_or_default()
    };
    let rows = || fold(&project.path().join("out"), "public.t", &["id"]).len();
    wait_for("the first row", || rows() == 1 && shop()["phase"] == "streaming");
    // More at once than the slot can let go of before it is looked at.
    let fill = "INSERT INTO filler SELECT repeat(md5(i::text), 60) FROM generate_series(1, 6000) i";
    client.batch_execute(fill).await.unwrap();
    wait_for("the pause", || shop()["phase"] == "paused");
    let why = shop()["paused"].as_str().unwrap().to_owned();
    assert!(why.contains("\"etl_stream_pipeline_shop\" retains") && why.contains("retained_wal_limit"), "{why}");
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    // Whoever resumes it is not overruled while the slot is still beyond its limit.
    let resumed = project.run(&["resume", "shop"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    wait_for("the row that came meanwhile", || rows() == 2);
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    wait_for("the next", || rows() == 3);
    signal(&child, "TERM");
    assert_eq!({ child }.wait().unwrap().code(), Some(0), "{}", project.log());
    assert_eq!(project.log().matches("paused: the server keeps the log").count(), 1, "{}", project.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_starts_at_a_full_server_waits_for_room() {
    let postgres = Postgres::start_with(&["max_connections=6", "superuser_reserved_connections=0"]);
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let mut all = Vec::new();
    while let Ok((other, connection)) = tokio_postgres::connect(&postgres.url("shop"), tokio_postgres::NoTls).await {
        all.push((other, tokio::spawn(connection)));
    }
    assert!(!all.is_empty());
    let listen = free_port();
    let project = Project::new(&format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.t\"] }} }}\n\
         sinks:\n  files: {{ type: file, inputs: [shop], path: out, format: ndjson, batch: {{ max_age: 20ms }} }}\nserver: {{ listen: \"127.0.0.1:{listen}\" }}\n",
        postgres.url("shop")
    ));
    let mut child = project.start(&["run"]);
    let shop = || -> Value {
        let status: Value = serde_json::from_slice(&project.run(&["status", "--format", "json"]).stdout).unwrap_or_default();
        status["sources"][0].clone()
    };
    wait_for("its saying so", || shop()["phase"] == "retrying" && shop()["reason"].as_str().is_some_and(|why| why.contains("PG0005")));
    assert!(child.try_wait().unwrap().is_none(), "{}", project.log());
    drop(all);
    wait_for("the row", || fold(&project.path().join("out"), "public.t", &["id"]).len() == 1);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
}
