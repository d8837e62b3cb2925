//! Where tokio meets timely: bounded in bytes by credits, woken once for each burst.
//!
//! ```text
//! source task ──Chunk──> BridgeSender ══> source operator          (wakes the worker)
//! writer task ──Ack────> AckQueue     ══> sink operator            (wakes the worker)
//! ```
//!
//! # Guarantees
//! FIFO. A send after the worker drained its end always wakes it again; sends in between cost one flag.
//! Dropping the sender wakes the worker too, so that the end of a stream is seen.

use crossbeam_channel::{Receiver, Sender, unbounded};
use etl_stream_operators::contract::{AckReport, Chunk, ChunkSender, SourceClosed};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use timely::scheduling::SyncActivator;

/// Wakes one operator of one worker.
#[derive(Default)]
pub(crate) struct Waker {
    pending: AtomicBool,
    operator: OnceLock<SyncActivator>,
}

impl Waker {
    /// Says which operator to wake. Wakes sent before are not lost: an operator runs once when built.
    pub(crate) fn attach(&self, operator: SyncActivator) {
        let _ = self.operator.set(operator);
        self.pending.store(false, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the operator, unless it has been woken and has not yet looked.
    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst)
            && let Some(operator) = self.operator.get()
        {
            // The worker is gone: nobody is left to wake.
            let _ = operator.activate();
        }
    }

    /// Called by the operator before it looks.
    pub(crate) fn clear(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }
}

/// The source's end.
pub(crate) struct BridgeSender {
    chunks: Option<Sender<Chunk>>,
    waker: Arc<Waker>,
}

/// The source operator's end.
pub(crate) struct BridgeReceiver {
    /// What the source sent.
    pub(crate) chunks: Receiver<Chunk>,
    /// To be attached and cleared by the operator.
    pub(crate) waker: Arc<Waker>,
}

/// A bridge from a source task to its operator.
pub(crate) fn bridge() -> (BridgeSender, BridgeReceiver) {
    let (sender, receiver) = unbounded();
    let waker = Arc::new(Waker::default());
    (BridgeSender { chunks: Some(sender), waker: Arc::clone(&waker) }, BridgeReceiver { chunks: receiver, waker })
}

impl ChunkSender for BridgeSender {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        self.chunks.as_ref().and_then(|chunks| chunks.send(chunk).ok()).ok_or(SourceClosed)?;
        self.waker.wake();
        Ok(())
    }
}

impl Drop for BridgeSender {
    fn drop(&mut self) {
        self.chunks = None;
        self.waker.wake();
    }
}

/// Acknowledgements on their way to the sink operator.
pub(crate) struct AckQueue {
    done: Sender<u64>,
    waker: Arc<Waker>,
}

impl AckQueue {
    /// The queue, and the operator's end of it.
    pub(crate) fn new() -> (Arc<Self>, Receiver<u64>, Arc<Waker>) {
        let (done, receiver) = unbounded();
        let waker = Arc::new(Waker::default());
        (Arc::new(Self { done, waker: Arc::clone(&waker) }), receiver, waker)
    }
}

impl AckReport for AckQueue {
    fn durable(&self, id: u64) {
        // The operator is gone: the pipeline was torn down, and a restart will ask the sink again.
        let _ = self.done.send(id);
        self.waker.wake();
    }
}
