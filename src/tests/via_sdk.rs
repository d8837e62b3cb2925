//! A pipeline that changes the way its rows go to Snowflake, killed in between.

use crate::harness::{Project, signal};
use crate::python::Running;
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, number, until};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::python::python;
use etl_stream_operators::testing::snowflake::LocalSnowflake;

const LANDED: &str = "SELECT COUNT(*) FROM RAW.SHOP.ORDERS__CHANGES";

#[tokio::test]
async fn from_rest_to_the_sdk_and_back_killed_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let (snowflake, postgres) = (LocalSnowflake::start_tls(&folder.path().join("ca.pem")), Postgres::start());
    snowflake.sql("CREATE DATABASE RAW").await;
    snowflake.faults(serde_json::json!({ "commit_delay_ms": 100 })).await;
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY, n int, t text); INSERT INTO orders SELECT i, 0, 'x' FROM generate_series(1, 500) i").await.unwrap();
    let sdk = format!(
        "via: sdk, sdk: {{ python: \"{}\", url: \"{}\", ca_file: \"{}\" }}",
        python().display(),
        snowflake.tls_url(),
        folder.path().join("ca.pem").display()
    );
    let text = |way: &str| {
        format!(
            "sources:
  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }} }}
sinks:
  warehouse: {{ inputs: [shop], {}, schema: SHOP, channels: 2, batch: {{ max_rows: 37, max_age: 20ms }}, merge: {{ interval: 200ms }}, {way} }}
server: none
",
            postgres.url("shop"),
            account(&snowflake)
        )
    };
    let project = Project::new(&text("via: rest"));
    for (round, way) in ["via: rest", &sdk, "via: rest", &sdk].into_iter().enumerate() {
        std::fs::write(project.path().join("pipeline.yaml"), text(way)).unwrap();
        let landed = number(&snowflake, LANDED).await;
        let mut running = Running(project.start(&["run"]));
        let child = &mut running.0;
        let base = 1_000 * (round + 1);
        for part in 0..10 {
            let sql = format!(
                "BEGIN; INSERT INTO orders SELECT {base} + {part} * 50 + i, {round}, 'y' FROM generate_series(1, 50) i; UPDATE orders SET n = n + 1 WHERE id <= 100; DELETE FROM orders WHERE id = {base} + {part} * 50 - 3; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        until("rows that land", &snowflake, LANDED, |rows| rows > landed + 100).await;
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
        signal(child, "KILL");
        child.wait().unwrap();
    }
    for way in ["via: rest", &sdk] {
        std::fs::write(project.path().join("pipeline.yaml"), text(way)).unwrap();
        project.succeeds(&["run", "--until", "caught-up"]);
        let query = "SELECT id, n, t FROM ";
        assert_same(
            "orders",
            &in_snowflake(&snowflake, &format!("{query} RAW.SHOP.ORDERS")).await,
            &in_postgres(&client, &format!("{query} orders")).await,
        );
        let counts = in_snowflake(&snowflake, "SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.SHOP.ORDERS__CHANGES").await;
        assert_eq!(counts[0][0], counts[0][1], "tokens land once");
        client.batch_execute("UPDATE orders SET t = 'z' WHERE id % 2 = 0").await.unwrap();
    }
}
