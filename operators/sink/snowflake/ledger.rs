//! What has landed and is not merged: just enough of it to choose the statements of a merge.
//!
//! Filled from the rows as they are delivered and, for what an earlier process left, by a query. Holds no
//! values: tokens, column names, and hashes of keys.
//!
//! Hot path: rows are scanned as arrays of letters; cells are looked at only where some value was not sent.

use super::errors::{SF_NULL_KEY, SF_UNKNOWN_VALUE};
use super::plan::TablePlan;
use crate::contract::{CodedError, Op, RowBatch, TableSchema, Token};
use arrow::array::Array;
use std::collections::{BTreeMap, BTreeSet};

/// A changed key whose new row lacks values that only the old key's row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The old key's delete; the new row is the next token.
    pub(super) delete: Token,
    /// Hash of the old key.
    pub(super) from: u64,
    /// Hash of the new key.
    pub(super) to: u64,
    /// Whether the hashes are this process's, so that they say something.
    pub(super) hashed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    first: Option<Token>,
    last: Token,
    truncates: BTreeSet<Token>,
    /// Columns with values that were not sent: the first and the last such row.
    unchanged: BTreeMap<String, (Token, Token)>,
    /// By the token of the new row.
    moves: BTreeMap<Token, Move>,
    /// The last row seen: a move's delete is the row just before it, perhaps of the batch before.
    previous: Option<(Token, Op, u64)>,
}

fn unknown(table: &TableSchema, column: &str, token: Token, why: &str) -> CodedError {
    let message =
        format!("table \"{}\": the value of column \"{column}\" at {token} was not sent and is not known: {why}", table.full_name());
    CodedError::definite(SF_UNKNOWN_VALUE, message)
        .hint("set REPLICA IDENTITY FULL for the table, so that PostgreSQL sends it, or let the operators before the sink pass both rows of a changed key")
}

/// The first row whose key is null in a column. A value that the column's type cannot hold is another matter.
fn null_key(rows: &RowBatch, column: usize) -> Option<usize> {
    let nulls = rows.columns.get(column)?.nulls().filter(|nulls| nulls.null_count() > 0)?;
    let said = |row: usize| rows.unchanged.get(row, column).is_some() || rows.exact.get(row, column).is_some();
    (0..rows.len()).find(|row| nulls.is_null(*row) && rows.ops[*row] != Op::Truncate.letter() && !said(*row))
}

fn no_key(table: &TableSchema, column: usize, token: Token) -> CodedError {
    let name = table.columns.get(column).map_or("", |c| &c.name);
    let message = format!(
        "table \"{}\": the row at {token} has null in column \"{name}\" of its key, and null equals nothing: a merge would not find it again",
        table.full_name()
    );
    CodedError::definite(SF_NULL_KEY, message)
        .hint("name columns without nulls under `keys:` of the source, or write the table with `write_mode: append`")
}

impl Ledger {
    /// Notes a row that is not merged.
    pub(super) fn note(&mut self, token: Token) {
        self.first = Some(self.first.map_or(token, |first| first.min(token)));
        self.last = self.last.max(token);
    }

    /// Notes a truncate.
    pub(super) fn note_truncate(&mut self, token: Token) {
        self.truncates.insert(token);
    }

    /// Notes that a column has a value that was not sent.
    pub(super) fn note_unchanged(&mut self, column: &str, token: Token) {
        match self.unchanged.get_mut(column) {
            Some((first, last)) => (*first, *last) = ((*first).min(token), (*last).max(token)),
            None => {
                self.unchanged.insert(column.to_owned(), (token, token));
            }
        }
    }

    /// Notes a move by the token of its new row.
    pub(super) fn note_move(&mut self, new: Token, moved: Move) {
        self.moves.entry(new).or_insert(moved);
    }

    /// Notes delivered rows after `merged`.
    ///
    /// # Errors
    /// `SF0012` when a value was not sent and cannot be known from the rows before, `SF0016` when a row has no key.
    pub(super) fn observe(&mut self, plan: &TablePlan, rows: &RowBatch, hashes: &[u64], merged: Token) -> Result<(), CodedError> {
        let (Some(first), Some(last)) = (rows.first_token(), rows.last_token()) else { return Ok(()) };
        if last <= merged {
            return Ok(());
        }
        self.note(first.max(merged));
        self.note(last);
        for at in memchr::memchr_iter(Op::Truncate.letter(), &rows.ops) {
            if rows.token(at) > merged {
                self.note_truncate(rows.token(at));
            }
        }
        for column in &plan.key {
            if let Some(row) = null_key(rows, *column).filter(|row| rows.token(*row) > merged) {
                return Err(no_key(&plan.schema, *column, rows.token(row)));
            }
        }
        for (row, column, ()) in rows.unchanged.iter() {
            let token = rows.token(row);
            let name = &plan.schema.columns[column].name;
            if token <= merged {
                continue;
            }
            if plan.key.contains(&column) {
                return Err(unknown(&plan.schema, name, token, "it is part of the key"));
            }
            if !plan.leaves_out(column) {
                return Err(unknown(&plan.schema, name, token, "its type is never left out by PostgreSQL"));
            }
            self.note_unchanged(&plan.names[column], token);
            if rows.op(row) == Op::Insert {
                let before = match row.checked_sub(1) {
                    Some(before) => Some((rows.token(before), rows.op(before), hashes[before])),
                    None => self.previous,
                };
                let delete = before.filter(|(at, op, _)| *op == Op::Delete && follows(token, *at));
                let Some((delete, _, from)) = delete else {
                    return Err(unknown(&plan.schema, name, token, "the row before it is not its old key's delete"));
                };
                self.note_move(token, Move { delete, from, to: hashes[row], hashed: true });
            }
        }
        let end = rows.len() - 1;
        self.previous = Some((last, rows.op(end), hashes[end]));
        Ok(())
    }

