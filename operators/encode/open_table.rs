//! One table's open batch: walks raw rows into cells, a run at a time, and appends the run column by column.
//!
//! A run is small enough that its cells and bytes stay in the cache while each column's loop goes over them.

use super::column::ColumnEncoder;
use super::error;
use super::run::{ExactTexts, Run};
use crate::contract::{Cells, CodedError, Commit, Format, Op, RawRow, RawRows, RowBatch, TableSchema, Token};
use crate::decode::{Cell, Change, Fault, change, copy_tuple};
use std::sync::Arc;

/// Rows after which a batch is finished.
const MOST_ROWS: usize = 65_536;
/// Wire bytes after which a batch is finished.
const MOST_BYTES: usize = 8 << 20;
/// Cells and wire bytes of a run.
const RUN_CELLS: usize = 4_096;
const RUN_BYTES: usize = 256 << 10;

/// Takes a value that was not sent from the old row.
fn fill((old, new): (&Cell, &mut Cell)) {
    if new.is_unchanged() {
        *new = *old;
    }
}

/// A batch being built.
pub(super) struct OpenTable {
    pub(super) table: Arc<TableSchema>,
    columns: Vec<ColumnEncoder>,
    key: Vec<usize>,
    /// Of each column, whether a snapshot copies its type's binary form.
    binary: Vec<bool>,
    ops: Vec<u8>,
    commit_lsn: Vec<u64>,
    ordinal: Vec<u64>,
    commit_time: Vec<i64>,
    unchanged: Cells<()>,
    exact: ExactTexts,
    /// Wire bytes of the rows.
    bytes: usize,
    last: Option<Token>,
    /// Rows of the batch before.
    before: usize,
}

/// The first row of a run whose value a column does not take.
#[cold]
fn blame(table: &TableSchema, run: &Run<'_>, at: usize) -> Option<usize> {
    let column = table.columns.get(at)?;
    run.cells.chunks(run.width).position(|cells| {
        let alone = Run { cells, first: 0, ..*run };
        ColumnEncoder::new(column).append(&alone, at, &mut ExactTexts::default()).is_err()
    })
}

