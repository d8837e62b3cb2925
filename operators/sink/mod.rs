//! Stage: sink. Where rows leave the pipeline.
//!
//! ```text
//! batch ──Delivery──> Writer of a Sink ──> Snowflake | folder of files | URL | standard output | nothing
//! ```
//!
//! `json` spells rows and `line` puts them into objects with their metadata, for every sink that writes
//! NDJSON; `tally` counts what is durable.

pub mod blackhole;
pub mod file;
pub mod json;
pub mod line;
pub mod members;
pub mod snowflake;
pub mod stdout;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod webhook;

use crate::contract::{BatchSettings, Registry};

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry
        .sink::<snowflake::SnowflakeConfig>()
        .sink::<file::FileConfig>()
        .sink::<webhook::WebhookConfig>()
        .sink::<stdout::StdoutConfig>()
        .sink::<blackhole::BlackholeConfig>()
}

/// What the pipeline file says of batches, and the sink's own limits where it says nothing.
#[must_use]
pub fn batch_limits(set: Option<BatchSettings>, own: BatchSettings) -> BatchSettings {
    let set = set.unwrap_or(own);
    BatchSettings {
        max_rows: set.max_rows.or(own.max_rows),
        max_bytes: set.max_bytes.or(own.max_bytes),
        max_age: set.max_age.or(own.max_age),
    }
}
