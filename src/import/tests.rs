//! Rows, what becomes of them, and that every file validates.

use super::rows::{DestinationRow, Found, PipelineRow, SourceRow};
use super::translate::translate;
use super::{Made, Translated};
use crate::Registry;
use crate::config::{self, Environment};
use serde_json::{Value, json};

fn merged<T: serde::de::DeserializeOwned>(base: Value, changes: &Value) -> T {
    let mut row = base;
    for (key, value) in changes.as_object().expect("a map") {
        row[key] = value.clone();
    }
    serde_json::from_value(row).expect("a row")
}

fn source(changes: &Value) -> SourceRow {
    let base = json!({ "id": 1, "name": "shop", "pg_host": "db", "pg_port": 5432, "pg_database": "shop", "pg_username": "etl",
        "pg_tls_enabled": false, "publication_name": "pub", "has_secret": true });
    merged(base, changes)
}

fn destination(changes: &Value) -> DestinationRow {
    let base = json!({ "id": 1, "name": "warehouse", "destination_type": "snowflake", "snowflake_account": "ACME-PROD",
        "snowflake_user": "LOADER", "snowflake_database": "RAW", "snowflake_schema": "SHOP", "snowflake_warehouse": "LOAD",
        "snowflake_private_key_path": "/keys/k.p8", "snowflake_landing_schema": "ETL_SCHEMA", "snowflake_task_schedule_minutes": 60,
        "has_secret": false, "has_url": false });
    merged(base, changes)
}

fn pipeline(changes: &Value) -> PipelineRow {
    let base = json!({ "name": "orders", "source_id": 1, "destination_id": 1, "status": "START", "batch_max_size": 1000,
        "batch_max_fill_ms": 5000, "max_table_sync_workers": 4, "id_pipeline": 0 });
    merged(base, changes)
}

fn found(source_row: &Value, destination_row: &Value, pipeline_row: &Value) -> Found {
    Found { sources: vec![source(source_row)], destinations: vec![destination(destination_row)], pipelines: vec![pipeline(pipeline_row)] }
}

fn none(_: &str) -> Option<String> {
    None
}

fn validate(made: &Made) {
    let loaded = config::parse(&made.file, &made.text, made.file.as_ref(), &Registry::builtin(), &Environment::Opaque);
    assert!(loaded.problems.list.is_empty() && loaded.graph.is_some(), "{}\n{:?}", made.text, loaded.problems.list);
}

fn notes(made: &Translated) -> String {
    made.notes.iter().map(|note| format!("{}: {}\n", note.about, note.what)).collect()
}

