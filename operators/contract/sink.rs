//! A sink and its writers: deliveries in, acknowledgements back.
//!
//! ```text
//! batch ──> sink operator ──Delivery──> Writer (tokio)
//!              ^  holds a capability        │
//!              └──────── Ack::durable ──────┘
//! ```
//!
//! # Guarantees
//! Deliveries of a table come to one writer, in token order, each after everything before it. A capability
//! is released only by [`Ack::durable`]; an `Ack` that is dropped otherwise leaves it held, so nothing is
//! ever acknowledged by a failure.

use super::{
    ByteSize, CheckContext, Checks, CodedError, Contents, DeadLetters, Mark, Period, PipelineStatus, RowBatch, StateStore, TableSchema, Ts,
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::mpsc;

/// When a batch is sealed; the first limit reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchSettings {
    /// Rows in a batch. Default: the sink's own.
    #[serde(default)]
    pub max_rows: Option<u32>,
    /// Bytes of values in a batch. Default: the sink's own.
    #[serde(default)]
    pub max_bytes: Option<ByteSize>,
    /// How long the oldest row waits. Default: the sink's own.
    #[serde(default)]
    pub max_age: Option<Period>,
}

impl BatchSettings {
    /// All three limits.
    #[must_use]
    pub const fn new(max_rows: u32, max_bytes: ByteSize, max_age: Period) -> Self {
        Self { max_rows: Some(max_rows), max_bytes: Some(max_bytes), max_age: Some(max_age) }
    }
}

/// How transient errors are met: exponential backoff with jitter until a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// First pause.
    pub initial: Period,
    /// Longest pause.
    pub max: Period,
    /// How long one operation is tried before the pipeline stops.
    pub give_up_after: Period,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { initial: Period::millis(200), max: Period::millis(30_000), give_up_after: Period::millis(900_000) }
    }
}

/// Something for a writer.
#[derive(Debug)]
pub enum Delivery {
    /// A sealed batch: write it, then acknowledge.
    Rows {
        /// The rows.
        batch: RowBatch,
        /// To be told when they are durable.
        ack: Ack,
    },
    /// A mark of a table: act on it, then acknowledge.
    Mark {
        /// The mark.
        mark: Mark,
        /// To be told when it has been acted on.
        ack: Ack,
    },
    /// Everything with a time before `upper` has been delivered. `upper.fence()` is the last token that is
    /// certainly complete: where a merge may stop.
    Upper(Ts),
}

/// Where acknowledgements go; the engine's side of [`Ack`].
pub trait AckReport: Send + Sync {
    /// Delivery `id` is durable.
    fn durable(&self, id: u64);
}

/// The right to say, once, that a delivery is durable where the user can read it.
pub struct Ack {
    id: u64,
    report: Arc<dyn AckReport>,
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ack({})", self.id)
    }
}

impl Ack {
    /// Made by the engine for a delivery.
    #[must_use]
    pub fn new(id: u64, report: Arc<dyn AckReport>) -> Self {
        Self { id, report }
    }

    /// Says so.
    pub fn durable(self) {
        self.report.durable(self.id);
    }
}

/// Deliveries, in order. `None` means the pipeline is draining: finish everything and return.
pub type Deliveries = mpsc::UnboundedReceiver<Delivery>;

/// What a writer is made with.
#[derive(Clone)]
pub struct WriterContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's name.
    pub sink: Arc<str>,
    /// The source whose rows it gets.
    pub source: Arc<str>,
    /// Which of the workers it serves; tables are spread over workers by [`super::TableSchema::route`].
    pub worker: usize,
    /// How many workers there are, in all processes.
    pub workers: usize,
    /// Which of the pipeline's processes this is; each writes tables of its own.
    pub process: usize,
    /// How many processes there are.
    pub processes: usize,
    /// Where progress is kept.
    pub state: Arc<dyn StateStore>,
    /// What the user sees.
    pub status: Arc<PipelineStatus>,
}

/// A place rows go. One for the whole pipeline; its writers share its connections.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Limits used where the pipeline file sets none.
    fn batch(&self) -> BatchSettings;

    /// Whether a sealed batch may come as several deliveries, one right after the other, rather than be copied into one.
    /// True of a sink that gathers deliveries by itself; one that makes a file or a request of each wants them whole.
    fn in_pieces(&self) -> bool {
        false
    }

    /// Reaches the place before anything else starts: authenticates, creates what must be there. Called
    /// once. `run` stops here, with nothing written, when it fails.
    ///
    /// # Errors
    /// Unreachable, unauthorised, missing privileges.
    async fn prepare(&self, cx: &WriterContext) -> Result<(), CodedError>;

    /// Looks whether it could write these tables, and changes nothing.
    async fn check(&self, cx: &CheckContext, tables: &[Arc<TableSchema>], checks: &mut Checks) {
        let _ = (cx, tables, checks);
    }

    /// What it holds of a pipeline, to be read back; `None` where it cannot be.
    fn contents(&self, pipeline: &str) -> Option<Box<dyn Contents>> {
        let _ = pipeline;
        None
    }

    /// The rows of a pipeline that this sink was definitively refused; `None` where there can be none.
    fn dead_letters(&self, pipeline: &str) -> Option<Box<dyn DeadLetters>> {
        let _ = pipeline;
        None
    }

    /// Makes the writer for one source on one worker.
    fn writer(&self, cx: WriterContext) -> Box<dyn Writer>;
}

/// Writes the tables of one source on one worker.
#[async_trait]
pub trait Writer: Send {
    /// Takes deliveries until there are no more, then finishes (commits, merges) and returns.
    ///
    /// Bytes in flight are bounded by the source's credits, not by this queue. Transient errors are
    /// retried inside; what is returned stops the pipeline.
    ///
    /// # Errors
    /// Definite errors, and transient ones past their deadline.
    async fn run(self: Box<Self>, deliveries: Deliveries) -> Result<(), CodedError>;
}
