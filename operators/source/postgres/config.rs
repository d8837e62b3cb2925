//! The settings of a `postgres` source.

use super::codes::CFG_POSTGRES;
use super::connect::TlsSettings;
use crate::contract::{ByteSize, Findings, NodeConfig, Period, RetrySettings, Secret, TableSelection};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Connections that copy a snapshot.
pub(super) const SNAPSHOT_WORKERS: u16 = 4;
/// Most connections that copy a snapshot.
const MOST_WORKERS: u16 = 64;
/// How often the heartbeat writes to the log.
pub(super) const HEARTBEAT: Period = Period::millis(30_000);
/// How often new tables are looked for.
pub(super) const DISCOVERY: Period = Period::millis(10_000);
/// The least memory of held transactions: each time it is full, a file is written to.
const LEAST_MEMORY: ByteSize = ByteSize(64 << 10);
/// Bytes that PostgreSQL keeps of a name.
const NAME_BYTES: usize = 63;

/// Keys by `schema.table`.
pub(super) type Keys = BTreeMap<String, Vec<String>>;

/// Reads tables of a PostgreSQL database: the rows they have, then every change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresConfig {
    /// The database as a URL, `postgres://user:password@host:port/database?sslmode=verify-full`, or
    /// `host` and the settings beside it.
    #[serde(default)]
    pub url: Option<Secret>,
    /// The server's name, its address, or the folder of its unix socket.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port. Default: 5432.
    #[serde(default)]
    pub port: Option<u16>,
    /// The database. Default: the user's name.
    #[serde(default)]
    pub database: Option<String>,
    /// The user. It needs REPLICATION, and SELECT on the tables.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: TlsSettings,
    /// The tables to read. Default: every table that is not the system's. A partitioned table is one table.
    #[serde(default)]
    pub tables: TableSelection,
    /// The publication; made with the selected tables if absent.
    /// Default: `etl_stream_<pipeline>_<source>`, which is also added to when tables are new.
    #[serde(default)]
    pub publication: Option<String>,
    /// The replication slot; made if absent, and then this source's alone. Default: `etl_stream_<pipeline>_<source>`.
    #[serde(default)]
    pub slot: Option<String>,
    /// The first copy of rows that exist, and the copy of tables that are new later.
    #[serde(default)]
    pub snapshot: SnapshotSettings,
    /// Notices tables that are new or no longer there while the source runs.
    #[serde(default)]
    pub discovery: DiscoverySettings,
    /// Keeps the slot of a quiet database moving.
    #[serde(default)]
    pub heartbeat: HeartbeatSettings,
    /// Key columns of tables without a primary key, by `schema.table`. Such a table needs REPLICA IDENTITY FULL
    /// for updates and deletes.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
    /// Whether the slot is synchronised to standbys, to survive a failover (PostgreSQL 17 and later).
    /// Default: where the server allows.
    #[serde(default)]
    pub failover: Option<bool>,
    /// How long a server that was asked for an answer may be silent before its connection counts as lost; the
    /// server's own `wal_receiver_timeout`. Default: 60s.
    #[serde(default = "receive_timeout")]
    pub receive_timeout: Period,
    /// Whether the server sends large transactions while they are in progress (PostgreSQL 14 and later). They are held
    /// here until they commit, in the spill folder if need be, instead of on the server's disk.
    #[serde(default)]
    pub streaming: Streaming,
    /// Where large transactions in progress are held.
    #[serde(default)]
    pub spill: SpillSettings,
    /// How lost connections are met.
    #[serde(default)]
    pub retry: RetrySettings,
}

/// The default of `receive_timeout`.
fn receive_timeout() -> Period {
    Period::millis(60_000)
}

/// Whether transactions in progress are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Streaming {
    /// Those larger than the server's `logical_decoding_work_mem`; smaller ones when they have committed.
    #[default]
    On,
    /// All of them when they have committed; the server spills the large ones.
    Off,
}

/// Where large transactions in progress are held.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SpillSettings {
    /// The folder of the spill files; a relative path starts at the pipeline file's folder. Files hold row values: they
    /// are readable by this process's user alone, and removed at commit, rollback and start.
    pub folder: PathBuf,
    /// The most that all spill files together may take. Beyond it the source ends with an error; nothing is lost.
    pub max_bytes: ByteSize,
    /// What is held in memory, beside the engine's credit, before a file is written.
    pub memory: ByteSize,
}

impl Default for SpillSettings {
    fn default() -> Self {
        Self { folder: ".etl-stream/spill".into(), max_bytes: ByteSize(64 << 30), memory: ByteSize::mib(16) }
    }
}

