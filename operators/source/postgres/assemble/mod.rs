//! From frames to chunks: rows grouped by table, with their order, and how far the chunk reaches.
//!
//! ```text
//! Frame, Frame, … of one read ──> Assembler ──> items + upper + what may be confirmed when it is durable
//! ```
//! # Order
//! Change number n of a transaction has the ordinal 2n; 2n + 1 is left for the new key of a changed key.
//! Every change counts, selected or not, and a truncate once for each relation, so that a row has the
//! same token on every replay.
//!
//! # Guarantees
//! What was sent in this process is not sent again after a reconnect: rows before `upper` are skipped.
//! A row follows the schema it was written under; a schema that differs from the table's last is announced
//! by a mark before its first row.
//!
//! Hot path: rows of a run of one table cost no look-up; bytes are shared; what is allocated is by chunk and table.

use super::codes;
use super::frame::{Frame, FrameError, Relations};
use crate::contract::{CodedError, Commit, Format, Item, Lsn, Mark, RawItem, RawRow, RawRows, TableSchema, Token, Ts};
use bytes::Bytes;
use hashbrown::HashMap;
use std::sync::Arc;

/// The stream does not follow the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    /// A message that is not one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A change outside of a transaction.
    #[error("a {0} came outside of a transaction")]
    Outside(&'static str),
    /// A transaction within another.
    #[error("a transaction began inside another")]
    Nested,
    /// A commit of another transaction.
    #[error("a commit of {got} ended the transaction of {open}")]
    OtherCommit {
        /// The open transaction's.
        open: Lsn,
        /// The commit's.
        got: Lsn,
    },
    /// A row of a relation that was not described.
    #[error("a row of relation {0} came before its description")]
    Relation(u32),
    /// A block within a block or a transaction, or of a transaction whose blocks before it did not come.
    #[error("a block of transaction {0} came out of order")]
    Block(u32),
    /// The commit of a transaction in blocks of which no block came.
    #[error("transaction {0} committed and none of its blocks came")]
    NoBlock(u32),
}

impl From<StreamError> for CodedError {
    fn from(error: StreamError) -> Self {
        Self::definite(codes::STREAM, format!("reading the replication stream: {error}"))
            .hint("this is a defect of etl-stream or of what stands between it and the server; please report it")
    }
}

/// A relation of this session.
struct Relation {
    /// Nothing: not selected.
    table: Option<Arc<TableSchema>>,
    /// Its rows in the chunk being made: the chunk's number and the item's index.
    group: (u64, usize),
    /// Commits whose rows are given: at or after the first, before the second.
    window: (u64, u64),
}

/// Every commit.
const ALL: (u64, u64) = (0, u64::MAX);

/// An open transaction.
struct Transaction {
    commit: Commit,
    changes: u64,
}

/// What a read became.
#[derive(Debug, Default)]
pub(super) struct Assembled {
    /// Items, in order.
    pub items: Vec<RawItem>,
    /// Every later item has a time at or after this one.
    pub upper: Ts,
    /// When everything before the time is durable, the LSN may be confirmed.
    pub confirm: Option<(Ts, u64)>,
    /// Changes read.
    pub changes: u64,
    /// Transactions read.
    pub transactions: u64,
    /// Tables whose first rows in this process these are.
    pub first: Vec<Arc<TableSchema>>,
}

