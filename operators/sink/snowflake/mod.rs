//! The `snowflake` sink: PostgreSQL's changes in Snowflake, each exactly once.
//!
//! ```text
//!  Delivery ──> writer ──> table ──> encode ──> channel ──rows──> landing <TABLE>__CHANGES
//!                            │                     ^                 │
//!                            │       committed offset token ── ack   │ MERGE up to a fence
//!                            └────────── upper ──────────────> target <TABLE>
//! ```
//! # Guarantees
//! - A row's offset token is its place in the log, so what is committed after a crash is known exactly and is
//!   not sent again, whatever batches come out this time.
//! - An acknowledgement means committed to the landing table. The target follows by merges of whole
//!   transactions; the last is made before the writer returns.
//! - Rows of a key keep their order; tables are written and merged in parallel.
//! - A row that Snowflake does not take goes to the dead letter, once, before it counts as durable (`account`);
//!   with `dead_letter: stop` it stops the pipeline. Under `merge` its key's earlier version stays in the target, and
//!   later rows of the key go on. `replay` sends dead letters again, each at its own place in its key's order.
//! - A change that a table's tables cannot follow stops that table alone (`stop`): it is noted before a later row is
//!   acknowledged, and a new snapshot takes the table up again.
//! - Names and schemas are checked before anything is written.

mod account;
mod channel;
mod check;
mod classify;
mod compress;
mod contents;
mod context;
mod ddl;
mod dead_letter;
mod errors;
mod evolve;
mod fold;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod jwt;
mod key;
mod ledger;
mod letter;
mod letter_folder;
mod letter_table;
mod merge;
mod merger;
mod metadata;
mod meter;
mod missing;
mod names;
mod narrow;
mod opening;
mod pace;
mod plan;
mod progress;
mod refusal;
mod replay;
mod requests;
mod sdk;
mod sending;
mod settings;
mod shape;
mod shard;
mod sink;
mod sql;
mod stop;
mod streaming;
mod table;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use settings::{DeadLetter, Deletes, MergeSettings, SchemaChanges, SnowflakeConfig, WriteMode};

/// A JWT for a user, from the PEM text of an unencrypted key: for tests that ask the SQL API themselves.
///
/// # Errors
/// `SF0001` when the key cannot sign.
pub(crate) fn jwt_of(pem: &str, account: &str, user: &str) -> Result<String, crate::contract::CodedError> {
    let key = key::Key::read(&pem.into(), None)?;
    jwt::Jwt::new(key, account, user).token().map(|token| token.to_string())
}
