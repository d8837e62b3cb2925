//! The first failure of a pipeline, and how it stops the rest.
//!
//! A node that fails keeps its capabilities: nothing it did not finish is ever acknowledged. The failure
//! comes here; the supervisor then drops the dataflow and ends the tasks.

use etl_stream_operators::contract::{Code, CodedError, Exit};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A node panicked.
pub(crate) const RUN_PANIC: Code = Code::new("RUN0001", Exit::Failure);

/// Takes failures to the supervisor.
#[derive(Clone)]
pub(crate) struct Failures {
    sender: mpsc::UnboundedSender<(Arc<str>, CodedError)>,
}

impl Failures {
    /// The reporting end and the supervisor's.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<(Arc<str>, CodedError)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// Reports a node's failure.
    pub(crate) fn report(&self, node: &Arc<str>, error: CodedError) {
        let _ = self.sender.send((Arc::clone(node), error));
    }

    /// Runs a node's code; a panic becomes an error, so that it cannot take the worker with it.
    pub(crate) fn guard<R>(node: &str, body: impl FnOnce() -> Result<R, CodedError>) -> Result<R, CodedError> {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(node, &*panic)))
    }
}

/// What a panic becomes. The message may hold anything, so only its place in the code is shown (by the
/// panic hook); a row's value must not reach an error.
pub(crate) fn panicked(node: &str, _: &(dyn Any + Send)) -> CodedError {
    CodedError::definite(RUN_PANIC, format!("node \"{node}\" panicked; its rows were not acknowledged"))
        .hint("this is a defect: please report it with the place that the log shows")
}
