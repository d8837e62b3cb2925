//! Encode: from undecoded rows to row batches, straight from the wire's bytes into Arrow buffers.
//!
//! ```text
//! RawRows ──decode: cells──> run ──one loop a column──> Arrow buffers ──limit, flush──> RowBatch
//! ```
//!
//! # Guarantees
//! - Every row that goes in comes out once, in the order it was pushed; a batch's tokens ascend, and a row whose
//!   token does not follow starts a new batch.
//! - A changed key is two rows: the old key's delete and the new key's insert, one ordinal later.
//! - A value that its Arrow type cannot carry is null and stands as PostgreSQL's exact text in `exact`; so does the
//!   text of an array whose lower bounds are not 1, beside its JSON. Nothing is rounded.
//! - Binary and text form of a value give the same column.
//! - Bytes from outside never panic. No allocation, lock or dynamic dispatch per value; buffers grow with the batch.
//!
//! It decodes with `decode`, which runs in the same operator: the one use of a stage by another.

mod array;
mod array_binary;
mod array_output;
mod array_text;
mod boolean;
mod bytea;
mod column;
mod date;
mod element;
mod error;
mod fixed;
mod float;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod integer;
mod interval;
mod json;
mod numeric;
mod numeric_text;
mod open_table;
mod output;
mod read;
mod run;
mod text;
mod time;
mod timestamp;
mod uuid;

#[cfg(test)]
mod tests;

pub use error::{BROKEN_MESSAGE, BROKEN_VALUE, NO_BINARY_FORM, NOT_UTF8, TUPLE_DOES_NOT_FIT, VALUE_TOO_LARGE};

use crate::contract::{CodedError, RawRows, RowBatch, TableId, TableSchema};
use crate::decode::Cell;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use open_table::OpenTable;
use std::sync::Arc;

/// Decodes and encodes the rows of any number of tables. One per worker and dataflow.
#[derive(Default)]
pub struct Encoder {
    open: HashMap<(Arc<str>, TableId), OpenTable>,
    /// Tables opened so far: their order.
    opened: u64,
    /// The cells of the run at hand; kept for its memory.
    cells: Vec<Cell>,
}

impl Encoder {
    /// An encoder with no table open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes and appends every row of `raw`. When the table's schema differs from the open one, a row does not
    /// follow the last, or the open batch reaches 65,536 rows or 8 MiB, the finished batch goes to `out` first.
    ///
    /// # Errors
    /// Definite: `DEC0001` to `DEC0006`. The table's open rows are then gone with the failing ones: read them again.
    pub fn push(&mut self, raw: &RawRows, out: &mut Vec<RowBatch>) -> Result<(), CodedError> {
        let mut open = match self.open.entry((Arc::clone(&raw.table.source), raw.table.id)) {
            Entry::Occupied(open) => open,
            Entry::Vacant(vacant) => {
                self.opened += 1;
                vacant.insert_entry(OpenTable::new(Arc::clone(&raw.table), self.opened))
            }
        };
        let table = open.get_mut();
        if !Arc::ptr_eq(&table.table, &raw.table) {
            if table.table == raw.table {
                table.table = Arc::clone(&raw.table);
            } else {
                out.extend(table.finish());
                self.opened += 1;
                *table = OpenTable::new(Arc::clone(&raw.table), self.opened);
            }
        }
        let pushed = table.push(raw, &mut self.cells, out);
        if pushed.is_err() {
            open.remove();
        }
        pushed
    }

    /// Finishes what is open of one table: the same source and relation id.
    pub fn flush_table(&mut self, table: &TableSchema, out: &mut Vec<RowBatch>) {
        if let Some(mut open) = self.open.remove(&(Arc::clone(&table.source), table.id)) {
            out.extend(open.finish());
        }
    }

    /// Finishes everything open, in the order the tables were first touched.
    pub fn flush(&mut self, out: &mut Vec<RowBatch>) {
        let mut open: Vec<OpenTable> = self.open.drain().map(|(_, table)| table).collect();
        open.sort_unstable_by_key(|table| table.opened);
        out.extend(open.iter_mut().filter_map(OpenTable::finish));
    }
}
