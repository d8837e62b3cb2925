//! The settings of the `snowflake` sink, and the sink they make.

use super::context::{Options, Shared};
use super::dead_letter::DeadLetters;
use super::errors::CFG_SNOWFLAKE;
use super::http::Http;
use super::jwt::Jwt;
use super::key::Key;
use super::letter_folder::LetterFolder;
use super::meter::Meter;
use super::names::{Naming, Targets, fold, template_problem};
use super::pace::Pace;
use super::sdk::{Login, Sdk, SdkSettings, Via};
use super::sink::Snowflake;
use super::sql::{Session, Sql};
use super::streaming::Streaming;
use crate::contract::{
    BatchSettings, BuildContext, ByteSize, CodedError, Findings, NodeConfig, Period, RetrySettings, Secret, SecretString, Sink, SinkConfig,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Merges at once, over all tables of the sink.
const MERGES: usize = 8;
/// Tables that send at once.
const SENDS: usize = 64;
/// Channels a pipe may have.
const MAX_CHANNELS: u16 = 64;

/// What a table in Snowflake holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// The source's current rows; changes land in `<TABLE>__CHANGES` first.
    #[default]
    Merge,
    /// The history of changes alone: `<TABLE>__CHANGES`.
    Append,
}

/// What a delete does to the target's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// It is deleted.
    #[default]
    Hard,
    /// It stays, with `_ETL_DELETED` true.
    Soft,
}

/// What a change of a table's columns does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemaChanges {
    /// The tables follow: new columns are added, renamed ones take their values along, types are widened.
    #[default]
    Evolve,
    /// New columns are left out, with a warning and a count.
    Ignore,
    /// The table stops, and the others go on, until it is copied anew.
    Refuse,
}

/// Where rows go that Snowflake does not take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetter {
    /// Into this table, in the landing tables' schema.
    Table(String),
    /// Into NDJSON files in this folder.
    Folder(PathBuf),
    /// Nowhere: the pipeline stops.
    Stop,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self::Table("_ETL_STREAM_DEAD_LETTER".into())
    }
}

/// When landing rows are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MergeSettings {
    /// Time between two merges of a table that has changes.
    pub interval: Period,
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self { interval: Period::millis(5_000) }
    }
}

fn table_template() -> String {
    "{table}".into()
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

fn week() -> Period {
    Period::millis(7 * 86_400_000)
}

fn minute() -> Period {
    Period::millis(60_000)
}

/// Writes tables to Snowflake, exactly once: through Snowpipe Streaming into a landing table for each, and
/// from there by `MERGE` into the target.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnowflakeConfig {
    /// The account's identifier, such as `ACME-PROD`.
    pub account: String,
    /// The account's URL, where it is not `https://<account>.snowflakecomputing.com`. Plain `http` only to a loopback address.
    #[serde(default)]
    pub url: Option<String>,
    /// The user, who has the private key's public half as `RSA_PUBLIC_KEY`.
    pub user: String,
    /// The role. Default: the user's own.
    #[serde(default)]
    pub role: Option<String>,
    /// The warehouse that merges. Default: the user's own.
    #[serde(default)]
    pub warehouse: Option<String>,
    /// The private key, as PEM.
    pub private_key: Secret,
    /// What opens an encrypted private key.
    #[serde(default)]
    pub private_key_passphrase: Option<Secret>,
    /// The database. It must exist. A name without upper-case letters means its upper-case form, here and in every name.
    pub database: String,
    /// The schema of the targets.
    pub schema: String,
    /// The schema of the landing tables. Default: `schema`.
    #[serde(default)]
    pub landing_schema: Option<String>,
    /// The target's name, made of `{source}`, `{schema}` and `{table}`.
    #[serde(default = "table_template")]
    pub table: String,
    /// Current rows, or the history of changes.
    #[serde(default)]
    pub write_mode: WriteMode,
    /// What a delete does to the target's row.
    #[serde(default)]
    pub deletes: Deletes,
    /// What a change of a table's columns does.
    #[serde(default)]
    pub schema_changes: SchemaChanges,
    /// Channels that each table's rows are spread over by key, 1 to 64; each takes about 20 MB/s. A table keeps its number until it is snapshotted again.
    #[serde(default = "one")]
    pub channels: u16,
    /// Which way rows go to Snowpipe Streaming: `rest`, or the official Python SDK. It may be changed between two runs at any time.
    #[serde(default)]
    pub via: Via,
    /// Processes of the SDK; with `via: sdk`.
    #[serde(default)]
    pub sdk: Option<SdkSettings>,
    /// When landing rows are merged.
    #[serde(default)]
    pub merge: MergeSettings,
    /// How long landing rows stay after they are merged; `0s` deletes them in the merge.
    #[serde(default = "week")]
    pub landing_retention: Period,
    /// Whether a missing schema is created.
    #[serde(default = "yes")]
    pub create_schema: bool,
    /// Whether a row with a value that its column cannot hold goes to the dead letter, instead of the value being NULL there with its exact text in `_ETL_EXACT`.
    #[serde(default)]
    pub strict: bool,
    /// Where rows go that Snowflake does not take: `{ table: NAME }` (in `landing_schema`), `{ folder: PATH }`, or `stop` to stop the pipeline instead. Default: `{ table: _ETL_STREAM_DEAD_LETTER }`.
    #[serde(default)]
    pub dead_letter: Option<DeadLetter>,
    /// How long one try of one request may take.
    #[serde(default = "minute")]
    pub request_timeout: Period,
    /// When a batch is sealed. Default: 50000 rows, 16MiB, 500ms.
    #[serde(default)]
    pub batch: Option<BatchSettings>,
    /// How faults that pass are met.
    #[serde(default)]
    pub retry: RetrySettings,
}

