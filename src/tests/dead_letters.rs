//! Rows that Snowflake refuses, with the real binary: killed while it happens, listed, and replayed.

use crate::harness::{Project, signal};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, number, snowflake, until};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SHOP: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, note text, big text);
    ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
    INSERT INTO orders SELECT i, CASE WHEN i % 50 = 7 THEN 'poison' ELSE 'n' END || i, repeat('b', 3000) FROM generate_series(1, 300) i;";

const TARGET: &str = "SELECT ID, NOTE, BIG FROM RAW.SHOP.ORDERS";

fn pipeline(postgres: &Postgres, snowflake: &LocalSnowflake, more: &str) -> Project {
    Project::new(&format!(
        "sources:
  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }} }}
sinks:
  warehouse:
    {{ inputs: [shop], {}, schema: SHOP, merge: {{ interval: 50ms }}, batch: {{ max_rows: 20, max_age: 20ms }}, channels: 2{more} }}
server: none
",
        postgres.url("shop"),
        account(snowflake)
    ))
}

#[tokio::test]
async fn refused_rows_survive_kills_and_are_replayed() {
    for more in ["", ", dead_letter: { folder: ./dead }"] {
        let (snowflake, postgres) = (snowflake().await, Postgres::start());
        let client = postgres.database("shop").await;
        client.batch_execute(SHOP).await.unwrap();
        let project = pipeline(&postgres, &snowflake, more);
        snowflake.faults(json!({ "reject_rows_matching": "poison", "commit_delay_ms": 30 })).await;
        let landed = "SELECT COUNT(*) FROM RAW.SHOP.ORDERS__CHANGES";
        let streamed = "SELECT COUNT(*) FROM RAW.SHOP.ORDERS__CHANGES WHERE _OP <> 'r'";
        for round in 0..3_u64 {
            let before = number(&snowflake, streamed).await;
            let mut child = project.start(&["run"]);
            if round == 0 {
                until("the snapshot's rows", &snowflake, landed, |n| n > 50).await;
            } else {
                // What changes before the snapshot that follows an unfinished one is in it, and never streamed.
                until("the snapshot", &snowflake, "SELECT COUNT(*) FROM RAW.SHOP._ETL_STREAM_PROGRESS WHERE SNAPSHOT_DONE", |n| n > 0)
                    .await;
                for step in 0..12 {
                    let change = format!(
                        "BEGIN; UPDATE orders SET note = 'poison r{round}.{step}' WHERE id = 100 + {step} / 2; UPDATE orders SET note = 's' || {step} WHERE id = {step};
                         INSERT INTO orders VALUES ({round}000 + {step}, 'poison', 'x'); UPDATE orders SET note = 'fine' WHERE id = {round}000 + {step} AND {step} % 3 = 0; COMMIT"
                    );
                    client.batch_execute(&change).await.unwrap();
                }
                until("changes", &snowflake, streamed, |n| n > before + 3 * round % 7).await;
            }
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
            signal(&child, "KILL");
            child.wait().unwrap();
        }
        project.succeeds(&["run", "--until", "caught-up"]);
        assert!(!project.log().contains("poison"), "the log holds values");

        let list = |arguments: &[&str]| -> Vec<Value> {
            let listed = project.succeeds(&[["dead-letter", "list", "--format", "json"].as_slice(), arguments].concat());
            listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let letters = list(&[]);
        let tokens: BTreeSet<&str> = letters.iter().map(|l| l["token"].as_str().unwrap()).collect();
        assert_eq!(tokens.len(), letters.len(), "a row has one letter");
        assert!(letters.len() > 6 && letters.iter().all(|l| l["code"] == "SF0007" && l["row"].as_str().unwrap().contains("poison")));
        assert!(project.succeeds(&["dead-letter", "list"]).lines().all(|line| line.contains("SF0007") && !line.contains("poison")));
        let counts = in_snowflake(&snowflake, "SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.SHOP.ORDERS__CHANGES").await;
        assert_eq!(counts[0][0], counts[0][1]);

        assert_eq!(project.run(&["dead-letter", "replay"]).status.code(), Some(4), "the cause is not fixed");
        snowflake.faults(json!({ "reject_rows_matching": null })).await;
        // Those of a snapshot that was begun again are out of the way by now.
        let open = list(&[]).len();
        assert_eq!(project.succeeds(&["dead-letter", "replay", "--table", "public.other"]), "");
        let replayed = project.succeeds(&["dead-letter", "replay", "--table", "public.orders"]);
        assert_eq!(replayed.lines().count(), open, "{replayed}");
        assert_eq!((list(&[]).len(), list(&["--all"]).len()), (0, letters.len()));
        let source = "SELECT id, note, big FROM orders";
        assert_same("orders", &in_snowflake(&snowflake, TARGET).await, &in_postgres(&client, source).await);
        // Nothing of it disturbs what comes next.
        client.batch_execute("UPDATE orders SET note = 'after' WHERE id < 40; DELETE FROM orders WHERE id > 250").await.unwrap();
        project.succeeds(&["run", "--until", "caught-up"]);
        assert_same("orders", &in_snowflake(&snowflake, TARGET).await, &in_postgres(&client, source).await);
    }
}

#[tokio::test]
async fn no_place_for_letters() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    postgres.database("shop").await.batch_execute(SHOP).await.unwrap();
    let project = pipeline(&postgres, &snowflake, ", dead_letter: stop");
    snowflake.faults(json!({ "reject_rows_matching": "poison" })).await;
    let output = project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("SF0007") && !log.contains("poison"), "{log}");
    let output = project.run(&["dead-letter", "list"]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("RUN0020"));
}
