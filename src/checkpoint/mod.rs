//! State that survives a restart.

mod pause;
mod place;
mod resync;
mod sqlite;

pub use pause::{Pause, Wish, paused};
pub use place::StateAt;
pub use resync::{Requested, Resync};
pub use sqlite::SqliteState;
