//! What a sink has made durable, for the status page and the metrics.

use crate::contract::{SinkStatus, WriterContext};
use metrics::Counter;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Rows that are durable in a sink.
pub const COMMITTED_ROWS: &str = "etl_stream_sink_committed_rows_total";

/// Bytes that a sink has sent.
pub const SENT_BYTES: &str = "etl_stream_sink_sent_bytes_total";

/// Values that their column cannot hold, or says less of, and that are written as exact text.
pub const EXACT_VALUES: &str = "etl_stream_sink_exact_values_total";

/// The counters of one sink. Cheap to clone; called once a batch.
#[derive(Clone)]
pub struct Tally {
    status: Arc<SinkStatus>,
    rows: Counter,
    bytes: Counter,
    exact: Counter,
}

impl Tally {
    /// The counters of a writer's sink.
    #[must_use]
    pub fn new(cx: &WriterContext) -> Self {
        let labels = [("pipeline", cx.pipeline.to_string()), ("sink", cx.sink.to_string())];
        Self {
            status: cx.status.sink(&cx.sink),
            rows: metrics::counter!(COMMITTED_ROWS, &labels),
            bytes: metrics::counter!(SENT_BYTES, &labels),
            exact: metrics::counter!(EXACT_VALUES, &labels),
        }
    }

    /// Counts rows that are durable now, and the bytes they took.
    pub fn committed(&self, rows: u64, bytes: u64) {
        self.status.rows.fetch_add(rows, Ordering::Relaxed);
        self.status.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.increment(rows);
        self.bytes.increment(bytes);
    }

    /// Counts values written as exact text.
    pub fn exact(&self, values: u64) {
        self.exact.increment(values);
    }

    /// Counts an attempt that failed and will be made again.
    pub fn retried(&self) {
        self.status.retries.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tally({:?})", self.status)
    }
}
