//! Dead letters: rows that a sink was definitively refused, kept where the user can look at them and send them again.

use super::{CodedError, Token};
use async_trait::async_trait;

/// One row. Its identity is its source, table and token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The source.
    pub source: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// Its place in the log.
    pub token: Token,
    /// Letter of its operation.
    pub op: char,
    /// Why it was refused, as a code with a page.
    pub code: String,
    /// What is known beyond that.
    pub reason: String,
    /// Its key, as JSON: a value, for the user's eyes only.
    pub key: String,
    /// The exact row as it was sent: values too.
    pub row: String,
    /// What became of it: nothing yet (empty), `replayed` or `superseded`.
    pub outcome: String,
}

/// What a replay did with one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The source.
    pub source: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// Its place in the log.
    pub token: Token,
    /// `replayed`, `superseded`, or `kept`.
    pub outcome: &'static str,
    /// Why, where that is not plain.
    pub note: String,
}

/// A sink's dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// The letters of one table (`schema.table`) or of all, in the order of tables and tokens; those that were sent again
    /// too, with `all`.
    ///
    /// # Errors
    /// Where they are kept cannot be read.
    async fn list(&self, table: Option<&str>, all: bool) -> Result<Vec<DeadLetter>, CodedError>;

    /// Sends letters again, each with its own token: a row never replaces a newer version of its key.
    ///
    /// # Errors
    /// The place cannot be reached. What was done before stays done, and is not done again.
    async fn replay(&self, table: Option<&str>) -> Result<Vec<Replayed>, CodedError>;
}
