//! Before the first row: the server and the slot are what the source needs, or the error says which statement makes
//! them so. The publication is the matter of `publication`.
//!
//! # Guarantees
//! A slot that this source did not make is never dropped. A slot whose state is missing, or a state whose slot is missing,
//! is refused: going on would lose or repeat changes.

use super::connect::classify;
use super::quote::{identifier, literal};
use super::state::{Progress, Stage};
use super::{codes, config::Settings};
use crate::contract::{CodedError, Lsn};
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tracing::info;

/// How often a slot in use is looked at.
const SLOT_POLL: Duration = Duration::from_millis(250);

/// What is known of the server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `server_version_num`.
    pub version: u32,
    /// Whether it is a standby.
    pub standby: bool,
    /// `wal_sender_timeout`; nothing when it is off.
    pub sender_timeout: Option<Duration>,
    /// Bytes of a page.
    pub page: u64,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
}

/// Looks at the server, and refuses one that does not decode its log.
pub(super) async fn server(client: &Client) -> Result<Server, CodedError> {
    let (server, level) = look(client).await?;
    check_level(&level).map(|()| server)
}

/// Looks at the server; its `wal_level` beside.
pub(super) async fn look(client: &Client) -> Result<(Server, String), CodedError> {
    let sql = "SELECT current_setting('server_version_num'), pg_is_in_recovery(), current_setting('wal_level'),
                      (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'), current_setting('block_size'),
                      current_database()::text, current_user::text";
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|e| classify(&e, "reading the server's settings"))?;
    let number = |index: usize| row.get::<_, Option<String>>(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let timeout = number(3);
    let server = Server {
        version: u32::try_from(number(0)).unwrap_or(0),
        standby: row.get(1),
        sender_timeout: (timeout > 0).then(|| Duration::from_millis(timeout)),
        page: number(4).max(1),
        database: row.get(5),
        user: row.get(6),
    };
    Ok((server, row.get(2)))
}

/// Refuses a server that does not decode its log.
pub(super) fn check_level(level: &str) -> Result<(), CodedError> {
    if level == "logical" {
        return Ok(());
    }
    let message = format!("the server's wal_level is \"{level}\", logical replication needs \"logical\"");
    Err(CodedError::definite(codes::WAL_LEVEL, message).hint(
        "ALTER SYSTEM SET wal_level = 'logical', then restart the server (managed services: set rds.logical_replication or the like)",
    ))
}

/// What `IDENTIFY_SYSTEM` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The cluster's identifier.
    pub system: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where its log ends.
    pub lsn: u64,
}

impl Identity {
    /// Reads the command's row.
    pub(super) fn of(rows: &[Vec<Option<String>>]) -> Result<Self, CodedError> {
        let field = |index: usize| rows.first().and_then(|row| row.get(index)).and_then(Option::as_deref);
        let parts = (field(0), field(1).and_then(|t| t.parse().ok()), field(2).and_then(|l| l.parse::<Lsn>().ok()));
        let (Some(system), Some(timeline), Some(lsn)) = parts else {
            return Err(CodedError::definite(codes::STREAM, "the server's answer to IDENTIFY_SYSTEM was not understood"));
        };
        Ok(Self { system: system.to_owned(), timeline, lsn: lsn.0 })
    }

    /// Refuses a server that is not the state's. A later timeline is the same server's when the slot
    /// came along by synchronisation (PostgreSQL 17 and later).
    pub(super) fn check(&self, progress: &Progress, database: &str, slot: Option<&Slot>) -> Result<(), CodedError> {
        let what = if self.system != progress.system_identifier {
            format!("the server's system identifier is {}, the state's is {}", self.system, progress.system_identifier)
        } else if database != progress.database {
            format!("the database is \"{database}\", the state's is \"{}\"", progress.database)
        } else if self.timeline != progress.timeline && !(self.timeline > progress.timeline && slot.is_some_and(|s| s.synced)) {
            format!("the server is on timeline {}, the state on {}: it was promoted or restored", self.timeline, progress.timeline)
        } else {
            return Ok(());
        };
        Err(CodedError::definite(codes::OTHER_SERVER, format!("{what}; its log does not continue what was read")).hint(
            "point the source at the original server, or give the source a new name (or remove its state) so that it starts with a new snapshot",
        ))
    }
}

