//! Rows that came to an operator, and rows that left it.

use etl_stream_operators::contract::{Item, Items};
use metrics::{Counter, counter};

/// Rows that came to operators.
pub(crate) const RECEIVED_ROWS: &str = "etl_stream_operator_received_rows_total";

/// Rows that left operators, by every output.
pub(crate) const SENT_ROWS: &str = "etl_stream_operator_sent_rows_total";

/// The counters of one operator. Touched once for each container.
pub(crate) struct Passed {
    received: Counter,
    sent: Counter,
}

impl Passed {
    /// The counters of an operator of a pipeline.
    pub(crate) fn new(pipeline: &str, node: &str) -> Self {
        let labels = [("pipeline", pipeline.to_owned()), ("operator", node.to_owned())];
        Self { received: counter!(RECEIVED_ROWS, &labels), sent: counter!(SENT_ROWS, &labels) }
    }

    /// Counts what came.
    pub(crate) fn received(&self, items: &Items) {
        self.received.increment(rows(items));
    }

    /// Counts what leaves.
    pub(crate) fn sent(&self, items: &Items) {
        self.sent.increment(rows(items));
    }
}

fn rows(items: &Items) -> u64 {
    items.0.iter().map(|item| if let Item::Rows(batch) = item { batch.len() as u64 } else { 0 }).sum()
}
