//! Predicates: a typed subset of SQL's WHERE, with PostgreSQL's meaning.
//!
//! ```text
//! text ──parse──> Predicate ──bind(table)──> Bound ──eval(batch)──> true, false, null of each row
//! ```
//!
//! # Guarantees
//! Three-valued logic, precedence, literal typing and the order of NaN and infinities are PostgreSQL's.
//! Text compares by its bytes (collation "C"), and ILIKE folds ASCII letters alone. Numbers compare
//! exactly. A value that PostgreSQL did not send (unchanged TOAST) is unknown, and so is whatever hangs
//! on it. What the subset lacks is refused, never guessed.

mod bind;
mod eval;
mod expr;
mod lexer;
mod like;
mod literal;
mod parser;
mod truth;

#[cfg(test)]
mod oracle;

use super::{CFG_PREDICATE, OP_UNCHANGED};
use crate::contract::{CodedError, RowBatch, TableSchema};

/// What is wrong in a predicate's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where, in characters from 1.
    pub(crate) at: usize,
    /// What stands there, or what was expected.
    pub(crate) message: String,
}

impl Mistake {
    fn new(at: usize, expected: &str) -> Self {
        Self { at, message: format!("at character {at}: expected {expected}") }
    }

    fn outside(at: usize, what: &str) -> Self {
        Self { at, message: format!("at character {at}: {what} is outside the predicate language; write an operator for it") }
    }
}

/// A parsed predicate, of no table yet.
#[derive(Clone, Debug)]
pub(crate) struct Predicate(expr::Expr);

impl Predicate {
    /// Parses.
    ///
    /// # Errors
    /// With the place and what was expected there.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        parser::parse(text).map(Self)
    }

    /// As [`Predicate::parse`], as the error `CFG0030` of a setting.
    pub(crate) fn of_setting(setting: &str, text: &str) -> Result<Self, CodedError> {
        Self::parse(text)
            .map_err(|m| CodedError::definite(CFG_PREDICATE, format!("the predicate of \"{setting}\" was not read, {}", m.message)))
    }

    /// Fits it to a table.
    ///
    /// # Errors
    /// `CFG0031` for a column the table lacks, `CFG0032` for a comparison its types do not have.
    pub(crate) fn bind(&self, table: &TableSchema) -> Result<Bound, CodedError> {
        let node = bind::bind(&self.0, table)?;
        let mut columns = Vec::new();
        node.columns(&mut columns);
        columns.sort_unstable();
        columns.dedup();
        Ok(Bound { node, columns, pool: eval::Pool::default() })
    }
}

/// The possible results of a row: one bit unless something unknown decides.
pub(crate) type Truth = u8;
/// True.
pub(crate) const TRUE: Truth = 1;
/// False.
pub(crate) const FALSE: Truth = 2;
/// Null.
pub(crate) const NULL: Truth = 4;

/// Whether a row is selected; `None`: it hangs on an unknown value.
pub(crate) const fn selected(truth: Truth) -> Option<bool> {
    match truth {
        TRUE => Some(true),
        t if t & TRUE == 0 => Some(false),
        _ => None,
    }
}

/// A predicate of one table.
pub(crate) struct Bound {
    node: bind::Node,
    columns: Vec<usize>,
    pool: eval::Pool,
}

impl Bound {
    /// Evaluates every row of a batch of the table it was bound to. Give the result back with
    /// [`Bound::reuse`].
    pub(crate) fn eval(&mut self, batch: &RowBatch) -> Vec<Truth> {
        eval::eval(&self.node, batch, &mut self.pool)
    }

    /// Takes a result's buffer back.
    pub(crate) fn reuse(&mut self, truths: Vec<Truth>) {
        self.pool.give(truths);
    }

    /// The error for a row whose result is unknown.
    pub(crate) fn undecided(&self, batch: &RowBatch, row: usize) -> CodedError {
        let column = self.columns.iter().find(|c| batch.unchanged.get(row, **c).is_some()).or(self.columns.first());
        let name = column.and_then(|c| batch.table.columns.get(*c)).map_or("", |c| &*c.name);
        let table = batch.table.full_name();
        let message = format!(
            "the predicate on table \"{table}\" could not be decided at {}: column \"{name}\" is unchanged and PostgreSQL did not send its value",
            batch.token(row)
        );
        CodedError::definite(OP_UNCHANGED, message)
            .hint(format!("ALTER TABLE {table} REPLICA IDENTITY FULL; a filter may also set when_unknown to keep or forward_delete"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_place_and_expectation() {
        for (text, expected) in [
            ("", "at character 1: expected a column, a literal, NOT or `(`"),
            ("a =", "at character 4: expected a column"),
            ("a = 1 b", "at character 7: expected AND, OR or the end"),
            ("lower(a) = 'x'", "at character 1: a function is outside the predicate language; write an operator"),
            ("a + 1 = 2", "at character 3: arithmetic is outside"),
            ("a = 'x", "at character 5: expected a string that ends with '"),
            ("é = E'x'", "at character 5: a string with a prefix"),
            ("a::text = 'x'", "at character 2: `:` is outside"),
            ("a -- x", "at character 3: a comment is outside"),
            ("a IN ()", "at character 7: expected a column, a literal"),
            ("a IS 1", "at character 6: expected NULL, TRUE"),
            ("a BETWEEN 1 OR 2", "at character 13: expected AND"),
            ("a = DATE 'yesterday'", "at character 5: expected DATE 'YYYY-MM-DD'"),
            ("a = TIMESTAMPTZ '2024-01-01 00:00:00'", "with its offset"),
            ("a = TIME '10:00'", "a literal of type time"),
            ("a = select", "a column named select is written \"select\""),
            ("a = 1_000", "expected a decimal number"),
            ("a LIKE 'x' ESCAPE 'ab'", "expected a string of one character"),
            ("\"\" = 1", "expected a quoted column name"),
            ("(a, b) = (1, 2)", "a row of values is outside"),
        ] {
            let mistake = Predicate::parse(text).expect_err(text);
            assert!(mistake.message.contains(expected), "{text}: {}", mistake.message);
        }
        let deep = format!("{}a = 1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(Predicate::parse(&deep).expect_err("deep").message.contains("deeper nesting"));
        assert!(Predicate::parse(&format!("{}a", "NOT ".repeat(5000))).is_err());
        assert!(Predicate::parse(&format!("a{}", " IS NULL".repeat(5000))).expect_err("tests").message.contains("deeper nesting"));
        // each level would double what the next holds
        let doubling = format!("{}a{}", "(".repeat(60), " BETWEEN 0 AND 1)".repeat(60));
        assert!(Predicate::parse(&doubling).expect_err("doubling").message.contains("BETWEEN after a condition"));
        let wide = vec!["a = 1"; 5000].join(" OR ");
        assert!(Predicate::parse(&wide).is_ok());
    }
}
