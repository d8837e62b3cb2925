//! What must survive a restart, keyed by pipeline, source and table.

use super::CodedError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Whose state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    /// The pipeline.
    pub pipeline: String,
    /// The source, or the sink for state of a sink.
    pub node: String,
    /// The table as `schema.table`; empty for the node itself.
    pub table: String,
}

impl StateKey {
    /// The key of a node.
    #[must_use]
    pub fn node(pipeline: &str, node: &str) -> Self {
        Self { pipeline: pipeline.into(), node: node.into(), table: String::new() }
    }

    /// The key of a table.
    #[must_use]
    pub fn table(pipeline: &str, node: &str, table: &str) -> Self {
        Self { table: table.into(), ..Self::node(pipeline, node) }
    }

    /// The key of a request to copy a table of a source anew. The source removes it when it begins to.
    #[must_use]
    pub fn resync(pipeline: &str, source: &str, table: &str) -> Self {
        Self::table(pipeline, &Self::resync_node(source), table)
    }

    /// The key of the mark that a source is not to read; the document says why.
    #[must_use]
    pub fn paused(pipeline: &str, source: &str) -> Self {
        Self::node(pipeline, &format!("{source}/paused"))
    }

    /// The node under which such requests of a source are listed.
    #[must_use]
    pub fn resync_node(source: &str) -> String {
        format!("{source}/resync")
    }
}

/// Whether a table is to be copied anew and its copy is not complete: that is asked for, or its source's document of it
/// has a `stage` of `copying`. Until the copy begins, changes that were sent of it before may be repeated in part or not
/// at all.
///
/// # Errors
/// When the store cannot be read.
pub fn awaits_copy(state: &dyn StateStore, pipeline: &str, source: &str, table: &str) -> Result<bool, CodedError> {
    if state.load(&StateKey::resync(pipeline, source, table))?.is_some() {
        return Ok(true);
    }
    let document = state.load(&StateKey::table(pipeline, source, table))?;
    Ok(document.is_some_and(|document| document["stage"] == "copying"))
}

/// Keeps small documents. Calls are short and may block.
pub trait StateStore: Send + Sync {
    /// The document of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&self, key: &StateKey) -> Result<Option<Value>, CodedError>;

    /// Every document of a node, its own first, then its tables by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&self, pipeline: &str, node: &str) -> Result<Vec<(StateKey, Value)>, CodedError>;

    /// Stores documents (`None` removes one), all or none, durable on return.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn store(&self, changes: &[(StateKey, Option<Value>)]) -> Result<(), CodedError>;
}

/// State that ends with the process, for tests and embedded trials.
#[derive(Debug, Default)]
pub struct MemoryState {
    documents: Mutex<BTreeMap<StateKey, Value>>,
}

impl StateStore for MemoryState {
    fn load(&self, key: &StateKey) -> Result<Option<Value>, CodedError> {
        Ok(self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn list(&self, pipeline: &str, node: &str) -> Result<Vec<(StateKey, Value)>, CodedError> {
        let documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(documents.iter().filter(|(k, _)| k.pipeline == pipeline && k.node == node).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn store(&self, changes: &[(StateKey, Option<Value>)]) -> Result<(), CodedError> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => documents.insert(key.clone(), value.clone()),
                None => documents.remove(key),
            };
        }
        Ok(())
    }
}
