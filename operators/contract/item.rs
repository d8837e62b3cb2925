//! What flows on an edge: row batches, and marks between them.

use super::{RowBatch, TableSchema};
use std::sync::Arc;

/// Something a sink must know at its place in a table's order.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A snapshot of the table starts at `lsn`: from here on the table is what the snapshot says. Whatever an
    /// earlier attempt left is removed as a whole before the first row of this one is written.
    ///
    /// Until [`Mark::SnapshotEnd`] the table's rows (the snapshot's, and changes that follow it) may have tokens
    /// below or above their edge's time, and are no state of the table that a reader may see.
    SnapshotBegin {
        /// The table.
        table: Arc<TableSchema>,
        /// The snapshot's LSN: the `commit_lsn` of its rows.
        lsn: u64,
        /// The first attempt that the source never noted as complete: everything of the table with a token at or
        /// after it and before `lsn` is removed, changes too.
        replaces: Option<u64>,
    },
    /// Every row of the snapshot, and every change that came with it, has been sent.
    SnapshotEnd {
        /// The table.
        table: Arc<TableSchema>,
        /// The snapshot's LSN.
        lsn: u64,
    },
    /// The table's schema from here on, said even when no row follows.
    Schema {
        /// The table.
        table: Arc<TableSchema>,
    },
}

impl Mark {
    /// The table it is about.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        match self {
            Self::SnapshotBegin { table, .. } | Self::SnapshotEnd { table, .. } | Self::Schema { table } => table,
        }
    }

    /// The same mark about another schema of the table: what an operator makes of it.
    #[must_use]
    pub fn with_table(&self, table: Arc<TableSchema>) -> Self {
        match self {
            Self::SnapshotBegin { lsn, replaces, .. } => Self::SnapshotBegin { table, lsn: *lsn, replaces: *replaces },
            Self::SnapshotEnd { lsn, .. } => Self::SnapshotEnd { table, lsn: *lsn },
            Self::Schema { .. } => Self::Schema { table },
        }
    }
}

/// A batch or a mark.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Rows.
    Rows(RowBatch),
    /// A mark.
    Mark(Mark),
}

impl Item {
    /// The table it belongs to.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        match self {
            Self::Rows(batch) => &batch.table,
            Self::Mark(mark) => mark.table(),
        }
    }
}

/// The container on every edge after the decode stage. Its count is of items, marks included, so that a
/// container of marks alone is sent.
#[derive(Clone, Debug, Default)]
pub struct Items(pub Vec<Item>);

impl timely::Accountable for Items {
    fn record_count(&self) -> i64 {
        self.0.len() as i64
    }
}
