//! The engine: a checked graph to a running timely dataflow.

mod options;

pub use options::{RunOptions, Until};

use crate::graph::Graph;
use crate::{Code, CodedError, Exit, Registry};

/// Runs a pipeline until it is stopped.
///
/// # Errors
/// Whatever ends it.
pub fn run(graph: Graph, registry: &Registry, options: RunOptions) -> Result<(), CodedError> {
    let _ = (graph, registry, options);
    Err(CodedError::definite(Code::new("CFG0001", Exit::Failure), "the engine is not in this build"))
}
