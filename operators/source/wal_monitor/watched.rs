//! The servers that a monitor checks: those its settings name, and those of the sources it watches, each once.
//!
//! Sources are put together by `host:port`. Servers that turn out to be one, reached by several names, are put together
//! when they have answered (`monitor`).

use super::config::WalMonitorConfig;
use crate::contract::{BuildContext, CodedError};
use crate::source::postgres::PostgresConfig;
use crate::source::postgres::connect::ConnectSettings;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Ways to one server that are kept: users differ, and one may be refused.
const WAYS: usize = 3;

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Its name in rows, metrics and alerts.
    pub(super) name: Arc<str>,
    /// `host:port`, which its connections count for.
    pub(super) address: Arc<str>,
    /// How it is reached; where the first fails, the next is tried.
    pub(super) ways: Vec<Arc<ConnectSettings>>,
    /// The sources that read it, and their slots.
    pub(super) sources: Vec<(Arc<str>, String)>,
    /// Where relative paths start.
    pub(super) folder: Arc<Path>,
}

impl Watched {
    /// A stable hash of its name: its moment in the period.
    pub(super) fn hash(&self) -> u64 {
        // FNV-1a, mixed: names that differ in their last letter are to be far apart.
        let hash = self.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

/// The servers of a monitor's settings; reads secrets and files.
pub(super) fn servers(config: &WalMonitorConfig, cx: &BuildContext) -> Result<Vec<Watched>, CodedError> {
    let mut found: BTreeMap<Arc<str>, Watched> = BTreeMap::new();
    for (name, server) in &config.servers {
        let connect = ConnectSettings { url: Some(cx.secret(&server.url)?), tls: server.tls.clone(), ..ConnectSettings::default() };
        add(&mut found, Some(name), connect, None, cx)?;
    }
    let all = config.watch.is_none() && config.servers.is_empty();
    for (source, settings) in cx.peers.of::<PostgresConfig>() {
        if all || config.watch.iter().flatten().any(|watched| **watched == **source) {
            let slot = settings.slot_name(&cx.pipeline, source);
            add(&mut found, None, settings.connect_settings(cx)?, Some((Arc::clone(source), slot)), cx)?;
        }
    }
    Ok(found.into_values().collect())
}

fn add(
    found: &mut BTreeMap<Arc<str>, Watched>,
    name: Option<&str>,
    connect: ConnectSettings,
    source: Option<(Arc<str>, String)>,
    cx: &BuildContext,
) -> Result<(), CodedError> {
    let address: Arc<str> = connect.resolve(&cx.folder)?.host_label().into();
    let server = found.entry(Arc::clone(&address)).or_insert_with(|| Watched {
        name: name.map_or_else(|| Arc::clone(&address), Into::into),
        address,
        ways: Vec::new(),
        sources: Vec::new(),
        folder: Arc::clone(&cx.folder),
    });
    if server.ways.len() < WAYS {
        server.ways.push(Arc::new(connect));
    }
    server.sources.extend(source);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Kind, ParsedNode, Peers, Registry};
    use serde_json::json;

    #[test]
    fn sources_of_one_server_share_it() {
        let registry = crate::source::register(Registry::empty());
        let parse = registry.get(Kind::Source, "postgres").expect("a source").parse;
        let source = |name: &str, host: &str| -> (Arc<str>, Arc<dyn ParsedNode>) {
            (name.into(), parse(json!({ "host": host, "user": name })).expect("settings"))
        };
        let peers = Peers::new([source("a", "one"), source("b", "two"), source("c", "one"), source("d", "one"), source("e", "one")]);
        let cx = BuildContext { pipeline: "p".into(), node: "wal".into(), folder: Path::new("/").into(), peers };
        for (settings, expected) in [
            (json!({}), vec![("one:5432", 3, vec!["a", "c", "d", "e"]), ("two:5432", 1, vec!["b"])]),
            (json!({ "watch": ["b"] }), vec![("two:5432", 1, vec!["b"])]),
            (json!({ "servers": { "own": { "url": { "plain": "postgres://u@two/d" } } } }), vec![("own", 1, vec![])]),
            (json!({ "watch": ["b"], "servers": { "own": { "url": { "plain": "postgres://u@two/d" } } } }), vec![("own", 2, vec!["b"])]),
        ] {
            let config: WalMonitorConfig = serde_json::from_value(settings.clone()).expect("settings");
            let servers = servers(&config, &cx).expect("servers");
            let names = |s: &Watched| s.sources.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
            let got: Vec<_> = servers.iter().map(|s| (s.name.to_string(), s.ways.len(), names(s))).collect();
            let expected: Vec<_> =
                expected.into_iter().map(|(n, w, s)| (n.to_owned(), w, s.into_iter().map(str::to_owned).collect::<Vec<_>>())).collect();
            assert_eq!(got, expected, "{settings}");
        }
        let config: WalMonitorConfig = serde_json::from_value(json!({ "watch": ["b"] })).expect("settings");
        assert_eq!(servers(&config, &cx).expect("servers")[0].sources[0].1, "etl_stream_p_b");
    }
}
