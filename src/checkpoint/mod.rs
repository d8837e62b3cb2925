//! State that survives a restart.

mod sqlite;

pub use sqlite::SqliteState;
