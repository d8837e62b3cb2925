//! The three tables of the program before, as far as they say something here.

use super::NOT_ITS_DATABASE;
use crate::{CodedError, SecretString};
use etl_stream_operators::source;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_postgres::error::SqlState;

/// A row of `sources`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SourceRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) pg_host: String,
    #[serde(default = "pg_port")]
    pub(super) pg_port: i64,
    pub(super) pg_database: String,
    pub(super) pg_username: String,
    #[serde(default)]
    pub(super) pg_tls_enabled: bool,
    pub(super) publication_name: String,
    /// Whether there is a password.
    pub(super) has_secret: bool,
}

/// A row of `destinations`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DestinationRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) destination_type: String,
    #[serde(default)]
    pub(super) snowflake_account: Option<String>,
    #[serde(default)]
    pub(super) snowflake_user: Option<String>,
    #[serde(default)]
    pub(super) snowflake_database: Option<String>,
    #[serde(default)]
    pub(super) snowflake_schema: Option<String>,
    #[serde(default)]
    pub(super) snowflake_warehouse: Option<String>,
    #[serde(default)]
    pub(super) snowflake_role: Option<String>,
    #[serde(default)]
    pub(super) snowflake_private_key_path: Option<String>,
    #[serde(default)]
    pub(super) snowflake_host: Option<String>,
    #[serde(default)]
    pub(super) snowflake_landing_schema: Option<String>,
    #[serde(default)]
    pub(super) snowflake_task_schedule_minutes: Option<i64>,
    #[serde(default)]
    pub(super) http_timeout_ms: Option<i64>,
    /// Whether the private key has a passphrase.
    pub(super) has_secret: bool,
    /// Whether there is an `http_url`, which may have a token.
    pub(super) has_url: bool,
}

/// A row of `pipelines`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PipelineRow {
    pub(super) name: String,
    pub(super) source_id: i64,
    pub(super) destination_id: i64,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) batch_max_size: Option<i64>,
    #[serde(default)]
    pub(super) batch_max_fill_ms: Option<i64>,
    #[serde(default)]
    pub(super) max_table_sync_workers: Option<i64>,
    #[serde(default)]
    pub(super) id_pipeline: Option<i64>,
}

const fn pg_port() -> i64 {
    5432
}

/// Everything the database says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(super) sources: Vec<SourceRow>,
    pub(super) destinations: Vec<DestinationRow>,
    pub(super) pipelines: Vec<PipelineRow>,
}

/// Reads the tables of a schema.
///
/// # Errors
/// When the server cannot be reached, or `IMP0001`.
pub(crate) async fn read(url: &SecretString, schema: &str) -> Result<Found, CodedError> {
    let client = source::session(url, "import").await?;
    let failed = |error: tokio_postgres::Error| {
        let missing = error.code() == Some(&SqlState::UNDEFINED_TABLE);
        let what = if missing { "has no such table" } else { "was not read" };
        let message = format!("schema \"{schema}\" of the configuration database {what}: sources, destinations, pipelines");
        CodedError::definite(NOT_ITS_DATABASE, message).caused_by(error).hint("name the schema of these tables with --schema")
    };
    client.batch_execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let schema_sql = format!("\"{}\"", schema.replace('"', "\"\""));
    let table = async |table: &str| {
        // A column that an older shape lacks reads as null; what is secret is not read.
        let sql = format!(
            "SELECT (to_jsonb(t) - '{{pg_password,snowflake_private_key_passphrase,http_url}}'::text[] || jsonb_build_object(
                'has_secret', coalesce(to_jsonb(t)->>'pg_password', to_jsonb(t)->>'snowflake_private_key_passphrase', '') <> '',
                'has_url', coalesce(to_jsonb(t)->>'http_url', '') <> ''))::text
             FROM {schema_sql}.{table} t ORDER BY t.id"
        );
        let rows = client.query(&sql, &[]).await.map_err(failed)?;
        Ok::<Vec<String>, CodedError>(rows.iter().map(|row| row.get::<_, String>(0)).collect())
    };
    Ok(Found {
        sources: parse("sources", &table("sources").await?)?,
        destinations: parse("destinations", &table("destinations").await?)?,
        pipelines: parse("pipelines", &table("pipelines").await?)?,
    })
}

/// Rows as JSON to rows.
fn parse<T: DeserializeOwned>(table: &str, rows: &[String]) -> Result<Vec<T>, CodedError> {
    let parse = |row: &String| {
        serde_json::from_str(row).map_err(|error| {
            // serde names the column; of a value it would say the text.
            let message = format!("table \"{table}\" of the configuration database has not the columns that it should");
            let what = error.to_string();
            let error = CodedError::definite(NOT_ITS_DATABASE, message);
            if what.starts_with("missing field") { error.caused_by(what) } else { error }
        })
    };
    rows.iter().map(parse).collect()
}
