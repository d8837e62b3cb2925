//! Stage: source. Where rows come from.
//!
//! ```text
//! PostgreSQL ──postgres─────> RawItems ──> decode
//!            ──wal_monitor──> row batches
//! ```

pub(crate) mod postgres;

pub(crate) mod wal_monitor;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry.source::<postgres::PostgresConfig>().source::<wal_monitor::WalMonitorConfig>()
}
