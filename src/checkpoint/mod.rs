//! State that survives a restart.

mod resync;
mod sqlite;

pub use resync::{Requested, Resync};
pub use sqlite::SqliteState;
