//! One check: one statement that answers for a whole server, on PostgreSQL 14 to 18.
//!
//! ```text
//! SELECT json_build_object(…)::text ──> Answer ──> WalServer
//! ```
//! Rows of the views are taken as JSON (`to_jsonb`), so that columns which a version does not have are simply not there.
//! `pg_replication_slots` covers every database. Any user may read it; of other users' walsenders only members of
//! `pg_monitor` see more than that they are there.

use crate::contract::{Code, CodedError, Exit, Lsn, WalDecoded, WalSender, WalServer, WalSlot};
use crate::source::postgres::connect::classify;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A server's answer to a check was not understood.
pub(super) const ANSWER: Code = Code::new("PG0040", Exit::Failure);

/// The statement.
const SQL: &str = "
SELECT json_build_object(
    'version', current_setting('server_version_num')::int,
    'system', (SELECT system_identifier::text FROM pg_control_system()),
    'started', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
    'recovery', r.standby,
    'lsn', (CASE WHEN r.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text,
    'received', (CASE WHEN r.standby THEN pg_last_wal_receive_lsn() END)::text,
    'replayed_seconds_ago', CASE WHEN r.standby THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END,
    'slots_max', current_setting('max_replication_slots')::int,
    'senders_max', current_setting('max_wal_senders')::int,
    'connections_max', current_setting('max_connections')::int,
    'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    'slots', (SELECT json_agg(to_jsonb(s)) FROM pg_replication_slots s),
    'decoded', (SELECT json_agg(to_jsonb(d)) FROM pg_stat_replication_slots d),
    'senders', (SELECT json_agg(json_build_object(
        'pid', w.pid, 'state', w.state, 'application', w.application_name, 'sent_lsn', w.sent_lsn, 'write_lsn', w.write_lsn,
        'flush_lsn', w.flush_lsn, 'replay_lsn', w.replay_lsn, 'flush_lag', extract(epoch FROM w.flush_lag)::float8,
        'replay_lag', extract(epoch FROM w.replay_lag)::float8)) FROM pg_stat_replication w)
)::text FROM (SELECT pg_is_in_recovery() AS standby) r";

#[derive(Debug, Deserialize)]
struct Answer {
    version: i64,
    system: String,
    started: i64,
    recovery: bool,
    lsn: Option<String>,
    received: Option<String>,
    replayed_seconds_ago: Option<f64>,
    slots_max: i64,
    senders_max: i64,
    connections_max: i64,
    connections: i64,
    slots: Option<Vec<Slot>>,
    decoded: Option<Vec<Decoded>>,
    senders: Option<Vec<Sender>>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    slot_name: String,
    slot_type: String,
    plugin: Option<String>,
    database: Option<String>,
    #[serde(default)]
    temporary: bool,
    active: bool,
    active_pid: Option<i64>,
    restart_lsn: Option<String>,
    confirmed_flush_lsn: Option<String>,
    wal_status: Option<String>,
    safe_wal_size: Option<i64>,
    inactive_since: Option<String>,
    invalidation_reason: Option<String>,
    conflicting: Option<bool>,
    failover: Option<bool>,
    synced: Option<bool>,
    two_phase: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Decoded {
    slot_name: String,
    spill_txns: i64,
    spill_count: i64,
    spill_bytes: i64,
    stream_txns: i64,
    stream_count: i64,
    stream_bytes: i64,
    total_txns: i64,
    total_bytes: i64,
}

#[derive(Debug, Deserialize)]
struct Sender {
    pid: Option<i64>,
    state: Option<String>,
    application: Option<String>,
    sent_lsn: Option<String>,
    write_lsn: Option<String>,
    flush_lsn: Option<String>,
    replay_lsn: Option<String>,
    flush_lag: Option<f64>,
    replay_lag: Option<f64>,
}

/// What tells one running server from another: standbys share their primary's system identifier, and copies too.
pub(super) type Instance = (String, i64);

/// What a server said.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) instance: Instance,
    pub(super) server: WalServer,
}

/// Asks a server; `label` names it in errors.
pub(super) async fn ask(client: &Client, label: &str) -> Result<Seen, CodedError> {
    let doing = format!("checking the replication slots of {label}");
    let messages = client.simple_query(SQL).await.map_err(|e| classify(&e, &doing))?;
    let text = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    });
    text.and_then(read).ok_or_else(|| {
        CodedError::transient(ANSWER, format!("{doing}: the answer was not understood"))
            .hint("is the address PostgreSQL's own, of version 14 or newer, and not a pooler's?")
    })
}

