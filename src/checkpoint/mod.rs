//! State that survives a restart.

mod pause;
mod resync;
mod sqlite;

pub use pause::{Pause, Wish, paused};
pub use resync::{Requested, Resync};
pub use sqlite::SqliteState;
