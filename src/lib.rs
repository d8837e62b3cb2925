//! The etl-stream engine: a pipeline file becomes a checked graph becomes a running dataflow.
pub mod checkpoint;
pub mod dataflow;
pub mod demo;
pub mod graph;
pub mod server;
pub mod telemetry;
