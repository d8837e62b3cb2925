//! A folder of pipelines in one process, whose files come, change, break and go while rows flow.

use crate::harness::{Project, fold, history, signal, source_rows, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Child;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A pipeline of one table into the folder `out/<table>`.
fn file(url: &str, table: &str, more: &str) -> String {
    format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.{table}\"] }}{more} }}\n\
         sinks:\n  files: {{ type: file, inputs: [shop], path: ../out/{table}, format: ndjson, batch: {{ max_age: 20ms }} }}\n"
    )
}

/// A project with the folder `pipelines`, and where its process listens.
struct Many {
    project: Project,
    port: u16,
}

impl Many {
    fn new() -> Self {
        let project = Project::new("");
        fs::create_dir(project.path().join("pipelines")).unwrap();
        Self { project, port: free_port() }
    }

    /// Writes a file as editors do: under another name first.
    fn write(&self, name: &str, text: &str) {
        let folder = self.project.path().join("pipelines");
        fs::write(folder.join(".new"), text).unwrap();
        fs::rename(folder.join(".new"), folder.join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.project.path().join("pipelines").join(name)).unwrap();
    }

    fn start(&self) -> Child {
        self.project.start(&["run", "pipelines", "--workers", "2", "--listen", &format!("127.0.0.1:{}", self.port)])
    }

    fn get(&self, path: &str) -> String {
        // Asked with a new connection each time: the process may be a new one.
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { reqwest::get(url).await?.text().await }).unwrap_or_default()
        })
        .join()
        .unwrap()
    }

    /// A pipeline, as the list shows it.
    fn shown(&self, name: &str) -> Value {
        let list: Value = serde_json::from_str(&self.get("/api/v1/pipelines")).unwrap_or_default();
        list["pipelines"].as_array().into_iter().flatten().find(|pipeline| pipeline["pipeline"] == name).cloned().unwrap_or_default()
    }

    fn is(&self, name: &str, state: &str) -> bool {
        self.shown(name)["state"] == state
    }

    fn rows(&self, table: &str) -> usize {
        history(&self.project.path().join("out").join(table), &format!("public.{table}")).len()
    }

    async fn equal(&self, postgres: &Postgres, table: &str) {
        let target = || fold(&self.project.path().join("out").join(table), &format!("public.{table}"), &["id"]);
        let source = source_rows(postgres, "shop", table, &["id"]).await;
        wait_for("the last rows", || target().len() == source.len() && target() == source);
    }

    /// As a command of the same machine.
    fn tell(&self, arguments: &[&str]) -> String {
        let listen = format!("127.0.0.1:{}", self.port);
        self.project.succeeds(&[arguments, &["--listen", &listen]].concat())
    }
}

