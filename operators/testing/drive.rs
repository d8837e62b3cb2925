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
    let wrong = wrong_form(batch);
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

/// What does not hold of what every batch promises.
#[must_use]
pub fn wrong_form(batch: &RowBatch) -> Option<String> {
    let (rows, columns) = (batch.len(), batch.columns.len());
    if columns != batch.table.columns.len() {
        return Some(format!("{columns} arrays for {} columns", batch.table.columns.len()));
    }
    for (array, column) in batch.columns.iter().zip(&batch.table.columns) {
        if array.len() != rows {
            return Some(format!("column {} has {} values in a batch of {rows} rows", column.name, array.len()));
        }
        if array.data_type() != &column.ty.arrow() {
            return Some(format!("column {} is {} and not its type's {}", column.name, array.data_type(), column.ty.arrow()));
        }
    }
    if [batch.commit_lsn.len(), batch.ordinal.len(), batch.commit_time.len()] != [rows; 3] {
        return Some(format!("the tokens or times are not {rows}"));
    }
    if (1..rows).any(|row| batch.token(row - 1) >= batch.token(row)) {
        return Some("the rows are not in token order".into());
    }
    let outside = |row: usize, column: usize| row >= rows || column >= columns;
    if batch.unchanged.iter().any(|(row, column, ())| outside(row, column))
        || batch.exact.iter().any(|(row, column, _)| outside(row, column))
    {
        return Some("something is said of a cell that is none".into());
    }
    None
}
