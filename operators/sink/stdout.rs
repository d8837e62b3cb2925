//! Rows as NDJSON on standard output, a line each, flushed with every batch.
//!
//! ```text
//! Delivery ──> {"_table":…,"_op":…,"_seq":…,"_commit_ts":…, columns} ──> standard output
//! ```
//!
//! # Guarantees
//! At least once: standard output keeps nothing, so after a crash rows come again; `_seq` tells. A reader
//! that goes away (`| head`) ends the writer without an error, and what it did not read is not acknowledged.

use super::{batch_limits, line::LineWriter, tally::Tally};
use crate::contract::{
    BatchSettings, BuildContext, ByteSize, Code, CodedError, Deliveries, Delivery, Exit, NodeConfig, Period, RowBatch, Sink, SinkConfig,
    Writer, WriterContext,
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Standard output could not be written.
pub const STDOUT_FAILED: Code = Code::new("FS0008", Exit::Failure);

const BATCH: BatchSettings = BatchSettings::new(1_000, ByteSize::mib(1), Period::millis(200));

/// Settings of the `stdout` sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// When a batch is sealed.
    #[serde(default)]
    pub batch: Option<BatchSettings>,
}

impl NodeConfig for StdoutConfig {
    const TYPE: &'static str = "stdout";
    const SUMMARY: &'static str = "Writes rows to standard output as NDJSON";
    const EXAMPLE: &'static str = "batch: { max_rows: 100 }\n";
}

impl SinkConfig for StdoutConfig {
    fn build(&self, _: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Stdout { batch: batch_limits(self.batch, BATCH), place: Arc::new(Mutex::new(Box::new(io::stdout()))) }))
    }
}

/// Standard output, or what a test put there.
type Place = Arc<Mutex<Box<dyn Write + Send>>>;

struct Stdout {
    batch: BatchSettings,
    place: Place,
}

#[async_trait]
impl Sink for Stdout {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        Ok(())
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        Box::new(Lines { tally: Tally::new(&cx), place: Arc::clone(&self.place) })
    }
}

struct Lines {
    tally: Tally,
    place: Place,
}

#[async_trait]
impl Writer for Lines {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        let mut text = Vec::new();
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Rows { batch, ack } => {
                    let place = Arc::clone(&self.place);
                    let rows = batch.len() as u64;
                    let used = std::mem::take(&mut text);
                    let written = tokio::task::spawn_blocking(move || write(&batch, &place, used)).await;
                    let written = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
                    let Some(used) = written else { return Ok(()) };
                    text = used;
                    self.tally.committed(rows, text.len() as u64);
                    ack.durable();
                }
                Delivery::Mark { ack, .. } => ack.durable(),
                Delivery::Upper(_) => {}
            }
        }
        Ok(())
    }
}

/// Writes a batch's lines by way of the buffer `text` and gives it back; none when the reader has gone.
fn write(batch: &RowBatch, place: &Place, mut text: Vec<u8>) -> Result<Option<Vec<u8>>, CodedError> {
    text.clear();
    let writer = LineWriter::new(&batch.table, true)?;
    let lines = writer.bind(batch);
    (0..batch.len()).for_each(|row| lines.write(row, &mut text));
    // Held for the whole batch, so that lines of several writers do not mix.
    let mut output = place.lock().unwrap_or_else(PoisonError::into_inner);
    match output.write_all(&text).and_then(|()| output.flush()) {
        Ok(()) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => {
            let message = format!("rows of table \"{}\" were not written to standard output", batch.table.full_name());
            Err(CodedError::definite(STDOUT_FAILED, message).hint("look at where standard output is redirected to").caused_by(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Acks, batch, context, deliver};
    use super::*;
    use std::sync::mpsc;

    /// Takes so many writes, then breaks.
    struct Pipe(mpsc::Sender<Vec<u8>>, usize);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = self.1.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn writes_lines_until_the_reader_goes() {
        let (sender, written) = mpsc::channel();
        let sink = Stdout { batch: BATCH, place: Arc::new(Mutex::new(Box::new(Pipe(sender, 1)))) };
        let acks = Acks::default();
        let deliveries = deliver(vec![batch("public", "t", 7, 0..2).into(), batch("public", "t", 8, 0..1).into()], &acks);
        let cx = context();
        sink.writer(cx.clone()).run(deliveries).await.expect("a clean end");
        assert_eq!(acks.durable(), [0], "what no one read is not acknowledged");
        let expected = r#"{"_table":"public.t","_op":"i","_seq":"0000000000000007/0000000000000000","_commit_ts":"1970-01-01T00:00:00.000007+00:00","id":7000,"note":"row 0"}
{"_table":"public.t","_op":"i","_seq":"0000000000000007/0000000000000001","_commit_ts":"1970-01-01T00:00:00.000007+00:00","id":7001,"note":"row 1"}
"#;
        assert_eq!(String::from_utf8(written.recv().expect("a write")).expect("UTF-8"), expected);
        assert_eq!(cx.status.sink("out").rows.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
