//! The settings of a pipeline that are not nodes: engine, state, server, alerts and notifiers.

use super::when::When;
use crate::{ByteSize, ConnectionSettings, Period, RetrySettings, Secret};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How the pipeline runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// Worker threads of the dataflow.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: usize,
    /// Bytes of one source that may be in flight between its socket and the sinks.
    pub source_credit: ByteSize,
    /// Bytes of all sources that may be in flight. Each source may have 256 KiB beside it, so that none waits for another's
    /// sink.
    pub credit: ByteSize,
    /// Connections to PostgreSQL servers for statements. Replication connections, one for each slot, come on top.
    pub connections: ConnectionSettings,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { workers: 1, source_credit: ByteSize::mib(32), credit: ByteSize::mib(64), connections: ConnectionSettings::default() }
    }
}

/// Where progress is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// A SQLite file.
    #[default]
    Sqlite,
    /// A table of a PostgreSQL database, which several processes share.
    Postgres,
}

/// Where progress is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSettings {
    /// The kind of store.
    #[serde(rename = "type")]
    pub kind: StateType,
    /// The file of `sqlite`; a relative path starts at the pipeline file's folder. Default:
    /// `.etl-stream/<pipeline>.db`.
    pub path: Option<PathBuf>,
    /// The database of `postgres`, as a URL.
    pub url: Option<Secret>,
    /// The schema of its table `progress`, made if absent. Default: `etl_stream`.
    pub schema: Option<String>,
}

/// The HTTP server of `/health`, `/ready` and `/metrics`. `server: none` turns it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// The address and port it listens on, such as `127.0.0.1:8080`.
    #[schemars(with = "String", regex(pattern = ":[0-9]+$"))]
    pub listen: SocketAddr,
    /// Whether whoever reaches the server may see rows with `etl-stream tap`. Where it listens on a loopback address,
    /// users of this machine who ask for values see them anyway.
    pub tap: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), tap: false }
    }
}

/// How loud an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertSeverity {
    /// For the record.
    Info,
    /// Someone should look.
    #[default]
    Warn,
    /// Someone must look now: danger.
    Page,
}

impl AlertSeverity {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Page => "page",
        }
    }
}

/// A condition worth telling someone about.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertSettings {
    /// The condition: a metric, a comparison and a value.
    pub when: When,
    /// A condition on the same metric that makes it dangerous: the severity is then `page`, and that is told at once.
    #[serde(default)]
    pub danger: Option<When>,
    /// How long the condition holds before anybody is told, and does not hold before it is over. Default: at once.
    #[serde(default, rename = "for")]
    pub hold: Option<Period>,
    /// How loud it is, without danger.
    #[serde(default)]
    pub severity: AlertSeverity,
    /// How often it is told again while it holds. Default: never.
    #[serde(default)]
    pub repeat: Option<Period>,
    /// Names of the sources, sinks, servers or slots it is about. Default: all.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// Names of the notifiers that tell.
    pub notify: Vec<String>,
}

/// How a notifier tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifierType {
    /// A POST of JSON.
    Webhook,
}

/// Someone to tell.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifierSettings {
    /// The kind of notifier.
    #[serde(rename = "type")]
    pub kind: NotifierType,
    /// The address to post to.
    pub url: Secret,
    /// Signs what is posted: HMAC-SHA256 of `<timestamp>.<body>`, in `X-Etl-Stream-Signature`. Default: unsigned.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// What is posted.
    #[serde(default)]
    pub format: PayloadFormat,
    /// Notifications that wait at most; beyond them the oldest is dropped, and counted.
    #[serde(default = "queue")]
    #[schemars(range(min = 1, max = 100_000))]
    pub queue: u32,
    /// How long one attempt may take.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// How attempts that failed are made again.
    #[serde(default)]
    pub retry: RetrySettings,
}

fn queue() -> u32 {
    1_000
}

fn timeout() -> Period {
    Period::millis(10_000)
}

/// What a notifier posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// This program's JSON, described in `docs/alerts.md`.
    #[default]
    Default,
    /// The `wal_alert` of the program before this one: for alerts on `retained_wal` only.
    Predecessor,
}
