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
mod validity;

#[cfg(test)]
mod tests;

pub use error::{BROKEN_MESSAGE, BROKEN_VALUE, NO_BINARY_FORM, NOT_UTF8, TUPLE_DOES_NOT_FIT, VALUE_TOO_LARGE};

use crate::contract::{CodedError, RawRows, RowBatch, TableId, TableSchema};
use crate::decode::Cell;
use hashbrown::HashMap;
use open_table::OpenTable;
use std::sync::Arc;

/// Tables whose encoders are kept, for what they know of the batch before; with more, all are made anew.
const KEPT: usize = 1_024;

/// Decodes and encodes the rows of any number of tables. One per worker and dataflow.
#[derive(Default)]
pub struct Encoder {
    open: HashMap<(Arc<str>, TableId), OpenTable>,
    /// Tables in the order in which they got rows; some may have none any more.
    touched: Vec<(Arc<str>, TableId)>,
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
        let key = (Arc::clone(&raw.table.source), raw.table.id);
        let table = self.open.entry(key.clone()).or_insert_with(|| OpenTable::new(Arc::clone(&raw.table)));
        if !Arc::ptr_eq(&table.table, &raw.table) {
            if table.table == raw.table {
                table.table = Arc::clone(&raw.table);
            } else {
                out.extend(table.finish());
                *table = OpenTable::new(Arc::clone(&raw.table));
                self.touched.retain(|touched| *touched != key);
            }
        }
        if table.is_empty() {
            self.touched.push(key.clone());
        }
        let pushed = table.push(raw, &mut self.cells, out);
        if pushed.is_err() {
            self.open.remove(&key);
        }
        pushed
    }

    /// Finishes what is open of one table: the same source and relation id, or name.
    pub fn flush_table(&mut self, table: &TableSchema, out: &mut Vec<RowBatch>) {
        if let Some(mut open) = self.open.remove(&(Arc::clone(&table.source), table.id)) {
            out.extend(open.finish());
        }
        // One that was dropped and made anew: what came of the old one comes first.
        let same =
            |open: &OpenTable| (&open.table.source, &open.table.schema, &open.table.name) == (&table.source, &table.schema, &table.name);
        if self.open.values().any(same) {
            self.open.retain(|_, open| {
                let kept = !same(open);
                if !kept {
                    out.extend(open.finish());
                }
                kept
            });
        }
    }

    /// Finishes everything open, in the order the tables were first touched.
    pub fn flush(&mut self, out: &mut Vec<RowBatch>) {
        for key in self.touched.drain(..) {
            out.extend(self.open.get_mut(&key).and_then(OpenTable::finish));
        }
        if self.open.len() > KEPT {
            self.open.clear();
        }
    }
}
