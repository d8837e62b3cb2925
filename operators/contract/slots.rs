//! Replication slots as a user manages them: what holds log on a server, and for whom.

use super::Lsn;

/// One replication slot of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// The server, as `host:port`.
    pub server: String,
    /// Its name.
    pub slot: String,
    /// Whether it is the slot of the source that was asked.
    pub own: bool,
    /// Its database; nothing for a physical slot.
    pub database: Option<String>,
    /// Its output plugin; nothing for a physical slot.
    pub plugin: Option<String>,
    /// The process that uses it.
    pub pid: Option<i32>,
    /// That process's `application_name`.
    pub application: Option<String>,
    /// The position confirmed.
    pub confirmed: Option<Lsn>,
    /// Bytes of log that the server keeps for it.
    pub retained_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost` (PostgreSQL manual, `pg_replication_slots`).
    pub wal_status: Option<String>,
    /// Whether it ends with its connection.
    pub temporary: bool,
}

/// What was dropped with a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The slot, if there was one.
    pub slot: Option<String>,
    /// The publication, if one was to be dropped and was there.
    pub publication: Option<String>,
}
