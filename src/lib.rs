//! etl-stream: PostgreSQL changes into Snowflake, exactly once, as a timely dataflow made from a file.
//!
//! ```text
//! pipeline.yaml ──config──> graph ──dataflow──> running pipeline
//!                             └──cli──> validate, check, graph, status, describe, generate …
//! ```
//! A binary with nodes of your own is this:
//!
//! ```no_run
//! use etl_stream::Registry;
//!
//! fn main() -> std::process::ExitCode {
//!     etl_stream::cli::main(Registry::builtin()) // .operator::<MyOperator>()
//! }
//! ```
//!
//! What a node is written with is all here: the traits and what flows between them, what built-in sinks share, [`testing`],
//! and the crates whose types are in the contract ([`arrow`], [`timely`], [`tokio`]). Programs in `examples/` have one of
//! each kind; `docs/nodes.md` says what a node promises, and what of this is kept stable.

pub use arrow;
pub use async_trait::async_trait;
pub use etl_stream_operators::contract::*;
pub use etl_stream_operators::sink::batch_limits;
pub use etl_stream_operators::sink::line::LineWriter;
pub use etl_stream_operators::sink::tally::Tally;
pub use timely;
pub use tokio;

pub mod config;

pub mod graph;

pub mod checkpoint;

pub mod dataflow;

pub mod server;

mod fleet;

mod alerts;

mod import;

mod notify;

pub mod cli;

pub mod demo;

pub mod bench;

pub mod preflight;

pub mod verify;

pub mod exit;

pub mod testing;

pub mod telemetry;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