/// The first copy of rows that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SnapshotSettings {
    /// Whether rows that exist are copied at the first start.
    pub mode: SnapshotMode,
    /// Connections that copy at a time; large tables are shared among them.
    pub workers: u16,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { mode: SnapshotMode::Initial, workers: SNAPSHOT_WORKERS }
    }
}

/// Notices tables that are new or no longer there while the source runs. The publication is read; one of the default
/// name is added to when a table is new that `tables` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DiscoverySettings {
    /// How often it is looked for them, and for requests of `etl-stream resync`.
    pub interval: Period,
}

impl Default for DiscoverySettings {
    fn default() -> Self {
        Self { interval: DISCOVERY }
    }
}

/// Whether rows that exist are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SnapshotMode {
    /// At the first start, exactly at the point where the changes begin; those of a table that is new later, beside
    /// the stream.
    Initial,
    /// Only changes from the first start on, or from when a table is new.
    Never,
}

/// Keeps the slot of a quiet database moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeartbeatSettings {
    /// How often a message is written to the log of a primary; it needs no table and no privilege.
    pub interval: Period,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self { interval: HEARTBEAT }
    }
}

impl NodeConfig for PostgresConfig {
    const TYPE: &'static str = "postgres";
    const SUMMARY: &'static str = "rows and changes of a PostgreSQL database's tables, by logical replication";
    const EXAMPLE: &'static str = r#"url: { env: PG_URL }
tables: { include: ["public.*"], exclude: ["public.*_archive"] }
snapshot: { mode: initial, workers: 4 }
keys: { public.events: [id, at] }
"#;

    fn check(&self, findings: &mut Findings) {
        self.check_connection(findings);
        let mut add = |pointer: &str, message: String, help: &str| findings.push(CFG_POSTGRES, pointer, message, Some(help.to_owned()));
        if let Some(slot) = &self.slot
            && !is_slot_name(slot)
        {
            add("/slot", format!("\"{slot}\" is not the name of a replication slot"), "use 1 to 63 of a-z, 0-9 and _");
        }
        if let Some(publication) = &self.publication
            && (publication.is_empty() || publication.len() > NAME_BYTES || publication.contains('\0'))
        {
            add("/publication", format!("\"{publication}\" is not the name of a publication"), "use 1 to 63 bytes");
        }
        if !(1..=MOST_WORKERS).contains(&self.snapshot.workers) {
            add("/snapshot/workers", format!("{} connections cannot copy", self.snapshot.workers), "use 1 to 64");
        }
        if self.heartbeat.interval < Period::millis(1_000) {
            add("/heartbeat/interval", format!("{} is too often", self.heartbeat.interval), "use 1s or more");
        }
        if self.discovery.interval < Period::millis(100) {
            add("/discovery/interval", format!("{} is too often", self.discovery.interval), "use 100ms or more");
        }
        if self.receive_timeout < Period::millis(3_000) {
            add("/receive_timeout", format!("{} is too short for an answer", self.receive_timeout), "use 3s or more");
        }
        if self.spill.memory < LEAST_MEMORY {
            add("/spill/memory", format!("{} is too little", self.spill.memory), "use 64KiB or more");
        }
        if self.tables.include.is_empty() {
            add("/tables/include", "no table is included".into(), "name tables as schema.table, or leave `include` out for all");
        }
        for (table, columns) in &self.keys {
            let pointer = format!("/keys/{}", table.replace('~', "~0").replace('/', "~1"));
            if !table.split_once('.').is_some_and(|(schema, name)| !schema.is_empty() && !name.is_empty()) {
                add(&pointer, format!("\"{table}\" is not a table"), "write schema.table");
            }
            if columns.is_empty() || columns.iter().collect::<BTreeSet<_>>().len() < columns.len() {
                add(&pointer, "a key is a list of different columns".into(), "name each column once");
            }
        }
    }
}

impl PostgresConfig {
    /// The slot that it reads.
    pub(crate) fn slot_name(&self, pipeline: &str, source: &str) -> String {
        self.slot.clone().unwrap_or_else(|| default_name(pipeline, source))
    }

    fn check_connection(&self, findings: &mut Findings) {
        let mut add = |pointer: &str, message: &str, help: &str| findings.push(CFG_POSTGRES, pointer, message, Some(help.to_owned()));
        match (&self.url, &self.host) {
            (None, None) => add("", "the source has no server", "give `url`, or `host` and the settings beside it"),
            (Some(_), Some(_)) => add("/host", "`host` and `url` both name the server", "give one of them"),
            _ => {}
        }
        for (name, secret) in [("url", &self.url), ("password", &self.password)] {
            if secret.as_ref().is_some_and(|secret| secret.forms() != 1) {
                add(&format!("/{name}"), "a secret has exactly one form", "give one of env, file, command");
            }
        }
    }
}

