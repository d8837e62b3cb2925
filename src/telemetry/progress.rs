//! How far a run is: a live display on a terminal, else a line for each source every ten seconds.

use etl_stream_operators::contract::{Phase, PipelineStatus, SourceStatus};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::info;

/// Shows a pipeline's progress.
pub(crate) struct Progress {
    status: Arc<PipelineStatus>,
    display: Option<MultiProgress>,
    bars: BTreeMap<String, ProgressBar>,
    /// Changes and rows seen at the last look, for rates.
    last: BTreeMap<String, (Instant, u64)>,
}

impl Progress {
    /// A display on the terminal if `live`, else lines in the log.
    pub(crate) fn new(status: Arc<PipelineStatus>, live: bool) -> Self {
        let display = live.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5)));
        Self { status, display, bars: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// How often to look.
    pub(crate) fn interval(&self) -> Duration {
        if self.display.is_some() { Duration::from_millis(250) } else { Duration::from_secs(10) }
    }

    /// Shows where every source is.
    pub(crate) fn show(&mut self) {
        for (name, source) in self.status.sources() {
            let snapshot_rows: u64 = source.tables().values().map(|t| t.snapshot_rows).sum();
            let changes = source.changes.load(Ordering::Relaxed);
            let rate = self.rate(&name, snapshot_rows + changes);
            let line = describe(&source, snapshot_rows, changes, rate);
            let Some(display) = &self.display else {
                info!(source = name, "{line}");
                continue;
            };
            let bar = self.bars.entry(name.clone()).or_insert_with(|| {
                let bar = display.add(ProgressBar::new_spinner());
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {prefix:<12} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
                );
                bar.set_prefix(name);
                bar
            });
            bar.set_message(line);
            bar.tick();
        }
    }

    /// Leaves the last state on the terminal.
    pub(crate) fn finish(&mut self) {
        if self.display.is_some() {
            self.show();
            self.bars.values().for_each(ProgressBar::abandon);
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
