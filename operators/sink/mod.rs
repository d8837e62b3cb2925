//! Stage: sink.

pub mod json;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry
}