const TABLES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A server with a table for each pipeline, whose rows change until told to stop.
async fn shop() -> (Postgres, tokio::task::JoinHandle<()>, tokio::sync::watch::Sender<bool>) {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    for table in TABLES {
        client
            .batch_execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, v text); INSERT INTO {table} VALUES (0, 'first')"))
            .await
            .unwrap();
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writes = tokio::spawn(async move {
        let mut id = 0;
        while !*stopped.borrow() {
            id += 1;
            for table in TABLES {
                let sql = format!("INSERT INTO {table} VALUES ({id}, md5('{id}')); UPDATE {table} SET v = v || '+' WHERE id = {id} / 2");
                client.batch_execute(&sql).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    (postgres, writes, stop)
}

fn ends(many: &Many, mut child: Child) {
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", many.project.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_change_break_and_go_while_rows_flow() {
    let (postgres, writes, stop) = shop().await;
    let url = postgres.url("shop");
    let many = Many::new();
    many.write("a.yaml", &file(&url, "a", ""));
    many.write("b.yaml", &file(&url, "b", ""));
    many.write("broken.yaml", "sources: { shop: { type: postgers } }\n");
    let mut child = many.start();
    let mut goes_on = |what: &str, met: &mut dyn FnMut() -> bool| {
        wait_for(what, || met() || child.try_wait().unwrap().is_some());
        assert!(child.try_wait().unwrap().is_none(), "{what}: {}", many.project.log());
    };
    goes_on("the first two", &mut || many.rows("a") > 5 && many.rows("b") > 5);
    assert!(many.is("broken.yaml", "refused") && many.shown("broken.yaml")["file_problem"].as_str().unwrap().contains("CFG0006"));

    // One is added; the others do not notice.
    many.write("c.yaml", &file(&url, "c", ""));
    goes_on("the added one", &mut || many.rows("c") > 5);
    assert_eq!(many.shown("a")["failures"], 0);

    // One is broken: what ran goes on, and says so.
    many.write("b.yaml", "sources: {");
    goes_on("the report", &mut || many.shown("b")["file_problem"].as_str().is_some_and(|why| why.contains("CFG0001")));
    let before = many.rows("b");
    goes_on("rows under the old version", &mut || many.rows("b") > before + 20);
    assert!(many.is("b", "running"));

    // It is mended, and changed: what runs is the new version.
    many.write("b.yaml", &file(&url, "b", ", heartbeat: { interval: 7s }").replace("max_age: 20ms", "max_age: 10ms"));
    goes_on("the new version", &mut || many.project.log().contains("has changed: it drains and starts anew"));
    goes_on("no problem", &mut || many.shown("b")["file_problem"].is_null() && many.is("b", "running"));
    let before = many.rows("b");
    goes_on("rows under the new version", &mut || many.rows("b") > before + 20);

    // The same slot and the same name are refused, and taken when they are free.
    many.write("d.yaml", &file(&url, "d", ", slot: etl_stream_a_shop, publication: other"));
    goes_on("the refusal", &mut || many.shown("d.yaml")["file_problem"].as_str().is_some_and(|why| why.contains("RUN0041")));
    assert!(many.shown("d.yaml")["file_problem"].as_str().unwrap().contains("replication slot \"etl_stream_a_shop\""));
    many.write("d.yaml", &file(&url, "d", ""));
    goes_on("another slot", &mut || many.rows("d") > 5);
    many.write("e.yaml", &format!("name: c\n{}", file(&url, "e", "")));
    goes_on("the name", &mut || many.shown("e.yaml")["file_problem"].as_str().is_some_and(|why| why.contains("pipeline name \"c\"")));
    many.remove("c.yaml");
    // The state of the one before is for another table: a new state is needed, or it would go on where that was.
    goes_on("the end of the first", &mut || many.shown("c")["file"].as_str().is_some_and(|file| file.ends_with("e.yaml")));
    many.remove("e.yaml");
    goes_on("its end", &mut || many.shown("c").is_null());

    // Pause, resume and restart of one, by name and by file.
    assert_eq!(many.tell(&["pause", "--pipeline", "a"]), "shop paused\n");
    goes_on("the pause", &mut || many.shown("a")["sources"][0]["phase"] == "paused");
    let (paused, before) = (many.rows("a"), many.rows("d"));
    goes_on("rows of another", &mut || many.rows("d") > before + 20);
    assert_eq!(many.rows("a"), paused, "what is paused reads nothing");
    assert_eq!(many.tell(&["restart", "--pipeline", "d"]), "d restarts\n");
    goes_on("the restart", &mut || many.project.log().matches("\"pipeline\":\"d\"").count() > 0 && many.is("d", "running"));
    goes_on("still paused", &mut || many.shown("a")["sources"][0]["phase"] == "paused");
    assert_eq!(many.tell(&["resume", "--file", "pipelines/a.yaml"]), "shop resumed\n");
    goes_on("rows again", &mut || many.rows("a") > paused + 20);
    assert!(many.project.run(&["pause", "--pipeline", "none", "--listen", &format!("127.0.0.1:{}", many.port)]).status.code() == Some(3));
    let listed = many.tell(&["status", "pipelines"]);
    assert!(listed.contains("broken.yaml") && listed.contains("CFG0006") && listed.contains("shop: streaming"), "{listed}");
    let metrics = many.get("/metrics");
    for part in [
        "etl_stream_source_streaming{pipeline=\"a\",source=\"shop\"} 1",
        "etl_stream_source_streaming{pipeline=\"d\",source=\"shop\"} 1",
        "etl_stream_pipeline_running{pipeline=\"b\"} 1",
        "etl_stream_pipeline_running{pipeline=\"broken.yaml\"} 0",
        "etl_stream_batches_sealed_total{pipeline=\"a\",sink=\"files\"",
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }
    assert_eq!(metrics.matches("# TYPE etl_stream_source_lag_bytes gauge").count(), 1, "a family stands together");

    stop.send_replace(true);
    writes.await.unwrap();
    for table in ["a", "b", "d"] {
        many.equal(&postgres, table).await;
    }
    ends(&many, child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_waits_alone() {
    let (postgres, writes, stop) = shop().await;
    let url = postgres.url("shop");
    let many = Many::new();
    for table in ["a", "b"] {
        many.write(&format!("{table}.yaml"), &file(&url, table, ""));
    }
    let child = many.start();
    wait_for("rows", || many.rows("a") > 5 && many.rows("b") > 5);
    let client = postgres.client("shop").await;
    let drop_slot = "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = 'etl_stream_b_shop'";
    client.batch_execute(drop_slot).await.unwrap();
    while client.batch_execute("SELECT pg_drop_replication_slot('etl_stream_b_shop')").await.is_err() {
        client.batch_execute(drop_slot).await.unwrap();
    }
    wait_for("its failure", || many.is("b", "retrying") && many.shown("b")["failures"].as_u64().is_some_and(|times| times >= 2));
    let shown = many.shown("b");
    assert!(shown["reason"].as_str().unwrap().contains("PG00") && shown["tries_again_at"].is_number(), "{shown}");
    let status: Value = serde_json::from_str(&many.get("/api/v1/status?pipeline=b")).unwrap();
    assert_eq!(status["state"], "retrying");
    assert!(many.get("/ready").contains("\"pipeline\":\"b\""));
    assert!(many.get("/metrics").contains("etl_stream_pipeline_running{pipeline=\"b\"} 0"));
    let before = many.rows("a");
    wait_for("rows of the other", || many.rows("a") > before + 20);
    assert_eq!(many.shown("a")["failures"], 0);
    stop.send_replace(true);
    writes.await.unwrap();
    many.equal(&postgres, "a").await;
    ends(&many, child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_to_catch_up_ends() {
    let (postgres, writes, stop) = shop().await;
    let url = postgres.url("shop");
    stop.send_replace(true);
    writes.await.unwrap();
    let many = Many::new();
    let folder = many.project.path().join("pipelines");
    fs::write(folder.join("etl-stream.yaml"), "engine: { workers: 2, connections: { total: 9 } }\nserver: none\n").unwrap();
    for table in TABLES {
        many.write(&format!("{table}.yaml"), &file(&url, table, ""));
    }
    many.project.succeeds(&["run", "pipelines", "--until", "caught-up"]);
    for table in TABLES {
        many.equal(&postgres, table).await;
    }
    many.write("f.yaml", &file(&url, "f", ", snapshot: { mode: never }"));
    let failed = many.project.run(&["run", "pipelines", "--until", "caught-up"]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(failed.status.code() != Some(0) && said.contains("\"pipeline\":\"f\""), "{:?} {said}", failed.status);
    fs::write(folder.join("etl-stream.yaml"), "workers: 2\n").unwrap();
    assert_eq!(many.project.run(&["run", "pipelines"]).status.code(), Some(2));
}
