//! What the user sees of a running pipeline: phases, rows, lag. Written by nodes, read by the progress
//! display, `/api/v1/status` and the metrics page.

use super::{CodedError, Connections, Token, WalServer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How finely the time is told for which a source lags.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// How many positions are remembered for that.
const HEARD_MOST: usize = 512;

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
    /// Not reading, since somebody asked for that.
    Paused,
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
            Self::Paused => "paused",
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
    paused: Mutex<Option<String>>,
    heard: Mutex<VecDeque<(u64, Instant)>>,
    /// The server's position, as last heard.
    pub server_lsn: AtomicU64,
    /// Everything before this LSN has been read.
    pub received_lsn: AtomicU64,
    /// Everything before this LSN is durable in every sink.
    pub durable_lsn: AtomicU64,
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

    /// Says why it is paused, or that it is not.
    pub fn set_paused(&self, why: Option<String>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why it is paused or about to be; nothing when it is not.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes where the server's log ends.
    pub fn heard(&self, lsn: u64) {
        self.heard_at(lsn, Instant::now());
    }

    fn heard_at(&self, lsn: u64, now: Instant) {
        self.server_lsn.fetch_max(lsn, Ordering::Relaxed);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let confirmed = self.confirmed_lsn.load(Ordering::Relaxed);
        while heard.front().is_some_and(|(lsn, _)| *lsn <= confirmed) {
            heard.pop_front();
        }
        let news = heard.back().is_none_or(|(last, at)| lsn > *last && now.duration_since(*at) >= HEARD_EVERY);
        if news && lsn > confirmed {
            if heard.len() >= HEARD_MOST {
                // Every other one: what is old is told less finely.
                let mut keep = false;
                heard.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            heard.push_back((lsn, now));
        }
    }

    /// For how long the server's log has gone past what is confirmed, as far as its position was asked for; nothing
    /// when all of it is.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.lag_at(Instant::now())
    }

    fn lag_at(&self, now: Instant) -> Duration {
        let confirmed = self.confirmed_lsn.load(Ordering::Relaxed);
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find(|(lsn, _)| *lsn > confirmed).map_or(Duration::ZERO, |(_, at)| now.duration_since(*at))
    }

    /// Bytes of log between the server's position and what is confirmed.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        self.server_lsn.load(Ordering::Relaxed).saturating_sub(self.confirmed_lsn.load(Ordering::Relaxed))
    }
}

/// What one writer has been given and has not made durable yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// Rows.
    pub rows: AtomicU64,
    /// Commit time of the first of them, in microseconds since 1970-01-01 00:00:00 UTC; 0 when there is none.
    pub oldest: AtomicI64,
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
    pending: Mutex<Vec<Arc<Pending>>>,
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
    /// Where one writer's rows are counted.
    #[must_use]
    pub fn writer(&self) -> Arc<Pending> {
        let pending = Arc::<Pending>::default();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pending));
        pending
    }

    /// Rows that writers have and that are not durable.
    #[must_use]
    pub fn pending_rows(&self) -> u64 {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|p| p.rows.load(Ordering::Relaxed)).sum()
    }

    /// The commit time of the oldest of them, in microseconds since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<i64> {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.iter().map(|p| p.oldest.load(Ordering::Relaxed)).filter(|time| *time != 0).min()
    }

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
    /// The status of the pipeline's next start in the same process: nothing but what has been counted goes on.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let carry = |from: &AtomicU64, to: &AtomicU64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        let next = Self::default();
        for (name, before) in self.sources() {
            let source = next.source(&name);
            carry(&before.changes, &source.changes);
            carry(&before.transactions, &source.transactions);
            carry(&before.bytes, &source.bytes);
            carry(&before.spilled_bytes, &source.spilled_bytes);
            carry(&before.streamed_transactions, &source.streamed_transactions);
        }
        for (name, before) in self.sinks() {
            let sink = next.sink(&name);
            carry(&before.rows, &sink.rows);
            carry(&before.bytes, &sink.bytes);
            carry(&before.rejected_rows, &sink.rejected_rows);
            carry(&before.dead_letter_rows, &sink.dead_letter_rows);
            carry(&before.retries, &sink.retries);
        }
        next
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_first_position_past_what_is_confirmed() {
        let (status, start) = (SourceStatus::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let lag = |now| status.lag_at(at(now)).as_secs();
        assert_eq!(lag(9), 0, "nothing was heard");
        for (lsn, seconds) in [(10, 0), (10, 2), (20, 4), (30, 6)] {
            status.heard_at(lsn, at(seconds));
        }
        for (confirmed, expected) in [(9, 10), (10, 6), (15, 6), (20, 4), (29, 4), (30, 0)] {
            status.confirmed_lsn.store(confirmed, Ordering::Relaxed);
            assert_eq!(lag(10), expected, "{confirmed}");
        }
        for second in 0..5_000 {
            status.heard_at(100 + second, at(20 + second));
        }
        assert!(status.heard.lock().unwrap().len() <= HEARD_MOST);
        assert_eq!(lag(5_020), 5_000, "the first is kept");
        status.heard_at(5_101, at(5_020));
        status.confirmed_lsn.store(5_099, Ordering::Relaxed);
        assert_eq!(lag(5_021), 1);
    }

    #[test]
    fn pending_is_summed_over_writers() {
        let sink = SinkStatus::default();
        let (a, b) = (sink.writer(), sink.writer());
        assert_eq!((sink.pending_rows(), sink.oldest_pending()), (0, None));
        a.rows.store(3, Ordering::Relaxed);
        a.oldest.store(70, Ordering::Relaxed);
        b.rows.store(4, Ordering::Relaxed);
        b.oldest.store(60, Ordering::Relaxed);
        assert_eq!((sink.pending_rows(), sink.oldest_pending()), (7, Some(60)));
    }
}
