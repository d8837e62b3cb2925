//! What a table holds, on both sides: in PostgreSQL, and in the local Snowflake.

use crate::harness::RUN;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Rows as texts, sorted; null is `∅`.
pub(crate) type Rows = Vec<Vec<String>>;

/// A text that means the same on both sides: a document does whatever its blanks are.
fn same(cell: Option<&str>) -> String {
    match cell {
        None => "∅".into(),
        Some(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
        }
        Some(text) => text.to_owned(),
    }
}

/// A local Snowflake with the database that every pipeline here writes to.
pub(crate) async fn snowflake() -> LocalSnowflake {
    let server = LocalSnowflake::start();
    server.sql("CREATE DATABASE RAW").await;
    server
}

/// How a sink reaches it, in YAML's flow style. The key is in every project's folder.
pub(crate) fn account(server: &LocalSnowflake) -> String {
    format!(
        "type: snowflake, account: LOCAL, url: \"{}\", user: LOADER, private_key: {{ file: ./snowflake.p8 }}, database: RAW",
        server.url()
    )
}

/// What a query gives in PostgreSQL.
pub(crate) async fn in_postgres(client: &Client, query: &str) -> Rows {
    let mut rows = Rows::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|at| same(row.get(at))).collect());
        }
    }
    rows.sort();
    rows
}

/// What a query gives in Snowflake.
pub(crate) async fn in_snowflake(server: &LocalSnowflake, query: &str) -> Rows {
    let mut rows: Rows = server.sql(query).await.iter().map(|row| row.iter().map(|cell| same(cell.as_deref())).collect()).collect();
    rows.sort();
    rows
}

/// One value, or nothing while there is no such table.
pub(crate) async fn value(server: &LocalSnowflake, query: &str) -> Option<String> {
    server.try_sql(query).await.ok()?.into_iter().next()?.into_iter().next()?
}

/// One number, 0 while there is no such table.
pub(crate) async fn number(server: &LocalSnowflake, query: &str) -> u64 {
    value(server, query).await.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Says where two tables differ: both may be long.
pub(crate) fn assert_same(what: &str, target: &Rows, source: &Rows) {
    let only =
        |these: &Rows, those: &Rows| -> Rows { these.iter().filter(|row| those.binary_search(row).is_err()).take(3).cloned().collect() };
    let (extra, missing) = (only(target, source), only(source, target));
    assert!(target == source, "{what}: {} rows there, {} wanted; not wanted {extra:?}; missing {missing:?}", target.len(), source.len());
}

/// Waits until a query's number is as wanted.
pub(crate) async fn until(what: &str, server: &LocalSnowflake, query: &str, mut wanted: impl FnMut(u64) -> bool) {
    let deadline = Instant::now() + RUN;
    while !wanted(number(server, query).await) {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
