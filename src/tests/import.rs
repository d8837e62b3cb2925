//! `etl-stream import` on a real configuration database, in its own schema.

use crate::harness::Project;
use etl_stream_operators::testing::postgres::Postgres;
use std::fs;

/// The tables as the program before made them.
const SCHEMA: &str = "
CREATE TABLE sources (id SERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL UNIQUE, pg_host VARCHAR(255) NOT NULL,
    pg_port INTEGER NOT NULL DEFAULT 5432, pg_database VARCHAR(255) NOT NULL, pg_username VARCHAR(255) NOT NULL,
    pg_password VARCHAR(255), pg_tls_enabled BOOLEAN NOT NULL DEFAULT false, publication_name VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT NOW(), updated_at TIMESTAMP DEFAULT NOW());
CREATE TABLE destinations (id SERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL UNIQUE, destination_type VARCHAR(50) NOT NULL,
    snowflake_account VARCHAR(255), snowflake_user VARCHAR(255), snowflake_database VARCHAR(255), snowflake_schema VARCHAR(255),
    snowflake_warehouse VARCHAR(255), snowflake_private_key_path VARCHAR(255), snowflake_role VARCHAR(255),
    snowflake_private_key_passphrase VARCHAR(255), snowflake_host VARCHAR(255),
    snowflake_landing_schema VARCHAR(255) DEFAULT 'ETL_SCHEMA', snowflake_task_schedule_minutes INTEGER DEFAULT 60,
    http_url VARCHAR(255), http_timeout_ms BIGINT DEFAULT 30000, http_retry_attempts INTEGER DEFAULT 3,
    created_at TIMESTAMP DEFAULT NOW(), updated_at TIMESTAMP DEFAULT NOW());
CREATE TABLE pipelines (id SERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL UNIQUE,
    source_id INTEGER NOT NULL REFERENCES sources(id) ON DELETE CASCADE,
    destination_id INTEGER NOT NULL REFERENCES destinations(id) ON DELETE CASCADE,
    status VARCHAR(20) NOT NULL DEFAULT 'PAUSE', batch_max_size INTEGER NOT NULL DEFAULT 1000,
    batch_max_fill_ms BIGINT NOT NULL DEFAULT 5000, table_error_retry_delay_ms BIGINT NOT NULL DEFAULT 10000,
    table_error_retry_max_attempts INTEGER NOT NULL DEFAULT 5, max_table_sync_workers INTEGER NOT NULL DEFAULT 4,
    id_pipeline BIGINT NOT NULL DEFAULT 0, created_at TIMESTAMP DEFAULT NOW(), updated_at TIMESTAMP DEFAULT NOW());
INSERT INTO sources (name, pg_host, pg_database, pg_username, pg_password, publication_name)
    VALUES ('shop', 'db.internal', 'shop', 'etl', 'hunter2-pw', 'shop_pub'), ('crm', 'crm.internal', 'crm', 'etl', NULL, 'crm_pub');
INSERT INTO destinations (name, destination_type, snowflake_account, snowflake_user, snowflake_database, snowflake_schema,
    snowflake_warehouse, snowflake_private_key_path, snowflake_private_key_passphrase)
    VALUES ('lake', 'snowflake', 'ACME-PROD', 'LOADER', 'RAW', 'SHOP', 'LOAD', './k.p8', 'hunter2-pp');
INSERT INTO destinations (name, destination_type, http_url) VALUES ('hook', 'http', 'https://u:hunter2-url@hook/x');
INSERT INTO destinations (name, destination_type) VALUES ('half', 'snowflake');
INSERT INTO pipelines (name, source_id, destination_id, status, id_pipeline) VALUES ('shop to lake', 1, 1, 'START', 3);
INSERT INTO pipelines (name, source_id, destination_id, batch_max_size) VALUES ('crm to hook', 2, 2, 200);
INSERT INTO pipelines (name, source_id, destination_id, status) VALUES ('half done', 1, 3, 'START');";

#[tokio::test]
async fn an_earlier_configuration_database() {
    let server = Postgres::start();
    server.database("etl_config").await.batch_execute(SCHEMA).await.unwrap();
    let (mut project, url) = (Project::new(""), server.url("etl_config"));
    project.env.push(("ALERT_WAL_URL".into(), "https://hook.example/hunter2-alert".into()));
    let import = project.run(&["import", &url, "--out", "made"]);
    let (out, err) = (String::from_utf8(import.stdout).unwrap(), String::from_utf8(import.stderr).unwrap());
    assert_eq!(import.status.code(), Some(4), "one was not translated: {err}");
    assert_eq!(out, "made/shop_to_lake.yaml\nmade/crm_to_hook.yaml\nmade/wal_monitor.yaml\n");
    assert!(err.contains("pipeline \"half done\": was not translated: destination \"half\" has no snowflake_account"), "{err}");
    for variable in ["SHOP_PG_PASSWORD: pg_password of source \"shop\"", "LAKE_KEY_PASSPHRASE", "HOOK_URL", "CRM_PG_URL"] {
        assert!(err.contains(variable), "{variable}: {err}");
    }
    assert!(err.contains("supabase_etl_apply_3") && err.contains("pipeline \"crm to hook\": was paused"), "{err}");
    let mut texts = err.clone();
    for file in out.lines() {
        texts.push_str(&fs::read_to_string(project.path().join(file)).unwrap());
        project.succeeds(&["validate", "--deny-warnings", file]);
    }
    assert!(!texts.contains("hunter2"), "no secret is written or said: {texts}");
    assert!(texts.contains("password: { env: SHOP_PG_PASSWORD }") && texts.contains("batch: { max_rows: 200 }"), "{texts}");
    let again = project.run(&["import", &url, "--out", "made"]);
    assert!(again.status.code() == Some(2) && String::from_utf8_lossy(&again.stderr).contains("IMP0002"));
    assert_eq!(project.run(&["import", &url, "--out", "made", "--force"]).status.code(), Some(4));
    for (arguments, code) in
        [(vec!["import", &url, "--schema", "no where"], "IMP0001"), (vec!["import", "postgres://u@127.0.0.1:1/x"], "PG0001")]
    {
        let failed = project.run(&arguments);
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(failed.status.code() == Some(3) && said.contains(code), "{arguments:?}: {said}");
    }
}
