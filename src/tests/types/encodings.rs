//! Databases that are not UTF-8: what the server can convert is exact, and what it cannot is refused.

use crate::harness::{Project, history};
use etl_stream_operators::testing::postgres::Postgres;

fn pipeline(postgres: &Postgres, source: &str, database: &str) -> Project {
    Project::new(&format!(
        "sources:
  {source}: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }} }}
sinks:
  lines: {{ type: file, inputs: [{source}], path: out, format: ndjson }}
server: none
",
        postgres.url(database)
    ))
}

#[tokio::test]
async fn other_encodings_are_converted_or_refused() {
    let postgres = Postgres::start();
    let admin = postgres.client("postgres").await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        admin
            .batch_execute(&format!("CREATE DATABASE \"{encoding}\" ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"))
            .await
            .unwrap();
    }
    let latin = postgres.client("LATIN1").await;
    latin.batch_execute("CREATE TABLE \"naïve\" (id int PRIMARY KEY, \"prénom\" text, a text[], b bytea); INSERT INTO \"naïve\" VALUES (1, 'é\u{a0}ÿ', '{é}', '\\xe9')").await.unwrap();
    let project = pipeline(&postgres, "latin", "LATIN1");
    project.succeeds(&["run", "--until", "caught-up"]);
    latin
        .batch_execute("INSERT INTO \"naïve\" SELECT 2, \"prénom\", a, b FROM \"naïve\"; UPDATE \"naïve\" SET a = '{ü}' WHERE id = 1")
        .await
        .unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    let rows = history(&project.path().join("out"), "public.naïve");
    let shown: Vec<String> = rows.iter().map(|(_, row)| format!("{} {} {} {}", row["id"], row["prénom"], row["a"], row["b"])).collect();
    assert_eq!(shown, ["1 \"é\u{a0}ÿ\" [\"é\"] \"\\\\xe9\"", "2 \"é\u{a0}ÿ\" [\"é\"] \"\\\\xe9\"", "1 \"é\u{a0}ÿ\" [\"ü\"] \"\\\\xe9\""]);
    // bytes that say nothing of their encoding: those of UTF-8 pass, others stop the pipeline with a code
    let ascii = postgres.client("SQL_ASCII").await;
    ascii.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'plain'), (2, 'é')").await.unwrap();
    let project = pipeline(&postgres, "ascii", "SQL_ASCII");
    project.succeeds(&["run", "--until", "caught-up"]);
    ascii.batch_execute("INSERT INTO t VALUES (3, E'caf\\xe9')").await.unwrap();
    let output = project.run(&["run", "--until", "caught-up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("PG0009") && said.contains("22021") && said.contains("convert_from"), "{said}");
    assert!(!said.contains("caf"), "values are not logged: {said}");
    assert_eq!(history(&project.path().join("out"), "public.t").len(), 2);
    // a snapshot says the same
    let project = pipeline(&postgres, "again", "SQL_ASCII");
    let output = project.run(&["run", "--until", "caught-up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("PG0009") && said.contains("22021") && said.contains("convert_from"), "{said}");
}
