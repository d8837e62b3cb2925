//! The stage's errors. They name the table, the column and the row's place in the log, never a value.
//!
//! They are definite, and end the run: the row's bytes are not what PostgreSQL writes, or nothing that this program has
//! room for, so nothing that a sink could take can be made of it. A restart meets the same row and ends in the same
//! way; nothing is acknowledged from it on, so nothing is lost by fixing the cause first.

use super::read::Malformed;
use crate::contract::{Code, CodedError, Exit, Lsn, TableSchema, Token};
use crate::decode::Fault;

/// A tuple does not fit its relation.
pub const TUPLE_DOES_NOT_FIT: Code = Code::new("DEC0001", Exit::Failure);
/// A change message is cut short or not as documented.
pub const BROKEN_MESSAGE: Code = Code::new("DEC0002", Exit::Failure);
/// A value is not in its type's form.
pub const BROKEN_VALUE: Code = Code::new("DEC0003", Exit::Failure);
/// A value came in a binary form that is not known.
pub const NO_BINARY_FORM: Code = Code::new("DEC0004", Exit::Failure);
/// A text value is not UTF-8.
pub const NOT_UTF8: Code = Code::new("DEC0005", Exit::Failure);
/// A value is too large for a batch.
pub const VALUE_TOO_LARGE: Code = Code::new("DEC0006", Exit::Failure);

/// Where a row stands.
fn place(token: Option<Token>) -> String {
    token.map_or_else(String::new, |token| format!(" at {} (token {token})", Lsn(token.commit_lsn)))
}

/// A row's bytes are not a tuple of the table.
#[cold]
pub(super) fn tuple(table: &TableSchema, token: Option<Token>, fault: Fault) -> CodedError {
    let name = table.full_name();
    let at = place(token);
    match fault {
        Fault::Columns { .. } | Fault::Relation { .. } => CodedError::definite(
            TUPLE_DOES_NOT_FIT,
            format!(
                "tuple does not fit relation: a row of table \"{name}\" ({} columns){at} could not be decoded: {fault}",
                table.columns.len()
            ),
        )
        .hint("restart the pipeline; if it happens again, take a new snapshot of the table with `etl-stream resync`"),
        Fault::Cut | Fault::Long | Fault::Shape => {
            CodedError::definite(BROKEN_MESSAGE, format!("a row of table \"{name}\"{at} could not be decoded: {fault}"))
                .hint("check that nothing between PostgreSQL and this process alters the connection's bytes")
        }
    }
}

/// A column did not take a value.
#[cold]
pub(super) fn value(table: &TableSchema, column: usize, token: Option<Token>, malformed: Malformed) -> CodedError {
    let (name, ty) = table.columns.get(column).map_or(("?", "?"), |c| (&c.name, &c.pg_type.name));
    let (code, hint) = match malformed {
        Malformed::Form => (BROKEN_VALUE, "the connection must have DateStyle ISO, IntervalStyle postgres and TimeZone UTC"),
        Malformed::NoBinaryForm => (NO_BINARY_FORM, "turn the stream's binary format off for this source"),
        Malformed::NotUtf8 => (NOT_UTF8, "re-encode the column's values as UTF-8, or leave the column out of the publication"),
        Malformed::TooLarge => (VALUE_TOO_LARGE, "leave the column out of the publication"),
    };
    let (table, at) = (table.full_name(), place(token));
    CodedError::definite(code, format!("column \"{name}\" ({ty}) of table \"{table}\"{at} could not be encoded: {malformed}")).hint(hint)
}
