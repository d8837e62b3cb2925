//! What the user sees of a running pipeline: phases, rows, lag. Written by nodes, read by the progress
//! display, `/api/v1/status` and the metrics page.

use super::{CodedError, Connections, Token, WalServer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a source or table is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Connecting and checking.
    #[default]
    Starting,
    /// Copying existing rows.
    Snapshot,
    /// Following the log.
    Streaming,
    /// Waiting to try again.
    Retrying,
    /// No longer published: its changes do not come.
    Removed,
    /// Ended.
    Stopped,
}

impl Phase {
    /// The word the user sees.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Snapshot => "snapshot",
            Self::Streaming => "streaming",
            Self::Retrying => "retrying",
            Self::Removed => "removed",
            Self::Stopped => "stopped",
        }
    }
}

/// One table of a source.
#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    /// What it is doing.
    pub phase: Phase,
    /// Rows the snapshot has read.
    pub snapshot_rows: u64,
    /// Rows the catalog estimates (`pg_class.reltuples`).
    pub estimated_rows: u64,
    /// Why its copy failed and will fail again, until it is tried again.
    pub failed: Option<Arc<CodedError>>,
}

/// One source.
#[derive(Debug, Default)]
pub struct SourceStatus {
    phase: Mutex<(Phase, Option<String>)>,
    tables: Mutex<BTreeMap<String, TableStatus>>,
    /// The server's position, as last heard.
    pub server_lsn: AtomicU64,
    /// Everything before this LSN has been read.
    pub received_lsn: AtomicU64,
    /// The position confirmed to the server.
    pub confirmed_lsn: AtomicU64,
    /// Tables that are still to be copied beside the stream, those included that have not been looked for yet.
    pub joining: AtomicU64,
    /// Changes read from the stream.
    pub changes: AtomicU64,
    /// Transactions read from the stream.
    pub transactions: AtomicU64,
    /// Bytes read, snapshot and stream.
    pub bytes: AtomicU64,
    /// Transactions that come while in progress, and have neither committed nor been rolled back.
    pub open_transactions: AtomicU64,
    /// Bytes held of them, in memory and in spill files.
    pub held_bytes: AtomicU64,
    /// Bytes written to spill files.
    pub spilled_bytes: AtomicU64,
    /// Transactions that came while in progress and have committed.
    pub streamed_transactions: AtomicU64,
}

impl SourceStatus {
    /// Sets the phase and, for `Retrying`, why.
    pub fn set_phase(&self, phase: Phase, reason: Option<String>) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (phase, reason);
    }

    /// The phase and its reason.
    #[must_use]
    pub fn phase(&self) -> (Phase, Option<String>) {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes one table's status.
    pub fn table(&self, name: &str, change: impl FnOnce(&mut TableStatus)) {
        change(self.tables.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default());
    }

    /// Every table.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, TableStatus> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of log between the server's position and what is confirmed.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        self.server_lsn.load(Ordering::Relaxed).saturating_sub(self.confirmed_lsn.load(Ordering::Relaxed))
    }
}

/// A table that a sink does not take any more, while it takes the others.
#[derive(Clone, Debug)]
pub struct StoppedTable {
    /// Why, and what to do.
    pub error: Arc<CodedError>,
    /// The first row that was not taken.
    pub since: Token,
    /// Rows that were not taken, in this process's time.
    pub discarded_rows: u64,
}

/// One sink.
#[derive(Debug, Default)]
pub struct SinkStatus {
    /// By source and `schema.table`.
    stopped: Mutex<BTreeMap<(String, String), StoppedTable>>,
    /// Rows durable.
    pub rows: AtomicU64,
    /// Bytes sent.
    pub bytes: AtomicU64,
    /// Rows the sink refused.
    pub rejected_rows: AtomicU64,
    /// Of those, rows that are in the dead letter.
    pub dead_letter_rows: AtomicU64,
    /// Requests tried again.
    pub retries: AtomicU64,
}

