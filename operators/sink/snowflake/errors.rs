//! The codes of this sink's errors. Each has a page in `docs/errors/`.

use crate::contract::{Code, Exit};

/// A setting of the sink has a value that its type cannot rule out.
pub(super) const CFG_SNOWFLAKE: Code = Code::new("CFG0050", Exit::Usage);
/// The private key is not one that can sign.
pub(super) const SF_KEY: Code = Code::new("SF0001", Exit::Environment);
/// Snowflake was not reached, or kept answering that it cannot now.
pub(super) const SF_UNREACHABLE: Code = Code::new("SF0002", Exit::Environment);
/// Snowflake does not accept the user's key.
pub(super) const SF_AUTH: Code = Code::new("SF0003", Exit::Environment);
/// A database, schema, warehouse or privilege is missing.
pub(super) const SF_MISSING: Code = Code::new("SF0004", Exit::Environment);
/// Names that cannot be told apart in Snowflake, or cannot be used there.
pub(super) const SF_NAMES: Code = Code::new("SF0005", Exit::Usage);
/// A table without a key under `write_mode: merge`.
pub(super) const SF_NO_KEY: Code = Code::new("SF0006", Exit::Usage);
/// Snowflake rejected rows that it had accepted.
pub(super) const SF_REJECTED: Code = Code::new("SF0007", Exit::Failure);
/// A change of the table that cannot be made in Snowflake, or must not.
pub(super) const SF_SCHEMA: Code = Code::new("SF0008", Exit::Failure);
/// Another process writes the same table.
pub(super) const SF_FENCED: Code = Code::new("SF0009", Exit::Failure);
/// A statement failed.
pub(super) const SF_STATEMENT: Code = Code::new("SF0010", Exit::Failure);
/// A row that no request can carry.
pub(super) const SF_ROW_SIZE: Code = Code::new("SF0011", Exit::Failure);
/// A value was not sent and is not known.
pub(super) const SF_UNKNOWN_VALUE: Code = Code::new("SF0012", Exit::Failure);
/// The source's positions lie before what is in the landing table.
pub(super) const SF_BEHIND: Code = Code::new("SF0013", Exit::Failure);
/// Snowpipe Streaming refused a request, or gave an answer without what it must have.
pub(super) const SF_STREAMING: Code = Code::new("SF0014", Exit::Failure);
/// A value that its column cannot hold, with `strict: true`.
pub(super) const SF_STRICT: Code = Code::new("SF0015", Exit::Failure);
/// A row without a key under `write_mode: merge`.
pub(super) const SF_NULL_KEY: Code = Code::new("SF0016", Exit::Failure);
/// Snowflake's streaming SDK is missing, or failed.
pub(super) const SF_SDK: Code = Code::new("SF0017", Exit::Environment);
/// A dead letter was not written or not read.
pub(super) const SF_DEAD_LETTER: Code = Code::new("SF0021", Exit::Failure);
