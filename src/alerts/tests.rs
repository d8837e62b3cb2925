//! Alerts of a file against a status that changes: what is told when, and what survives a restart.

use super::life::Event;
use super::rules::Alerts;
use crate::config::{AlertSettings, AlertSeverity};
use crate::notify::Notification;
use etl_stream_operators::contract::{MemoryState, Phase, PipelineStatus, StateStore, WalServer, WalSlot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct World {
    status: PipelineStatus,
    state: Arc<MemoryState>,
    settings: BTreeMap<String, AlertSettings>,
    alerts: Alerts,
}

fn open(settings: &BTreeMap<String, AlertSettings>, state: &Arc<MemoryState>) -> Alerts {
    let reach = BTreeMap::from([("out".to_owned(), vec!["shop".to_owned()])]);
    Alerts::new(&"p".into(), settings, reach, Arc::clone(state) as Arc<dyn StateStore>).unwrap()
}

impl World {
    fn new(alerts: &Value) -> Self {
        let settings: BTreeMap<String, AlertSettings> = serde_json::from_value(alerts.clone()).unwrap();
        let state = Arc::new(MemoryState::default());
        Self { status: PipelineStatus::default(), alerts: open(&settings, &state), state, settings }
    }

    fn restart(&mut self) {
        self.alerts = open(&self.settings, &self.state);
    }

    /// What is told at a second.
    fn look(&mut self, second: u32) -> Vec<Notification> {
        self.alerts.look(&self.status, f64::from(second)).unwrap().into_iter().map(|told| told.notification).collect()
    }

    /// The same in short.
    fn told(&mut self, second: u32) -> Vec<(String, Event, &'static str)> {
        let short = |n: Notification| (format!("{}: {}/{}", n.alert, n.name, n.slot.as_deref().unwrap_or("-")), n.event, n.severity.word());
        self.look(second).into_iter().map(short).collect()
    }

    fn slots(&self, failed_checks: u32, slots: &[(&str, Option<&str>, i64)]) {
        let slots = slots.iter().map(|(name, source, mib)| WalSlot {
            name: (*name).into(),
            source: source.map(Into::into),
            retained_bytes: Some(mib << 20),
            wal_status: Some("reserved".into()),
            ..WalSlot::default()
        });
        let sources = vec![("shop".into(), "s1".to_owned())];
        let error = (failed_checks > 0).then(|| "no answer [PG0041]".to_owned());
        self.status.set_server(Arc::new(WalServer {
            name: "db:5432".into(),
            failed_checks,
            error,
            slots: slots.collect(),
            sources,
            ..WalServer::default()
        }));
    }
}

fn told(alert: &str, event: Event, severity: &'static str) -> (String, Event, &'static str) {
    (alert.to_owned(), event, severity)
}

#[test]
fn the_whole_life_of_an_alert_on_slots() {
    let mut world = World::new(&json!({
        "grows": { "when": "slot.retained_wal > 100MiB", "danger": "slot.retained_wal > 200MiB", "for": "10s", "repeat": "60s", "notify": ["ops"] },
        "mine": { "when": "source.retained_wal > 100MiB", "notify": ["ops"], "severity": "info" },
        "other": { "when": "slot.retained_wal > 1MiB", "only": ["s9"], "notify": ["ops"] },
    }));
    world.slots(0, &[("s1", Some("shop"), 50), ("s2", None, 50)]);
    assert_eq!(world.told(0), []);
    world.slots(0, &[("s1", Some("shop"), 150), ("s2", None, 50)]);
    assert_eq!(world.told(1), [told("mine: shop/s1", Event::Started, "info")]);
    assert_eq!(world.status.alerts().iter().map(|a| (a.alert.as_str(), a.firing)).collect::<Vec<_>>(), [("grows", false), ("mine", true)]);
    let at_11 = world.look(11);
    assert_eq!((at_11.len(), at_11[0].event, at_11[0].severity), (1, Event::Started, AlertSeverity::Warn));
    assert!(at_11[0].hint.contains("SELECT pg_drop_replication_slot('s1')"), "{}", at_11[0].hint);
    assert_eq!(at_11[0].message, "slot db:5432/s1: slot.retained_wal is 150.0 MiB (alert when slot.retained_wal > 100MiB)");
    // A server that does not answer says nothing about its slots.
    world.slots(1, &[("s1", Some("shop"), 0)]);
    assert_eq!(world.told(20), []);
    world.slots(0, &[("s1", Some("shop"), 250)]);
    assert_eq!(world.told(21), [told("grows: db:5432/s1", Event::Escalated, "page")]);
    world.slots(0, &[("s1", Some("shop"), 150)]);
    assert_eq!(world.told(81), [told("grows: db:5432/s1", Event::Repeated, "page")]);
    // Gone is over.
    world.slots(0, &[]);
    assert_eq!(world.told(90), [told("mine: shop/s1", Event::Resolved, "info")]);
    let over = world.look(100);
    assert_eq!((over.len(), over[0].event, over[0].reading.clone()), (1, Event::Resolved, None));
    assert!(over[0].message.contains("not there any more"));
    assert_eq!(world.told(200), []);
    assert!(world.status.alerts().is_empty() && world.state.list("p", "/alerts").unwrap().is_empty());
}

#[test]
fn a_restart_neither_repeats_nor_forgets() {
    let mut world = World::new(&json!({ "grows": { "when": "slot.retained_wal > 100MiB", "for": "10s", "notify": ["ops"] } }));
    world.slots(0, &[("s1", None, 150)]);
    assert_eq!((world.told(0), world.told(10)), (vec![], vec![told("grows: db:5432/s1", Event::Started, "warn")]));
    world.restart();
    assert_eq!(world.told(11), []);
    // A server that has not been checked since says nothing, for a while.
    world.status = PipelineStatus::default();
    world.restart();
    assert_eq!((world.told(12), world.told(23), world.told(600)), (vec![], vec![], vec![]));
    world.restart();
    assert_eq!((world.told(1000), world.told(1599), world.told(1600)), (vec![], vec![], vec![]));
    assert_eq!(world.told(1610), [told("grows: db:5432/s1", Event::Resolved, "warn")]);
    world.slots(0, &[("s1", None, 150)]);
    assert_eq!((world.told(2000), world.told(2010)), (vec![], vec![told("grows: db:5432/s1", Event::Started, "warn")]));
    // Over while nobody looked.
    world.slots(0, &[]);
    world.restart();
    assert_eq!(world.told(2012), []);
    let over = world.look(2022);
    assert_eq!((over.len(), over[0].event, over[0].slot.as_deref()), (1, Event::Resolved, Some("s1")));
    // An alert that is no longer in the file, or about something else, is forgotten.
    for settings in [json!({}), json!({ "grows": { "when": "slot.safe_wal < 1MiB", "notify": [] } })] {
        world.slots(0, &[("s1", None, 150)]);
        let _ = (world.look(3000), world.look(3011));
        assert_eq!(world.state.list("p", "/alerts").unwrap().len(), 1);
        let settings: BTreeMap<String, AlertSettings> = serde_json::from_value(settings).unwrap();
        let _ = open(&settings, &world.state);
        assert!(world.state.list("p", "/alerts").unwrap().is_empty());
        world.restart();
    }
}

#[test]
fn sources_sinks_and_servers() {
    let mut world = World::new(&json!({
        "stale": { "when": "sink.freshness > 0s", "notify": [] },
        "rejects": { "when": "sink.rejected_rows > 0", "notify": [] },
        "retrying": { "when": "source.phase == retrying", "for": "5s", "notify": [] },
        "missing": { "when": "source.wal_status == missing", "notify": [] },
        "down": { "when": "server.failed_checks >= 3", "severity": "page", "notify": [] },
    }));
    let (source, sink) = (world.status.source("shop"), world.status.sink("out"));
    source.set_phase(Phase::Streaming, None);
    assert_eq!(world.told(0), []);
    source.heard(100);
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert_eq!(world.told(121), [told("stale: out/-", Event::Started, "warn")]);
    source.confirmed_lsn.store(100, Ordering::Relaxed);
    assert_eq!(world.told(122), [told("stale: out/-", Event::Resolved, "warn")]);
    sink.rejected_rows.store(1, Ordering::Relaxed);
    source.set_phase(Phase::Retrying, Some("gone".into()));
    assert_eq!(world.told(123), [told("rejects: out/-", Event::Started, "warn")]);
    assert_eq!(world.told(128), [told("retrying: shop/-", Event::Started, "warn")]);
    world.slots(0, &[("other", None, 1)]);
    assert_eq!(world.told(129), [told("missing: shop/-", Event::Started, "warn")]);
    world.slots(3, &[]);
    let down = world.look(130);
    assert_eq!((down.len(), down[0].severity, down[0].server.as_deref()), (1, AlertSeverity::Page, Some("db:5432")));
    assert!(down[0].hint.starts_with("no answer [PG0041]"), "{}", down[0].hint);
}
