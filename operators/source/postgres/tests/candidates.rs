//! The server narrows the tables that are looked at as the selection does.

use crate::contract::TableSelection;
use crate::source::postgres::catalog;
use crate::testing::postgres::Postgres;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_patterns_mean_the_same_to_the_server() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    let names = ["orders", "orders_1", "ordersX1", "50%", "50x", r"a\b", "a", "*", "ä", "Orders"];
    for schema in ["s", "s_1", "sx1"] {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
        for name in names {
            client.batch_execute(&format!("CREATE TABLE {schema}.\"{name}\" ()")).await.unwrap();
        }
    }
    let all: TableSelection = serde_json::from_value(json!({})).unwrap();
    let all = catalog::candidates(&client, &all).await.unwrap();
    assert_eq!(all.len(), 3 * names.len());
    for include in [
        json!(["s.orders"]),
        json!(["s_1.orders_1", "s.50%"]),
        json!(["*.orders*"]),
        json!([r"s.a\b", "s.ä", "sx1.*"]),
        json!(["s.%", "s.__", "*x*.*x*"]),
        json!([]),
    ] {
        let selection: TableSelection = serde_json::from_value(json!({ "include": include })).unwrap();
        let selected: Vec<_> = all.iter().filter(|(_, schema, table)| selection.matches(schema, table)).cloned().collect();
        assert_eq!(catalog::candidates(&client, &selection).await.unwrap(), selected, "{include}");
    }
    // A name that the database cannot have is no reason to fail.
    client.batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await.unwrap();
    let client = server.client("latin").await;
    client.batch_execute("CREATE TABLE t ()").await.unwrap();
    let selection: TableSelection = serde_json::from_value(json!({ "include": ["public.t", "日本.*"] })).unwrap();
    assert_eq!(catalog::candidates(&client, &selection).await.unwrap().len(), 1);
}
