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

use super::{
    CheckContext, Checks, CodedError, Connections, Copied, Dropped, PipelineStatus, RawItem, SlotFacts, SourceStatus, StateStore,
    TableSchema, Ts, WantTable,
};
use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Says that a source is waiting for credit, so that batches are sealed early instead of waiting for
/// rows that cannot come.
#[derive(Default)]
pub struct Pressure {
    waiting: AtomicUsize,
    wake: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl Pressure {
    /// Whether a source is waiting for credit now.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Has `wake` called whenever a source starts to wait.
    pub fn on_starved(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
    }

    fn starve(&self) -> Starving<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let starving = Starving(self);
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|wake| wake());
        starving
    }
}

/// A wait for credit; it ends also when it is given up.
struct Starving<'a>(&'a Pressure);

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Pressure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pressure({})", self.is_starved())
    }
}

/// Bytes that each source may have in flight whatever the others have: sinks of another pipeline that stand still do not stop
/// it. What is read at once fits.
pub const OWN_CREDIT: usize = 256 << 10;

/// Credit of a source that is nobody else's, and what it has of the process's beside it.
#[derive(Debug)]
struct Own {
    left: Semaphore,
    borrowed: AtomicUsize,
}

/// Bytes that may be in flight between the socket and the sinks: at most the source's, of which all but [`OWN_CREDIT`] come
/// from what the process has for all.
#[derive(Clone, Debug)]
pub struct Credits {
    source: Arc<Semaphore>,
    own: Arc<Own>,
    process: Arc<Semaphore>,
    pressure: Arc<Pressure>,
    capacity: usize,
    /// What a part of the source may have of it.
    share: Option<Arc<Semaphore>>,
}

impl Credits {
    /// Credit of a source within the process's.
    #[must_use]
    pub fn new(source_bytes: usize, process: Arc<Semaphore>) -> Self {
        let own = Own { left: Semaphore::new(OWN_CREDIT.min(source_bytes)), borrowed: AtomicUsize::new(0) };
        Self {
            source: Arc::new(Semaphore::new(source_bytes)),
            own: Arc::new(own),
            process,
            pressure: Arc::default(),
            capacity: source_bytes,
            share: None,
        }
    }

    /// The same credit, of which at most half (and `least` bytes at least) is taken this way: what one part of a
    /// source has in flight leaves room for the other. What goes with a chunk comes back by [`Credits::landed`].
    #[must_use]
    pub fn share(&self, least: usize) -> Self {
        let most = (self.capacity / 2).max(least.min(self.capacity));
        Self { share: Some(Arc::new(Semaphore::new(most))), ..self.clone() }
    }

    /// Says that `bytes` of a share, which went with chunks, are durable: the engine gives back the rest.
    pub fn landed(&self, bytes: u32) {
        if let Some(share) = &self.share {
            share.add_permits(bytes as usize);
        }
    }

    /// Waits for `bytes` of credit. Give them to a [`Chunk`], or back. Cancel-safe: a wait that is
    /// dropped takes nothing.
    pub async fn take(&self, bytes: u32) {
        let shared = match &self.share {
            None => None,
            Some(share) => match share.try_acquire_many(bytes) {
                Ok(permit) => Some(permit),
                Err(_) => {
                    let _starving = self.pressure.starve();
                    let Ok(permit) = share.acquire_many(bytes).await else { return };
                    Some(permit)
                }
            },
        };
        let source = match self.source.try_acquire_many(bytes) {
            Ok(source) => source,
            Err(_) => {
                let _starving = self.pressure.starve();
                let Ok(source) = self.source.acquire_many(bytes).await else { return };
                source
            }
        };
        if let Ok(own) = self.own.left.try_acquire_many(bytes) {
            own.forget();
        } else if let Ok(lent) = self.process.try_acquire_many(bytes) {
            lent.forget();
            self.own.borrowed.fetch_add(bytes as usize, Ordering::AcqRel);
        } else {
            let _starving = self.pressure.starve();
            tokio::select! {
                Ok(own) = self.own.left.acquire_many(bytes) => own.forget(),
                Ok(lent) = self.process.acquire_many(bytes) => {
                    lent.forget();
                    self.own.borrowed.fetch_add(bytes as usize, Ordering::AcqRel);
                }
                else => return,
            }
        }
        source.forget();
        shared.into_iter().for_each(tokio::sync::SemaphorePermit::forget);
    }

