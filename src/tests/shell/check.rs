//! `check`: everything that is wrong, at once, and nothing changed.

use super::*;

#[tokio::test]
async fn check_finds_everything_at_once_and_changes_nothing() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    let project = Project::new(&pipeline(&postgres.url("shop"), TABLES, FILES, free_port()));
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (v int); CREATE VIEW v AS SELECT 1").await.unwrap();
    let there = async || -> Vec<i64> {
        let sql = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication)";
        let row = client.query_one(sql, &[]).await.unwrap();
        vec![row.get(0), row.get(1)]
    };
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().any(|f| f.starts_with("warning - shop: table \"public.keyless\" has no primary key")), "{findings:#?}");
    assert!(findings.iter().any(|f| f.contains("`run` makes it for 2 tables")), "{findings:#?}");
    assert_eq!(there().await, [0, 0]);
    assert!(!project.path().join("out").exists() && !project.path().join(".etl-stream").exists(), "nothing is made");

    // A user who may do little, tables that are not there, a folder that is none: all of it is said in one run.
    client
        .batch_execute(
            "CREATE ROLE plain LOGIN; CREATE TABLE secret (id int PRIMARY KEY, _op text); CREATE TABLE taken (id int PRIMARY KEY);
             ALTER TABLE taken REPLICA IDENTITY NOTHING; GRANT SELECT ON t, taken, keyless TO plain; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             CREATE PUBLICATION theirs FOR TABLE t, secret, taken WITH (publish = 'insert')",
        )
        .await
        .unwrap();
    fs::write(project.path().join("out"), "a file").unwrap();
    let source =
        "publication: theirs, tables: { include: [\"public.*\", \"public.v\", \"public.nope\", \"other.*\"] }, keys: { public.t2: [a] }";
    let url = postgres.url("shop").replace("postgres@", "plain@");
    fs::write(project.path().join("pipeline.yaml"), pipeline(&url, source, FILES, free_port())).unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(3), "{findings:#?}");
    for expected in [
        "error PG0008 shop: ",
        "error PG0020 shop: user \"plain\" may not read table \"public.secret\"",
        "error PG0020 shop: row level security hides rows of table \"public.t\"",
        "warning - shop: selected tables are not in publication \"theirs\" and do not come: \"public\".\"keyless\"",
        "warning - shop: `include: other.*` fits no table",
        "warning - shop: a table that `tables` names does not come: public.v: it is a view",
        "warning - shop: a table that `tables` names does not come: public.nope: there is no such relation",
        "warning - shop: publication \"theirs\" leaves out updates, deletes, truncates",
        "warning - shop: table \"public.taken\" has REPLICA IDENTITY NOTHING",
        "warning - shop: `keys` names \"public.t2\"",
        "error FS0002 files: ",
        "error FS0006 files: column \"_op\" of table \"public.secret\"",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    assert_eq!(there().await, [0, 1]);

    // Without a server nothing else of the source can be seen, and the sink is looked at all the same.
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", free_port());
    fs::write(project.path().join("pipeline.yaml"), pipeline(&url, TABLES, FILES, free_port())).unwrap();
    let (code, findings) = check(&project);
    assert_eq!((code, findings.iter().filter(|f| f.starts_with("error")).count()), (Some(3), 2), "{findings:#?}");
    fs::write(project.path().join("pipeline.yaml"), "sources: {}").unwrap();
    assert_eq!(project.run(&["check"]).status.code(), Some(2));
    let human = {
        fs::write(project.path().join("pipeline.yaml"), pipeline(&url, TABLES, FILES, free_port())).unwrap();
        project.run(&["check"])
    };
    assert!(
        human.status.code() == Some(3) && said(&human).contains("source shop (postgres)") && said(&human).contains("error    [PG0001]"),
        "{}",
        said(&human)
    );
}

#[tokio::test]
async fn check_compares_slot_and_state_and_knows_a_running_pipeline() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let project = Project::new(&pipeline(&postgres.url("shop"), TABLES, FILES, free_port()));
    project.succeeds(&["run", "--until", "caught-up"]);
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().any(|f| f.contains("is this source's, and stands at")), "{findings:#?}");

    let child = project.start(&["run"]);
    wait_for("streaming", || status(&project)["sources"][0]["phase"] == "streaming");
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().filter(|f| f.contains("the pipeline runs")).count() == 2, "{findings:#?}");
    ends(child, &project);

    let slot = "etl_stream_pipeline_shop";
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}'); DROP PUBLICATION {slot}")).await.unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(3), "{findings:#?}");
    for expected in ["error PG0016 shop: ", "error PG0011 shop: "] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    client
        .batch_execute(&format!("CREATE PUBLICATION {slot} FOR TABLE t; SELECT pg_create_physical_replication_slot('{slot}')"))
        .await
        .unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error PG0019 shop: ")), "{findings:#?}");
}

#[tokio::test]
async fn check_asks_snowflake() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (v int); CREATE TABLE \"T\" (id int PRIMARY KEY)")
        .await
        .unwrap();
    let sink = |rest: &str| format!("  warehouse: {{ inputs: [shop], {}, {rest} }}", account(&snowflake));
    let only = |table: &str| format!("tables: {{ include: [\"public.{table}\"] }}");
    let project = Project::new(&pipeline(&postgres.url("shop"), &only("t"), &sink("schema: SHOP"), free_port()));
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    for expected in [
        "ok - warehouse: the key is accepted",
        "ok - warehouse: Snowpipe Streaming can be reached",
        "ok - warehouse: schema \"RAW\".\"SHOP\" does not exist; `run` makes it",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    let schemas = snowflake.sql("SELECT COUNT(*) FROM RAW.INFORMATION_SCHEMA.SCHEMATA WHERE SCHEMA_NAME = 'SHOP'").await;
    assert_eq!(schemas[0][0].as_deref(), Some("0"), "nothing is made");

    project.succeeds(&["run", "--until", "caught-up"]);
    let (code, findings) = check(&project);
    assert!(code == Some(0) && findings.iter().any(|f| f.contains("1 tables are there and this pipeline's")), "{findings:#?}");

    snowflake.sql("CREATE TABLE RAW.SHOP.OTHER (ID NUMBER)").await;
    client.batch_execute("CREATE TABLE other (id int PRIMARY KEY)").await.unwrap();
    fs::write(
        project.path().join("pipeline.yaml"),
        format!("name: second\n{}", pipeline(&postgres.url("shop"), TABLES, &sink("schema: SHOP"), free_port())),
    )
    .unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(2), "names and keys are the file's: {findings:#?}");
    for expected in [
        "error SF0006 warehouse: table \"public.keyless\"",
        "error SF0005 warehouse: table \"public.T\"",
        "error SF0005 warehouse: table \"public.t\" of source \"shop\" was not created",
        "warning - warehouse: table \"RAW\".\"SHOP\".\"OTHER\" exists",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }

    fs::write(
        project.path().join("pipeline.yaml"),
        pipeline(&postgres.url("shop"), &only("t"), &sink("schema: NONE, create_schema: false"), free_port()),
    )
    .unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error SF0004 warehouse: schema \"RAW\".\"NONE\"")), "{findings:#?}");
    fs::write(project.path().join("snowflake.p8"), "no key").unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error SF0001 warehouse: ")), "{findings:#?}");
}
