//! Transactions that come while they are in progress: blocks into the hold, and out of it at their commit.
//!
//! ```text
//! block ──> hold           Stream Commit ──> replay ──credit──> frame ──> assemble ──Chunk──> dataflow
//!                                              │ Relation, Type: from here on, in their place
//! ```
//! # Guarantees
//! A transaction takes the way of one that was not streamed, from the assembler's Begin to its Commit: its rows have the
//! same tokens either way. A relation that a transaction describes counts from its place in the transaction's replay on,
//! and is looked up then, when the catalog has what the transaction made of it; that of a transaction rolled back never
//! counts. A replay takes credit piece by piece, like reading; status goes out meanwhile, on its own timer.

use super::assemble::StreamError;
use super::credit::Held;
use super::frame::{self, Frame, StreamCommit};
use super::run::stopped;
use super::stream::{READ_MOST, Session};
use crate::contract::CodedError;
use bytes::Bytes;
use std::sync::atomic::Ordering;

impl Session<'_> {
    /// Handles what is not for the assembler.
    pub(super) async fn streamed(&mut self, frame: &Frame<'_>) -> Result<(), CodedError> {
        match *frame {
            Frame::Streamed { xid, tag, body } => {
                let full = self.hold.push(xid, tag, body)?;
                if full {
                    self.hold.spill().await?;
                }
            }
            Frame::StreamStart { xid, first } => {
                if self.run.assembler.in_transaction() {
                    return Err(StreamError::Block(xid).into());
                }
                self.hold.open(xid, first)?;
            }
            Frame::StreamStop => self.hold.close(),
            Frame::StreamAbort { xid, subxid } => self.hold.abort(xid, subxid)?,
            _ => {}
        }
        Ok(())
    }

    /// Sends a transaction that has committed. Returns early when the source is to stop.
    pub(super) async fn committed(&mut self, commit: StreamCommit) -> Result<(), CodedError> {
        let mut stop = self.run.stop.clone();
        let mut replay = self.hold.commit(commit.xid)?;
        let (none, commit_lsn) = (Bytes::new(), commit.commit_lsn);
        self.run.assembler.frame(&Frame::Begin { commit_lsn, time: commit.time }, &none, 0, 0)?;
        loop {
            let credits = self.run.credits.clone();
            let mut taken = std::pin::pin!(Held::take(&credits, READ_MOST as u32));
            // What comes beside the stream has credit too, which comes back only when it is sent.
            let mut held = loop {
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return Ok(()),
                    held = &mut taken => break held,
                    event = self.joins.next() => self.on(event)?,
                }
            };
            let Some(piece) = replay.next(READ_MOST).await? else { break };
            held.settle(piece.bytes.len()).await;
            for (start, end) in &piece.messages {
                let message = piece.bytes.get(*start as usize..*end as usize).unwrap_or_default();
                match frame::message(message).map_err(StreamError::from)? {
                    Frame::Relation(relation) => self.relation(&relation).await?,
                    Frame::Type { oid, name } => self.run.catalog.announce(oid, name),
                    frame => self.run.assembler.frame(&frame, &piece.bytes, *start, *end)?,
                }
            }
            self.send(Some(held))?;
        }
        self.run.assembler.frame(&Frame::Commit { commit_lsn, end_lsn: commit.end_lsn }, &none, 0, 0)?;
        self.run.status.streamed_transactions.fetch_add(1, Ordering::Relaxed);
        self.hold.tell();
        self.send(None)
    }
}
