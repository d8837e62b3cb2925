//! What the process says of itself: logs and progress.

pub(crate) mod progress;
