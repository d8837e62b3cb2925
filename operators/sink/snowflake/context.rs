//! What all writers of one sink share.

use super::dead_letter::DeadLetters;
use super::http::Http;
use super::names::{Naming, Targets};
use super::pace::Pace;
use super::progress::ProgressTable;
use super::settings::SchemaChanges;
use super::sql::Sql;
use super::streaming::Streaming;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The settings that writers look at.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Whether there is a target.
    pub(super) merge: bool,
    /// Whether deleted rows stay in it, marked.
    pub(super) soft: bool,
    /// What to do when a table changes.
    pub(super) schema_changes: SchemaChanges,
    /// Channels of a new table.
    pub(super) channels: usize,
    /// Time between merges of a table.
    pub(super) interval: Duration,
    /// How long landing rows stay once merged.
    pub(super) retention: Duration,
    /// Whether a missing schema is made.
    pub(super) create_schema: bool,
    /// Whether a row with a value its column cannot hold is refused.
    pub(super) strict: bool,
}

/// See the module.
pub(super) struct Shared {
    /// The client.
    pub(super) http: Arc<Http>,
    /// The SQL API.
    pub(super) sql: Sql,
    /// Snowpipe Streaming.
    pub(super) streaming: Streaming,
    /// Where tables go.
    pub(super) naming: Naming,
    /// Which table has which target.
    pub(super) targets: Targets,
    /// Where rows go that Snowflake does not take.
    pub(super) dead_letters: DeadLetters,
    /// Merges at once.
    pub(super) merges: Semaphore,
    /// Tables that send at once.
    pub(super) sends: Semaphore,
    /// Rows of so many channels are encoded at once: one a core.
    pub(super) encodes: Semaphore,
    /// When to ask what is committed.
    pub(super) pace: Pace,
    /// The settings.
    pub(super) options: Options,
}

impl Shared {
    /// The bookkeeping table.
    pub(super) fn progress<'a>(&'a self, name: &'a super::names::TableName) -> ProgressTable<'a> {
        ProgressTable { sql: &self.sql, name }
    }
}