fn is_slot_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The default name of slot and publication. Names longer than PostgreSQL keeps end in a hash of the
/// whole, so that two of them never meet.
pub(super) fn default_name(pipeline: &str, source: &str) -> String {
    let whole = format!("etl_stream_{pipeline}_{source}");
    let mut name: String = whole.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if name.len() > NAME_BYTES {
        name.truncate(NAME_BYTES - 17);
        name.push_str(&format!("_{:016x}", hash(&whole)));
    }
    name
}

/// FNV-1a: the same in every version, unlike a seeded hasher.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Settings with every default filled in.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub tables: TableSelection,
    pub publication: String,
    /// Whether the publication's name is the default: then it is ours to add tables to.
    pub own_publication: bool,
    pub slot: String,
    pub snapshot: SnapshotSettings,
    /// How often new tables are looked for.
    pub discovery: Period,
    pub heartbeat: Period,
    pub keys: Keys,
    pub failover: Option<bool>,
    pub receive_timeout: std::time::Duration,
    pub streaming: bool,
    pub spill: SpillSettings,
    /// What the names of spill files start with: no other source's do.
    pub spill_name: String,
    pub retry: RetrySettings,
    /// How long a slot in use is waited for.
    pub slot_patience: std::time::Duration,
}

impl Settings {
    pub(super) fn new(config: &PostgresConfig, pipeline: &str, source: &str) -> Self {
        let name = default_name(pipeline, source);
        Self {
            tables: config.tables.clone(),
            publication: config.publication.clone().unwrap_or(name),
            own_publication: config.publication.is_none(),
            slot: config.slot_name(pipeline, source),
            snapshot: config.snapshot,
            discovery: config.discovery.interval,
            heartbeat: config.heartbeat.interval,
            keys: config.keys.clone(),
            failover: config.failover,
            receive_timeout: config.receive_timeout.0,
            streaming: config.streaming == Streaming::On,
            spill: config.spill.clone(),
            spill_name: format!("{:016x}", hash(&format!("{pipeline}\0{source}"))),
            retry: config.retry,
            slot_patience: std::time::Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn problems_are_found_offline() {
        for (settings, pointers) in [
            (json!({ "url": { "env": "U" } }), vec![]),
            (json!({ "host": "h" }), vec![]),
            (json!({}), vec![""]),
            (json!({ "host": "h", "url": { "env": "U" } }), vec!["/host"]),
            (json!({ "url": {} }), vec!["/url"]),
            (json!({ "host": "h", "slot": "A-b" }), vec!["/slot"]),
            (json!({ "host": "h", "publication": "" }), vec!["/publication"]),
            (json!({ "host": "h", "snapshot": { "workers": 0 } }), vec!["/snapshot/workers"]),
            (json!({ "host": "h", "heartbeat": { "interval": "10ms" } }), vec!["/heartbeat/interval"]),
            (json!({ "host": "h", "discovery": { "interval": "10ms" } }), vec!["/discovery/interval"]),
            (json!({ "host": "h", "tables": { "include": [] } }), vec!["/tables/include"]),
            (json!({ "host": "h", "receive_timeout": "1s" }), vec!["/receive_timeout"]),
            (json!({ "host": "h", "streaming": "off", "spill": { "memory": "63KiB" } }), vec!["/spill/memory"]),
            (json!({ "host": "h", "streaming": "on", "spill": { "folder": "/f", "max_bytes": "1GB", "memory": "1MiB" } }), vec![]),
            (json!({ "host": "h", "keys": { "t": ["a"], "s.t/u": ["a", "a"], "s.v": [] } }), vec!["/keys/s.t~1u", "/keys/s.v", "/keys/t"]),
        ] {
            let config: PostgresConfig = serde_json::from_value(settings.clone()).unwrap();
            let mut findings = Findings::default();
            config.check(&mut findings);
            assert_eq!(findings.0.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(), pointers, "{settings}");
        }
        assert!(serde_json::from_value::<PostgresConfig>(json!({ "hots": "h" })).is_err());
    }

    #[test]
    fn default_names_are_slot_names_and_differ() {
        for (pipeline, source, name) in
            [("shop", "eu", "etl_stream_shop_eu"), ("Shop", "e-u", "etl_stream_shop_e_u"), ("né", "a", "etl_stream_n__a")]
        {
            assert_eq!(default_name(pipeline, source), name);
        }
        let long = "x".repeat(60);
        let names = [default_name(&long, "a"), default_name(&long, "b")];
        assert!(names.iter().all(|name| is_slot_name(name)) && names[0] != names[1], "{names:?}");
    }
}
