//! Operators in Python in whole pipelines: what the how-to says, word by word.

use crate::harness::{Project, fold, signal, source_rows, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::python::python;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

/// The first fenced block of a language after a line that names a file.
fn block<'t>(text: &'t str, after: &str, language: &str) -> &'t str {
    let (_, rest) = text.split_once(after).unwrap_or_else(|| panic!("the page says {after}"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).expect("a block follows");
    rest.split_once("```").expect("the block ends").0
}

/// A project with the interpreter of the tests as `.venv`.
fn project(pipeline: &str, module: &str) -> Project {
    let project = Project::new(pipeline);
    let venv = python().parent().and_then(Path::parent).unwrap().to_owned();
    std::os::unix::fs::symlink(venv, project.path().join(".venv")).unwrap();
    fs::write(project.path().join("my_operators.py"), module).unwrap();
    project
}

/// A run that ends with the test, whatever that comes to.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_the_how_to_says() {
    let page = include_str!("../../docs/how-to/write-an-operator-in-python.md");
    let mut project = project(block(page, "`pipeline.yaml`", "yaml"), block(page, "`my_operators.py`", "python"));
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE customers (id int PRIMARY KEY, email text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO customers VALUES (1, 'Ann@Example.com'), (2, 'bot@test.example'), (3, NULL), (4, 'cy@example.org'); INSERT INTO other VALUES (1)",
        )
        .await
        .unwrap();
    project.env.push(("PG_URL".into(), postgres.url("shop")));
    project.succeeds(&["validate"]);
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("UPDATE customers SET email = 'dot@test.example' WHERE id = 4; DELETE FROM customers WHERE id = 3; UPDATE customers SET email = 'ANN@example.net' WHERE id = 1").await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    let out = project.path().join("out");
    let rows = fold(&out, "public.customers", &["id"]);
    let rows: Vec<String> = rows.values().map(|row| format!("{} {} {}", row["id"], row["email"], row["domain"])).collect();
    assert_eq!(rows, ["1 \"ann@example.net\" \"example.net\""], "4 became a test account, 3 is deleted, 2 never came");
    assert_eq!(fold(&out, "public.other", &["id"]).len(), 1, "a table that it does not name passes");
}

#[tokio::test]
async fn killed_at_any_moment_each_change_leaves_once() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 300) i")
        .await
        .unwrap();
    let pipeline = format!(
        "sources: {{ shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }} }} }}
operators: {{ same: {{ type: python, inputs: [shop], module: my_operators, function: same, python: .venv/bin/python }} }}
sinks: {{ files: {{ type: file, inputs: [same], format: ndjson, path: ./out, batch: {{ max_rows: 50, max_age: 20ms }} }} }}
server: none
",
        postgres.url("shop")
    );
    let project = project(&pipeline, "def same(batch):\n    return batch\n");
    let out = project.path().join("out");
    for round in 0..5 {
        let mut running = Running(project.start(&["run"]));
        let child = &mut running.0;
        for part in 0..20 {
            client
                .batch_execute(&format!(
                    "UPDATE t SET n = n + 1 WHERE id % 7 = {part} % 7; INSERT INTO t VALUES ({}, 7)",
                    1_000 + round * 100 + part
                ))
                .await
                .unwrap();
        }
        let wanted = 1_000 + round * 100 + 4 * round;
        wait_for("rows that leave", || {
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
            out.join("public.t").is_dir() && fold(&out, "public.t", &["id"]).keys().any(|key| key.contains(&wanted.to_string()))
        });
        if round % 2 == 0 {
            // The Python process alone: the run goes on.
            let own = child.id().to_string();
            let _ = Command::new("pkill").args(["-KILL", "-P", &own]).status();
        }
        signal(child, "KILL");
        child.wait().unwrap();
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_eq!(fold(&out, "public.t", &["id"]), source_rows(&postgres, "shop", "t", &["id"]).await);
    let history = crate::harness::history(&out, "public.t");
    let mut tokens: Vec<&String> = history.iter().map(|(token, _)| token).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), history.len(), "each once");
}
