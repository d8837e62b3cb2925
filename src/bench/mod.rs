//! `etl-stream bench`: what a pipeline takes and gives, measured with the whole engine on the way.
//!
//! ```text
//! scenario ──plan──> source ─> engine ─> sink ──meter──> report ──> JSON, HTML
//!                                                                    └──compare──> regression or not
//! ```
//! # Guarantees
//! A run counts only when what its sinks acknowledged is what the workload says, row for row: otherwise it is invalid and
//! says so. Latency is never that of a closed loop. A run that was ended early is marked partial.

pub mod allocations;
mod checksum;
mod compare;
mod html;
mod machine;
mod meter;
mod plan;
mod plot;
mod report;
mod resample;
mod run;
mod sample;
#[cfg(test)]
mod tests;

pub use allocations::Counting;
pub use compare::{Comparison, Verdict, compare};
pub use html::page;
pub use machine::Machine;
pub use plan::{From, Setup, To};
pub use report::{Arrived, Latency, Measured, NodeTime, Report, RunReport, SCHEMA, Timeline};
pub use run::{Options, run};

use crate::{Code, Exit};

/// What arrived is not what was sent.
pub const BENCH_INVALID: Code = Code::new("BEN0001", Exit::Failure);
/// What is to be measured cannot be.
pub const BENCH_SETTINGS: Code = Code::new("BEN0002", Exit::Usage);
/// A report cannot be read, written or compared.
pub const BENCH_REPORT: Code = Code::new("BEN0003", Exit::Usage);
/// The binary does not have the source that a benchmark needs.
pub const BENCH_SOURCE: Code = Code::new("BEN0004", Exit::Usage);
