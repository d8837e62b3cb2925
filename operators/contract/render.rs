//! An operator over the raw timely stream: frontiers, state, notifications.
//!
//! ```text
//! Items at times ──> Render ──> Items at times      (one output)
//! ```
//!
//! # Guarantees
//! Made once for each source and worker, on every worker alike. What it withholds it holds a capability for: a frontier
//! that passes a row which has not left is data lost, for the source's position follows it.

use super::{BuildContext, CodedError, Durable, Items, NodeConfig, Operator, StateStore, TableSchema, Ts};
use std::fmt;
use std::sync::Arc;
use timely::dataflow::Stream;
use tokio::sync::watch;

/// Settings of an operator over the raw stream. It has one output, whatever [`NodeConfig::outputs`] says.
pub trait RenderConfig: NodeConfig {
    /// Makes one instance; called once for each source and worker.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Render>, CodedError>;
}

/// An operator that wants the raw timely stream.
///
/// A table's items come, and must leave, on the worker that owns the table ([`TableSchema::route`] modulo the number of
/// workers), in the order of their tokens. A row leaves at a time at or before its own (a row of a copy excepted; see
/// [`super::Mark::SnapshotBegin`]). What is in its input when a time is durable does not come again: state that must
/// outlive the process is in [`RenderContext::state`] before the capability of what made it is dropped.
pub trait Render: Send {
    /// The schema of what leaves for what comes in; as [`Operator::schema`].
    ///
    /// # Errors
    /// When the table does not fit the settings.
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }

    /// Whether every row of the table leaves as it came.
    fn keeps(&mut self, table: &TableSchema) -> bool {
        let _ = table;
        false
    }

    /// Builds its part of the dataflow.
    fn render<'scope>(self: Box<Self>, cx: RenderContext, input: Stream<'scope, Ts, Items>) -> Stream<'scope, Ts, Items>;
}

/// Takes a node's error to whoever stops the pipeline.
pub type Fail = dyn Fn(CodedError) + Send + Sync;

/// What an operator over the raw stream is built with.
#[derive(Clone)]
pub struct RenderContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// The source whose rows it gets.
    pub source: Arc<str>,
    /// Where state that outlives the process is kept.
    pub state: Arc<dyn StateStore>,
    /// What is durable in every sink: what lies before it never comes again. Known in the process that reads the source;
    /// elsewhere it stays at the beginning.
    pub durable: watch::Receiver<Durable>,
    /// Takes the error that stops the pipeline.
    pub fail: Arc<Fail>,
}

impl RenderContext {
    /// Stops the pipeline. The caller keeps the capability of what it could not do, and sends nothing more.
    pub fn fail(&self, error: CodedError) {
        (self.fail)(error);
    }
}

impl fmt::Debug for RenderContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenderContext({}, {}, {})", self.pipeline, self.node, self.source)
    }
}

/// An operator of either kind.
pub enum OperatorNode {
    /// Batches in, batches out.
    Batches(Box<dyn Operator>),
    /// The raw stream.
    Stream(Box<dyn Render>),
}

impl OperatorNode {
    /// The schema of what leaves for what comes in.
    ///
    /// # Errors
    /// When the table does not fit the settings.
    pub fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        match self {
            Self::Batches(operator) => operator.schema(table),
            Self::Stream(render) => render.schema(table),
        }
    }

    /// Whether every row of the table leaves as it came.
    pub fn keeps(&mut self, table: &TableSchema) -> bool {
        match self {
            Self::Batches(operator) => operator.keeps(table),
            Self::Stream(render) => render.keeps(table),
        }
    }

    /// The operator over batches; none when it is one over the stream.
    #[must_use]
    pub fn batches(self) -> Option<Box<dyn Operator>> {
        match self {
            Self::Batches(operator) => Some(operator),
            Self::Stream(_) => None,
        }
    }
}
