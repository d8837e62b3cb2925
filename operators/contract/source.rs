//! A source: bytes in from outside, framed items out to the dataflow, durable times back.
//!
//! ```text
//! Source::run (tokio) ──Chunk──> source operator ──> …
//!      ^                              │
//!      └────────── Durable ───────────┘
//! ```
//!
//! # Guarantees
//! A source takes credit before it reads; the engine gives it back when the bytes are durable in every
//! sink. `Durable` never passes a row that some sink has not made durable.

use super::{CodedError, PipelineStatus, RawItem, SourceStatus, StateStore, Ts};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Items, and how far they reach.
#[derive(Debug)]
pub struct Chunk {
    /// In order. May be empty: progress alone.
    pub items: Vec<RawItem>,
    /// Every later item has a time at or after this one.
    pub upper: Ts,
    /// Credit taken for them, in bytes; given back when `upper` is durable.
    pub credit: u32,
}

/// The engine's end is gone: the pipeline stops.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline is stopping")]
pub struct SourceClosed;

/// Sends chunks to the dataflow. Never blocks: bytes are bounded by [`Credits`]. Dropping it ends the
/// stream: the pipeline drains.
pub trait ChunkSender: Send {
    /// Sends a chunk.
    ///
    /// # Errors
    /// When the pipeline stops.
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed>;
}

/// What is durable in every sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Every row with a time before this one.
    pub upper: Ts,
    /// Whether the stream has ended and everything sent is durable.
    pub finished: bool,
}

/// Bytes that may be in flight between the socket and the sinks.
#[derive(Clone, Debug)]
pub struct Credits {
    source: Arc<Semaphore>,
    process: Arc<Semaphore>,
}

impl Credits {
    /// Credit of a source within the process's.
    #[must_use]
    pub fn new(source_bytes: usize, process: Arc<Semaphore>) -> Self {
        Self { source: Arc::new(Semaphore::new(source_bytes)), process }
    }

    /// Waits for `bytes` of credit. Give them to a [`Chunk`], or back.
    pub async fn take(&self, bytes: u32) {
        for pool in [&self.source, &self.process] {
            if let Ok(permit) = pool.acquire_many(bytes).await {
                permit.forget();
            }
        }
    }

    /// Gives credit back.
    pub fn give(&self, bytes: u32) {
        self.source.add_permits(bytes as usize);
        self.process.add_permits(bytes as usize);
    }

    /// Credit left to this source, in bytes.
    #[must_use]
    pub fn left(&self) -> usize {
        self.source.available_permits().min(self.process.available_permits())
    }
}

/// What a source runs with.
pub struct SourceContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The source's name.
    pub source: Arc<str>,
    /// To the dataflow.
    pub out: Box<dyn ChunkSender>,
    /// From the sinks.
    pub durable: watch::Receiver<Durable>,
    /// Bounds what is in flight.
    pub credits: Credits,
    /// Where progress is kept.
    pub state: Arc<dyn StateStore>,
    /// What the user sees of the pipeline.
    pub status: Arc<PipelineStatus>,
    /// What the user sees of this source.
    pub source_status: Arc<SourceStatus>,
    /// Becomes true when the source must stop reading, end its stream, wait for `finished` and confirm.
    pub stop: watch::Receiver<bool>,
}

/// Gives rows.
#[async_trait]
pub trait Source: Send {
    /// Runs until stopped. Transient errors are retried inside.
    ///
    /// On `stop` it drops `cx.out`, waits until `cx.durable` is `finished`, confirms what is durable to
    /// where the rows came from, and returns.
    ///
    /// # Errors
    /// Definite errors, and transient ones past their deadline.
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError>;
}
