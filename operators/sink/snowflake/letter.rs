//! A dead letter: one row that Snowflake does not take, with all that is needed to send it again.
//!
//! Its identity is its table and token. `row` is the line that was sent or would have been, byte for byte:
//! values, operation, token, commit time, mask of unchanged columns and exact texts. Values stand here and in
//! the dead letter, both the user's own; they are never logged.

use super::super::json::{Dialect, RowWriter};
use super::plan::TablePlan;
use super::requests::lines;
use crate::contract::{RowBatch, TableSchema, Token};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// Its place in the log.
    pub(super) token: Token,
    /// Letter of its operation.
    pub(super) op: char,
    /// The key's columns, as a JSON object.
    pub(super) key: String,
    /// Why, as a code with a page.
    pub(super) code: String,
    /// What is known beyond that.
    pub(super) reason: String,
    /// The exact line.
    pub(super) row: String,
}

/// The keys of rows, each a JSON object as PostgreSQL's `to_jsonb` would write it.
fn keys(plan: &TablePlan, rows: &RowBatch) -> Vec<String> {
    let mut schema = TableSchema { columns: Vec::new(), ..(*plan.schema).clone() };
    schema.columns = plan.key.iter().filter_map(|at| plan.schema.columns.get(*at).cloned()).collect();
    let names: Vec<String> = schema.columns.iter().map(|c| c.name.to_string()).collect();
    let writer = RowWriter::new(&schema, &names, Dialect::Postgres);
    let rows = rows.project(Arc::new(schema), &plan.key);
    let bound = writer.bind(&rows);
    let key = |row| {
        let mut text = vec![b'{'];
        bound.write_columns(row, &mut text);
        text.push(b'}');
        String::from_utf8_lossy(&text).into_owned()
    };
    (0..rows.len()).map(key).collect()
}

/// The dead letters of rows, given a code and a reason for each.
pub(super) fn of_rows<'a>(plan: &TablePlan, rows: &RowBatch, why: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Letter> {
    let texts = keys(plan, rows).into_iter().zip(lines(plan, rows.clone()));
    let mut letters = Vec::with_capacity(rows.len());
    for (row, ((key, line), (code, reason))) in texts.zip(why).enumerate() {
        let (token, op) = (rows.token(row), rows.op(row).letter().into());
        letters.push(Letter { token, op, key, code: code.into(), reason: reason.into(), row: line });
    }
    letters
}