fn lsn(text: Option<&String>) -> Option<Lsn> {
    text.and_then(|text| text.parse().ok())
}

/// The distance from one position to a later one.
fn distance(from: Option<Lsn>, to: Option<Lsn>) -> Option<i64> {
    let bytes = i128::from(to?.0) - i128::from(from?.0);
    Some(i64::try_from(bytes.max(0)).unwrap_or(i64::MAX))
}

/// Reads an answer; nothing when it is none.
pub(super) fn read(text: &str) -> Option<Seen> {
    let answer: Answer = serde_json::from_str(text).ok()?;
    let position = lsn(answer.lsn.as_ref());
    let mut decoded: BTreeMap<String, WalDecoded> = answer
        .decoded
        .unwrap_or_default()
        .into_iter()
        .map(|d| {
            let counters = WalDecoded {
                spill_txns: d.spill_txns,
                spill_count: d.spill_count,
                spill_bytes: d.spill_bytes,
                stream_txns: d.stream_txns,
                stream_count: d.stream_count,
                stream_bytes: d.stream_bytes,
                total_txns: d.total_txns,
                total_bytes: d.total_bytes,
            };
            (d.slot_name, counters)
        })
        .collect();
    let senders = answer.senders.unwrap_or_default();
    let senders_used = i64::try_from(senders.len()).ok();
    let mut senders: BTreeMap<i64, WalSender> = senders
        .into_iter()
        .filter_map(|s| {
            let sender = WalSender {
                sent_lsn: lsn(s.sent_lsn.as_ref()),
                write_lsn: lsn(s.write_lsn.as_ref()),
                flush_lsn: lsn(s.flush_lsn.as_ref()),
                replay_lsn: lsn(s.replay_lsn.as_ref()),
                flush_lag: s.flush_lag,
                replay_lag: s.replay_lag,
                state: s.state,
                application: s.application,
            };
            Some((s.pid?, sender))
        })
        .collect();
    let mut slots: Vec<WalSlot> = answer
        .slots
        .unwrap_or_default()
        .into_iter()
        .map(|s| {
            let (restart, confirmed) = (lsn(s.restart_lsn.as_ref()), lsn(s.confirmed_flush_lsn.as_ref()));
            WalSlot {
                decoded: decoded.remove(&s.slot_name),
                sender: s.active_pid.and_then(|pid| senders.remove(&pid)),
                retained_bytes: distance(restart, position),
                unconfirmed_bytes: distance(confirmed, position),
                inactive_since: s.inactive_since.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_microsecond),
                name: s.slot_name,
                source: None,
                slot_type: s.slot_type,
                plugin: s.plugin,
                database: s.database,
                temporary: s.temporary,
                active: s.active,
                active_pid: s.active_pid,
                restart_lsn: restart,
                confirmed_flush_lsn: confirmed,
                wal_status: s.wal_status,
                safe_wal_size: s.safe_wal_size,
                invalidation_reason: s.invalidation_reason,
                conflicting: s.conflicting,
                failover: s.failover,
                synced: s.synced,
                two_phase: s.two_phase,
                over_limit: false,
                pause: false,
            }
        })
        .collect();
    slots.sort_by(|a, b| a.name.cmp(&b.name));
    let received = lsn(answer.received.as_ref());
    let behind = if answer.recovery { distance(position, received) } else { None };
    let server = WalServer {
        system_identifier: Some(answer.system.clone()),
        version: Some(answer.version),
        in_recovery: Some(answer.recovery),
        lsn: position,
        slots_used: i64::try_from(slots.len()).ok(),
        slots_max: Some(answer.slots_max),
        senders_used,
        senders_max: Some(answer.senders_max),
        connections_used: Some(answer.connections),
        connections_max: Some(answer.connections_max),
        replay_lag_bytes: behind,
        // Without new transactions the last one grows old, and nothing is late.
        replay_lag: if behind == Some(0) { Some(0.0) } else { answer.replayed_seconds_ago },
        slots,
        ..WalServer::default()
    };
    Some(Seen { instance: (answer.system, answer.started), server })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer() -> Value {
        json!({
            "version": 150018, "system": "7", "started": 5, "recovery": false, "lsn": "1/10", "received": null,
            "replayed_seconds_ago": null, "slots_max": 10, "senders_max": 9, "connections_max": 100, "connections": 3,
            "slots": [
                { "slot_name": "b", "slot_type": "logical", "plugin": "pgoutput", "database": "d", "temporary": false, "active": true,
                  "active_pid": 42, "restart_lsn": "0/FFFFFF10", "confirmed_flush_lsn": "1/0", "wal_status": "reserved",
                  "safe_wal_size": null, "two_phase": false, "something_new": [1] },
                { "slot_name": "a", "slot_type": "physical", "active": false, "restart_lsn": null, "wal_status": "lost",
                  "safe_wal_size": -5, "inactive_since": "2024-01-02T03:04:05.000006+00:00", "invalidation_reason": "wal_removed" },
            ],
            "decoded": [{ "slot_name": "b", "spill_txns": 1, "spill_count": 2, "spill_bytes": 3, "stream_txns": 4, "stream_count": 5,
                          "stream_bytes": 6, "total_txns": 7, "total_bytes": 8, "stats_reset": null }],
            "senders": [{ "pid": 42, "state": "streaming", "application": "x", "sent_lsn": "1/8", "write_lsn": null, "flush_lsn": null,
                          "replay_lsn": null, "flush_lag": 0.25, "replay_lag": null }, { "pid": 43 }],
        })
    }

    #[test]
    fn an_answer_is_put_together() {
        let Seen { instance, server } = read(&answer().to_string()).expect("an answer");
        assert_eq!(instance, ("7".to_owned(), 5));
        assert_eq!((server.slots_used, server.senders_used, server.connections_used), (Some(2), Some(2), Some(3)));
        let [a, b] = server.slots.as_slice() else { panic!("two slots") };
        assert_eq!((a.name.as_str(), a.retained_bytes, a.safe_wal_size), ("a", None, Some(-5)));
        assert_eq!(a.inactive_since, Some(1_704_164_645_000_006));
        assert_eq!((b.retained_bytes, b.unconfirmed_bytes), (Some(0x100), Some(0x10)));
        assert_eq!(b.decoded.map(|d| (d.spill_txns, d.total_bytes)), Some((1, 8)));
        assert_eq!(b.sender.as_ref().and_then(|s| s.flush_lag), Some(0.25));
    }

    #[test]
    fn a_standby_that_has_replayed_everything_is_not_late() {
        for (received, ago, bytes, lag) in
            [("1/10", 900.0, Some(0), Some(0.0)), ("1/20", 9.0, Some(0x10), Some(9.0)), ("0/1", 9.0, Some(0), Some(0.0))]
        {
            let mut answer = answer();
            answer["recovery"] = json!(true);
            answer["received"] = json!(received);
            answer["replayed_seconds_ago"] = json!(ago);
            let server = read(&answer.to_string()).expect("an answer").server;
            assert_eq!((server.replay_lag_bytes, server.replay_lag), (bytes, lag), "{received}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        for text in ["", "{}", "null", "[]", "{\"version\":\"x\"}"] {
            assert!(read(text).is_none(), "{text}");
        }
        // Positions that are none are not known.
        let mut odd = answer();
        odd["lsn"] = json!("x");
        assert_eq!(read(&odd.to_string()).expect("an answer").server.slots[1].retained_bytes, None);
    }
}