    /// Gives credit back.
    pub fn give(&self, bytes: u32) {
        let bytes_of = |borrowed: usize| borrowed.min(bytes as usize);
        let update = |borrowed: usize| Some(borrowed - bytes_of(borrowed));
        let borrowed = self.own.borrowed.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).unwrap_or_else(|borrowed| borrowed);
        // What is everybody's goes back first.
        self.process.add_permits(bytes_of(borrowed));
        self.own.left.add_permits(bytes as usize - bytes_of(borrowed));
        self.source.add_permits(bytes as usize);
        self.landed(bytes);
    }

    /// Credit left to this source, in bytes: as much may be taken at once without waiting.
    #[must_use]
    pub fn left(&self) -> usize {
        let share = self.share.as_ref().map_or(usize::MAX, |share| share.available_permits());
        let there = self.process.available_permits().max(self.own.left.available_permits());
        self.source.available_permits().min(there).min(share)
    }

    /// Whether the source waits for credit.
    #[must_use]
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
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
    /// The process's connections for statements.
    pub connections: Arc<Connections>,
    /// Where progress is kept.
    pub state: Arc<dyn StateStore>,
    /// What the user sees of the pipeline.
    pub status: Arc<PipelineStatus>,
    /// What the user sees of this source.
    pub source_status: Arc<SourceStatus>,
    /// Becomes true when the source must stop reading, end its stream, wait for `finished` and confirm.
    pub stop: watch::Receiver<bool>,
    /// True while the source is not to read: what it has read goes on to the sinks and is confirmed, and its connection
    /// is kept.
    pub paused: watch::Receiver<bool>,
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

    /// Looks whether it could run, and changes nothing. Gives the tables that it would read, as far as they can be seen.
    async fn check(&mut self, cx: &CheckContext, checks: &mut Checks) -> Vec<Arc<TableSchema>> {
        let _ = (cx, checks);
        Vec::new()
    }

    /// Copies the tables that are wanted, as they stand at one point of its log, beside whatever runs. `None`: it
    /// cannot. `node` is the source's name.
    ///
    /// # Errors
    /// When they cannot be copied, or `out` takes no more.
    async fn copy(&mut self, node: &Arc<str>, want: &WantTable<'_>, out: &mut dyn ChunkSender) -> Result<Option<Copied>, CodedError> {
        let _ = (node, want, out);
        Ok(None)
    }

    /// The replication slots of its server that are its own or have a name of this program's; nothing for a source
    /// that has none.
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn slots(&mut self) -> Result<Vec<SlotFacts>, CodedError> {
        Ok(Vec::new())
    }

    /// Drops a slot that nobody uses and, if that is asked for, the publication that goes with it: the source's own, or
    /// the one that has the slot's name.
    ///
    /// # Errors
    /// When the slot is in use, or the server refuses.
    async fn drop_slot(&mut self, slot: &str, publication: bool) -> Result<Dropped, CodedError> {
        let _ = (slot, publication);
        Ok(Dropped { slot: None, publication: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_source_has_its_own_credit_when_the_others_have_taken_all() {
        let process = Arc::new(Semaphore::new(1 << 20));
        let (greedy, modest) = (Credits::new(8 << 20, Arc::clone(&process)), Credits::new(8 << 20, Arc::clone(&process)));
        let mut taken = 0;
        while greedy.take(64 << 10).now_or_never().is_some() {
            taken += 64 << 10;
        }
        assert_eq!((taken, greedy.left(), process.available_permits()), ((1 << 20) + OWN_CREDIT, 0, 0));
        assert_eq!(modest.left(), OWN_CREDIT);
        for _ in 0..3 {
            assert!(modest.take(OWN_CREDIT as u32).now_or_never().is_some());
            assert!(modest.take(1).now_or_never().is_none());
            modest.give(OWN_CREDIT as u32);
        }
        // Who waits takes whatever comes first, be it its own or the process's.
        modest.take(OWN_CREDIT as u32).now_or_never().expect("it is there");
        let mut waits = Box::pin(modest.take(1000));
        assert!(waits.as_mut().now_or_never().is_none());
        greedy.give(64 << 10);
        assert!(waits.now_or_never().is_some());
        modest.give(1000);
        assert_eq!(process.available_permits(), 64 << 10, "what was lent came back to all");
        greedy.give(taken as u32 - (64 << 10));
        modest.give(OWN_CREDIT as u32);
        assert_eq!((greedy.left(), modest.left(), process.available_permits()), (1 << 20, 1 << 20, 1 << 20));
        assert_eq!(greedy.own.left.available_permits() + modest.own.left.available_permits(), 2 * OWN_CREDIT);
    }
}
