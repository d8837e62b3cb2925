//! Taps: copies of batches that leave a node, for somebody who looks.
//!
//! ```text
//! node ──Items──> next node
//!          └ while somebody looks ──RowBatch──> Tap ──> GET /api/v1/tap/<node>
//! ```
//! # Guarantees
//! Without a listener a tap costs one load of a flag for each activation. With one it never waits: a batch that the
//! listener has no room for is left out. Batches share their buffers, so that looking copies no rows.

use crate::Kind;
use crate::graph::Graph;
use etl_stream_operators::contract::{Item, Items, RowBatch};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Batches that wait for a listener.
const ROOM: usize = 16;

/// The tap of one output of a node.
#[derive(Debug, Default)]
pub struct Tap {
    open: AtomicBool,
    listeners: Mutex<Vec<mpsc::Sender<RowBatch>>>,
}

impl Tap {
    /// Shows what is about to leave.
    pub(crate) fn show(&self, items: &Items) {
        if self.open.load(Ordering::Relaxed) {
            self.give(items);
        }
    }

    #[cold]
    fn give(&self, items: &Items) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.is_closed());
        for item in &items.0 {
            if let Item::Rows(batch) = item {
                // Without room it is left out: a sample.
                listeners.iter().for_each(|listener| drop(listener.try_send(batch.clone())));
            }
        }
        self.open.store(!listeners.is_empty(), Ordering::Relaxed);
    }

    /// What leaves from here on, for as long as the receiver lives.
    pub(crate) fn listen(&self) -> mpsc::Receiver<RowBatch> {
        let (sender, receiver) = mpsc::channel(ROOM);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(sender);
        self.open.store(true, Ordering::Relaxed);
        receiver
    }
}

/// Every tap of a pipeline, by `node` or `node.output`.
#[derive(Debug, Default)]
pub struct Taps(BTreeMap<String, Arc<Tap>>);

impl Taps {
    /// One for each output of a source or operator.
    pub(crate) fn of(graph: &Graph) -> Self {
        let nodes = graph.nodes.iter().filter(|node| node.kind != Kind::Sink);
        let names = nodes.flat_map(|node| match node.outputs.as_slice() {
            [] => vec![node.name.to_string()],
            outputs => outputs.iter().map(|output| format!("{}.{output}", node.name)).collect(),
        });
        Self(names.map(|name| (name, Arc::default())).collect())
    }

    /// The tap of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Tap>> {
        self.0.get(name)
    }

    /// Every name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The taps of a node's outputs, as many as it has.
    pub(crate) fn node(&self, name: &str, outputs: &[String]) -> Vec<Arc<Tap>> {
        let tap = |name: &str| self.get(name).cloned().unwrap_or_default();
        match outputs {
            [] => vec![tap(name)],
            outputs => outputs.iter().map(|output| tap(&format!("{name}.{output}"))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::{ReplicaIdentity, TableSchema};

    fn items(count: usize) -> Items {
        let table = TableSchema {
            source: "s".into(),
            id: 1,
            schema: "p".into(),
            name: "t".into(),
            columns: Vec::new(),
            identity: ReplicaIdentity::Full,
            storage: None,
        };
        let batch = RowBatch::empty(Arc::new(table));
        Items(vec![Item::Rows(batch); count])
    }

    #[test]
    fn listeners_get_what_they_have_room_for() {
        let tap = Tap::default();
        tap.show(&items(1));
        let (mut one, mut other) = (tap.listen(), tap.listen());
        tap.show(&items(3));
        let count = |receiver: &mut mpsc::Receiver<RowBatch>| std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!((count(&mut one), count(&mut other)), (3, 3), "nothing from before");
        drop(other);
        tap.show(&items(ROOM + 5));
        assert_eq!(count(&mut one), ROOM);
        drop(one);
        tap.show(&items(1));
        assert!(!tap.open.load(Ordering::Relaxed), "closed with the last listener");
    }
}
