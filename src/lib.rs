//! etl-stream: PostgreSQL changes into Snowflake, exactly once, as a timely dataflow made from a file.
//!
//! ```text
//! pipeline.yaml ──config──> graph ──dataflow──> running pipeline
//!                             └──cli──> validate, check, graph, status, describe, generate …
//! ```
//! A binary with operators of your own is this:
//!
//! ```no_run
//! use etl_stream::Registry;
//!
//! fn main() -> std::process::ExitCode {
//!     etl_stream::cli::main(Registry::builtin()) // .operator::<MyOperator>()
//! }
//! ```

pub use etl_stream_operators::contract::*;

pub mod config;

pub mod graph;

pub mod checkpoint;

pub mod dataflow;

pub mod server;

mod fleet;

mod alerts;

mod notify;

pub mod cli;

pub mod demo;

pub mod bench;

pub mod preflight;

pub mod verify;

pub mod exit;

pub mod telemetry;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
