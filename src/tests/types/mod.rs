//! Every type, with PostgreSQL as the judge: what arrives by snapshot and by stream, as NDJSON, Parquet and in the
//! local Snowflake, is cast to the source's types and compared with the source.
//!
//! The role that the pipeline logs in as has settings of its own that change how every value is spelled.

mod arrived;
mod columns;
mod compare;
mod documented;
mod encodings;
mod table;

use crate::harness::Project;
use crate::warehouse::{account, snowflake};
use columns::{Column, Compare};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::collections::HashSet;
use table::{BASES, IMPOSSIBLE, KEYS, RESPELLED, SETUP};
use tokio_postgres::Client;

/// Spells dates, times, floats, bytes, money and names otherwise.
const HOSTILE: &str = "CREATE ROLE hostile SUPERUSER LOGIN; ALTER ROLE hostile SET datestyle = 'SQL, DMY';
    ALTER ROLE hostile SET intervalstyle = 'sql_standard'; ALTER ROLE hostile SET timezone = 'Asia/Kolkata'; ALTER ROLE hostile SET extra_float_digits = -3;
    ALTER ROLE hostile SET bytea_output = 'escape'; ALTER ROLE hostile SET client_encoding = 'LATIN1'; ALTER ROLE hostile SET search_path = \"Odd schéma\", public;
    ALTER ROLE hostile SET xmlbinary = 'hex'; ALTER ROLE hostile SET xmloption = 'document'; ALTER ROLE hostile SET quote_all_identifiers = on;
    ALTER ROLE hostile SET standard_conforming_strings = off; ALTER ROLE hostile SET backslash_quote = 'on'; ALTER ROLE hostile SET row_security = off";

/// From one database to all three sinks.
fn pipeline(postgres: &Postgres, snowflake: &LocalSnowflake) -> Project {
    let url = postgres.url("types").replace("postgres@", "hostile@");
    Project::new(&format!(
        "sources:
  pg: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.*\"] }} }}
sinks:
  lines: {{ type: file, inputs: [pg], path: lines, format: ndjson }}
  columns: {{ type: file, inputs: [pg], path: columns, format: parquet }}
  warehouse: {{ inputs: [pg], {}, schema: PG }}
server: none
",
        account(snowflake)
    ))
}

/// A database whose login role is hostile, and a client that is not.
async fn database(postgres: &Postgres) -> Client {
    let client = postgres.database("types").await;
    client.batch_execute(HOSTILE).await.unwrap();
    client
}

