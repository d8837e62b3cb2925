//! One table's requests, one after the other.
//!
//! ```text
//! Rows ──> lines ──> POST      Mark::SnapshotBegin, SnapshotEnd ──> {"_table":…,"_mark":…,"_seq":…} ──> POST
//! ```
//! A mark of a schema is not sent: each line names its columns.

use super::super::json::write_string;
use super::super::line::LineWriter;
use super::super::tally::Tally;
use super::request::{Message, Receiver};
use crate::contract::{CodedError, Deliveries, Delivery, Mark, RowBatch, TableSchema, Token};
use std::sync::Arc;

/// See the module.
pub(super) struct Lane {
    receiver: Arc<Receiver>,
    tally: Tally,
    /// The lines of the table's last schema.
    lines: Option<(Arc<TableSchema>, LineWriter)>,
}

impl Lane {
    /// Of a table whose first delivery is yet to come.
    pub(super) fn new(receiver: Arc<Receiver>, tally: Tally) -> Self {
        Self { receiver, tally, lines: None }
    }

    /// Sends what comes until nothing more does.
    pub(super) async fn run(mut self, mut deliveries: Deliveries) -> Result<(), CodedError> {
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Rows { batch, ack } => {
                    if let Some(message) = self.rows(&batch)? {
                        let size = message.body.len() as u64;
                        self.receiver.post(&message, &self.tally).await?;
                        self.tally.committed(batch.len() as u64, size);
                    }
                    ack.durable();
                }
                Delivery::Mark { mark, ack } => {
                    if let Some(message) = marked(&mark) {
                        self.receiver.post(&message, &self.tally).await?;
                    }
                    ack.durable();
                }
                Delivery::Upper(_) => {}
            }
        }
        Ok(())
    }

    fn rows(&mut self, batch: &RowBatch) -> Result<Option<Message>, CodedError> {
        let (Some(first), Some(last)) = (batch.first_token(), batch.last_token()) else { return Ok(None) };
        if self.lines.as_ref().is_none_or(|(table, _)| *table != batch.table) {
            self.lines = Some((Arc::clone(&batch.table), LineWriter::new(&batch.table, true)?));
        }
        let mut body = Vec::with_capacity(batch.bytes() + 64 * batch.len());
        if let Some((_, writer)) = &self.lines {
            let lines = writer.bind(batch);
            (0..batch.len()).for_each(|row| lines.write(row, &mut body));
        }
        Ok(Some(Message { table: Arc::clone(&batch.table), first, last, body: body.into() }))
    }
}

/// The message of a mark, if its receiver is to know of it.
fn marked(mark: &Mark) -> Option<Message> {
    let (word, lsn, replaces) = match mark {
        Mark::SnapshotBegin { lsn, replaces, .. } => ("snapshot_begin", *lsn, *replaces),
        Mark::SnapshotEnd { lsn, .. } => ("snapshot_end", *lsn, None),
        Mark::Schema { .. } => return None,
    };
    let table = mark.table();
    let at = Token::new(lsn, 0);
    let mut body = b"{\"_table\":".to_vec();
    write_string(&table.full_name(), &mut body);
    body.extend_from_slice(format!(",\"_mark\":\"{word}\",\"_seq\":\"{at}\"").as_bytes());
    if let Some(earlier) = replaces {
        body.extend_from_slice(format!(",\"_replaces\":\"{}\"", Token::new(earlier, 0)).as_bytes());
    }
    body.extend_from_slice(b"}\n");
    Some(Message { table: Arc::clone(table), first: at, last: at, body: body.into() })
}
