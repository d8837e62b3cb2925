//! What goes wrong before anything runs: a coded error, the right exit code, nothing written.

use crate::harness::Project;
use etl_stream_operators::testing::postgres::Postgres;
use std::fs;

const SINK: &str = "sinks:\n  out: { type: file, inputs: [shop], path: out }\nserver: none\n";

fn source(url: &str, rest: &str) -> String {
    format!("sources:\n  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.*\"] }}{rest} }}\n")
}

/// Runs a pipeline and expects this code and exit code, and nothing in the sink.
fn refused(what: &str, pipeline: &str, code: &str, exit: i32) {
    let project = Project::new(pipeline);
    fs::write(project.path().join("not.p8"), "this is no key").unwrap();
    let output = project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{what}:\n{log}");
    assert!(log.contains(code), "{what}: expected {code} in:\n{log}");
    assert!(!log.contains("secret-word"), "{what}: the log holds a password");
    let written: Vec<_> = fs::read_dir(project.path().join("out")).into_iter().flatten().flatten().filter(|e| e.path().is_dir()).collect();
    assert!(written.is_empty(), "{what}: {written:?}");
    let page = project.succeeds(&["explain", code]);
    assert!(page.contains(code), "{what}: {page}");
}

#[test]
fn pipeline_files() {
    let fine = source("postgres://127.0.0.1:1/x", "");
    for (what, pipeline, code) in [
        ("not YAML", "sources: [".to_owned(), "CFG0001"),
        ("unknown node type", format!("{fine}sinks:\n  out: {{ type: flie, inputs: [shop] }}\n"), "CFG0006"),
        ("no such input", format!("{fine}sinks:\n  out: {{ type: blackhole, inputs: [shp] }}\n"), "CFG0004"),
        (
            "a cycle",
            format!(
                "{fine}operators:\n  a: {{ type: filter, inputs: [b], where: \"id > 1\" }}\n  b: {{ type: filter, inputs: [a], where: \"id > 1\" }}\nsinks:\n  out: {{ type: blackhole, inputs: [b] }}\n"
            ),
            "CFG0005",
        ),
        (
            "a predicate that does not parse",
            format!(
                "{fine}operators:\n  a: {{ type: filter, inputs: [shop], where: \"id >\" }}\nsinks:\n  out: {{ type: blackhole, inputs: [a] }}\n"
            ),
            "CFG0030",
        ),
    ] {
        refused(what, &pipeline, code, 2);
    }
}

#[tokio::test]
async fn servers_and_privileges() {
    let postgres = Postgres::start_with(&["max_replication_slots=2"]);
    let client = postgres.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
             CREATE ROLE plain LOGIN PASSWORD 'secret-word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain;
             CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'secret-word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO replicator;",
        )
        .await
        .unwrap();
    let hba = postgres.data().join("pg_hba.conf");
    fs::write(
        &hba,
        format!(
            "host all plain,replicator 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n{}",
            fs::read_to_string(&hba).unwrap()
        ),
    )
    .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let at = |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", postgres.port());
    let run = |what: &str, url: &str, rest: &str, code: &str| refused(what, &format!("{}{SINK}", source(url, rest)), code, 3);
    run("nobody listens", "postgres://postgres@127.0.0.1:1/shop", ", retry: { give_up_after: 1s }", "PG0001");
    run("wrong password", &at("plain:secret-word-not", "shop"), "", "PG0002");
    run("no such database", &at("postgres", "nowhere"), "", "PG0003");
    run("a server without TLS", &format!("{}?sslmode=require", at("postgres", "shop")), "", "PG0004");
    run("no REPLICATION", &at("plain:secret-word", "shop"), "", "PG0008");
    run("publication missing and not creatable", &at("replicator:secret-word", "shop"), "", "PG0011");
    let nothing = source(&at("postgres", "shop"), "").replace("public.*", "absent.*");
    refused("no table matches", &format!("{nothing}{SINK}"), "PG0017", 3);
    let slot = "SELECT pg_create_logical_replication_slot('etl_stream_pipeline_shop', 'pgoutput')";
    client.batch_execute(slot).await.unwrap();
    run("a slot that nobody remembers", &at("postgres", "shop"), "", "PG0015");
    let mut minimal = Postgres::start_with(&["wal_level=replica"]);
    minimal.database("shop").await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    run("wal_level is not logical", &minimal.url("shop"), "", "PG0010");
    minimal.stop();
}
