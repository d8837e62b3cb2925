//! Rows that are refused before they are sent, because no request or no column can hold them.

use super::errors::{SF_ROW_SIZE, SF_STRICT};
use super::plan::TablePlan;
use super::requests::Frame;
use crate::contract::{CodedError, RowBatch};
use arrow::array::Array;

/// A row that is not sent.
#[derive(Debug)]
pub(super) struct Refused {
    /// Which row of the batch.
    pub(super) row: usize,
    /// Why.
    pub(super) error: CodedError,
}

/// Rows with a value that its column cannot hold, when that is not taken. `rows` are as they are written.
pub(super) fn unheld(plan: &TablePlan, rows: &RowBatch) -> Vec<Refused> {
    let mut refused: Vec<Refused> = Vec::new();
    if !plan.strict {
        return refused;
    }
    for (row, column, _) in rows.exact.iter() {
        if !rows.columns[column].is_null(row) || refused.last().is_some_and(|last| last.row == row) {
            continue;
        }
        let message = format!(
            "a value of column \"{}\" of table \"{}\" at {} cannot be held by type {}",
            rows.table.columns[column].name,
            plan.schema.full_name(),
            rows.token(row),
            plan.columns[column].ty
        );
        let hint = "without `strict: true` the column is NULL there and _ETL_EXACT has the value's exact text";
        refused.push(Refused { row, error: CodedError::definite(SF_STRICT, message).hint(hint) });
    }
    refused
}

/// The row of a request that is larger than it may be: it has no other.
#[cold]
pub(super) fn too_large(plan: &TablePlan, rows: &RowBatch, frame: &Frame, limit: usize) -> Refused {
    let message = format!(
        "a row of table \"{}\" at {} takes {} bytes compressed; a request to Snowpipe Streaming takes {}",
        plan.schema.full_name(),
        frame.last,
        frame.body.len(),
        limit
    );
    let row = rows.len() - rows.after(frame.last).len() - 1;
    let hint = "leave the column with the large value out with a `project` operator";
    Refused { row, error: CodedError::definite(SF_ROW_SIZE, message).hint(hint) }
}
