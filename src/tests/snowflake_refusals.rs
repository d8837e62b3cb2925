//! What the Snowflake sink refuses: a coded error, the right exit code, no rows anywhere.

use crate::harness::Project;
use crate::warehouse::{in_snowflake, number, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::fs;

const SINK: &str =
    "type: snowflake, inputs: [shop], account: LOCAL, user: LOADER, database: RAW, schema: SHOP, retry: { give_up_after: 1s }";

/// Runs a pipeline and expects this code and exit code, and no row in any table.
async fn refused(postgres: &Postgres, snowflake: &LocalSnowflake, what: &str, database: &str, sink: &str, (code, exit): (&str, i32)) {
    let project = Project::new(&format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"*.*\"] }}, slot: {what}, publication: {what} }}\nsinks:\n  warehouse: {{ {sink} }}\nserver: none\n",
        postgres.url(database)
    ));
    fs::write(project.path().join("other.p8"), "this is no key, it is a secret-word").unwrap();
    let output = project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{what}:\n{log}");
    assert!(log.contains(code), "{what}: expected {code} in:\n{log}");
    assert!(!log.contains("secret-word"), "{what}: the log holds a secret");
    let page = project.succeeds(&["explain", code]);
    assert!(page.contains(code), "{what}: {page}");
    for table in in_snowflake(snowflake, "SELECT TABLE_NAME FROM RAW.INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'SHOP'").await {
        let rows = number(snowflake, &format!("SELECT COUNT(*) FROM RAW.SHOP.\"{}\"", table[0])).await;
        assert!(rows == 0 || table[0] == "_ETL_STREAM_PROGRESS", "{what}: {rows} rows in {}", table[0]);
    }
}

#[tokio::test]
async fn tables_names_and_keys() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let shop = "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 100)";
    postgres.database("fine").await.batch_execute(shop).await.unwrap();
    postgres.database("keyless").await.batch_execute("CREATE TABLE t (v text); INSERT INTO t VALUES ('x')").await.unwrap();
    let twice = format!("{shop}; CREATE SCHEMA other; SET search_path = other; {shop}");
    postgres.database("twice").await.batch_execute(&twice).await.unwrap();
    let key = "private_key: { file: ./snowflake.p8 }";
    let url = format!("url: \"{}\"", snowflake.url());
    for (what, database, sink, expected) in [
        ("not_a_key", "fine", format!("{SINK}, {url}, private_key: {{ file: ./other.p8 }}"), ("SF0001", 3)),
        ("unreachable", "fine", format!("{SINK}, url: \"http://127.0.0.1:1\", {key}"), ("SF0002", 3)),
        ("no_database", "fine", format!("{}, {url}, {key}", SINK.replace("RAW", "NOWHERE")), ("SF0004", 3)),
        ("two_fold_to_one", "twice", format!("{SINK}, {url}, {key}"), ("SF0005", 2)),
        ("no_primary_key", "keyless", format!("{SINK}, {url}, {key}"), ("SF0006", 2)),
        ("plain_http", "fine", format!("{SINK}, url: \"http://snowflake.example\", {key}"), ("CFG0050", 2)),
    ] {
        refused(&postgres, &snowflake, what, database, &sink, expected).await;
    }
}

/// Tables that come to the same place, or whose rows cannot be told apart: refused, whichever comes first.
#[tokio::test]
async fn places_and_keys() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let table = |name: &str| format!("CREATE TABLE {name} (id int PRIMARY KEY); INSERT INTO {name} VALUES (1);");
    for (what, setup, source, sink, expected) in [
        ("landing", [table("orders"), table("orders__changes")].concat(), "", "", ("SF0005", 2)),
        ("bookkeeping", table("_etl_stream_progress"), "", "", ("SF0005", 2)),
        ("columns", "CREATE TABLE t (id int PRIMARY KEY, \"Id\" int, \"ID\" int); INSERT INTO t VALUES (1)".into(), "", "", ("SF0005", 2)),
        ("own", "CREATE TABLE t (id int PRIMARY KEY, _op text); INSERT INTO t VALUES (1)".into(), "", "", ("SF0005", 2)),
        (
            "template",
            format!("{} CREATE SCHEMA a_b; {} CREATE SCHEMA a; {}", table("t"), table("a_b.c"), table("a.b_c")),
            "",
            ", table: \"{schema}_{table}\"",
            ("SF0005", 2),
        ),
        (
            "deferrable",
            "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1)".into(),
            "",
            "",
            ("SF0006", 2),
        ),
        (
            "null_in_key",
            "CREATE TABLE t (a int, b int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, NULL), (1, 2)".into(),
            ", keys: { public.t: [a, b] }",
            "",
            ("SF0016", 1),
        ),
    ] {
        postgres.database(what).await.batch_execute(&setup).await.unwrap();
        let project = Project::new(&format!(
            "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, slot: {what}{source} }}\nsinks:\n  warehouse: {{ {}, url: \"{}\", private_key: {{ file: ./snowflake.p8 }}{sink} }}\nserver: none\n",
            postgres.url(what),
            SINK.replace("SHOP", &what.to_uppercase()),
            snowflake.url()
        ));
        let output = project.run(&["run", "--until", "caught-up"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected.1), "{what}:\n{log}");
        assert!(log.contains(expected.0), "{what}: expected {} in:\n{log}", expected.0);
        assert_eq!(log.contains("keeps rows apart"), what == "null_in_key", "{what}: {log}");
    }
}
