//! What the process says about itself: logs, and how far a run is.

pub mod logging;
pub(crate) mod progress;
