//! What an alert says and what to do about it.

use super::reading::Found;
use crate::config::{Metric, Reading, Unit, When};

/// A value for people.
pub(super) fn spell(unit: Unit, reading: &Reading) -> String {
    const UNITS: [(&str, f64); 4] = [("TiB", 1_099_511_627_776.0), ("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    let bytes = |value: f64| {
        let unit = UNITS.iter().find(|(_, size)| value.abs() >= *size);
        unit.map_or_else(|| format!("{value:.0} B"), |(name, size)| format!("{:.1} {name}", value / size))
    };
    match (unit, reading) {
        (_, Reading::Word(word)) => word.to_string(),
        (Unit::Bytes, Reading::Number(value)) => bytes(*value),
        (Unit::BytesPerSecond, Reading::Number(value)) => format!("{}/s", bytes(*value)),
        (Unit::Seconds, Reading::Number(value)) => format!("{value:.0} s"),
        (Unit::Count | Unit::Word(_), Reading::Number(value)) => format!("{value:.0}"),
    }
}

/// The value and the condition, in words.
pub(super) fn message(subject: &str, when: &When, reading: Option<&Reading>) -> String {
    let metric = when.metric;
    let value = reading.map_or_else(|| "not there any more".to_owned(), |reading| spell(metric.unit, reading));
    format!("{subject}: {} is {value} (alert when {when})", metric.name)
}

/// A string constant of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What to do: SQL where SQL does it.
pub(super) fn hint(metric: &Metric, found: &Found<'_>) -> String {
    let slot = found.detail.map(|slot| slot.name.as_str());
    let source = found.detail.and_then(|slot| slot.source.as_deref());
    let drop = |slot: &str| {
        let reader = source.map_or_else(|| "its reader".to_owned(), |source| format!("source \"{source}\""));
        format!("SELECT pg_drop_replication_slot({}); this cannot be undone, and {reader} then needs a new snapshot", literal(slot))
    };
    let look = |slot: &str| format!("SELECT * FROM pg_replication_slots WHERE slot_name = {};", literal(slot));
    match (metric.name, slot) {
        ("source.wal_status" | "slot.wal_status", Some(slot)) if found.reading == Some(Reading::Word("lost".into())) => format!(
            "the server has removed log that was not read: raise max_slot_wal_keep_size, drop the slot, remove the source's state and start with a new snapshot. {}",
            drop(slot)
        ),
        ("source.wal_status", None) => "the slot is not there: if somebody dropped it, remove the source's state and start with a new snapshot. \
             SELECT slot_name, database, active FROM pg_replication_slots;"
            .into(),
        (name, Some(slot)) if name.ends_with("active") || name.ends_with("inactive_for") => {
            format!("nobody reads the slot: start its reader, or, if there will be none again, drop it. {} {}", look(slot), drop(slot))
        }
        (_, Some(slot)) => format!(
            "find out why the slot's reader is behind (the sink, the network, a paused source), before the server's disk is full. {} \
             Only if the server is in danger: {}",
            look(slot),
            drop(slot)
        ),
        ("server.failed_checks", _) => {
            let why = found.server.and_then(|server| server.error.as_deref()).unwrap_or("the server does not answer");
            format!("{why}; look at the server, its pg_hba.conf and the network between")
        }
        ("server.free_slots", _) => "drop slots that nobody reads, or raise max_replication_slots and restart the server. \
             SELECT slot_name, active, restart_lsn FROM pg_replication_slots ORDER BY restart_lsn;"
            .into(),
        ("server.free_walsenders", _) => "raise max_wal_senders and restart the server. SELECT pid, application_name, state FROM pg_stat_replication;".into(),
        ("server.free_connections", _) => "lower `engine.connections`, or see who is connected. \
             SELECT application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2 ORDER BY 3 DESC;"
            .into(),
        ("server.wal_rate", _) => "see what writes so much. SELECT pid, query FROM pg_stat_activity WHERE state = 'active';".into(),
        ("server.replay_lag", _) => "see what holds up replay on the standby. SELECT * FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle';".into(),
        ("sink.stopped_tables", _) => "the log and /api/v1/status say why; when that is mended, etl-stream resync TABLE copies it anew".into(),
        ("sink.rejected_rows" | "sink.dead_letter_rows", _) => "etl-stream dead-letter list shows why rows were refused, and dead-letter replay sends them again".into(),
        _ => "look at /api/v1/status and the log: a phase of `retrying` says why".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::METRICS;
    use etl_stream_operators::contract::WalSlot;

    #[test]
    fn values_for_people() {
        for (unit, reading, text) in [
            (Unit::Bytes, Reading::Number(512.0), "512 B"),
            (Unit::Bytes, Reading::Number(-2_097_152.0), "-2.0 MiB"),
            (Unit::BytesPerSecond, Reading::Number(1_610_612_736.0), "1.5 GiB/s"),
            (Unit::Seconds, Reading::Number(61.4), "61 s"),
            (Unit::Count, Reading::Number(3.0), "3"),
            (Unit::Word(&[]), Reading::Word("lost".into()), "lost"),
        ] {
            assert_eq!(spell(unit, &reading), text);
        }
    }

    #[test]
    fn every_metric_has_a_hint_and_names_stay_names() {
        let slot = WalSlot { name: "a'b".into(), ..WalSlot::default() };
        for metric in METRICS {
            let of_slot = metric.monitored && metric.subject != crate::config::SubjectKind::Server;
            let found = Found { name: "x", slot: None, detail: of_slot.then_some(&slot), server: None, reading: None };
            let text = hint(metric, &found);
            assert!(text.len() > 20, "{}", metric.name);
            if of_slot {
                assert!(text.contains("pg_drop_replication_slot('a''b')"), "{}: {text}", metric.name);
            }
        }
    }
}