impl SinkStatus {
    /// A table of a source is stopped (or, with `None`, goes on again).
    pub fn stop(&self, source: &str, table: &str, stopped: Option<StoppedTable>) {
        let mut all = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.to_owned(), table.to_owned());
        match stopped {
            Some(stopped) => drop(all.insert(key, stopped)),
            None => drop(all.remove(&key)),
        }
    }

    /// Rows of a stopped table were not taken.
    pub fn discarded(&self, source: &str, table: &str, rows: u64) {
        let mut all = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stopped) = all.get_mut(&(source.to_owned(), table.to_owned())) {
            stopped.discarded_rows += rows;
        }
    }

    /// The tables that are stopped, by source and `schema.table`.
    #[must_use]
    pub fn stopped(&self) -> BTreeMap<(String, String), StoppedTable> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An alert that holds now.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    /// Its name.
    pub alert: String,
    /// What it is about, such as `source shop`.
    pub subject: String,
    /// `info`, `warn` or `page`.
    pub severity: &'static str,
    /// Whether it has been told of; else it has not held for long enough.
    pub firing: bool,
    /// Since when it holds, in seconds since 1970-01-01 00:00:00 UTC.
    pub since: f64,
    /// The value and the condition, in words.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The whole pipeline.
#[derive(Debug, Default)]
pub struct PipelineStatus {
    sources: Mutex<BTreeMap<String, Arc<SourceStatus>>>,
    sinks: Mutex<BTreeMap<String, Arc<SinkStatus>>>,
    servers: Mutex<BTreeMap<Arc<str>, Arc<WalServer>>>,
    alerts: Mutex<Vec<AlertStatus>>,
    connections: OnceLock<Arc<Connections>>,
}

impl PipelineStatus {
    /// A source's status, made when first asked for.
    #[must_use]
    pub fn source(&self, name: &str) -> Arc<SourceStatus> {
        Arc::clone(self.sources.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default())
    }

    /// A sink's status, made when first asked for.
    #[must_use]
    pub fn sink(&self, name: &str) -> Arc<SinkStatus> {
        Arc::clone(self.sinks.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default())
    }

    /// Every source.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<String, Arc<SourceStatus>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tables that sinks have stopped, by sink, source and `schema.table`, but those that their source has removed.
    #[must_use]
    pub fn stopped(&self) -> Vec<(String, String, String, StoppedTable)> {
        let sources = self.sources();
        let removed = |source: &String, table: &String| {
            sources.get(source).is_some_and(|it| it.tables().get(table).is_some_and(|table| table.phase == Phase::Removed))
        };
        let mut all = Vec::new();
        for (sink, it) in self.sinks() {
            let stopped = it.stopped().into_iter().filter(|((source, table), _)| !removed(source, table));
            all.extend(stopped.map(|((source, table), it)| (sink.clone(), source, table, it)));
        }
        all
    }

    /// Every sink.
    #[must_use]
    pub fn sinks(&self) -> BTreeMap<String, Arc<SinkStatus>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Sets what was last seen of a server.
    pub fn set_server(&self, server: Arc<WalServer>) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&server.name), server);
    }

    /// Every server that is monitored.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<Arc<str>, Arc<WalServer>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets a server that is not monitored any more.
    pub fn remove_server(&self, name: &str) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Sets the alerts that hold now.
    pub fn set_alerts(&self, alerts: Vec<AlertStatus>) {
        *self.alerts.lock().unwrap_or_else(PoisonError::into_inner) = alerts;
    }

    /// The alerts that hold now.
    #[must_use]
    pub fn alerts(&self) -> Vec<AlertStatus> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which connections the pipeline draws from; the first word counts.
    pub fn set_connections(&self, connections: Arc<Connections>) {
        let _ = self.connections.set(connections);
    }

    /// The connections it draws from.
    #[must_use]
    pub fn connections(&self) -> Option<&Arc<Connections>> {
        self.connections.get()
    }
}
