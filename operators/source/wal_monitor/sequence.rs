//! The number of each check: rising, over restarts too.
//!
//! # Guarantees
//! A number is given once. Numbers are reserved in the state by the block, so that a check costs no write; those of a
//! block that were not given before a restart are not given at all.

use crate::contract::{Code, CodedError, Exit, StateKey, StateStore};
use serde_json::json;
use std::sync::Arc;

/// The monitor's state could not be read.
const STATE: Code = Code::new("PG0043", Exit::Failure);

/// Numbers reserved by one write.
const BLOCK: u64 = 1_024;

/// Gives numbers.
pub(super) struct Sequence {
    store: Arc<dyn StateStore>,
    key: StateKey,
    next: u64,
    reserved: u64,
}

impl Sequence {
    /// Goes on after every number that was given before.
    pub(super) fn open(store: Arc<dyn StateStore>, pipeline: &str, monitor: &str) -> Result<Self, CodedError> {
        let key = StateKey::node(pipeline, monitor);
        let next = match store.load(&key)? {
            None => 1,
            Some(document) => document.get("reserved").and_then(serde_json::Value::as_u64).ok_or_else(|| {
                CodedError::definite(STATE, format!("the state of wal_monitor \"{monitor}\" was not understood"))
                    .hint("it was written by another node of this name or a newer version: give the monitor another name")
            })?,
        };
        Ok(Self { store, key, next, reserved: next })
    }

    /// The next number.
    pub(super) fn next(&mut self) -> Result<u64, CodedError> {
        if self.next >= self.reserved {
            let reserved = self.next + BLOCK;
            self.store.store(&[(self.key.clone(), Some(json!({ "reserved": reserved })))])?;
            self.reserved = reserved;
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// The number given last; what is before everything else at first.
    #[cfg(test)]
    fn last(&self) -> u64 {
        self.next - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::MemoryState;

    #[test]
    fn numbers_rise_over_restarts() {
        let store = Arc::new(MemoryState::default());
        let open = || Sequence::open(Arc::clone(&store) as Arc<dyn StateStore>, "p", "wal").expect("a sequence");
        let mut last = 0;
        for count in [1, 3, BLOCK + 5, 2] {
            let mut sequence = open();
            assert_eq!(open().last(), sequence.last(), "opening reserves nothing");
            for _ in 0..count {
                let number = sequence.next().expect("a number");
                assert!(number > last, "{number} after {last}");
                last = number;
            }
            assert_eq!(sequence.last(), last);
        }
        store.store(&[(StateKey::node("p", "wal"), Some(json!("odd")))]).expect("stored");
        let error = Sequence::open(Arc::clone(&store) as Arc<dyn StateStore>, "p", "wal").err().expect("an error");
        assert_eq!(error.code.id, "PG0043");
    }
}