    /// The first row that is not merged.
    pub(super) fn first(&self) -> Option<Token> {
        self.first
    }

    /// Whether something can be merged at a fence.
    pub(super) fn ripe(&self, fence: Token) -> bool {
        self.first.is_some_and(|first| first <= fence)
    }

    /// Truncates within `(from, to]`.
    pub(super) fn truncates(&self, from: Token, to: Token) -> Vec<Token> {
        self.truncates.iter().filter(|t| **t > from && **t <= to).copied().collect()
    }

    /// Columns with values that were not sent, in rows within `(from, to]`; perhaps more.
    pub(super) fn unchanged(&self, from: Token, to: Token) -> Vec<String> {
        self.unchanged.iter().filter(|(_, (first, last))| *first <= to && *last > from).map(|(name, _)| name.clone()).collect()
    }

    /// Moves whose new row is within `(from, to]`, in order.
    pub(super) fn moves(&self, from: Token, to: Token) -> Vec<Move> {
        self.moves.iter().filter(|(new, _)| **new > from && **new <= to).map(|(_, moved)| *moved).collect()
    }

    /// Forgets what was removed before it was merged: everything from `lsn` on.
    pub(super) fn removed(&mut self, lsn: u64) {
        let from = Token::new(lsn, 0);
        self.first = self.first.filter(|first| *first < from);
        self.last = self.last.min(just_before(from));
        self.truncates.retain(|t| *t < from);
        self.unchanged.retain(|_, (first, _)| *first < from);
        self.moves.retain(|new, _| *new < from);
        self.previous = None;
    }

    /// Forgets what is merged.
    pub(super) fn merged(&mut self, fence: Token) {
        self.first = (self.last > fence).then(|| self.first.map_or(self.last, |first| first.max(fence)));
        self.truncates.retain(|t| *t > fence);
        self.unchanged.retain(|_, (_, last)| *last > fence);
        self.moves.retain(|new, _| *new > fence);
    }
}

/// Whether a token is the next change's after another, in one transaction.
fn follows(token: Token, before: Token) -> bool {
    token.commit_lsn == before.commit_lsn && token.ordinal == before.ordinal.wrapping_add(1)
}

/// The greatest token before one.
pub(super) fn just_before(token: Token) -> Token {
    match token.ordinal.checked_sub(1) {
        Some(ordinal) => Token::new(token.commit_lsn, ordinal),
        None => Token::end_of(token.commit_lsn.saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_merged() {
        let t = |ordinal| Token::new(1, ordinal);
        let mut ledger = Ledger::default();
        assert!(!ledger.ripe(Token::end_of(9)));
        for ordinal in [3, 1, 7] {
            ledger.note(t(ordinal));
        }
        ledger.note_truncate(t(3));
        ledger.note_unchanged("A", t(1));
        ledger.note_unchanged("A", t(3));
        ledger.note_unchanged("B", t(7));
        ledger.note_move(t(7), Move { delete: t(6), from: 1, to: 2, hashed: true });
        assert!(ledger.ripe(t(1)) && !ledger.ripe(t(0)));
        assert_eq!(ledger.truncates(t(0), t(3)), [t(3)]);
        assert_eq!(ledger.truncates(t(3), t(9)), []);
        assert_eq!(ledger.unchanged(t(0), t(6)), ["A"]);
        assert_eq!(ledger.unchanged(t(3), t(9)), ["B"]);
        ledger.merged(t(3));
        assert_eq!((ledger.unchanged(t(0), t(9)), ledger.moves(t(0), t(9)).len()), (vec!["B".to_owned()], 1));
        assert!(ledger.ripe(t(7)));
        ledger.merged(t(7));
        assert!(!ledger.ripe(Token::end_of(9)));
        assert_eq!(just_before(Token::new(5, 0)), Token::end_of(4));
        assert!(follows(t(2), t(1)) && !follows(Token::new(2, 2), t(1)));
    }
}
