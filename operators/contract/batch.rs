//! The row batch: rows of one table as Arrow columns, with each row's operation, order and commit time.
//!
//! # Guarantees
//! Rows are in token order. `columns` has one array per column of `table`, each as long as the batch.
//! Cloning and slicing share buffers.

use super::{Cells, TableSchema, Token, Ts};
use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::ArrowNativeType;
use arrow::error::ArrowError;
use std::sync::Arc;

/// What happened to a row. Its letter stands in `_OP` and `_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Read by the snapshot.
    Read = b'r',
    /// Inserted.
    Insert = b'i',
    /// Updated, its key as before.
    Update = b'u',
    /// Deleted: only the key (or, with replica identity full, the old row) is there.
    Delete = b'd',
    /// The table was truncated: one row, all columns null.
    Truncate = b't',
}

impl Op {
    /// The operation of a letter.
    #[must_use]
    pub const fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'r' => Self::Read,
            b'i' => Self::Insert,
            b'u' => Self::Update,
            b'd' => Self::Delete,
            b't' => Self::Truncate,
            _ => return None,
        })
    }

    /// Its letter.
    #[must_use]
    pub const fn letter(self) -> u8 {
        self as u8
    }
}

/// Rows of one table. The unit on every edge.
#[derive(Clone, Debug, PartialEq)]
pub struct RowBatch {
    /// The schema the rows were encoded by.
    pub table: Arc<TableSchema>,
    /// One array per column.
    pub columns: Vec<ArrayRef>,
    /// [`Op`] letters.
    pub ops: ScalarBuffer<u8>,
    /// Commit LSNs.
    pub commit_lsn: ScalarBuffer<u64>,
    /// Ordinals within the transaction.
    pub ordinal: ScalarBuffer<u64>,
    /// Commit times, microseconds since 1970-01-01 00:00:00 UTC.
    pub commit_time: ScalarBuffer<i64>,
    /// Columns whose TOASTed value did not change and was not sent; null in their array.
    pub unchanged: Cells<()>,
    /// PostgreSQL's exact text of values that the Arrow column cannot hold (null there), or holds
    /// without some of what the text says (such as an array's lower bounds).
    pub exact: Cells<Box<str>>,
}

impl RowBatch {
    /// A batch of no rows.
    #[must_use]
    pub fn empty(table: Arc<TableSchema>) -> Self {
        let columns = table.columns.iter().map(|c| new_empty_array(&c.ty.arrow())).collect();
        Self {
            table,
            columns,
            ops: vec![].into(),
            commit_lsn: vec![].into(),
            ordinal: vec![].into(),
            commit_time: vec![].into(),
            unchanged: Cells::default(),
            exact: Cells::default(),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// A row's operation.
    #[must_use]
    pub fn op(&self, row: usize) -> Op {
        Op::from_letter(self.ops[row]).expect("a batch holds only the letters of Op")
    }

    /// A row's token.
    #[must_use]
    pub fn token(&self, row: usize) -> Token {
        Token::new(self.commit_lsn[row], self.ordinal[row])
    }

    /// The first row's token.
    #[must_use]
    pub fn first_token(&self) -> Option<Token> {
        (!self.is_empty()).then(|| self.token(0))
    }

    /// The last row's token.
    #[must_use]
    pub fn last_token(&self) -> Option<Token> {
        self.len().checked_sub(1).map(|last| self.token(last))
    }

    /// The first row's time.
    #[must_use]
    pub fn first_ts(&self) -> Option<Ts> {
        self.first_token().map(Ts::from)
    }

    /// Bytes of the rows' values, shared buffers counted by this batch's share.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values: usize =
            self.columns.iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum();
        values + self.len() * 25
    }

    /// Rows `offset .. offset + len`.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        Self {
            table: Arc::clone(&self.table),
            columns: self.columns.iter().map(|c| c.slice(offset, len)).collect(),
            ops: self.ops.slice(offset, len),
            commit_lsn: self.commit_lsn.slice(offset, len),
            ordinal: self.ordinal.slice(offset, len),
            commit_time: self.commit_time.slice(offset, len),
            unchanged: self.unchanged.slice(offset, len),
            exact: self.exact.slice(offset, len),
        }
    }

    /// The rows after `token`: what a sink that already has everything up to it still needs.
    #[must_use]
    pub fn after(&self, token: Token) -> Self {
        let mut low = 0;
        let mut high = self.len();
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.token(middle) <= token { low = middle + 1 } else { high = middle }
        }
        self.slice(low, self.len() - low)
    }

    /// The given rows, in that order.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        let index = UInt32Array::from(rows.to_vec());
        let pick = |at: &u32| *at as usize;
        Self {
            table: Arc::clone(&self.table),
            columns: self.columns.iter().map(|c| take(c, &index, None).expect("row indices are within the batch")).collect(),
            ops: rows.iter().map(|r| self.ops[pick(r)]).collect(),
            commit_lsn: rows.iter().map(|r| self.commit_lsn[pick(r)]).collect(),
            ordinal: rows.iter().map(|r| self.ordinal[pick(r)]).collect(),
            commit_time: rows.iter().map(|r| self.commit_time[pick(r)]).collect(),
            unchanged: self.unchanged.take(rows),
            exact: self.exact.take(rows),
        }
    }

    /// Keeps `columns` (old indices in their new order) under the schema `table`.
    #[must_use]
    pub fn project(&self, table: Arc<TableSchema>, columns: &[usize]) -> Self {
        Self {
            table,
            columns: columns.iter().map(|c| Arc::clone(&self.columns[*c])).collect(),
            ops: self.ops.clone(),
            commit_lsn: self.commit_lsn.clone(),
            ordinal: self.ordinal.clone(),
            commit_time: self.commit_time.clone(),
            unchanged: self.unchanged.project(columns),
            exact: self.exact.project(columns),
        }
    }

    /// Joins batches of one schema, in order; of each column, what was joined is let go before the next.
    ///
    /// # Errors
    /// When the arrays' types differ, or a column would pass 2 GiB of text.
    pub fn concat(mut batches: Vec<Self>) -> Result<Self, ArrowError> {
        if batches.len() < 2 {
            return batches.pop().ok_or_else(|| ArrowError::InvalidArgumentError("no batch to join".into()));
        }
        let table = Arc::clone(&batches[0].table);
        let width = table.columns.len();
        let mut columns = Vec::with_capacity(width);
        for _ in 0..width {
            let parts: Vec<ArrayRef> = batches.iter_mut().filter_map(|batch| batch.columns.pop()).collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&parts)?);
        }
        columns.reverse();
        let mut all = Self {
            table,
            columns,
            ops: joined(&batches, |b| &b.ops),
            commit_lsn: joined(&batches, |b| &b.commit_lsn),
            ordinal: joined(&batches, |b| &b.ordinal),
            commit_time: joined(&batches, |b| &b.commit_time),
            unchanged: Cells::default(),
            exact: Cells::default(),
        };
        let mut rows = 0;
        for batch in &batches {
            all.unchanged.append(rows, &batch.unchanged);
            all.exact.append(rows, &batch.exact);
            rows += batch.len();
        }
        Ok(all)
    }
}

/// One of the rows' own parts, of all batches.
fn joined<T: ArrowNativeType>(batches: &[RowBatch], part: impl Fn(&RowBatch) -> &ScalarBuffer<T>) -> ScalarBuffer<T> {
    let mut all = Vec::with_capacity(batches.iter().map(RowBatch::len).sum());
    batches.iter().for_each(|batch| all.extend_from_slice(part(batch)));
    all.into()
}
