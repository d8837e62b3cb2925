//! Values that PostgreSQL did not send, on their way through operators: what is known arrives, what is not known
//! stops the pipeline, and truncates and deletes pass.

use crate::harness::{Project, history};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;

/// `full` differs from `plain` in its replica identity; `big` makes a value that an update which leaves it does not send.
const SETUP: &str = "
    CREATE FUNCTION big(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT string_agg(md5($1 || i), '') FROM generate_series(1, 100) i $$;
    CREATE TABLE plain (id int PRIMARY KEY, a text, b text, n int, junk text);
    CREATE TABLE \"full\" (LIKE plain INCLUDING ALL);
    ALTER TABLE \"full\" REPLICA IDENTITY FULL;
    INSERT INTO plain SELECT i, big('a' || i), big('b' || i), i, big('j' || i) FROM generate_series(1, 12) i;
    INSERT INTO \"full\" SELECT * FROM plain;";

/// Every combination of what an update leaves, key changes among them, for both tables.
const CHANGES: &[&str] = &[
    "UPDATE %T SET n = n + 100 WHERE id < 6",
    "UPDATE %T SET a = big('x') WHERE id = 2",
    "UPDATE %T SET id = 20, n = 1 WHERE id = 3",
    "UPDATE %T SET id = 21, b = big('y') WHERE id = 20",
    "UPDATE %T SET junk = 'small'",
    "BEGIN; DELETE FROM %T WHERE id = 4; INSERT INTO %T VALUES (4, big('n'), 'short', -4, NULL); UPDATE %T SET n = 4 WHERE id = 4; COMMIT",
    "DELETE FROM %T WHERE id = 5",
];

/// Rows leave the condition, change while they are out, and come back without their large values.
const IN_AND_OUT: &[&str] = &[
    "UPDATE \"full\" SET n = -n WHERE id IN (7, 8, 9)",
    "UPDATE \"full\" SET a = big('out') WHERE id = 7",
    "UPDATE \"full\" SET n = 7 WHERE id = 7",
    "UPDATE \"full\" SET n = 8, id = 80 WHERE id = 8",
    "UPDATE \"full\" SET id = 90 WHERE id = 9",
];

const CLEARED: &str = "BEGIN; UPDATE %T SET n = 0 WHERE id = 1; TRUNCATE %T; INSERT INTO %T VALUES (1, big('t'), big('u'), 5, NULL), (2, NULL, NULL, -5, NULL); UPDATE %T SET n = n * 2; COMMIT";

fn project(postgres: &Postgres, snowflake: &LocalSnowflake, operators: &str, sinks: &[(&str, &str)]) -> Project {
    let mut text = format!(
        "sources:\n  pg: {{ type: postgres, url: {{ plain: \"{}\" }}, slot: s{} }}\noperators:\n{operators}sinks:\n",
        postgres.url("shop"),
        sinks[0].0
    );
    for (schema, rest) in sinks {
        text += &format!("  {schema}: {{ {}, schema: {}, {rest} }}\n", account(snowflake), schema.to_uppercase());
    }
    text += "  files: { type: file, inputs: [last], path: out }\nserver: none\n";
    Project::new(&text)
}

#[tokio::test]
async fn known_values_arrive() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(SETUP).await.unwrap();
    let shaped = "  masked: { type: mask, inputs: [pg], columns: { b: { with: keep_last, characters: 5 } } }
  slim: { type: project, inputs: [masked], columns: { \"public.*\": { drop: [junk] } } }
  named: { type: rename, inputs: [slim], columns: { public.plain.a: text_a, public.full.a: text_a } }
  last: { type: cast, inputs: [named], columns: { public.plain.n: text, public.full.n: text } }
  live: { type: filter, inputs: [pg], tables: [public.full], where: \"n > 0 AND a IS NOT NULL\" }
";
    let sinks = [
        ("shaped_hard", "inputs: [last], merge: { interval: 1h }"),
        ("shaped_soft", "inputs: [last], deletes: soft, merge: { interval: 100ms }"),
        ("live_hard", "inputs: [live], merge: { interval: 1h }"),
        ("live_soft", "inputs: [live], deletes: soft, merge: { interval: 1h }"),
    ];
    let project = project(&postgres, &snowflake, shaped, &sinks);
    let steps: [Vec<&str>; 4] = [vec![], [CHANGES, IN_AND_OUT].concat(), vec!["UPDATE %T SET n = n + 1"], vec![CLEARED]];
    for (round, step) in steps.iter().enumerate() {
        for change in step {
            for table in ["plain", "\"full\""] {
                client.batch_execute(&change.replace("%T", table)).await.unwrap_or_else(|e| panic!("{change}: {e:?}"));
                if !change.contains("%T") {
                    break;
                }
            }
        }
        project.succeeds(&["run", "--until", "caught-up"]);
        for (table, quoted) in [("PLAIN", "plain"), ("FULL", "\"full\"")] {
            let shaped = "SELECT id, a, repeat('*', length(b) - 5) || right(b, 5), n FROM";
            let wanted = in_postgres(&client, &format!("{shaped} {quoted}")).await;
            for (sink, only) in [("SHAPED_HARD", ""), ("SHAPED_SOFT", " WHERE NOT _ETL_DELETED")] {
                let there = in_snowflake(&snowflake, &format!("SELECT ID, TEXT_A, B, N FROM RAW.{sink}.{table}{only}")).await;
                assert_same(&format!("round {round}, {table} in {sink}"), &there, &wanted);
            }
            let condition = if table == "FULL" { " WHERE n > 0 AND a IS NOT NULL" } else { "" };
            let wanted = in_postgres(&client, &format!("SELECT id, a, b, n, junk FROM {quoted}{condition}")).await;
            for (sink, only) in [("LIVE_HARD", ""), ("LIVE_SOFT", " WHERE NOT _ETL_DELETED")] {
                let there = in_snowflake(&snowflake, &format!("SELECT ID, A, B, N, JUNK FROM RAW.{sink}.{table}{only}")).await;
                assert_same(&format!("round {round}, {table} in {sink}"), &there, &wanted);
            }
        }
    }
}

/// A filter without REPLICA IDENTITY FULL: a row comes in by an update that does not have its large value.
#[tokio::test]
async fn unknown_values_are_refused() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(SETUP).await.unwrap();
    let filter = |name: &str, more: &str| format!("  {name}: {{ type: filter, inputs: [pg], tables: [public.plain], {more} }}\n");
    let by_number = filter("last", "where: \"n > 6\"");
    let by_text = filter("last", "where: \"b <> 'x'\"");
    let cases = [
        ("enters", &by_number, "", "UPDATE plain SET n = 50 WHERE id = 1", Some("SF0012")),
        ("enters_soft", &by_number, ", deletes: soft", "UPDATE plain SET n = 50 WHERE id = 2", Some("SF0012")),
        (
            "comes_back",
            &by_number,
            ", deletes: soft",
            "UPDATE plain SET n = 0 WHERE id = 9; UPDATE plain SET n = 9 WHERE id = 9",
            Some("SF0012"),
        ),
        ("moves_in", &by_number, "", "UPDATE plain SET n = 50, id = 30 WHERE id = 3", Some("SF0012")),
        ("enters_and_goes", &by_number, "", "UPDATE plain SET n = 50 WHERE id = 4; DELETE FROM plain WHERE id = 4", None),
        ("stays", &by_number, "", "UPDATE plain SET n = n + 50 WHERE n > 6", None),
        ("hangs_on_it", &by_text, "", "UPDATE plain SET n = 5 WHERE id = 5", Some("OP0001")),
    ];
    for (name, operators, settings, change, code) in cases {
        let sink = format!("inputs: [last]{settings}");
        let project = project(&postgres, &snowflake, operators, &[(name, &sink)]);
        project.succeeds(&["run", "--until", "caught-up"]);
        let count = format!("SELECT COUNT(*), COUNT(B), MAX(_ETL_SEQ) FROM RAW.{}.PLAIN", name.to_uppercase());
        let before = in_snowflake(&snowflake, &count).await;
        client.batch_execute(change).await.unwrap();
        let output = project.run(&["run", "--until", "caught-up"]);
        let log = String::from_utf8_lossy(&output.stderr);
        match code {
            Some(code) => {
                assert_eq!(output.status.code(), Some(1), "{name}: {log}");
                assert!(log.contains(code) && log.contains("REPLICA IDENTITY FULL"), "{name}: {log}");
                assert_eq!(in_snowflake(&snowflake, &count).await, before, "{name}: nothing is merged");
            }
            None => {
                assert!(output.status.success(), "{name}: {log}");
                let wanted = in_postgres(&client, "SELECT id, a, b, n FROM plain WHERE n > 6").await;
                let there = in_snowflake(&snowflake, &format!("SELECT ID, A, B, N FROM RAW.{}.PLAIN", name.to_uppercase())).await;
                assert_same(name, &there, &wanted);
            }
        }
        if name == "enters" {
            let unsent = history(&project.path().join("out"), "public.plain").pop().unwrap().1;
            assert_eq!(unsent["_unchanged"], serde_json::json!(["a", "b", "junk"]), "files say so too");
        }
        client
            .batch_execute(&format!("SELECT pg_drop_replication_slot('s{name}'); DROP PUBLICATION etl_stream_pipeline_pg"))
            .await
            .unwrap();
    }
}
