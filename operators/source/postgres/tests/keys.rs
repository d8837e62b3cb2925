//! Keys, and that the catalog and the stream describe a table alike.

use super::driver::Setup;
use crate::contract::{MemoryState, StateKey, StateStore};
use crate::testing::postgres::Postgres;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog_and_stream_agree_on_columns_and_keys() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN money10 AS numeric(10,2) CHECK (VALUE > 0);
             CREATE TYPE pair AS (a int, b text);
             CREATE TABLE plain (b int, a int, c mood, d money10, e int[], f pair, g varchar(7), PRIMARY KEY (a, b));
             ALTER TABLE plain ADD h mood[] NOT NULL DEFAULT '{good}', ADD i timestamptz(3) DEFAULT '2020-01-01', ADD j box DEFAULT '(1,1),(0,0)';
             CREATE TABLE whole (a int, b int PRIMARY KEY); ALTER TABLE whole REPLICA IDENTITY FULL;
             CREATE TABLE indexed (a int PRIMARY KEY, b int NOT NULL, c int NOT NULL);
             CREATE UNIQUE INDEX by_cb ON indexed (c, b) INCLUDE (a); ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_cb;
             CREATE TABLE told (a int, b int); ALTER TABLE told REPLICA IDENTITY FULL;
             CREATE TABLE keyless (a int, b int); ALTER TABLE keyless REPLICA IDENTITY FULL",
        )
        .await
        .unwrap();
    let setup = Setup::new(&server, "shop", json!({ "keys": { "public.told": ["b", "a"] } }));
    let source = setup.start();
    source.until("copied", |replica| replica.log.iter().filter(|l| l.starts_with("end")).count() == 5).await;
    let copied = source.replica(|replica| replica.schemas.clone());
    client
        .batch_execute(
            "INSERT INTO plain (a, b) VALUES (1, 2); INSERT INTO whole VALUES (1, 2); INSERT INTO indexed VALUES (1, 2, 3);
             INSERT INTO told VALUES (1, 2); INSERT INTO keyless VALUES (1, 2)",
        )
        .await
        .unwrap();
    source.caught_up(&client).await;
    let replica = source.stop().await;
    let marks: Vec<&String> = replica.log.iter().filter(|line| line.starts_with("schema")).collect();
    assert!(marks.is_empty(), "the stream describes what the snapshot described: {marks:?}");
    for (name, key) in [("plain", &["a", "b"][..]), ("whole", &["b"]), ("indexed", &["c", "b"]), ("told", &["b", "a"]), ("keyless", &[])] {
        let table = &replica.schemas[&format!("public.{name}")];
        assert_eq!(table, &copied[&format!("public.{name}")]);
        let names: Vec<&str> = table.key().into_iter().map(|i| &*table.columns[i].name).collect();
        assert_eq!(names, key, "{name}");
    }
    let plain = &replica.schemas["public.plain"];
    let missing: Vec<Option<&str>> = plain.columns.iter().map(|c| c.missing.as_deref()).collect();
    assert_eq!(missing[..7], [None; 7]);
    assert_eq!(missing[7..], [Some("{good}"), Some("2020-01-01 00:00:00+00"), Some("(1,1),(0,0)")]);
    let nullable: Vec<&str> = plain.columns.iter().filter(|c| !c.nullable).map(|c| &*c.name).collect();
    assert_eq!(nullable, ["b", "a", "h"]);
    // a restart describes the tables again, since sinks start with nothing
    let source = setup.start();
    client.batch_execute("INSERT INTO plain (a, b) VALUES (2, 2)").await.unwrap();
    source.caught_up(&client).await;
    assert_eq!(source.stop().await.log[0], "schema public.plain(b,a,c,d,e,f,g,h,i,j)");
    let state: &MemoryState = &setup.state;
    assert_eq!(state.list("test", "shop").unwrap().len(), 6);
    assert_eq!(state.load(&StateKey::node("test", "shop")).unwrap().unwrap()["stage"], json!("streaming"));
}
