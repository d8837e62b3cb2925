//! Rows by verdict: keep, drop, or forward as a delete of the row's key.
//!
//! Hot path: one take per column; the forwarded rows' other columns are nulled by a bitmap.

use super::predicate::{Bound, selected};
use crate::contract::{Cells, CodedError, Op, ReplicaIdentity, RowBatch, TableSchema};
use arrow::array::BooleanArray;
use arrow::compute::nullif;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Drop,
    /// The row may have been there before: its key is deleted.
    Delete,
}

/// What is done with an update that hangs on a value PostgreSQL did not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenUnknown {
    /// Stop with error OP0001.
    #[default]
    Refuse,
    /// Forward it as a delete of its key.
    ForwardDelete,
    /// Keep it.
    Keep,
}

/// The verdict on a changed row that the predicate selects or not.
///
/// # Errors
/// `OP0001` when it hangs on an unknown value and `unknown` says so.
pub(super) fn verdict(bound: &Bound, batch: &RowBatch, row: usize, truth: u8, unknown: WhenUnknown) -> Result<Verdict, CodedError> {
    let is_update = match batch.op(row) {
        Op::Delete | Op::Truncate => return Ok(Verdict::Keep),
        op => op == Op::Update,
    };
    match (selected(truth), unknown) {
        (Some(true), _) => Ok(Verdict::Keep),
        (Some(false), _) => Ok(if is_update { Verdict::Delete } else { Verdict::Drop }),
        (None, WhenUnknown::Keep) => Ok(Verdict::Keep),
        (None, WhenUnknown::ForwardDelete) => Ok(Verdict::Delete),
        (None, WhenUnknown::Refuse) => Err(bound.undecided(batch, row)),
    }
}

/// Whether a row of a table can be deleted by what a batch says of it: by its key, or, without one, by
/// all its values.
pub(super) fn can_delete(table: &TableSchema) -> bool {
    table.columns.iter().any(|c| c.key.is_some()) || table.identity == ReplicaIdentity::Full
}

/// The rows of a batch that stay, in order, those to delete as deletes of their key; all of them as
/// they are when every verdict is to keep.
pub(super) fn select(batch: &RowBatch, verdicts: &[Verdict]) -> RowBatch {
    if verdicts.iter().all(|v| *v == Verdict::Keep) {
        return batch.clone();
    }
    let rows: Vec<u32> = verdicts.iter().zip(0_u32..).filter(|(v, _)| **v != Verdict::Drop).map(|(_, row)| row).collect();
    let mut taken = if rows.len() == batch.len() { batch.clone() } else { batch.take(&rows) };
    let deleted: Vec<bool> = verdicts.iter().filter(|v| **v != Verdict::Drop).map(|v| *v == Verdict::Delete).collect();
    if deleted.iter().any(|d| *d) {
        delete(&mut taken, deleted);
    }
    taken
}

/// Makes deletes of rows: their key columns stay. A table without key has the whole row as its identity.
fn delete(batch: &mut RowBatch, deleted: Vec<bool>) {
    batch.ops = batch.ops.iter().zip(&deleted).map(|(op, d)| if *d { Op::Delete.letter() } else { *op }).collect();
    let is_key: Vec<bool> = batch.table.columns.iter().map(|c| c.key.is_some()).collect();
    if !is_key.contains(&true) {
        return;
    }
    let stays = |row: usize, column: usize| is_key[column] || !deleted[row];
    batch.unchanged = kept(&batch.unchanged, stays);
    batch.exact = kept(&batch.exact, stays);
    let mask = BooleanArray::from(deleted);
    for (array, _) in batch.columns.iter_mut().zip(&is_key).filter(|(_, key)| !**key) {
        *array = nullif(array, &mask).expect("the mask is as long as the column");
    }
}

/// The cells that `stays` says stay.
pub(super) fn kept<T: Clone>(cells: &Cells<T>, stays: impl Fn(usize, usize) -> bool) -> Cells<T> {
    let mut left = Cells::default();
    for (row, column, value) in cells.iter().filter(|(row, column, _)| stays(*row, *column)) {
        left.push(row, column, value.clone());
    }
    left
}
