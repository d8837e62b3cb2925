//! The settings of a `wal_monitor` source.

use super::monitor::{Settings, WalMonitor};
use super::watched;
use crate::contract::{BuildContext, ByteSize, Code, CodedError, Exit, Findings, NodeConfig, Period, Secret, Source, SourceConfig, Watch};
use crate::source::postgres::PostgresConfig;
use crate::source::postgres::connect::TlsSettings;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A setting of the monitor that types cannot express.
pub(super) const CFG_MONITOR: Code = Code::new("CFG0060", Exit::Usage);

/// How often a server is checked.
const INTERVAL: Period = Period::millis(10_000);
/// How long a check may take.
const TIMEOUT: Period = Period::millis(5_000);
/// Servers checked at once.
const CHECKS: u16 = 8;
/// The most of them.
const MOST_CHECKS: u16 = 1_000;
/// The least time between two checks of a server, and the least that one may take.
const LEAST: Period = Period::millis(100);

/// Checks the replication slots of PostgreSQL servers, of this file's sources and of others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalMonitorConfig {
    /// Sources of type `postgres` whose servers are checked. Default: every one of the file, if `servers` is not given.
    #[serde(default)]
    pub watch: Option<Vec<String>>,
    /// Servers that no source of the file reads, by the name that they have in rows, metrics and alerts.
    #[serde(default)]
    pub servers: BTreeMap<String, ServerSettings>,
    /// How often each server is checked.
    #[serde(default = "interval")]
    pub interval: Period,
    /// How long a check may take, connecting and waiting for a connection of `engine.connections` included.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Servers checked at once.
    #[serde(default = "checks")]
    #[schemars(range(min = 1, max = 1000))]
    pub checks: u16,
    /// The log that a slot may hold back. Default: no limit.
    #[serde(default)]
    pub retained_wal_limit: Option<ByteSize>,
    /// What is done about a slot beyond it.
    #[serde(default)]
    pub on_limit: OnLimit,
}

fn interval() -> Period {
    INTERVAL
}

fn timeout() -> Period {
    TIMEOUT
}

fn checks() -> u16 {
    CHECKS
}

/// A server that is checked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// Any of its databases as a URL, `postgres://user:password@host:port/database`. The user needs no privilege but to
    /// connect; `pg_monitor` lets it see other users' walsenders.
    pub url: Secret,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// What is done about a slot that holds back too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnLimit {
    /// It is said: in the log, in the metric `etl_stream_slot_over_limit` and as `slot.over_limit` for alerts.
    #[default]
    Alert,
    /// The source that reads it is paused, until `etl-stream resume`. Its slot goes on holding back log.
    Pause,
    /// The slot is dropped, if a source of the file reads it: the server's disk is saved, and the source ends and needs a
    /// new snapshot.
    DropSlot,
}

impl NodeConfig for WalMonitorConfig {
    const TYPE: &'static str = "wal_monitor";
    const SUMMARY: &'static str = "the health of replication slots and their servers, checked once a period";
    const EXAMPLE: &'static str = "servers:\n  warehouse: { url: { env: WAREHOUSE_PG_URL } }\ninterval: 10s\nretained_wal_limit: 50GiB\n";

    fn check(&self, findings: &mut Findings) {
        let mut add = |pointer: String, message: String, help: &str| findings.push(CFG_MONITOR, pointer, message, Some(help.to_owned()));
        for (name, period) in [("interval", self.interval), ("timeout", self.timeout)] {
            if period < LEAST {
                add(format!("/{name}"), format!("{period} is too short"), "use 100ms or more");
            }
        }
        if !(1..=MOST_CHECKS).contains(&self.checks) {
            add("/checks".into(), format!("{} servers cannot be checked at once", self.checks), "use 1 to 1000");
        }
        for (name, server) in &self.servers {
            if server.url.forms() != 1 {
                add(format!("/servers/{name}/url"), "a secret has exactly one form".into(), "give one of env, file, command");
            }
        }
        let watch = self.watch.as_deref().unwrap_or_default();
        if self.watch.is_some() && watch.is_empty() && self.servers.is_empty() {
            add("/watch".into(), "nothing is watched".into(), "name sources of the file, or leave `watch` out for all of them");
        }
        if watch.iter().collect::<BTreeSet<_>>().len() < watch.len() {
            add("/watch".into(), "a source is watched twice".into(), "name each source once");
        }
        if matches!(self.on_limit, OnLimit::Pause | OnLimit::DropSlot) && self.retained_wal_limit.is_none() {
            add("/on_limit".into(), "there is no limit to act on".into(), "set `retained_wal_limit`");
        }
    }

    /// Metrics and alerts come without.
    fn may_be_unread(&self) -> bool {
        true
    }

    fn watches(&self) -> Vec<Watch> {
        let watch = |(at, source): (usize, &String)| Watch {
            pointer: format!("/watch/{at}"),
            source: source.clone(),
            type_name: PostgresConfig::TYPE,
        };
        self.watch.iter().flatten().enumerate().map(watch).collect()
    }
}

impl SourceConfig for WalMonitorConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        let servers = watched::servers(self, cx)?;
        if servers.is_empty() {
            let message = format!("wal_monitor \"{}\" has no server to check", cx.node);
            return Err(CodedError::definite(CFG_MONITOR, message).hint("add a source of type postgres to watch, or give `servers`"));
        }
        let settings = Settings {
            interval: self.interval.0,
            timeout: self.timeout.0,
            checks: usize::from(self.checks),
            limit: self.retained_wal_limit.map(|limit| (i64::try_from(limit.0).unwrap_or(i64::MAX), self.on_limit)),
        };
        Ok(Box::new(WalMonitor { settings, servers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn problems_are_found_offline() {
        for (settings, pointers) in [
            (json!({}), vec![]),
            (json!({ "watch": ["shop"] }), vec![]),
            (json!({ "watch": [] }), vec!["/watch"]),
            (json!({ "watch": [], "servers": { "a": { "url": { "env": "U" } } } }), vec![]),
            (json!({ "watch": ["shop", "shop"] }), vec!["/watch"]),
            (json!({ "servers": { "a": { "url": {} } } }), vec!["/servers/a/url"]),
            (json!({ "interval": "1ms", "timeout": "1ms", "checks": 0 }), vec!["/interval", "/timeout", "/checks"]),
            (json!({ "on_limit": "pause", "retained_wal_limit": "1GiB" }), vec![]),
            (json!({ "on_limit": "pause" }), vec!["/on_limit"]),
            (json!({ "on_limit": "drop_slot" }), vec!["/on_limit"]),
            (json!({ "on_limit": "drop_slot", "retained_wal_limit": "1GiB" }), vec![]),
        ] {
            let config: WalMonitorConfig = serde_json::from_value(settings.clone()).unwrap();
            let mut findings = Findings::default();
            config.check(&mut findings);
            assert_eq!(findings.0.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(), pointers, "{settings}");
        }
        assert!(serde_json::from_value::<WalMonitorConfig>(json!({ "wach": [] })).is_err());
    }

    #[test]
    fn what_is_watched_is_of_type_postgres() {
        let config: WalMonitorConfig = serde_json::from_value(json!({ "watch": ["a", "b"] })).unwrap();
        let watched = config.watches();
        assert_eq!(watched[1], Watch { pointer: "/watch/1".into(), source: "b".into(), type_name: "postgres" });
    }
}
