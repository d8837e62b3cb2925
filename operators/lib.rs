//! Everything that can be a node of an etl-stream pipeline, in the order the data flows.
//!
//! ```text
//! source ──> decode ──> encode ──> transform… ──> batch ──> sink
//! ```
//!
//! `contract` is what they share; stages do not use each other. The engine in the root package builds
//! them into a timely dataflow.

pub mod contract;

pub mod source;

pub mod decode;

pub mod encode;

pub mod transform;

pub mod batch;

pub mod sink;

mod python;

pub mod failpoint;

pub mod testing;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

mod builtin;

mod writable;