impl OpenTable {
    pub(super) fn new(table: Arc<TableSchema>) -> Self {
        Self {
            columns: table.columns.iter().map(ColumnEncoder::new).collect(),
            key: table.key(),
            binary: table.columns.iter().map(|column| column.ty.has_binary_form()).collect(),
            table,
            ops: Vec::new(),
            commit_lsn: Vec::new(),
            ordinal: Vec::new(),
            commit_time: Vec::new(),
            unchanged: Cells::default(),
            exact: ExactTexts::default(),
            bytes: 0,
            last: None,
            before: 0,
        }
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Appends every row; batches that became full, or that the next row does not follow, go to `out`.
    pub(super) fn push(&mut self, raw: &RawRows, cells: &mut Vec<Cell>, out: &mut Vec<RowBatch>) -> Result<(), CodedError> {
        let width = self.columns.len().max(1);
        let run_rows = (RUN_CELLS / width).clamp(8, 512);
        let mut rows = raw.rows.as_slice();
        self.reserve(rows);
        while !rows.is_empty() {
            cells.clear();
            let first = self.ops.len();
            let full = MOST_ROWS.min(first + run_rows);
            let run_end = self.bytes + RUN_BYTES;
            let mut in_order = true;
            while let Some((row, rest)) = rows.split_first() {
                if self.ops.len() >= full || self.bytes >= run_end {
                    break;
                }
                let commit = raw.commits.get(row.commit as usize).ok_or_else(|| error::tuple(&self.table, None, Fault::Shape))?;
                in_order = self.last < Some(Token::new(commit.lsn, row.ordinal));
                if !in_order {
                    break;
                }
                let token = Token::new(commit.lsn, row.ordinal);
                self.row(raw, row, commit, cells).map_err(|fault| error::tuple(&self.table, Some(token), fault))?;
                rows = rest;
            }
            self.append_run(raw, cells, first)?;
            if !in_order || self.ops.len() >= MOST_ROWS || self.bytes >= MOST_BYTES {
                out.extend(self.finish());
            }
            self.reserve(rows);
        }
        Ok(())
    }

    /// Makes room for the rows that are coming, as far as this batch takes them; for as many as the batch before had when
    /// it begins, within reason.
    fn reserve(&mut self, coming: &[RawRow]) {
        let (Some(first), Some(last)) = (coming.first(), coming.last()) else { return };
        let times = if self.is_empty() { (self.before / coming.len()).clamp(1, 16) } else { 1 };
        let rows = (coming.len() * times).min(MOST_ROWS.saturating_sub(self.ops.len()));
        let most = (last.end.saturating_sub(first.start) as usize).saturating_mul(times).min(MOST_BYTES);
        self.columns.iter_mut().for_each(|column| column.reserve(rows, most));
        self.ops.reserve(rows);
        self.commit_lsn.reserve(rows);
        self.ordinal.reserve(rows);
        self.commit_time.reserve(rows);
    }

    fn append_run(&mut self, raw: &RawRows, cells: &[Cell], first: usize) -> Result<(), CodedError> {
        let run = Run { bytes: &raw.bytes, cells, width: self.columns.len().max(1), first };
        for (at, encoder) in self.columns.iter_mut().enumerate() {
            encoder.append(&run, at, &mut self.exact).map_err(|malformed| {
                let row = blame(&self.table, &run, at).map(|row| first + row);
                let token = row.and_then(|row| Some(Token::new(*self.commit_lsn.get(row)?, *self.ordinal.get(row)?)));
                error::value(&self.table, at, token, malformed)
            })?;
        }
        Ok(())
    }

    #[inline]
    fn row(&mut self, raw: &RawRows, row: &RawRow, commit: &Commit, cells: &mut Vec<Cell>) -> Result<(), Fault> {
        let width = self.columns.len();
        let base = cells.len();
        self.bytes += row.end.saturating_sub(row.start) as usize;
        if raw.format == Format::CopyBinary {
            copy_tuple(&raw.bytes, row.start, row.end, &self.binary, cells)?;
            self.add(Op::Read, commit, row.ordinal);
            return Ok(());
        }
        let (change, unchanged) = change(&raw.bytes, row.start, row.end, self.table.id, width, cells)?;
        match change {
            Change::Insert | Change::Update => {
                if unchanged {
                    self.note_unchanged(cells);
                }
                self.add(if change == Change::Insert { Op::Insert } else { Op::Update }, commit, row.ordinal);
            }
            Change::Delete => self.add(Op::Delete, commit, row.ordinal),
            Change::Truncate => {
                cells.resize(base + width, Cell::NULL);
                self.add(Op::Truncate, commit, row.ordinal);
            }
            update @ (Change::UpdateKey | Change::UpdateFull) => {
                let pair = cells.get_mut(base..).unwrap_or_default();
                let (old, new) = pair.split_at_mut(width.min(pair.len()));
                // A key that is stored out of line is sent with the old row only, changed or not.
                if update == Change::UpdateFull {
                    old.iter().zip(&mut *new).for_each(fill);
                } else {
                    self.key.iter().for_each(|at| old.get(*at).zip(new.get_mut(*at)).into_iter().for_each(fill));
                }
                let differs = |at: &usize| old.get(*at).map(|c| c.field(&raw.bytes)) != new.get(*at).map(|c| c.field(&raw.bytes));
                // Without a key the whole row is what tells it from others.
                if self.key.is_empty() || self.key.iter().any(differs) {
                    self.add_moved(commit, row.ordinal, cells);
                } else {
                    cells.drain(base..base + width);
                    self.note_unchanged(cells);
                    self.add(Op::Update, commit, row.ordinal);
                }
            }
        }
        Ok(())
    }

    /// A changed key, or any update of a table without one: the old row's delete and the new row's insert.
    fn add_moved(&mut self, commit: &Commit, ordinal: u64, cells: &[Cell]) {
        self.add(Op::Delete, commit, ordinal);
        self.note_unchanged(cells);
        self.add(Op::Insert, commit, ordinal.saturating_add(1));
    }

    /// Notes which values of the row that comes next, the last of `cells`, were not sent.
    fn note_unchanged(&mut self, cells: &[Cell]) {
        let tuple = cells.get(cells.len() - self.columns.len()..).unwrap_or_default();
        for (column, cell) in tuple.iter().enumerate() {
            if cell.is_unchanged() {
                self.unchanged.push(self.ops.len(), column, ());
            }
        }
    }

    #[inline]
    fn add(&mut self, op: Op, commit: &Commit, ordinal: u64) {
        self.ops.push(op.letter());
        self.commit_lsn.push(commit.lsn);
        self.ordinal.push(ordinal);
        self.commit_time.push(commit.time);
        self.last = Some(Token::new(commit.lsn, ordinal));
    }

    /// The batch of everything appended, if there is any.
    pub(super) fn finish(&mut self) -> Option<RowBatch> {
        self.last = None;
        self.bytes = 0;
        if self.ops.is_empty() {
            return None;
        }
        self.before = self.ops.len();
        Some(RowBatch {
            table: Arc::clone(&self.table),
            columns: self.columns.iter_mut().map(ColumnEncoder::finish).collect(),
            ops: std::mem::take(&mut self.ops).into(),
            commit_lsn: std::mem::take(&mut self.commit_lsn).into(),
            ordinal: std::mem::take(&mut self.ordinal).into(),
            commit_time: std::mem::take(&mut self.commit_time).into(),
            unchanged: std::mem::take(&mut self.unchanged),
            exact: self.exact.finish(),
        })
    }
}
