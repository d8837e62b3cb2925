//! Stage: source. Where rows come from.
//!
//! ```text
//! PostgreSQL ──postgres──┐
//! a seed ─────synthetic──┼──> RawItems ──> decode
//! a capture ─────replay──┘
//! ```

mod pace;
pub(crate) mod postgres;
pub mod replay;
pub mod synthetic;
#[cfg(test)]
mod testing;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry.source::<postgres::PostgresConfig>().source::<replay::ReplayConfig>().source::<synthetic::SyntheticConfig>()
}
