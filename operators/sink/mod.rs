//! Stage: sink.

pub mod json;
pub mod snowflake;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry.sink::<snowflake::SnowflakeConfig>()
}
