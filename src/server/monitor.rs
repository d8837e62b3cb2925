//! Servers, slots, alerts and connections, as metrics and as JSON.
//!
//! Their metrics are written from the status when the page is asked for, and not kept by the recorder: a slot that was
//! dropped is not on the next page.

use etl_stream_operators::contract::{Connections, Lsn, PipelineStatus, WalServer, WalSlot};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// A gauge: its name, what it says, and its value for one of `T`.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

fn size(value: Option<i64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn free(most: Option<i64>, used: Option<i64>) -> Option<f64> {
    size(most.zip(used).map(|(most, used)| most - used))
}

/// Gauges of slots.
const SLOTS: &[Gauge<WalSlot>] = &[
    ("etl_stream_slot_retained_bytes", "Log that the slot holds back.", |s| size(s.retained_bytes)),
    ("etl_stream_slot_unconfirmed_bytes", "Log that the slot's reader has not confirmed.", |s| size(s.unconfirmed_bytes)),
    ("etl_stream_slot_safe_bytes", "Log that may be written before the slot may be lost.", |s| size(s.safe_wal_size)),
    ("etl_stream_slot_active", "Whether somebody reads the slot.", |s| Some(flag(s.active))),
    ("etl_stream_slot_lost", "Whether the slot can no longer be read.", |s| Some(flag(s.wal_status.as_deref() == Some("lost")))),
    ("etl_stream_slot_over_limit", "Whether the slot holds back more than retained_wal_limit.", |s| Some(flag(s.over_limit))),
    ("etl_stream_slot_spilled_bytes", "Bytes of transactions that the slot has spilled to the server's disk.", |s| {
        size(s.decoded.map(|d| d.spill_bytes))
    }),
    ("etl_stream_slot_streamed_bytes", "Bytes of transactions that the slot has sent while in progress.", |s| {
        size(s.decoded.map(|d| d.stream_bytes))
    }),
    ("etl_stream_slot_sent_bytes", "Bytes of transactions that the slot has sent.", |s| size(s.decoded.map(|d| d.total_bytes))),
    ("etl_stream_slot_flush_lag_seconds", "Time until the slot's reader confirmed.", |s| s.sender.as_ref().and_then(|s| s.flush_lag)),
];

/// Gauges of servers; what an earlier check saw is left out after one that failed.
const SERVERS: &[Gauge<WalServer>] = &[
    ("etl_stream_server_up", "Whether the last check was answered.", |s| Some(flag(s.failed_checks == 0))),
    ("etl_stream_server_failed_checks", "Checks that have failed in a row.", |s| Some(f64::from(s.failed_checks))),
    ("etl_stream_server_check_seconds", "How long the last check took.", |s| Some(s.check_seconds)),
    ("etl_stream_server_wal_bytes_per_second", "Log written a second between the last two checks.", |s| s.wal_rate),
    ("etl_stream_server_in_recovery", "Whether the server is in recovery.", |s| known(s, s.in_recovery.map(flag))),
    ("etl_stream_server_free_slots", "Replication slots left.", |s| known(s, free(s.slots_max, s.slots_used))),
    ("etl_stream_server_free_walsenders", "Walsenders left.", |s| known(s, free(s.senders_max, s.senders_used))),
    ("etl_stream_server_free_connections", "Connections left.", |s| known(s, free(s.connections_max, s.connections_used))),
    ("etl_stream_server_replay_lag_seconds", "Age of what was replayed last, in recovery.", |s| known(s, s.replay_lag)),
    ("etl_stream_server_replay_lag_bytes", "Log received and not replayed, in recovery.", |s| known(s, size(s.replay_lag_bytes))),
];

fn known(server: &WalServer, value: Option<f64>) -> Option<f64> {
    value.filter(|_| server.failed_checks == 0)
}

/// A label's value, escaped (Prometheus text format).
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A family of gauges; nothing where there are no samples.
pub(super) fn family(page: &mut String, (name, about): (&str, &str), samples: impl Iterator<Item = (String, f64)>) {
    let mut samples = samples.peekable();
    if samples.peek().is_some() {
        let _ = writeln!(page, "# HELP {name} {about}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(page, "{name}{{{labels}}} {value}");
        }
        page.push('\n');
    }
}

/// Adds those of every pipeline, each with its labels, to the metrics page.
pub(super) fn metrics(pipelines: &[(String, &PipelineStatus)], page: &mut String) {
    let servers: Vec<(&str, Arc<WalServer>)> =
        pipelines.iter().flat_map(|(labels, status)| status.servers().into_values().map(move |server| (labels.as_str(), server))).collect();
    for &(name, about, value) in SERVERS {
        let samples = servers.iter().filter_map(|(pipeline, s)| Some((format!("{pipeline},server=\"{}\"", escaped(&s.name)), value(s)?)));
        family(page, (name, about), samples);
    }
    let slots = || {
        let seen = servers.iter().filter(|(_, server)| server.failed_checks == 0);
        seen.flat_map(|(pipeline, server)| server.slots.iter().map(move |slot| (pipeline, server, slot)))
    };
    for &(name, about, value) in SLOTS {
        let samples = slots().filter_map(|(pipeline, server, slot)| {
            let source = slot.source.as_deref().unwrap_or_default();
            let labels =
                format!("{pipeline},server=\"{}\",slot=\"{}\",source=\"{}\"", escaped(&server.name), escaped(&slot.name), escaped(source));
            Some((labels, value(slot)?))
        });
        family(page, (name, about), samples);
    }
    let firing = pipelines.iter().flat_map(|(pipeline, status)| {
        status.alerts().into_iter().filter(|alert| alert.firing).map(move |alert| {
            let (name, subject) = (escaped(&alert.alert), escaped(&alert.subject));
            (format!("{pipeline},alert=\"{name}\",subject=\"{subject}\",severity=\"{}\"", alert.severity), 1.0)
        })
    });
    family(page, ("etl_stream_alert_firing", "Alerts that fire."), firing);
}

/// Adds the connections of the process, which its pipelines share.
pub(super) fn connection_metrics(connections: &Connections, page: &mut String) {
    let limits = connections.limits();
    for (name, about, limit) in [
        ("etl_stream_connections_limit", "Connections for statements that are allowed in all.", limits.total),
        ("etl_stream_connections_limit_per_server", "Connections for statements that are allowed to one server.", limits.per_server),
    ] {
        let _ = writeln!(page, "# HELP {name} {about}\n# TYPE {name} gauge\n{name} {limit}\n");
    }
    let by_server = connections.servers();
    let samples = by_server.iter().flat_map(|(name, server)| {
        let labels = format!("server=\"{}\"", escaped(name));
        [
            ("used", server.open.saturating_sub(server.kept)),
            ("kept", server.kept),
            ("replication", server.replicating),
            ("waiting", server.waiting),
        ]
        .map(|(state, count)| (format!("{labels},state=\"{state}\""), count as f64))
    });
    family(page, ("etl_stream_connections", "Connections to PostgreSQL servers."), samples);
}

/// The servers and their slots.
pub(super) fn servers(status: &PipelineStatus) -> Vec<Value> {
    let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
    let slot = |slot: &WalSlot| {
        json!({
            "slot": slot.name, "source": slot.source.as_deref(), "active": slot.active, "wal_status": slot.wal_status,
            "retained_bytes": slot.retained_bytes, "unconfirmed_bytes": slot.unconfirmed_bytes, "safe_wal_size": slot.safe_wal_size,
            "restart_lsn": lsn(slot.restart_lsn), "confirmed_flush_lsn": lsn(slot.confirmed_flush_lsn),
            "invalidation_reason": slot.invalidation_reason, "over_limit": slot.over_limit,
        })
    };
    let server = |server: &WalServer| {
        json!({
            "server": &*server.name, "failed_checks": server.failed_checks, "error": server.error, "check_seconds": server.check_seconds,
            "in_recovery": server.in_recovery, "lsn": lsn(server.lsn), "wal_bytes_per_second": server.wal_rate,
            "slots": server.slots.iter().map(slot).collect::<Vec<_>>(),
        })
    };
    status.servers().values().map(|s| server(s)).collect()
}

/// The alerts that hold.
pub(super) fn alerts(status: &PipelineStatus) -> Vec<Value> {
    let alert = |alert: etl_stream_operators::contract::AlertStatus| {
        json!({
            "alert": alert.alert, "subject": alert.subject, "severity": alert.severity, "state": if alert.firing { "firing" } else { "pending" },
            "since": alert.since, "message": alert.message, "hint": alert.hint,
        })
    };
    status.alerts().into_iter().map(alert).collect()
}

/// The connections.
pub(super) fn connections(status: &PipelineStatus) -> Value {
    let Some(connections) = status.connections() else { return Value::Null };
    let limits = connections.limits();
    let servers: Vec<Value> = connections
        .servers()
        .iter()
        .map(|(name, server)| {
            json!({ "server": &**name, "open": server.open, "kept": server.kept, "replication": server.replicating, "waiting": server.waiting })
        })
        .collect();
    json!({ "total": limits.total, "per_server": limits.per_server, "open": connections.open(), "servers": servers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::{AlertStatus, ConnectionSettings};

    #[test]
    fn the_page_shows_what_is_there_now() {
        let status = PipelineStatus::default();
        let connections = Connections::new(ConnectionSettings::default());
        let replicating = connections.replicating("db:5432");
        status.set_connections(connections);
        let slot = WalSlot { name: "s".into(), retained_bytes: Some(5), wal_status: Some("lost".into()), ..WalSlot::default() };
        let server =
            WalServer { name: "db\"\\".into(), slots_max: Some(9), slots_used: Some(1), slots: vec![slot], ..WalServer::default() };
        status.set_server(Arc::new(server.clone()));
        status.set_alerts(vec![AlertStatus {
            alert: "a".into(),
            subject: "slot x".into(),
            severity: "page",
            firing: true,
            since: 1.0,
            message: "m".into(),
            hint: "h".into(),
        }]);
        let page = || {
            let mut page = String::new();
            metrics(&[("pipeline=\"p\"".to_owned(), &status)], &mut page);
            connection_metrics(status.connections().expect("they were set"), &mut page);
            page
        };
        let first = page();
        for line in [
            "# TYPE etl_stream_slot_retained_bytes gauge",
            "etl_stream_slot_retained_bytes{pipeline=\"p\",server=\"db\\\"\\\\\",slot=\"s\",source=\"\"} 5",
            "etl_stream_slot_lost{pipeline=\"p\",server=\"db\\\"\\\\\",slot=\"s\",source=\"\"} 1",
            "etl_stream_server_free_slots{pipeline=\"p\",server=\"db\\\"\\\\\"} 8",
            "etl_stream_alert_firing{pipeline=\"p\",alert=\"a\",subject=\"slot x\",severity=\"page\"} 1",
            "etl_stream_connections{server=\"db:5432\",state=\"replication\"} 1",
            "etl_stream_connections_limit 100",
        ] {
            assert!(first.lines().any(|have| have == line), "{line}\n{first}");
        }
        assert!(!first.contains("safe_bytes"), "what is not known has no sample");
        status.set_server(Arc::new(WalServer { slots: Vec::new(), failed_checks: 1, ..server }));
        status.set_alerts(Vec::new());
        drop(replicating);
        let second = page();
        assert!(!second.contains("slot=\"s\"") && !second.contains("alert_firing") && !second.contains("free_slots{"), "{second}");
        assert!(second.contains("etl_stream_server_up{pipeline=\"p\",server=\"db\\\"\\\\\"} 0"));
        assert_eq!(connections_of(&status), 0);
    }

    fn connections_of(status: &PipelineStatus) -> u64 {
        super::connections(status)["servers"][0]["replication"].as_u64().expect("a number")
    }
}
