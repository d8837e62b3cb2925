//! A bounded queue whose oldest entry makes room for the newest.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The queue.
pub(super) struct Queue<T> {
    entries: Mutex<(VecDeque<T>, bool)>,
    capacity: usize,
    changed: Notify,
}

impl<T> Queue<T> {
    /// Room for so many, one at least.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Mutex::new((VecDeque::new(), false)), capacity: capacity.max(1), changed: Notify::new() }
    }

    /// Adds an entry; gives back the one that had to go for it.
    pub(super) fn push(&self, entry: T) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = if entries.0.len() >= self.capacity { entries.0.pop_front() } else { None };
        entries.0.push_back(entry);
        drop(entries);
        self.changed.notify_one();
        dropped
    }

    /// The oldest entry, when there is one; nothing once the queue is closed and empty.
    pub(super) async fn pop(&self) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            {
                let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = entries.0.pop_front() {
                    return Some(entry);
                }
                if entries.1 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Says that nothing more comes.
    pub(super) fn close(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn the_oldest_makes_room() {
        let queue = Queue::new(2);
        assert!(queue.pop().now_or_never().is_none(), "nothing is there and more may come");
        assert_eq!([1, 2, 3, 4].map(|entry| queue.push(entry)), [None, None, Some(1), Some(2)]);
        assert_eq!(queue.pop().now_or_never(), Some(Some(3)));
        queue.close();
        assert_eq!(queue.pop().now_or_never(), Some(Some(4)), "what was there before the end comes");
        assert_eq!(queue.pop().now_or_never(), Some(None));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = std::sync::Arc::new(Queue::new(1));
        let waiting = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { (queue.pop().await, queue.pop().await) }
        });
        tokio::task::yield_now().await;
        queue.push(7);
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiting.await.expect("no panic"), (Some(7), None));
    }
}