/// Makes chunks of frames.
pub(super) struct Assembler {
    relations: HashMap<u32, Relation>,
    announced: HashMap<u32, Arc<TableSchema>>,
    transaction: Option<Transaction>,
    /// Whether some relation's rows are given of some commits only.
    limited: bool,
    /// Sent so far.
    upper: Ts,
    /// Read so far.
    position: Ts,
    chunk: u64,
    /// The relation of the last row and its item.
    last: Option<(u32, usize)>,
    made: Assembled,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            relations: HashMap::new(),
            announced: HashMap::new(),
            transaction: None,
            limited: false,
            upper: Ts::default(),
            position: Ts::default(),
            chunk: 1,
            last: None,
            made: Assembled::default(),
        }
    }

    /// Starts a session at `lsn`: the server describes relations anew and repeats what was not confirmed.
    pub(super) fn start(&mut self, lsn: u64) {
        self.relations.clear();
        self.transaction = None;
        self.last = None;
        self.chunk += 1;
        self.made = Assembled::default();
        self.position = Ts::new(lsn, 0);
    }

    /// Notes that a table's rows have been sent under a schema already, by the snapshot.
    pub(super) fn sent_as(&mut self, table: &Arc<TableSchema>) {
        self.announced.insert(table.id, Arc::clone(table));
    }

    /// Notes how far the snapshot's chunks reached.
    pub(super) fn reached(&mut self, upper: Ts) {
        self.upper = self.upper.max(upper);
    }

    /// Takes a relation's schema from here on; nothing when it is not selected.
    pub(super) fn relation(&mut self, id: u32, table: Option<Arc<TableSchema>>) {
        self.last = None;
        self.relations.insert(id, Relation { table, group: (0, 0), window: ALL });
    }

    /// Gives a relation's rows of these commits only, from here on.
    pub(super) fn limit(&mut self, id: u32, window: (u64, u64)) {
        self.last = None;
        if let Some(relation) = self.relations.get_mut(&id) {
            relation.window = window;
            self.limited |= window != ALL;
        }
    }

    /// The schema under which a table's rows were sent last.
    pub(super) fn announced(&self, id: u32) -> Option<&Arc<TableSchema>> {
        self.announced.get(&id)
    }

    /// Every transaction that commits before it has been read as a whole; no row of one at or after it has.
    pub(super) fn next_commit(&self) -> u64 {
        self.position.lsn.saturating_add(u64::from(self.transaction.is_some()))
    }

    /// The position, unless it is inside a transaction.
    pub(super) fn between(&self) -> Option<u64> {
        self.transaction.is_none().then_some(self.position.lsn)
    }

    /// Takes a frame whose pgoutput message is at `start..end` of `bytes`. Relations, types and blocks are the caller's.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, bytes: &Bytes, start: u32, end: u32) -> Result<(), StreamError> {
        match frame {
            Frame::Change { relation } => {
                let open = self.transaction.as_mut().ok_or(StreamError::Outside("row"))?;
                let ordinal = open.changes * 2;
                open.changes += 1;
                self.row(*relation, ordinal, bytes, start, end)
            }
            Frame::Begin { commit_lsn, time } => {
                if self.transaction.is_some() {
                    return Err(StreamError::Nested);
                }
                if self.limited {
                    self.last = None;
                }
                self.transaction = Some(Transaction { commit: Commit { lsn: *commit_lsn, time: *time }, changes: 0 });
                Ok(())
            }
            Frame::Commit { commit_lsn, end_lsn } => {
                let open = self.transaction.take().ok_or(StreamError::Outside("commit"))?;
                if open.commit.lsn != *commit_lsn {
                    return Err(StreamError::OtherCommit { open: Lsn(open.commit.lsn), got: Lsn(*commit_lsn) });
                }
                self.made.changes += open.changes;
                self.made.transactions += 1;
                self.position = self.position.max(Ts::after(*commit_lsn));
                self.made.confirm = Some((Ts::after(*commit_lsn), *end_lsn));
                Ok(())
            }
            Frame::Truncate(relations) => self.truncate(*relations, bytes, start, end),
            Frame::Keepalive { wal_end, .. } => {
                // Inside a transaction the server's position says nothing about what it has still to send.
                let reached = Ts::new(*wal_end, 0);
                if self.transaction.is_none() && reached > self.position {
                    self.position = reached;
                    self.made.confirm = Some((reached, *wal_end));
                }
                Ok(())
            }
            Frame::Relation(_) | Frame::Type { .. } | Frame::Other => Ok(()),
            Frame::StreamStart { .. } | Frame::StreamStop | Frame::StreamCommit(_) | Frame::StreamAbort { .. } | Frame::Streamed { .. } => {
                Ok(())
            }
        }
    }

    fn truncate(&mut self, relations: Relations<'_>, bytes: &Bytes, start: u32, end: u32) -> Result<(), StreamError> {
        for relation in relations.iter() {
            let open = self.transaction.as_mut().ok_or(StreamError::Outside("truncate"))?;
            let ordinal = open.changes * 2;
            open.changes += 1;
            self.row(relation, ordinal, bytes, start, end)?;
        }
        Ok(())
    }

    fn row(&mut self, id: u32, ordinal: u64, bytes: &Bytes, start: u32, end: u32) -> Result<(), StreamError> {
        let Some(open) = &self.transaction else { return Err(StreamError::Outside("row")) };
        let commit = open.commit;
        if Ts::from(Token::new(commit.lsn, ordinal)) < self.upper {
            return Ok(());
        }
        let index = match self.last {
            Some((last, index)) if last == id => index,
            _ => match self.group(id, bytes)? {
                Some(index) => index,
                None => return Ok(()),
            },
        };
        self.last = Some((id, index));
        if let Some(RawItem::Raw(raw)) = self.made.items.get_mut(index) {
            if raw.commits.last() != Some(&commit) {
                raw.commits.push(commit);
            }
            let commit = (raw.commits.len() - 1) as u32;
            raw.rows.push(RawRow { start, end, commit, ordinal });
        }
        Ok(())
    }

    /// The item that takes the relation's rows; nothing when it is not selected.
    fn group(&mut self, id: u32, bytes: &Bytes) -> Result<Option<usize>, StreamError> {
        let relation = self.relations.get_mut(&id).ok_or(StreamError::Relation(id))?;
        let Some(table) = &relation.table else { return Ok(None) };
        if self.transaction.as_ref().is_some_and(|open| !(relation.window.0..relation.window.1).contains(&open.commit.lsn)) {
            return Ok(None);
        }
        if relation.group.0 == self.chunk {
            return Ok(Some(relation.group.1));
        }
        let announced = self.announced.get(&id);
        if !announced.is_some_and(|known| Arc::ptr_eq(known, table)) {
            if announced.is_none_or(|known| **known != **table) {
                self.made.items.push(RawItem::Ready(Item::Mark(Mark::Schema { table: Arc::clone(table) })));
            }
            if announced.is_none() {
                self.made.first.push(Arc::clone(table));
            }
            self.announced.insert(id, Arc::clone(table));
        }
        let index = self.made.items.len();
        let rows =
            RawRows { table: Arc::clone(table), format: Format::PgOutput, bytes: bytes.clone(), commits: Vec::new(), rows: Vec::new() };
        self.made.items.push(RawItem::Raw(rows));
        relation.group = (self.chunk, index);
        Ok(Some(index))
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Ends the chunk: what was read since the last one.
    pub(super) fn finish(&mut self) -> Assembled {
        if let Some(open) = &self.transaction {
            self.position = self.position.max(Ts::new(open.commit.lsn, open.changes * 2));
        }
        self.upper = self.upper.max(self.position);
        self.chunk += 1;
        self.last = None;
        let mut made = std::mem::take(&mut self.made);
        made.upper = self.upper;
        made
    }
}

#[cfg(test)]
mod tests;
