//! Publications that a user made, and what a pipeline does with each: to files, by content.

use crate::harness::{Project, history};
use etl_stream_operators::testing::postgres::Postgres;
use tokio_postgres::Client;

/// A case: its name, the server version it needs, what is there before, the settings, what happens, the rows that
/// come as `table op columns…`, and a word of the log.
struct Case {
    name: &'static str,
    version: u32,
    setup: &'static str,
    settings: &'static str,
    changes: &'static str,
    rows: &'static [&'static str],
    log: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "all_tables",
        version: 0,
        setup: "CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other.t (id int PRIMARY KEY);
                CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE PUBLICATION p FOR ALL TABLES",
        settings: "publication: p",
        changes: "CREATE TEMPORARY TABLE temp (id int PRIMARY KEY); INSERT INTO temp VALUES (1); INSERT INTO u VALUES (1);
                  INSERT INTO t VALUES (1); INSERT INTO other.t VALUES (2); TRUNCATE t, other.t",
        rows: &["other.t i {\"id\":2}", "other.t t {\"id\":null}", "public.t i {\"id\":1}", "public.t t {\"id\":null}"],
        log: "streaming",
    },
    Case {
        name: "schemas",
        version: 150_000,
        setup: "CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other.t (id int PRIMARY KEY);
                INSERT INTO other.t VALUES (1); CREATE PUBLICATION p FOR TABLES IN SCHEMA other",
        settings: "publication: p",
        changes: "INSERT INTO t VALUES (1); UPDATE other.t SET id = 2",
        rows: &["other.t r {\"id\":1}", "other.t d {\"id\":1}", "other.t i {\"id\":2}"],
        log: "left out",
    },
    Case {
        name: "inserts_only",
        version: 0,
        setup: "CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')",
        settings: "publication: p",
        changes: "INSERT INTO t VALUES (1); UPDATE t SET id = 2; DELETE FROM t; TRUNCATE t; INSERT INTO t VALUES (3)",
        rows: &["public.t i {\"id\":1}", "public.t i {\"id\":3}"],
        log: "leaves out updates, deletes, truncates",
    },
    Case {
        name: "generated",
        version: 180_000,
        setup: "CREATE TABLE t (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a + 1) STORED, v int GENERATED ALWAYS AS (a + 2) VIRTUAL);
                INSERT INTO t VALUES (1, 1); CREATE PUBLICATION p FOR TABLE t WITH (publish_generated_columns = stored)",
        settings: "publication: p",
        changes: "UPDATE t SET a = 5",
        rows: &["public.t r {\"id\":1,\"a\":1,\"s\":2}", "public.t u {\"id\":1,\"a\":5,\"s\":6}"],
        log: "streaming",
    },
    Case {
        name: "generated_listed",
        version: 180_000,
        setup: "CREATE TABLE t (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a + 1) STORED);
                INSERT INTO t VALUES (1, 1); CREATE PUBLICATION p FOR TABLE t (id, s)",
        settings: "publication: p",
        changes: "UPDATE t SET a = 5",
        rows: &["public.t r {\"id\":1,\"s\":2}", "public.t u {\"id\":1,\"s\":6}"],
        log: "streaming",
    },
    Case {
        name: "generated_left_out",
        version: 0,
        setup: "CREATE TABLE t (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO t VALUES (1, 1)",
        settings: "tables: { include: [public.t] }",
        changes: "UPDATE t SET a = 5",
        rows: &["public.t r {\"id\":1,\"a\":1}", "public.t u {\"id\":1,\"a\":5}"],
        log: "streaming",
    },
    Case {
        name: "names",
        version: 0,
        setup: "CREATE TABLE \"a/b\" (\"ID\" int PRIMARY KEY, id int); CREATE TABLE \"A/B\" (id int PRIMARY KEY); CREATE SCHEMA \"x.y\"; CREATE SCHEMA x;
                CREATE TABLE \"x.y\".z (id int PRIMARY KEY); CREATE TABLE x.\"y.z\" (id int PRIMARY KEY); CREATE TABLE \"..\" (id int PRIMARY KEY)",
        settings: "tables: { include: [\"*.*\"] }",
        changes: "INSERT INTO \"a/b\" VALUES (1, 2); INSERT INTO \"A/B\" VALUES (2); INSERT INTO \"x.y\".z VALUES (3); INSERT INTO x.\"y.z\" VALUES (4);
                  INSERT INTO \"..\" VALUES (5)",
        rows: &[
            "public... i {\"id\":5}",
            "public.A%2FB i {\"id\":2}",
            "public.a%2Fb i {\"ID\":1,\"id\":2}",
            "x%2Ey.z i {\"id\":3}",
            "x.y.z i {\"id\":4}",
        ],
        log: "streaming",
    },
    Case {
        name: "partitions_truncated_alone",
        version: 0,
        setup: "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
                CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1), (11);
                CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root = false)",
        settings: "publication: p",
        changes: "TRUNCATE t1; UPDATE t SET id = 2 WHERE id = 11; TRUNCATE t",
        rows: &[
            "public.t1 r {\"id\":1}",
            "public.t1 t {\"id\":null}",
            "public.t1 i {\"id\":2}",
            "public.t1 t {\"id\":null}",
            "public.t2 r {\"id\":11}",
            "public.t2 d {\"id\":11}",
            "public.t2 t {\"id\":null}",
        ],
        log: "streaming",
    },
];

async fn check(postgres: &Postgres, case: &Case) {
    let client: Client = postgres.database(case.name).await;
    client.batch_execute(case.setup).await.unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
    let project = Project::new(&format!(
        "sources:\n  pg: {{ type: postgres, url: {{ plain: \"{}\" }}, slot: {}, {} }}\nsinks:\n  files: {{ type: file, inputs: [pg], path: out }}\nserver: none\n",
        postgres.url(case.name),
        case.name,
        case.settings
    ));
    let output = project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {log}", case.name);
    assert!(log.contains(case.log), "{}: no {:?} in {log}", case.name, case.log);
    for change in case.changes.split(';') {
        client.batch_execute(change).await.unwrap_or_else(|e| panic!("{}: {change}: {e:?}", case.name));
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    let out = project.path().join("out");
    let mut folders: Vec<String> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    folders.retain(|name| !name.starts_with('.'));
    folders.sort();
    let mut rows = Vec::new();
    for folder in folders {
        for (_, mut row) in history(&out, &folder) {
            let op = row["_op"].as_str().unwrap().to_owned();
            row.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
            rows.push(format!("{folder} {op} {row}"));
        }
    }
    assert_eq!(rows, case.rows, "{}", case.name);
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{}')", case.name)).await.unwrap();
}

#[tokio::test]
async fn of_every_kind() {
    let postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    for case in CASES.iter().filter(|case| case.version <= version.cast_unsigned()) {
        check(&postgres, case).await;
    }
}
