//! What a receiver gets: this program's form, or the one of the program before it.

use super::Notification;
use crate::alerts::Event;
use crate::config::{AlertSeverity, PayloadFormat, Reading};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The body of a notification.
pub(super) fn body(format: PayloadFormat, notification: &Notification) -> Value {
    match format {
        PayloadFormat::Default => own(notification),
        PayloadFormat::Predecessor => predecessor(notification),
    }
}

fn time(seconds: f64) -> String {
    Timestamp::from_microsecond((seconds * 1e6) as i64).map_or_else(|_| String::new(), |time| time.to_string())
}

fn value(reading: Option<&Reading>) -> Value {
    match reading {
        Some(Reading::Number(number)) => json!(number),
        Some(Reading::Word(word)) => json!(word),
        None => Value::Null,
    }
}

fn own(n: &Notification) -> Value {
    json!({
        "type": "etl_stream.alert",
        "version": 1,
        "id": n.id,
        "pipeline": &*n.pipeline,
        "alert": n.alert,
        "event": n.event.word(),
        "severity": n.severity.word(),
        "subject": { "kind": n.kind.word(), "name": n.name, "slot": n.slot, "server": n.server },
        "metric": n.when.metric.name,
        "unit": n.when.metric.unit.word(),
        "value": value(n.reading.as_ref()),
        "threshold": value(Some(&n.when.threshold)),
        "when": n.when.text,
        "since": time(n.since),
        "at": time(n.at),
        "duration_seconds": (n.at - n.since).max(0.0),
        "message": n.message,
        "hint": n.hint,
    })
}

/// The keys and units of the program before: sizes in MiB, whole minutes. It had no word for the end; `normal` is what
/// it called the state.
fn predecessor(n: &Notification) -> Value {
    const MIB: f64 = 1_048_576.0;
    let mib = |reading: Option<&Reading>| match reading {
        Some(Reading::Number(bytes)) => bytes / MIB,
        _ => 0.0,
    };
    let status = match (n.event, n.severity) {
        (Event::Resolved, _) => "normal",
        (_, AlertSeverity::Page) => "danger",
        _ => "warning",
    };
    json!({
        "type": "wal_alert",
        "source_name": n.name,
        "status": status,
        "wal_size_mb": mib(n.reading.as_ref()),
        "threshold_mb": mib(Some(&n.when.threshold)) as u64,
        "duration_mins": ((n.at - n.since).max(0.0) / 60.0) as u64,
        "timestamp": time(n.at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SubjectKind;

    fn notification(event: Event, severity: AlertSeverity) -> Notification {
        Notification {
            id: "p/a/source shop/1000/started/661000".into(),
            pipeline: "p".into(),
            alert: "a".into(),
            event,
            severity,
            kind: SubjectKind::Source,
            name: "shop".into(),
            slot: Some("s".into()),
            server: Some("db:5432".into()),
            when: serde_json::from_value(json!("source.retained_wal > 3000MiB")).expect("a condition"),
            reading: Some(Reading::Number(3500.5 * 1_048_576.0)),
            since: 1_767_225_600.0,
            at: 1_767_226_261.5,
            message: "m".into(),
            hint: "h".into(),
        }
    }

    #[test]
    fn own_form() {
        let body = body(PayloadFormat::Default, &notification(Event::Started, AlertSeverity::Warn));
        for (pointer, expected) in [
            ("/type", json!("etl_stream.alert")),
            ("/event", json!("started")),
            ("/severity", json!("warn")),
            ("/subject", json!({ "kind": "source", "name": "shop", "slot": "s", "server": "db:5432" })),
            ("/value", json!(3500.5 * 1_048_576.0)),
            ("/threshold", json!(3_145_728_000.0)),
            ("/unit", json!("bytes")),
            ("/since", json!("2026-01-01T00:00:00Z")),
            ("/at", json!("2026-01-01T00:11:01.5Z")),
            ("/duration_seconds", json!(661.5)),
        ] {
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn predecessors_form() {
        for (event, severity, status) in [
            (Event::Started, AlertSeverity::Warn, "warning"),
            (Event::Repeated, AlertSeverity::Info, "warning"),
            (Event::Escalated, AlertSeverity::Page, "danger"),
            (Event::Resolved, AlertSeverity::Page, "normal"),
        ] {
            let body = body(PayloadFormat::Predecessor, &notification(event, severity));
            let expected = json!({
                "type": "wal_alert", "source_name": "shop", "status": status, "wal_size_mb": 3500.5, "threshold_mb": 3000,
                "duration_mins": 11, "timestamp": "2026-01-01T00:11:01.5Z",
            });
            assert_eq!(body, expected);
        }
    }
}
