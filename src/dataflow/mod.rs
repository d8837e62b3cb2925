//! The engine: a checked graph becomes timely dataflows, sources and writers become tokio tasks.
//!
//! ```text
//! tokio  source task ══╗                                        ╔══ writer task
//! timely               ╚═> source ─> decode ─> operator… ─> batch ─> sink
//!                              ^                                      │
//!                              └──────────── progress ────────────────┘
//! ```
//!
//! One dataflow for each source, on every worker. Built once, alike on all workers, and dropped as a
//! whole when anything fails. Several processes may run one pipeline (`cluster`). Many pipelines of one process have their dataflows in cells (`cells`).

mod batch;
mod bridge;
mod busy;
mod cells;
mod cluster;
mod decode;
mod exchange;
mod failure;
mod limit;
mod operator;
mod options;
mod passed;
mod pause;
mod plan;
mod render;
mod run;
mod shared;
mod signals;
mod sink;
mod source;
mod supervise;
mod tap;
#[cfg(test)]
mod tests;
mod together;
mod until;
mod workers;

pub use busy::Busy;
pub use cluster::Cluster;
pub(crate) use failure::{Failures, panicked};
pub(crate) use operator::operator;
pub use options::{RunOptions, Until};
pub(crate) use passed::{Passed, RECEIVED_ROWS, SENT_ROWS};
pub use pause::Pauses;
pub(crate) use render::render;
pub(crate) use run::{RUN_RUNTIME, runtime, start_in};
pub use run::{Started, run, run_among, start, start_watched};
pub(crate) use shared::Shared;
pub(crate) use signals::Signals;
pub use tap::{Tap, Taps};
