//! Rows as they came off the wire, framed but not decoded.
//!
//! A source frames cheaply (which table, where each row's bytes are, its order) and the decode stage,
//! on the worker that owns the table, does the rest. Bytes are shared, never copied.

use super::{Item, Mark, TableSchema};
use bytes::Bytes;
use std::sync::Arc;

/// How the bytes of each row are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A pgoutput `I`, `U`, `D` or `T` message, from its tag on (PostgreSQL manual, "Logical
    /// Replication Message Formats").
    PgOutput,
    /// One tuple of `COPY … (FORMAT binary)`, from its field count on.
    CopyBinary,
}

/// A transaction's commit, shared by its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// LSN of the commit record; the snapshot's LSN for a snapshot.
    pub lsn: u64,
    /// Microseconds since 1970-01-01 00:00:00 UTC.
    pub time: i64,
}

/// Where one row's bytes are, and its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// First byte in [`RawRows::bytes`].
    pub start: u32,
    /// Past the last byte.
    pub end: u32,
    /// Index into [`RawRows::commits`].
    pub commit: u32,
    /// The row's ordinal. A pgoutput change takes two, the second for the new key of a changed key.
    pub ordinal: u64,
}

/// A run of undecoded rows of one table, in order.
#[derive(Clone, Debug)]
pub struct RawRows {
    /// The table as the stream described it just before these rows.
    pub table: Arc<TableSchema>,
    /// Layout of each row.
    pub format: Format,
    /// The buffer the rows point into.
    pub bytes: Bytes,
    /// The commits the rows point to.
    pub commits: Vec<Commit>,
    /// The rows.
    pub rows: Vec<RawRow>,
}

/// What a source sends: undecoded rows, ready batches, or marks.
#[derive(Clone, Debug)]
pub enum RawItem {
    /// Undecoded rows.
    Raw(RawRows),
    /// A batch or a mark, passed on as it is.
    Ready(Item),
}

impl RawItem {
    /// The table it belongs to; decides which worker owns it.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        match self {
            Self::Raw(raw) => &raw.table,
            Self::Ready(Item::Rows(batch)) => &batch.table,
            Self::Ready(Item::Mark(Mark::SnapshotBegin { table, .. } | Mark::SnapshotEnd { table, .. } | Mark::Schema { table })) => table,
        }
    }
}

impl RawItem {
    /// The same, to be replaced by an equal one.
    pub fn table_mut(&mut self) -> &mut Arc<TableSchema> {
        match self {
            Self::Raw(raw) => &mut raw.table,
            Self::Ready(Item::Rows(batch)) => &mut batch.table,
            Self::Ready(Item::Mark(Mark::SnapshotBegin { table, .. } | Mark::SnapshotEnd { table, .. } | Mark::Schema { table })) => table,
        }
    }
}

/// The container on the edge between a source and the decode stage.
#[derive(Clone, Debug, Default)]
pub struct RawItems(pub Vec<RawItem>);

impl timely::Accountable for RawItems {
    fn record_count(&self) -> i64 {
        self.0.len() as i64
    }
}
