//! The settings of a pipeline that are not nodes: engine, state, server, alerts and notifiers.

use crate::{ByteSize, Period, Secret};
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
    /// Bytes of all sources that may be in flight.
    pub credit: ByteSize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { workers: 1, source_credit: ByteSize::mib(32), credit: ByteSize::mib(64) }
    }
}

/// Where progress is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// A SQLite file.
    #[default]
    Sqlite,
}

/// Where progress is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSettings {
    /// The kind of store.
    #[serde(rename = "type")]
    pub kind: StateType,
    /// The store's file; a relative path starts at the pipeline file's folder. Default:
    /// `.etl-stream/<pipeline>.db`.
    pub path: Option<PathBuf>,
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
    /// Someone must look now.
    Page,
}

/// A condition worth telling someone about.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertSettings {
    /// The condition, such as `sink.freshness > 2m`.
    pub when: String,
    /// How long it must hold.
    #[serde(default, rename = "for")]
    pub hold: Option<Period>,
    /// How loud it is.
    #[serde(default)]
    pub severity: AlertSeverity,
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
}
