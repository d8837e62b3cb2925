//! Stage: source. Where rows come from.
//!
//! ```text
//! PostgreSQL ──postgres──┐
//! a seed ─────synthetic──┼──> RawItems ──> decode
//! a capture ─────replay──┘
//! PostgreSQL ──wal_monitor──> row batches
//! ```

mod pace;
pub(crate) mod postgres;
pub mod replay;
pub mod synthetic;
#[cfg(test)]
mod testing;

pub(crate) mod wal_monitor;

use crate::contract::{CodedError, Registry, SecretString};
pub use postgres::{Holder, PostgresState, StateServer};
use std::path::Path;

/// A session for statements at a server, as a source's are: hosts, TLS and settings by the URL.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub async fn session(url: &SecretString, purpose: &str) -> Result<tokio_postgres::Client, CodedError> {
    postgres::session(url, purpose, Path::new(".")).await
}

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    let registry = registry.source::<postgres::PostgresConfig>().source::<wal_monitor::WalMonitorConfig>();
    registry.source::<replay::ReplayConfig>().source::<synthetic::SyntheticConfig>()
}
