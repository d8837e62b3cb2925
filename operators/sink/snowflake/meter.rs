//! What the sink counts: the metrics of `/metrics` and the numbers of the status page.

use crate::contract::{SinkStatus, StoppedTable};
use metrics::{Counter, counter};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// One sink's counters.
pub(super) struct Meter {
    ok: Counter,
    retried: Counter,
    refused: Counter,
    rows: Counter,
    bytes: Counter,
    rejected: Counter,
    pipeline: String,
    sink: String,
    exact: Counter,
    ignored: Counter,
    retries: Counter,
    status: OnceLock<Arc<SinkStatus>>,
}

impl Meter {
    /// For the sink of that name.
    pub(super) fn new(pipeline: &str, sink: &str) -> Self {
        let (own, name) = (|| pipeline.to_owned(), || sink.to_owned());
        let requests = |outcome| counter!("etl_stream_sink_requests_total", "pipeline" => own(), "sink" => name(), "outcome" => outcome);
        let one = |metric: &'static str| counter!(metric, "pipeline" => own(), "sink" => name());
        Self {
            ok: requests("ok"),
            retried: requests("retried"),
            refused: requests("refused"),
            rows: one("etl_stream_sink_committed_rows_total"),
            bytes: one("etl_stream_sink_sent_bytes_total"),
            pipeline: own(),
            sink: name(),
            rejected: one("etl_stream_sink_rejected_rows_total"),
            exact: one("etl_stream_sink_exact_values_total"),
            ignored: one("etl_stream_sink_ignored_columns_total"),
            retries: one("etl_stream_sink_retries_total"),
            status: OnceLock::new(),
        }
    }

    /// Shows the numbers to the user from here on.
    pub(super) fn show(&self, status: &Arc<SinkStatus>) {
        let _ = self.status.set(Arc::clone(status));
    }

    fn status(&self, change: impl FnOnce(&SinkStatus)) {
        if let Some(status) = self.status.get() {
            change(status);
        }
    }

    /// A request was answered as wanted.
    pub(super) fn answered(&self) {
        self.ok.increment(1);
    }

    /// A request failed and goes out again.
    pub(super) fn retried(&self) {
        self.retried.increment(1);
        self.retries.increment(1);
        self.status(|s| {
            s.retries.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// A request was refused.
    pub(super) fn refused(&self) {
        self.refused.increment(1);
    }

    /// Rows are durable.
    pub(super) fn committed(&self, rows: u64) {
        self.rows.increment(rows);
        self.status(|s| {
            s.rows.fetch_add(rows, Ordering::Relaxed);
        });
    }

    /// Bytes of rows went out.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes.increment(bytes);
        self.status(|s| {
            s.bytes.fetch_add(bytes, Ordering::Relaxed);
        });
    }

    /// Snowflake rejected rows.
    pub(super) fn rejected(&self, rows: u64) {
        self.rejected.increment(rows);
        self.status(|s| {
            s.rejected_rows.fetch_add(rows, Ordering::Relaxed);
        });
    }

    /// Columns are left out: they are new, and new columns are ignored.
    pub(super) fn ignored(&self, columns: u64) {
        self.ignored.increment(columns);
    }

    /// A table of a source is stopped, or goes on again.
    pub(super) fn stop(&self, source: &str, table: &str, stopped: Option<StoppedTable>) {
        self.status(|s| s.stop(source, table, stopped));
    }

    /// Rows of a stopped table were not taken.
    pub(super) fn discarded(&self, source: &str, table: &str, rows: u64) {
        let labels = [("pipeline", self.pipeline.clone()), ("sink", self.sink.clone()), ("table", table.to_owned())];
        counter!("etl_stream_sink_discarded_rows_total", &labels).increment(rows);
        self.status(|s| s.discarded(source, table, rows));
    }

    /// Rows of a table went to the dead letter.
    pub(super) fn dead_letters(&self, table: &str, code: &str, rows: u64) {
        let labels =
            [("pipeline", self.pipeline.clone()), ("sink", self.sink.clone()), ("table", table.to_owned()), ("code", code.to_owned())];
        counter!("etl_stream_dead_letter_rows_total", &labels).increment(rows);
        self.rejected(rows);
        self.status(|s| {
            s.dead_letter_rows.fetch_add(rows, Ordering::Relaxed);
        });
    }

    /// Values went to `_ETL_EXACT` instead of their column.
    pub(super) fn exact(&self, values: u64) {
        self.exact.increment(values);
    }
}
