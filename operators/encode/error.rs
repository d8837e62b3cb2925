//! The stage's errors. They name the table and column, never a value.

use super::read::Malformed;
use crate::contract::{Code, CodedError, Exit, TableSchema};
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

/// A row's bytes are not a tuple of the table.
#[cold]
pub(super) fn tuple(table: &TableSchema, fault: Fault) -> CodedError {
    let name = table.full_name();
    match fault {
        Fault::Columns { .. } | Fault::Relation { .. } => CodedError::definite(
            TUPLE_DOES_NOT_FIT,
            format!(
                "tuple does not fit relation: a row of table \"{name}\" ({} columns) could not be decoded: {fault}",
                table.columns.len()
            ),
        )
        .hint("restart the pipeline; if it happens again, take a new snapshot of the table with `etl-stream resync`"),
        Fault::Cut | Fault::Long | Fault::Shape => {
            CodedError::definite(BROKEN_MESSAGE, format!("a row of table \"{name}\" could not be decoded: {fault}"))
                .hint("check that nothing between PostgreSQL and this process alters the connection's bytes")
        }
    }
}

/// A column did not take a value.
#[cold]
pub(super) fn value(table: &TableSchema, column: usize, malformed: Malformed) -> CodedError {
    let (name, ty) = table.columns.get(column).map_or(("?", "?"), |c| (&c.name, &c.pg_type.name));
    let (code, hint) = match malformed {
        Malformed::Form => (BROKEN_VALUE, "the connection must have DateStyle ISO, IntervalStyle postgres and TimeZone UTC"),
        Malformed::NoBinaryForm => (NO_BINARY_FORM, "turn the stream's binary format off for this source"),
        Malformed::NotUtf8 => (NOT_UTF8, "re-encode the column's values as UTF-8, or leave the column out of the publication"),
        Malformed::TooLarge => (VALUE_TOO_LARGE, "leave the column out of the publication"),
    };
    let table = table.full_name();
    CodedError::definite(code, format!("column \"{name}\" ({ty}) of table \"{table}\" could not be encoded: {malformed}")).hint(hint)
}
