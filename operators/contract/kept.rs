//! Connections that are kept between two uses, the least recently needed in front.
//!
//! # Guarantees
//! What is to be closed is given back to the caller, who has a lock: what happens when a connection is dropped is not known here.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection is kept that nobody needs; they are looked at whenever another is kept.
const UNNEEDED: Duration = Duration::from_secs(60);

/// One of them.
pub(super) struct Connection {
    pub(super) server: Arc<str>,
    key: String,
    since: Instant,
    connection: Box<dyn Any + Send>,
}

/// All of them, by when each was last needed.
#[derive(Default)]
pub(super) struct Kept {
    connections: BTreeMap<u64, Connection>,
    clock: u64,
}

impl Kept {
    /// Keeps one; those that nobody needed for long.
    pub(super) fn keep(&mut self, server: Arc<str>, key: String, connection: Box<dyn Any + Send>) -> Vec<Connection> {
        self.clock += 1;
        let since = Instant::now();
        self.connections.insert(self.clock, Connection { server, key, since, connection });
        self.close(usize::MAX, |kept| since.duration_since(kept.since) >= UNNEEDED)
    }

    /// Takes one of this key and type, the most recently needed.
    pub(super) fn take<C: Any + Send>(&mut self, key: &str) -> Option<C> {
        let at = *self.connections.iter().rev().find(|(_, kept)| kept.key == key && kept.connection.is::<C>())?.0;
        self.connections.remove(&at)?.connection.downcast::<C>().ok().map(|connection| *connection)
    }

    /// Takes out the first that fit, at most so many.
    fn close(&mut self, most: usize, fits: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        self.connections.extract_if(.., |_, kept| fits(kept)).map(|(_, kept)| kept).take(most).collect()
    }

    /// Takes out the least recently needed, of a server or of all.
    pub(super) fn oldest(&mut self, server: Option<&str>, most: usize) -> Vec<Connection> {
        self.close(most, |kept| server.is_none_or(|server| *kept.server == *server))
    }

    /// Takes out those of a key.
    pub(super) fn of_key(&mut self, key: &str) -> Vec<Connection> {
        self.close(usize::MAX, |kept| kept.key == key)
    }

    /// All that are kept.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }
}