/// Compares every sink's tables with the source's, and says how many values stood in `_ETL_EXACT`.
async fn assert_arrived(client: &Client, project: &Project, snowflake: &LocalSnowflake, table: &columns::Table) {
    let mut found = Vec::new();
    let names = |compare: &dyn Fn(&Column) -> bool| -> Vec<String> {
        table.columns.iter().filter(|c| compare(c)).map(|c| c.name.clone()).collect()
    };
    let folder = format!("public.{}", table.name);
    let mut check = async |sink: &str, rows: Vec<arrived::Lines>| {
        compare::load(client, &table.name, rows).await;
        let differences = compare::differences(client, &table.name, &table.columns).await;
        // the SQL API spells a negative zero as 0, which it equals
        let known = |difference: &String| sink == "Snowflake" && difference.ends_with("'-0' is not '0'");
        found.extend(differences.into_iter().filter(|d| !known(d)).map(|difference| format!("{sink}: {difference}")));
    };
    check("NDJSON", arrived::ndjson(&project.path().join("lines").join(&folder), "id").rows().collect()).await;
    let documents = names(&|c| c.compare != Compare::Text || c.documented == "array");
    let (rows, arrow) = arrived::parquet(&project.path().join("columns").join(&folder), "id", &documents);
    check("Parquet", rows.rows().collect()).await;
    let all: Vec<String> = ["id".into(), "n".into()].into_iter().chain(names(&|_| true)).collect();
    let (rows, types) = arrived::snowflake(snowflake, "PG", &table.name, &all).await;
    check("Snowflake", rows).await;
    for column in &table.columns {
        found.extend(documented::differs(column, &arrow[&column.name], &types[&column.name]));
    }
    assert!(found.is_empty(), "{} differences\n{}", found.len(), found.iter().take(60).cloned().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn every_base_type_is_known() {
    let postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    client.batch_execute(SETUP).await.unwrap();
    let mut known: HashSet<u32> = HashSet::new();
    for name in BASES.iter().map(|(name, _)| *name).chain(IMPOSSIBLE.iter().copied()) {
        let oid: Option<u32> = client.query_one("SELECT to_regtype($1::text)::oid", &[&name]).await.unwrap().get(0);
        known.extend(oid);
    }
    let rows = client
        .query(
            "SELECT oid, typname::text FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
             AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)",
            &[],
        )
        .await
        .unwrap();
    let new: Vec<String> = rows.iter().filter(|row| !known.contains(&row.get(0))).map(|row| row.get(1)).collect();
    assert!(rows.len() > 70 && new.is_empty(), "types that no test has: {new:?}");
}

#[tokio::test]
async fn every_type_arrives() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = database(&postgres).await;
    let tables = columns::tables(&client).await;
    let project = pipeline(&postgres, &snowflake);
    project.succeeds(&["run", "--until", "caught-up"]);
    for table in &tables {
        let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
        // the same values by the stream: inserted, updated as a whole, and deleted
        let sql = format!(
            "INSERT INTO {0} SELECT id + 1000, n, {1} FROM {0}; UPDATE {0} SET n = id WHERE id % 1000 IN (2, 4); DELETE FROM {0} WHERE id IN (3, 1005)",
            table.name,
            names.join(", ")
        );
        client.batch_execute(&sql).await.unwrap();
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    for table in &tables {
        assert_arrived(&client, &project, &snowflake, table).await;
    }
}

#[tokio::test]
async fn keys_of_every_type() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = database(&postgres).await;
    client.batch_execute(SETUP).await.unwrap();
    let _ = client.batch_execute("CREATE EXTENSION citext").await;
    let _ = client.batch_execute("CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)").await;
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut tables = Vec::new();
    for (at, (ty, values)) in KEYS.iter().enumerate() {
        let made = client
            .batch_execute(&format!(
                "CREATE TABLE k{at} (k {ty} PRIMARY KEY, n int, big text); ALTER TABLE k{at} ALTER big SET STORAGE EXTERNAL"
            ))
            .await;
        if let Err(error) = made {
            assert!(ty.starts_with("citext") || ty.contains("nocase"), "{ty}: {error:?}");
            println!("skipped: this server has no {ty}");
            continue;
        }
        for value in *values {
            client.batch_execute(&format!("INSERT INTO k{at} VALUES ({}, 0, repeat('x', 3000))", literal(value))).await.unwrap();
        }
        tables.push((at, *ty, *values));
    }
    let project = pipeline(&postgres, &snowflake);
    project.succeeds(&["run", "--until", "caught-up"]);
    // every other row is updated, with and without the large value; every third is deleted and comes back
    for (at, ty, values) in &tables {
        let cast = ty.split(" COLLATE").next().unwrap_or(ty);
        for (nth, value) in values.iter().enumerate() {
            let value = format!("{}::{cast}", literal(value));
            if nth % 2 == 0 {
                client.batch_execute(&format!("UPDATE k{at} SET n = {} WHERE k = {value}", nth + 1)).await.unwrap();
            }
            if nth % 3 == 1 {
                client
                    .batch_execute(&format!("DELETE FROM k{at} WHERE k = {value}; INSERT INTO k{at} VALUES ({value}, 77, 'again')"))
                    .await
                    .unwrap();
            }
        }
        for (_, old, new) in RESPELLED.iter().filter(|(key, ..)| key == ty) {
            client
                .batch_execute(&format!("UPDATE k{at} SET k = {}, n = 99 WHERE k = {}::{cast}", literal(new), literal(old)))
                .await
                .unwrap();
        }
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    for (at, ..) in &tables {
        client.batch_execute(&format!("UPDATE k{at} SET n = n + 1000")).await.unwrap();
        // one row goes, and nothing brings it back
        client.batch_execute(&format!("DELETE FROM k{at} WHERE ctid = (SELECT min(ctid) FROM k{at})")).await.unwrap();
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    let mut found = Vec::new();
    for (at, ty, _) in &tables {
        let table = format!("k{at}");
        let columns = ["k", "n", "big"].map(str::to_owned);
        let folder = format!("public.{table}");
        let lines = arrived::ndjson(&project.path().join("lines").join(&folder), "k").rows().collect::<Vec<_>>();
        let documents = if ty.ends_with("[]") || *ty == "jsonb" { vec!["k".to_owned()] } else { Vec::new() };
        let (parquet, _) = arrived::parquet(&project.path().join("columns").join(&folder), "k", &documents);
        let (warehouse, _) = arrived::snowflake(&snowflake, "PG", &table, &columns).await;
        for (sink, rows) in [("NDJSON", lines), ("Parquet", parquet.rows().collect()), ("Snowflake", warehouse)] {
            compare::load(&client, &table, rows).await;
            let (source, arrived) = (
                format!("SELECT format('%L', k), n, big FROM {table}"),
                format!("SELECT format('%L', {}), back.n, back.big FROM {}", compare::key(ty), compare::back(&table)),
            );
            let sql = format!(
                "SELECT 'is missing', x::text FROM (({source}) EXCEPT ALL ({arrived})) x UNION ALL SELECT 'is not there', x::text FROM (({arrived}) EXCEPT ALL ({source})) x"
            );
            for row in client.query(&sql, &[]).await.unwrap_or_else(|e| panic!("{sink} {ty}: {e:?}")) {
                let (what, text): (String, String) = (row.get(0), row.get(1));
                found.push(format!("{sink} {ty}: {} {what}", text.chars().take(100).collect::<String>()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
