//! The real binary against real servers.

mod bad_input;
mod harness;
mod pipelines;
