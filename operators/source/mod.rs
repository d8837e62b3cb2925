//! Stage: source. Where rows come from.
//!
//! ```text
//! PostgreSQL ──postgres──> RawItems ──> decode
//! ```

pub(crate) mod postgres;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry.source::<postgres::PostgresConfig>()
}
