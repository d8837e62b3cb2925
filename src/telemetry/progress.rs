//! How far a run is: a line for each source every ten seconds, one for each table that is stopped, and one for each sink at
//! the end.

use etl_stream_operators::contract::{Phase, PipelineStatus, SourceStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Says how far a pipeline is.
pub(crate) struct Progress {
    status: Arc<PipelineStatus>,
    /// When each source was last looked at, and the rows and changes it had read.
    last: BTreeMap<String, (Instant, u64)>,
}

impl Progress {
    /// How often.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

    /// Of a pipeline.
    pub(crate) fn new(status: Arc<PipelineStatus>) -> Self {
        Self { status, last: BTreeMap::new() }
    }

    /// Says where every source is.
    pub(crate) fn show(&mut self) {
        for (name, source) in self.status.sources() {
            let snapshot_rows: u64 = source.tables().values().map(|t| t.snapshot_rows).sum();
            let changes = source.changes.load(Ordering::Relaxed);
            let rate = self.rate(&name, snapshot_rows + changes);
            info!(source = name, "{}", describe(&source, snapshot_rows, changes, rate));
        }
        for (sink, source, table, stopped) in self.status.stopped() {
            let rows = stopped.discarded_rows;
            warn!(sink, source, "table \"{table}\" is stopped: {rows} rows not taken; `etl-stream resync {table}` copies it anew");
        }
    }

    /// Says what every sink was given.
    pub(crate) fn end(&self) {
        for (name, sink) in self.status.sinks() {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            info!(sink = name, rows = count(&sink.rows), bytes = count(&sink.bytes), "done");
        }
    }

    fn rate(&mut self, name: &str, total: u64) -> u64 {
        let now = Instant::now();
        let (then, before) = self.last.insert(name.to_owned(), (now, total)).unwrap_or((now, total));
        let seconds = now.duration_since(then).as_secs_f64();
        if seconds > 0.0 { (total.saturating_sub(before) as f64 / seconds) as u64 } else { 0 }
    }
}

fn describe(source: &SourceStatus, snapshot_rows: u64, changes: u64, rate: u64) -> String {
    let (phase, reason) = source.phase();
    let tables = source.tables();
    let done = tables.values().filter(|t| t.phase == Phase::Streaming).count();
    match phase {
        Phase::Snapshot => {
            let estimated: u64 = tables.values().map(|t| t.estimated_rows.max(t.snapshot_rows)).sum();
            format!("snapshot: {done} of {} tables, {snapshot_rows} of about {estimated} rows, {rate} rows/s", tables.len())
        }
        Phase::Streaming => format!("streaming: {changes} changes, {rate}/s, {} bytes behind", source.lag_bytes()),
        other => reason.map_or_else(|| other.word().to_owned(), |reason| format!("{}: {reason}", other.word())),
    }
}
