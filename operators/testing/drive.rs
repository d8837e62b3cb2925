//! Runs an operator on row batches, as the engine does, without a dataflow.
//!
//! ```text
//! batches ──> schema() for each new table schema ──> apply() ──> batches per output
//! ```

use crate::contract::{CodedError, Operator, Output, RowBatch, TableSchema};
use std::sync::Arc;

/// Gives `batches` to an operator in order and returns what came out, with the output of each.
///
/// A table whose schema the operator leaves alone keeps its very `Arc`.
///
/// # Errors
/// The operator's first error.
pub fn drive(operator: &mut dyn Operator, batches: impl IntoIterator<Item = RowBatch>) -> Result<Vec<(usize, RowBatch)>, CodedError> {
    let mut seen: Vec<(Arc<TableSchema>, Arc<TableSchema>)> = Vec::new();
    let mut output = Output::default();
    let mut all = Vec::new();
    for batch in batches {
        let known = seen.iter().find(|(from, _)| *from == batch.table).map(|(_, to)| Arc::clone(to));
        let out_table = match known {
            Some(table) => table,
            None => {
                let made = operator.schema(&batch.table)?;
                let to = if made == *batch.table { Arc::clone(&batch.table) } else { Arc::new(made) };
                seen.push((Arc::clone(&batch.table), Arc::clone(&to)));
                to
            }
        };
        operator.apply(batch, &out_table, &mut output)?;
        all.extend(output.drain());
    }
    for (_, batch) in &all {
        assert_well_formed(batch);
    }
    Ok(all)
}

/// Asserts what every batch promises: one array of the right type and length per column, and rows in
/// token order.
///
/// # Panics
/// When it does not hold.
pub fn assert_well_formed(batch: &RowBatch) {
    assert_eq!(batch.columns.len(), batch.table.columns.len(), "one array for each column");
    for (array, column) in batch.columns.iter().zip(&batch.table.columns) {
        assert_eq!(array.len(), batch.len(), "column {} is as long as the batch", column.name);
        assert_eq!(array.data_type(), &column.ty.arrow(), "column {} has its type's array", column.name);
    }
    for row in 1..batch.len() {
        assert!(batch.token(row - 1) < batch.token(row), "rows are in token order");
    }
    let inside = |row: usize, column: usize| row < batch.len() && column < batch.columns.len();
    assert!(batch.unchanged.iter().all(|(row, column, ())| inside(row, column)), "unchanged cells are cells");
    assert!(batch.exact.iter().all(|(row, column, _)| inside(row, column)), "exact cells are cells");
}
