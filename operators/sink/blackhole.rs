//! A sink that keeps nothing: it counts, and acknowledges at once. For benchmarks and trials.
//!
//! ```text
//! Delivery ──> blackhole      rows and bytes counted, optionally a checksum over every value
//! ```

use super::{batch_limits, tally::Tally};
use crate::contract::{
    BatchSettings, BuildContext, ByteSize, CodedError, Deliveries, Delivery, NodeConfig, Period, RowBatch, Sink, SinkConfig, Writer,
    WriterContext,
};
use async_trait::async_trait;
use foldhash::fast::FixedState;
use schemars::JsonSchema;
use serde::Deserialize;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BATCH: BatchSettings = BatchSettings::new(100_000, ByteSize::mib(16), Period::millis(1_000));

/// Settings of the `blackhole` sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackholeConfig {
    /// Whether every value is read and summed up, as a sink that writes would read it; the sum is logged at
    /// the end. It depends on the rows and their tokens, not on their batches.
    #[serde(default)]
    pub checksum: bool,
    /// When a batch is sealed.
    #[serde(default)]
    pub batch: Option<BatchSettings>,
}

impl NodeConfig for BlackholeConfig {
    const TYPE: &'static str = "blackhole";
    const SUMMARY: &'static str = "Counts rows and drops them, for benchmarks and trials";
    const EXAMPLE: &'static str = "checksum: true\n";
}

impl SinkConfig for BlackholeConfig {
    fn build(&self, _: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Blackhole { batch: batch_limits(self.batch, BATCH), checksum: self.checksum, sum: Arc::default() }))
    }
}

struct Blackhole {
    batch: BatchSettings,
    checksum: bool,
    sum: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Blackhole {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    fn in_pieces(&self) -> bool {
        true
    }

    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        Ok(())
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        Box::new(Counter { tally: Tally::new(&cx), checksum: self.checksum.then(|| Arc::clone(&self.sum)), cx })
    }
}

struct Counter {
    cx: WriterContext,
    tally: Tally,
    checksum: Option<Arc<AtomicU64>>,
}

#[async_trait]
impl Writer for Counter {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        let mut line = Vec::new();
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Rows { batch, ack } => {
                    if let Some(sum) = &self.checksum {
                        sum.fetch_add(checksum(&batch, &mut line), Ordering::Relaxed);
                    }
                    self.tally.committed(batch.len() as u64, batch.bytes() as u64);
                    ack.durable();
                }
                Delivery::Mark { ack, .. } => ack.durable(),
                Delivery::Upper(_) => {}
            }
        }
        if let Some(sum) = &self.checksum {
            let sum = format!("{:016x}", sum.load(Ordering::Relaxed));
            tracing::info!(pipeline = &*self.cx.pipeline, sink = &*self.cx.sink, checksum = sum, "rows so far");
        }
        Ok(())
    }
}

/// The sum of the rows' hashes: the same however the rows are cut into batches.
fn checksum(batch: &RowBatch, line: &mut Vec<u8>) -> u64 {
    let names: Vec<String> = batch.table.columns.iter().map(|column| column.name.to_string()).collect();
    let writer = super::json::RowWriter::new(&batch.table, &names, super::json::Dialect::Postgres);
    let bound = writer.bind(batch);
    let mut sum = 0_u64;
    for row in 0..batch.len() {
        line.clear();
        bound.write_columns(row, line);
        // A fixed seed: the sum is compared across runs.
        let mut hasher = FixedState::with_seed(0).build_hasher();
        hasher.write_u8(batch.ops[row]);
        hasher.write_u64(batch.commit_lsn[row]);
        hasher.write_u64(batch.ordinal[row]);
        hasher.write(line);
        sum = sum.wrapping_add(hasher.finish());
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Acks, batch, context, deliver};
    use super::*;

    #[tokio::test]
    async fn counts_and_sums_whatever_the_batches() {
        let mut sums = Vec::new();
        let rows = batch("public", "t", 7, 0..10);
        for parts in [vec![rows.clone()], vec![rows.slice(0, 3), rows.slice(3, 7)], vec![rows.slice(0, 9)]] {
            let sum = Arc::new(AtomicU64::new(0));
            let sink = Blackhole { batch: BATCH, checksum: true, sum: Arc::clone(&sum) };
            let (cx, acks) = (context(), Acks::default());
            let (count, sent) = (parts.len() as u64, parts.iter().map(RowBatch::len).sum::<usize>());
            sink.writer(cx.clone()).run(deliver(parts.into_iter().map(Into::into).collect(), &acks)).await.expect("nothing can fail");
            assert_eq!(acks.durable(), (0..count).collect::<Vec<_>>());
            assert_eq!(cx.status.sink("out").rows.load(Ordering::Relaxed), sent as u64);
            sums.push(sum.load(Ordering::Relaxed));
        }
        assert_eq!(sums[0], sums[1]);
        assert_ne!(sums[0], sums[2]);
    }
}