/// A replication slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Whether it is a logical slot.
    pub logical: bool,
    /// Its output plugin.
    pub plugin: Option<String>,
    /// Its database.
    pub database: Option<String>,
    /// Who uses it.
    pub pid: Option<i32>,
    /// That process's `application_name`.
    pub application: Option<String>,
    /// The position confirmed.
    pub confirmed: Option<u64>,
    /// Why it is no longer usable.
    pub lost: Option<String>,
    /// Whether it came from a primary by slot synchronisation.
    pub synced: bool,
    /// Whether it decodes prepared transactions at PREPARE.
    pub two_phase: bool,
}

impl Slot {
    /// Who uses it.
    pub(super) fn user(&self) -> Option<String> {
        self.pid.map(|pid| user(pid, self.application.as_deref()))
    }
}

/// A process of the server, for messages.
pub(super) fn user(pid: i32, application: Option<&str>) -> String {
    match application {
        Some(application) if !application.is_empty() => format!("process {pid} (\"{application}\")"),
        _ => format!("process {pid}"),
    }
}

/// The refusal of a slot that somebody uses.
pub(super) fn in_use(name: &str, who: &str) -> CodedError {
    CodedError::definite(codes::SLOT_IN_USE, format!("replication slot \"{name}\" is in use by {who}"))
        .hint("only one process can read a slot: stop the other one, give this source a `slot` of its own, or pg_terminate_backend it")
}

/// Looks for a slot.
pub(super) async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, CodedError> {
    let sql = "SELECT s.slot_type = 'logical', s.plugin::text, s.database::text, s.active_pid, a.application_name,
                      s.confirmed_flush_lsn::text, f.facts->>'wal_status',
                      coalesce(f.facts->>'invalidation_reason', CASE WHEN (f.facts->>'conflicting')::bool THEN 'conflict' END),
                      coalesce((f.facts->>'synced')::bool, false), coalesce((f.facts->>'two_phase')::bool, false)
               FROM pg_replication_slots s CROSS JOIN LATERAL (SELECT to_jsonb(s)) f(facts)
               LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1";
    let row = client.query_opt(sql, &[&name]).await.map_err(|e| classify(&e, &format!("looking for replication slot \"{name}\"")))?;
    Ok(row.map(|row| {
        let status: Option<String> = row.get(6);
        let reason: Option<String> = row.get(7);
        let confirmed: Option<String> = row.get(5);
        Slot {
            logical: row.get(0),
            plugin: row.get(1),
            database: row.get(2),
            pid: row.get(3),
            application: row.get(4),
            confirmed: confirmed.and_then(|text| text.parse::<Lsn>().ok()).map(|lsn| lsn.0),
            lost: reason.or_else(|| (status.as_deref() == Some("lost")).then(|| "wal_removed".to_owned())),
            synced: row.get(8),
            two_phase: row.get(9),
        }
    }))
}

/// Waits until nobody uses the slot. Says who does when that takes too long.
pub(super) async fn free_slot(client: &Client, name: &str, patience: Duration) -> Result<Option<Slot>, CodedError> {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let found = slot(client, name).await?;
        let Some(who) = found.as_ref().and_then(Slot::user) else { return Ok(found) };
        if Instant::now() >= deadline {
            return Err(in_use(name, &who));
        }
        if !told {
            info!(slot = name, "waiting for the replication slot, which is in use by {who}");
            told = true;
        }
        tokio::time::sleep(SLOT_POLL).await;
    }
}

/// Refuses a slot that cannot give this database's changes.
pub(super) fn check_slot(name: &str, slot: &Slot, database: &str) -> Result<(), CodedError> {
    let other = if !slot.logical {
        Some("it is a physical slot".to_owned())
    } else if slot.plugin.as_deref() != Some("pgoutput") {
        Some(format!("its output plugin is \"{}\"", slot.plugin.as_deref().unwrap_or_default()))
    } else if slot.database.as_deref() != Some(database) {
        Some(format!("it belongs to database \"{}\"", slot.database.as_deref().unwrap_or_default()))
    } else {
        None
    };
    if let Some(other) = other {
        return Err(CodedError::definite(
            codes::OTHER_SLOT,
            format!("replication slot \"{name}\" exists and is not for this source: {other}"),
        )
        .hint("give the source another `slot`"));
    }
    match &slot.lost {
        Some(reason) => Err(lost(name, reason)),
        None if slot.two_phase => Err(two_phase(name)),
        None => Ok(()),
    }
}