#[test]
fn the_usual_case() {
    let made = translate(&found(&json!({}), &json!({}), &json!({})), &none);
    made.files.iter().for_each(validate);
    let [orders, monitor] = &made.files[..] else { panic!("{:?}", made.files) };
    assert_eq!(
        orders.text,
        "# pipeline \"orders\" of the earlier program; written by `etl-stream import`.
name: orders
sources:
  shop:
    type: postgres
    host: \"db\"
    port: 5432
    database: \"shop\"
    user: \"etl\"
    password: { env: SHOP_PG_PASSWORD }
    publication: \"pub\"
sinks:
  warehouse:
    inputs: [shop]
    type: snowflake
    account: \"ACME-PROD\"
    user: \"LOADER\"
    private_key: { file: \"/keys/k.p8\" }
    warehouse: \"LOAD\"
    database: \"RAW\"
    schema: \"SHOP\"
    landing_schema: \"ETL_SCHEMA\"
    merge: { interval: 60m }
"
    );
    assert!(monitor.text.contains("retained_wal_limit: 3000MiB") && !monitor.text.contains("alerts"), "{}", monitor.text);
    let secrets: Vec<&str> = made.secrets.iter().map(|(name, _)| &**name).collect();
    assert_eq!(secrets, ["SHOP_PG_PASSWORD", "SHOP_PG_URL"]);
    let notes = notes(&made);
    for said in ["supabase_etl_apply_0", "SF0008", "tells nobody", "encrypted now where the server offers"] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
}

#[test]
fn each_setting_and_what_it_means() {
    let nothing = json!({});
    for (from, to, row, expected) in [
        (json!({ "pg_tls_enabled": true }), nothing.clone(), nothing.clone(), "tls: { mode: verify-full }"),
        (json!({ "pg_host": "a\"b${X}" }), nothing.clone(), nothing.clone(), r#"host: "a\"b$${X}""#),
        (nothing.clone(), json!({ "snowflake_role": "LOADER_ROLE" }), nothing.clone(), "role: \"LOADER_ROLE\""),
        (
            nothing.clone(),
            json!({ "snowflake_host": "x.privatelink.snowflakecomputing.com" }),
            nothing.clone(),
            "url: \"https://x.privatelink",
        ),
        (nothing.clone(), json!({ "has_secret": true }), nothing.clone(), "private_key_passphrase: { env: WAREHOUSE_KEY_PASSPHRASE }"),
        (nothing.clone(), json!({ "snowflake_task_schedule_minutes": 5 }), nothing.clone(), "merge: { interval: 5m }"),
        (
            nothing.clone(),
            nothing.clone(),
            json!({ "batch_max_size": 250, "batch_max_fill_ms": 750 }),
            "batch: { max_rows: 250, max_age: 750ms }",
        ),
        (nothing.clone(), nothing.clone(), json!({ "max_table_sync_workers": 8 }), "snapshot: { workers: 8 }"),
        (nothing.clone(), nothing.clone(), json!({ "status": "PAUSE" }), "# It was paused there."),
        (
            nothing.clone(),
            json!({ "destination_type": "http", "has_url": true, "http_timeout_ms": 2500 }),
            nothing.clone(),
            "type: webhook\n    url: { env: WAREHOUSE_URL }\n    timeout: 2500ms",
        ),
    ] {
        let made = translate(&found(&from, &to, &row), &none);
        made.files.iter().for_each(validate);
        assert!(made.files[0].text.contains(expected), "{expected}: {}", made.files[0].text);
    }
}

#[test]
fn what_cannot_be_translated_is_said() {
    for (from, to, row, expected) in [
        (json!({ "pg_port": 70_000 }), json!({}), json!({}), "has port 70000"),
        (json!({}), json!({ "snowflake_user": null }), json!({}), "has no snowflake_user"),
        (json!({}), json!({ "snowflake_private_key_path": " " }), json!({}), "has no snowflake_private_key_path"),
        (json!({}), json!({ "destination_type": "http" }), json!({}), "has no http_url"),
        (json!({}), json!({ "destination_type": "bigquery" }), json!({}), "of type \"bigquery\""),
        (json!({}), json!({}), json!({ "source_id": 9 }), "there is no source 9"),
        (json!({}), json!({}), json!({ "destination_id": 9 }), "there is no destination 9"),
    ] {
        let made = translate(&found(&from, &to, &row), &none);
        assert_eq!((made.failed, made.files.len()), (1, 1), "the monitor alone: {:?}", made.files);
        assert!(notes(&made).contains(expected), "{expected}: {}", notes(&made));
        made.files.iter().for_each(validate);
    }
}

/// Names that are one in a file, nodes of one name, and what the environment says.
#[test]
fn names_and_the_environment() {
    let found = Found {
        sources: vec![source(&json!({})), source(&json!({ "id": 2, "name": "Shop" }))],
        destinations: vec![destination(&json!({ "name": "shop" }))],
        pipelines: vec![
            pipeline(&json!({ "name": "My orders" })),
            pipeline(&json!({ "name": "my-orders", "source_id": 2 })),
            pipeline(&json!({ "name": "wal_monitor" })),
        ],
    };
    let environment = |name: &str| {
        let value = match name {
            "ALERT_WAL_URL" => "https://hook/x",
            "WARNING_WAL" => "100",
            "DANGER_WAL" => "many",
            "REDIS_URL" => "127.0.0.1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let made = translate(&found, &environment);
    made.files.iter().for_each(validate);
    let files: Vec<&str> = made.files.iter().map(|made| &*made.file).collect();
    assert_eq!(files, ["my_orders.yaml", "my_orders_2.yaml", "wal_monitor.yaml", "wal_monitor_2.yaml"]);
    assert!(made.files[0].text.contains("  shop_2:\n    inputs: [shop]"), "{}", made.files[0].text);
    assert!(made.files[1].text.contains("SHOP_PG_PASSWORD_2"), "{}", made.files[1].text);
    let monitor = &made.files[3].text;
    assert!(monitor.contains("> 100MiB, danger: slot.retained_wal > 6000MiB") && monitor.contains("format: predecessor"), "{monitor}");
    assert!(monitor.contains("url: { env: ALERT_WAL_URL }") && !monitor.contains("https://hook"), "{monitor}");
    let notes = notes(&made);
    assert!(notes.contains("variable DANGER_WAL: is no number") && notes.contains("variable REDIS_URL"), "{notes}");
}
