//! The workers of a node, shared by every source and worker thread of it.
//!
//! # Guarantees
//! A table belongs to one worker for as long as the pool lives: its batches are worked on in order, and a worker that is
//! slow or dead holds back its own tables alone. The processes end with the last user of the pool.

use super::process::Launch;
use super::worker::{Request, Worker};
use crate::contract::CodedError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Workers that start with their first request.
pub(crate) struct Pool {
    launch: Arc<Launch>,
    workers: Vec<Worker>,
    numbers: AtomicU64,
}

impl Pool {
    /// Makes them.
    ///
    /// # Errors
    /// `PY0001` when there are no threads.
    pub(crate) fn start(launch: Launch, workers: usize) -> Result<Self, CodedError> {
        let launch = Arc::new(launch);
        let workers = (0..workers.max(1)).map(|_| Worker::start(Arc::clone(&launch))).collect::<Result<_, _>>()?;
        Ok(Self { launch, workers, numbers: AtomicU64::new(0) })
    }

    /// The node it works for.
    pub(crate) fn node(&self) -> &Arc<str> {
        &self.launch.node
    }

    /// A number that nothing else of the pool has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The worker of a key, such as a table's route or a channel's name.
    pub(crate) fn worker_of(&self, key: u64) -> usize {
        // High bits: low ones have chosen the worker thread already.
        ((key >> 20) % self.workers.len() as u64) as usize
    }

    /// The worker of one of several parts of a key: they are spread over all.
    pub(crate) fn worker_of_part(&self, key: u64, part: usize) -> usize {
        self.worker_of(key).wrapping_add(part) % self.workers.len()
    }

    /// Asks a worker.
    pub(crate) fn ask(&self, worker: usize, request: Request) {
        if let Some(worker) = self.workers.get(worker) {
            worker.ask(request);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // All at once, so that the slowest `close` is what is waited for.
        self.workers.iter_mut().for_each(Worker::leave);
    }
}

/// A pool that is made when it is first asked for, and again when all of its users were gone.
#[derive(Default)]
pub(crate) struct SharedPool(Mutex<Weak<Pool>>);

impl SharedPool {
    /// The pool.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn get(&self, make: impl FnOnce() -> Result<Pool, CodedError>) -> Result<Arc<Pool>, CodedError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = kept.upgrade() {
            return Ok(pool);
        }
        let pool = Arc::new(make()?);
        *kept = Arc::downgrade(&pool);
        Ok(pool)
    }
}

impl fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedPool")
    }
}
