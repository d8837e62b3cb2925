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

use crate::contract::Registry;
pub use postgres::{Holder, PostgresState, StateServer};

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    let registry = registry.source::<postgres::PostgresConfig>().source::<wal_monitor::WalMonitorConfig>();
    registry.source::<replay::ReplayConfig>().source::<synthetic::SyntheticConfig>()
}