/// The base URL of the settings, or what is wrong with it.
fn base_url(config: &SnowflakeConfig) -> Result<url::Url, String> {
    let text =
        config.url.clone().unwrap_or_else(|| format!("https://{}.snowflakecomputing.com", config.account.to_lowercase().replace('_', "-")));
    let url: url::Url = text.parse().map_err(|e| format!("`{text}` is not a URL: {e}"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(format!("`{text}` names no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(format!("`{text}` would send tokens and rows unencrypted; plain http is for loopback addresses")),
        scheme => Err(format!("`{scheme}` is not a scheme of Snowflake's; write https")),
    }
}

impl NodeConfig for SnowflakeConfig {
    const TYPE: &'static str = "snowflake";
    const SUMMARY: &'static str = "Writes tables to Snowflake, exactly once: streamed into a landing table, merged into a target.";
    const EXAMPLE: &'static str = "\
account: ACME-PROD
user: LOADER
private_key: { file: ./snowflake.p8 }
warehouse: LOAD
database: RAW
schema: SHOP
write_mode: merge
";

    fn check(&self, findings: &mut Findings) {
        let mut wrong = |pointer: &str, message: String, help: &str| findings.push(CFG_SNOWFLAKE, pointer, message, Some(help.into()));
        if let Err(why) = base_url(self) {
            let pointer = if self.url.is_some() { "/url" } else { "/account" };
            wrong(pointer, why, "write the account's identifier, or its URL as https://…");
        }
        for (pointer, value) in [
            ("/account", Some(&self.account)),
            ("/user", Some(&self.user)),
            ("/database", Some(&self.database)),
            ("/schema", Some(&self.schema)),
            ("/landing_schema", self.landing_schema.as_ref()),
        ] {
            if value.is_some_and(|v| v.trim().is_empty()) {
                wrong(pointer, "it is empty".into(), "give a name");
            }
        }
        if let Some(why) = template_problem(&self.table) {
            wrong("/table", why, "write a name with {table} in it, and {schema} or {source} where several tables share a name");
        }
        if !(1..=MAX_CHANNELS).contains(&self.channels) {
            wrong("/channels", format!("{} is not a number of channels", self.channels), "write a number from 1 to 64");
        }
        for (pointer, secret) in
            [("/private_key", Some(&self.private_key)), ("/private_key_passphrase", self.private_key_passphrase.as_ref())]
        {
            if secret.is_some_and(|s| s.forms() != 1) {
                wrong(pointer, "exactly one of env, file, command, plain is needed".into(), "write { file: ./snowflake.p8 }");
            }
        }
        let empty = match &self.dead_letter {
            Some(DeadLetter::Table(name)) => name.trim().is_empty() || name.eq_ignore_ascii_case("_etl_stream_progress"),
            Some(DeadLetter::Folder(path)) => path.as_os_str().is_empty(),
            _ => false,
        };
        if empty {
            wrong(
                "/dead_letter",
                "it names no place for dead letters".into(),
                "leave it out, or write { table: NAME }, { folder: PATH } or stop",
            );
        }
        if self.write_mode == WriteMode::Append && self.deletes == Deletes::Soft {
            wrong("/deletes", "there is no target to mark rows in with `write_mode: append`".into(), "leave `deletes` out");
        }
        if self.sdk.as_ref().is_some_and(|sdk| !(1..=MAX_CHANNELS).contains(&sdk.workers)) {
            wrong("/sdk/workers", "it is no number of processes".into(), "write a number from 1 to 64");
        }
        if self.sdk.as_ref().and_then(|sdk| sdk.url.as_ref()).is_some_and(|url| !url.starts_with("https://")) {
            wrong("/sdk/url", "the SDK speaks https alone".into(), "write https://…, or leave it out");
        }
        if self.via == Via::Rest && self.sdk.is_some() {
            wrong("/sdk", "the SDK is not used".into(), "set `via: sdk`, or leave `sdk` out");
        }
        if self.via == Via::Sdk
            && base_url(self).is_ok_and(|url| url.scheme() != "https")
            && self.sdk.as_ref().is_none_or(|sdk| sdk.url.is_none())
        {
            wrong("/url", "the SDK speaks https alone".into(), "write https://…, or set `sdk: { url }`");
        }
        if self.merge.interval.0.is_zero() || self.request_timeout.0.is_zero() {
            wrong("", "`merge.interval` and `request_timeout` must be longer than nothing".into(), "write 5s and 60s");
        }
    }
}

impl SnowflakeConfig {
    /// The SDK's processes.
    fn sdk(&self, cx: &BuildContext, base: &url::Url, key: SecretString) -> Result<Sdk, CodedError> {
        let mut settings = self.sdk.clone().unwrap_or_default();
        settings.python = settings.python.map(|python| if python.components().count() > 1 { cx.path(&python) } else { python });
        settings.ca_file = settings.ca_file.map(|file| cx.path(&file));
        let url = settings.url.clone().unwrap_or_else(|| base.as_str().trim_end_matches('/').to_owned());
        let login = Login { account: self.account.clone(), user: self.user.clone(), role: self.role.as_deref().map(fold), key, url };
        Sdk::start(&cx.node, &settings, login, self.request_timeout.0, self.retry.give_up_after.0.min(self.request_timeout.0))
    }
}

impl SinkConfig for SnowflakeConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        let pem = cx.secret(&self.private_key)?;
        let passphrase = self.private_key_passphrase.as_ref().map(|secret| cx.secret(secret)).transpose()?;
        let key = Key::read(&pem, passphrase.as_ref())?;
        let base = base_url(self).map_err(|why| CodedError::definite(CFG_SNOWFLAKE, why))?;
        let sdk = match self.via {
            Via::Rest => None,
            Via::Sdk => Some(self.sdk(cx, &base, Key::plain_pem(&pem, passphrase.as_ref())?)?),
        };
        let jwt = Arc::new(Jwt::new(key, &self.account, &self.user));
        let http = Arc::new(Http::new(self.retry, self.request_timeout.0, Meter::new(&cx.pipeline, &cx.node))?);
        let session = Session { role: self.role.as_deref().map(fold), warehouse: self.warehouse.as_deref().map(fold) };
        let schema = fold(&self.schema);
        let naming = Naming {
            database: fold(&self.database),
            landing_schema: self.landing_schema.as_deref().map_or_else(|| schema.clone(), fold),
            schema,
            template: self.table.clone(),
        };
        let dead_letters = match self.dead_letter.clone().unwrap_or_default() {
            DeadLetter::Table(name) => DeadLetters::Table(naming.beside_landing(&name)),
            DeadLetter::Folder(path) => DeadLetters::Folder(LetterFolder(cx.path(&path))),
            DeadLetter::Stop => DeadLetters::Stop,
        };
        let shared = Shared {
            sql: Sql::new(Arc::clone(&http), Arc::clone(&jwt), base.clone(), session),
            streaming: Streaming::new(Arc::clone(&http), jwt, base, sdk),
            http,
            naming,
            targets: Targets::default(),
            dead_letters,
            merges: Semaphore::new(MERGES),
            sends: Semaphore::new(SENDS),
            encodes: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            pace: Pace::default(),
            options: Options {
                merge: self.write_mode == WriteMode::Merge,
                soft: self.deletes == Deletes::Soft,
                schema_changes: self.schema_changes,
                channels: usize::from(self.channels),
                interval: self.merge.interval.0,
                retention: self.landing_retention.0,
                create_schema: self.create_schema,
                strict: self.strict,
            },
        };
        let default = BatchSettings::new(50_000, ByteSize::mib(16), Period::millis(500));
        let own = self.batch.unwrap_or(default);
        let batch = BatchSettings {
            max_rows: own.max_rows.or(default.max_rows),
            max_bytes: own.max_bytes.or(default.max_bytes),
            max_age: own.max_age.or(default.max_age),
        };
        Ok(Arc::new(Snowflake::new(Arc::new(shared), batch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_found() {
        let base = serde_json::json!({
            "account": "ACME-PROD", "user": "LOADER", "private_key": { "env": "KEY" }, "database": "RAW", "schema": "SHOP"
        });
        for (name, value, pointer) in [
            ("url", "https://acme.privatelink.snowflakecomputing.com", None),
            ("url", "http://127.0.0.1:8080", None),
            ("url", "http://[::1]:8080", None),
            ("url", "http://localhost:8080", None),
            ("url", "http://acme.snowflakecomputing.com", Some("/url")),
            ("url", "ftp://127.0.0.1", Some("/url")),
            ("url", "acme", Some("/url")),
            ("account", "a b", Some("/account")),
            ("table", "{schema}_{table}", None),
            ("table", "x", Some("/table")),
            ("schema", "", Some("/schema")),
            ("dead_letter", "stop", None),
        ] {
            let mut settings = base.clone();
            settings[name] = value.into();
            let config: SnowflakeConfig = serde_json::from_value(settings).unwrap();
            let mut findings = Findings::default();
            config.check(&mut findings);
            let found: Vec<&str> = findings.0.iter().map(|f| f.pointer.as_str()).collect();
            assert_eq!(found, pointer.into_iter().collect::<Vec<_>>(), "{name}: {value}");
        }
    }
}