/// What a prepared transaction changed comes once, at PREPARE: a source that is not told to keep it over a restart
/// would lose it at COMMIT PREPARED.
fn two_phase(name: &str) -> CodedError {
    CodedError::definite(codes::TWO_PHASE, format!("replication slot \"{name}\" has two_phase: it sends transactions before they commit"))
        .hint(format!(
            "on PostgreSQL 18 and later, over a replication connection: ALTER_REPLICATION_SLOT {} (TWO_PHASE false); \
             else drop the slot and remove this source's state, so that it makes a slot of its own: prepared transactions then come at COMMIT PREPARED",
            identifier(name)
        ))
}

/// The slot no longer has the log that comes next.
pub(super) fn lost(name: &str, reason: &str) -> CodedError {
    CodedError::definite(
        codes::SLOT_LOST,
        format!("replication slot \"{name}\" is lost ({reason}): the server has removed log that was not read"),
    )
    .hint(format!(
        "only a new snapshot helps: SELECT pg_drop_replication_slot({}), remove this source's state, and raise max_slot_wal_keep_size",
        literal(name)
    ))
}

/// Refuses every mismatch of slot and state. What is left is: both, or neither, or an unfinished start.
pub(super) fn check_start(settings: &Settings, progress: Option<&Progress>, slot: Option<&Slot>) -> Result<(), CodedError> {
    let name = &settings.slot;
    match (progress, slot) {
        (Some(progress), _) if progress.slot != *name => Err(CodedError::definite(
            codes::SLOT_CHANGED,
            format!("the settings name replication slot \"{name}\", the state \"{}\"", progress.slot),
        )
        .hint(format!("set `slot: {}` again; for a new slot, and a new snapshot, give the source a new name", progress.slot))),
        (None, Some(_)) => Err(CodedError::definite(
            codes::SLOT_WITHOUT_STATE,
            format!("replication slot \"{name}\" exists, and there is no state of this source to continue from"),
        )
        .hint(format!(
            "if the state was moved, point `state` at it; if the slot is a leftover, SELECT pg_drop_replication_slot({}); else give this source another `slot`",
            literal(name)
        ))),
        (Some(progress), None) if progress.stage == Stage::Streaming => Err(CodedError::definite(
            codes::STATE_WITHOUT_SLOT,
            format!("replication slot \"{name}\" is gone: the changes since it was last read cannot be had"),
        )
        .hint("find out who dropped it; then remove this source's state so that it starts with a new snapshot")),
        _ => Ok(()),
    }
}

/// The refusal of a slot that somebody else has moved.
pub(super) fn moved(name: &str, slot: u64, told: u64) -> CodedError {
    let message = format!("replication slot \"{name}\" stands at {}, past {} which this source confirmed", Lsn(slot), Lsn(told));
    CodedError::definite(codes::SLOT_MOVED, message)
        .hint("something else reads or advances the slot: find it, then start this source anew with a new snapshot")
}

/// Drops the slot of an unfinished start.
pub(super) async fn drop_slot(client: &Client, name: &str) -> Result<(), CodedError> {
    let dropped = client.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await;
    dropped.map(|_| ()).map_err(|e| classify(&e, &format!("dropping replication slot \"{name}\" of an unfinished snapshot")))
}

/// Says that every slot is taken, before the server does.
pub(super) async fn check_room(client: &Client) -> Result<(), CodedError> {
    let sql = "SELECT count(*) >= current_setting('max_replication_slots')::int, count(*),
                      coalesce(string_agg(slot_name::text, ', ' ORDER BY slot_name) FILTER (WHERE NOT active), '')
               FROM pg_replication_slots";
    let row = client.query_one(sql, &[]).await.map_err(|e| classify(&e, "counting replication slots"))?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    let (taken, idle): (i64, String) = (row.get(1), row.get(2));
    Err(CodedError::definite(codes::NO_SLOT_LEFT, format!("all {taken} replication slots of the server are taken"))
        .hint(format!("raise max_replication_slots and restart the server, or drop slots that nobody reads (not in use now: {idle})")))
}
