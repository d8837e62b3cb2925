//! What a WAL monitor last saw of a server and its replication slots.
//!
//! Fields are those of `pg_replication_slots`, `pg_stat_replication_slots` and `pg_stat_replication` (PostgreSQL manual),
//! unless they say otherwise. Nothing: the server's version does not have it, or does not know.

use super::Lsn;
use std::sync::Arc;

/// What a slot has decoded since its statistics were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalDecoded {
    /// Transactions spilled to the server's disk.
    pub spill_txns: i64,
    /// Times that transactions were spilled.
    pub spill_count: i64,
    /// Bytes spilled.
    pub spill_bytes: i64,
    /// Transactions streamed while in progress.
    pub stream_txns: i64,
    /// Times that transactions were streamed.
    pub stream_count: i64,
    /// Bytes streamed.
    pub stream_bytes: i64,
    /// Transactions sent.
    pub total_txns: i64,
    /// Bytes sent.
    pub total_bytes: i64,
}

/// The walsender that reads a slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalSender {
    /// `startup`, `catchup`, `streaming`, `backup` or `stopping`.
    pub state: Option<String>,
    /// Its client's `application_name`.
    pub application: Option<String>,
    /// What it has sent.
    pub sent_lsn: Option<Lsn>,
    /// What its client says it has written.
    pub write_lsn: Option<Lsn>,
    /// What its client says it has flushed.
    pub flush_lsn: Option<Lsn>,
    /// What its client says it has replayed.
    pub replay_lsn: Option<Lsn>,
    /// Seconds between flushing here and the client's word that it has flushed.
    pub flush_lag: Option<f64>,
    /// Seconds between flushing here and the client's word that it has replayed.
    pub replay_lag: Option<f64>,
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalSlot {
    /// Its name.
    pub name: String,
    /// The source of this pipeline that reads it.
    pub source: Option<Arc<str>>,
    /// `logical` or `physical`.
    pub slot_type: String,
    /// The output plugin.
    pub plugin: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Whether it ends with its session.
    pub temporary: bool,
    /// Whether somebody reads it.
    pub active: bool,
    /// Who does.
    pub active_pid: Option<i64>,
    /// The oldest log that it needs.
    pub restart_lsn: Option<Lsn>,
    /// What its reader has confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Bytes of log between `restart_lsn` and the server's position.
    pub retained_bytes: Option<i64>,
    /// Bytes of log between `confirmed_flush_lsn` and the server's position.
    pub unconfirmed_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may still be written until the slot may be lost; negative when it is about to be.
    pub safe_wal_size: Option<i64>,
    /// When it was last in use, in microseconds since 1970-01-01 00:00:00 UTC; before PostgreSQL 17, since when the
    /// monitor has seen that it is not.
    pub inactive_since: Option<i64>,
    /// Why it can no longer be read.
    pub invalidation_reason: Option<String>,
    /// Whether it was invalidated by a conflict with recovery.
    pub conflicting: Option<bool>,
    /// Whether it is synchronised to standbys.
    pub failover: Option<bool>,
    /// Whether it was synchronised from a primary.
    pub synced: Option<bool>,
    /// Whether it decodes prepared transactions at PREPARE.
    pub two_phase: Option<bool>,
    /// What it has decoded.
    pub decoded: Option<WalDecoded>,
    /// Who reads it.
    pub sender: Option<WalSender>,
    /// Whether it retains more than the monitor's `retained_wal_limit`.
    pub over_limit: bool,
    /// Whether the source that reads it is to be paused for that.
    pub pause: bool,
}

/// A server, as of the last check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalServer {
    /// Its name: `host:port`, or what the monitor's settings call it.
    pub name: Arc<str>,
    /// When it was checked, in microseconds since 1970-01-01 00:00:00 UTC, by this machine's clock.
    pub checked_at: i64,
    /// How long the check took, in seconds.
    pub check_seconds: f64,
    /// Checks that have failed in a row. What stands below is then of the last that did not.
    pub failed_checks: u32,
    /// Why the last one did: a code and a message.
    pub error: Option<String>,
    /// The cluster's identifier (`pg_control_system`).
    pub system_identifier: Option<String>,
    /// `server_version_num`.
    pub version: Option<i64>,
    /// Whether it is in recovery.
    pub in_recovery: Option<bool>,
    /// Where its log ends; what it has replayed when in recovery.
    pub lsn: Option<Lsn>,
    /// Bytes of log written (in recovery: replayed) a second since the check before.
    pub wal_rate: Option<f64>,
    /// Replication slots in use.
    pub slots_used: Option<i64>,
    /// `max_replication_slots`.
    pub slots_max: Option<i64>,
    /// Walsenders in use.
    pub senders_used: Option<i64>,
    /// `max_wal_senders`.
    pub senders_max: Option<i64>,
    /// Clients connected, walsenders not counted.
    pub connections_used: Option<i64>,
    /// `max_connections`.
    pub connections_max: Option<i64>,
    /// In recovery: bytes received and not replayed.
    pub replay_lag_bytes: Option<i64>,
    /// In recovery: seconds since the commit that was replayed last, 0 when everything received is replayed.
    pub replay_lag: Option<f64>,
    /// Its slots.
    pub slots: Vec<WalSlot>,
    /// Sources of this pipeline that read it, and their slots.
    pub sources: Vec<(Arc<str>, String)>,
}

impl WalServer {
    /// The slot that a source of this pipeline reads.
    #[must_use]
    pub fn slot_of(&self, source: &str) -> Option<&WalSlot> {
        self.slots.iter().find(|slot| slot.source.as_deref() == Some(source))
    }
}
