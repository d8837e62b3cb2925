//! What the source keeps over a restart: whose slot it is, and whether the snapshot is complete.
//!
//! ```text
//! nothing ──> creating ──> snapshot ──> streaming
//!                 └───────────┴── died here: the slot is ours and unfinished, it is dropped and made anew
//!
//! a table: nothing ──> copying ──> streaming ──> removed
//!                        ^────────────┴────────────┘   asked for, published again, made anew
//! ```
//! The position itself is the slot's `confirmed_flush_lsn`: the server keeps it. What it is told is written
//! down before, so that a slot that stands further is known to have been moved by somebody else.

use super::codes;
use crate::contract::{CodedError, Lsn, StateKey, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far the source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The slot is about to be made.
    Creating,
    /// Existing rows are being copied.
    Snapshot,
    /// A table's rows are being copied beside the stream.
    Copying,
    /// Every row of the snapshot is durable.
    Streaming,
    /// The table is no longer published.
    Removed,
}

/// The source's own document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: String,
    /// The timeline last seen.
    pub timeline: u32,
    /// The database.
    pub database: String,
    /// The replication slot, made by this source.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// How far it has come.
    pub stage: Stage,
    /// The slot's consistent point.
    pub consistent_lsn: Option<u64>,
    /// The `commit_lsn` of the snapshot's rows.
    pub snapshot_lsn: Option<u64>,
    /// That of the first attempt, until one is complete.
    #[serde(default)]
    pub attempt_lsn: Option<u64>,
}

/// A table's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableProgress {
    /// How far it has come.
    pub stage: Stage,
    /// The `commit_lsn` of its snapshot's rows; nothing for a table that was never copied.
    pub snapshot_lsn: Option<u64>,
    /// Its object id.
    pub relation: u32,
    /// What makes it published, as [`Published::membership`](super::catalog::Published); nothing: not known.
    #[serde(default)]
    pub membership: Option<u32>,
    /// The stream gives its changes from this commit on: those before came beside it.
    #[serde(default)]
    pub from_lsn: Option<u64>,
    /// The stream gives its changes up to this commit: it was removed then, or before.
    #[serde(default)]
    pub until_lsn: Option<u64>,
    /// The snapshot of the first attempt since it was last complete.
    #[serde(default)]
    pub attempt_lsn: Option<u64>,
}

impl TableProgress {
    /// A table whose rows are all there, or are not wanted.
    pub(super) fn streaming(relation: u32, membership: Option<u32>, snapshot_lsn: Option<u64>) -> Self {
        Self { stage: Stage::Streaming, snapshot_lsn, relation, membership, from_lsn: None, until_lsn: None, attempt_lsn: None }
    }

    /// The commits whose changes of it the stream gives: at or after the first, before the second.
    pub(super) fn window(&self) -> (u64, u64) {
        match self.stage {
            Stage::Streaming | Stage::Removed => (self.from_lsn.unwrap_or(0), self.until_lsn.unwrap_or(u64::MAX)),
            Stage::Creating | Stage::Snapshot | Stage::Copying => (u64::MAX, u64::MAX),
        }
    }
}

/// Where the documents are.
pub(super) struct Documents<'a> {
    /// The store.
    pub store: &'a dyn StateStore,
    /// The pipeline.
    pub pipeline: &'a str,
    /// The source.
    pub source: &'a str,
}

impl Documents<'_> {
    fn unreadable(&self, error: serde_json::Error) -> CodedError {
        CodedError::definite(codes::STATE, format!("the state of source \"{}\" was not understood", self.source))
            .caused_by(error)
            .hint("it may have been written by a newer version; run that version, or give the source a new name to start anew")
    }

    /// The source's document.
    pub(super) fn load(&self) -> Result<Option<Progress>, CodedError> {
        let value = self.store.load(&StateKey::node(self.pipeline, self.source))?;
        value.map(serde_json::from_value).transpose().map_err(|e| self.unreadable(e))
    }

    /// The tables' documents, by `schema.table`.
    pub(super) fn tables(&self) -> Result<BTreeMap<String, TableProgress>, CodedError> {
        let all = self.store.list(self.pipeline, self.source)?;
        let tables = all.into_iter().filter(|(key, _)| !key.table.is_empty());
        tables.map(|(key, value)| Ok((key.table, serde_json::from_value(value).map_err(|e| self.unreadable(e))?))).collect()
    }

    /// Stores the source's document and its tables', all or none; tables not named are removed.
    pub(super) fn store(&self, progress: &Progress, tables: &BTreeMap<String, TableProgress>) -> Result<(), CodedError> {
        let mut changes = vec![(StateKey::node(self.pipeline, self.source), Some(value(progress)))];
        for (key, _) in self.store.list(self.pipeline, self.source)? {
            if !key.table.is_empty() && !tables.contains_key(&key.table) {
                changes.push((key, None));
            }
        }
        changes.extend(tables.iter().map(|(name, table)| (StateKey::table(self.pipeline, self.source, name), Some(value(table)))));
        self.store.store(&changes)
    }

    /// Tables that are to be copied anew.
    pub(super) fn requests(&self) -> Result<BTreeSet<String>, CodedError> {
        let all = self.store.list(self.pipeline, &StateKey::resync_node(self.source))?;
        Ok(all.into_iter().map(|(key, _)| key.table).filter(|table| !table.is_empty()).collect())
    }

    /// Stores tables' documents and removes requests, all or none.
    pub(super) fn change(&self, tables: &BTreeMap<String, TableProgress>, done: &[String]) -> Result<(), CodedError> {
        let documents = tables.iter().map(|(name, table)| (StateKey::table(self.pipeline, self.source, name), Some(value(table))));
        let done = done.iter().map(|name| (StateKey::resync(self.pipeline, self.source, name), None));
        self.store.store(&documents.chain(done).collect::<Vec<_>>())
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> Result<(), CodedError> {
        let all = self.store.list(self.pipeline, self.source)?.into_iter().map(|(key, _)| key);
        let all = all.chain([confirmed_key(self.pipeline, self.source)]);
        self.store.store(&all.map(|key| (key, None)).collect::<Vec<_>>())
    }

    /// The furthest position that the server may have been told; nothing before the first.
    pub(super) fn confirmed(&self) -> Result<Option<u64>, CodedError> {
        let value = self.store.load(&confirmed_key(self.pipeline, self.source))?;
        let lsn = value.map(|value| serde_json::from_value::<String>(value).map_err(|e| self.unreadable(e))).transpose()?;
        Ok(lsn.and_then(|text| text.parse::<Lsn>().ok()).map(|lsn| lsn.0))
    }

    /// Where the reporter notes what it is about to tell.
    pub(super) fn note(store: &Arc<dyn StateStore>, pipeline: &str, source: &str) -> Note {
        Note { store: Arc::clone(store), key: confirmed_key(pipeline, source) }
    }
}

/// No node's name has a slash.
fn confirmed_key(pipeline: &str, source: &str) -> StateKey {
    StateKey::node(pipeline, &format!("{source}/confirmed"))
}

/// Notes positions before the server is told them.
#[derive(Clone)]
pub(super) struct Note {
    store: Arc<dyn StateStore>,
    key: StateKey,
}

impl Note {
    /// Durable on return. Blocks.
    pub(super) fn confirmed(&self, lsn: u64) -> Result<(), CodedError> {
        self.store.store(&[(self.key.clone(), Some(Lsn(lsn).to_string().into()))])
    }
}

fn value(document: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(document).expect("plain data becomes JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::MemoryState;

    #[test]
    fn documents_survive_and_old_tables_go() {
        let store = MemoryState::default();
        let documents = Documents { store: &store, pipeline: "p", source: "s" };
        assert_eq!(documents.load().unwrap(), None);
        let mut progress = Progress {
            system_identifier: "7".into(),
            timeline: 1,
            database: "d".into(),
            slot: "x".into(),
            publication: "x".into(),
            stage: Stage::Creating,
            consistent_lsn: None,
            snapshot_lsn: None,
            attempt_lsn: None,
        };
        let table = TableProgress::streaming(9, None, Some(6));
        documents.store(&progress, &BTreeMap::from([("a.b".into(), table.clone()), ("a.c".into(), table.clone())])).unwrap();
        progress.stage = Stage::Streaming;
        documents.store(&progress, &BTreeMap::from([("a.b".into(), table.clone())])).unwrap();
        assert_eq!(documents.load().unwrap(), Some(progress));
        assert_eq!(documents.tables().unwrap(), BTreeMap::from([("a.b".into(), table)]));
        // as versions before wrote it
        let old = serde_json::json!({ "stage": "streaming", "snapshot_lsn": 6, "relation": 9 });
        store.store(&[(StateKey::table("p", "s", "a.b"), Some(old)), (StateKey::resync("p", "s", "a.b"), Some(true.into()))]).unwrap();
        let (mut tables, requests) = (documents.tables().unwrap(), documents.requests().unwrap());
        assert_eq!((tables["a.b"].window(), requests), ((0, u64::MAX), BTreeSet::from(["a.b".to_owned()])));
        tables.values_mut().for_each(|table| table.stage = Stage::Copying);
        documents.change(&tables, &["a.b".to_owned()]).unwrap();
        assert_eq!(documents.tables().unwrap()["a.b"].window(), (u64::MAX, u64::MAX));
        assert_eq!(documents.requests().unwrap(), BTreeSet::new());
        store.store(&[(StateKey::node("p", "s"), Some(serde_json::json!({ "slot": 1 })))]).unwrap();
        assert_eq!(documents.load().unwrap_err().code.id, "PG0025");
        let shared: Arc<dyn StateStore> = Arc::new(MemoryState::default());
        let noted = Documents { store: &*shared, ..documents };
        assert_eq!(noted.confirmed().unwrap(), None);
        Documents::note(&shared, "p", "s").confirmed(0x16_0000_0001).unwrap();
        assert_eq!(noted.confirmed().unwrap(), Some(0x16_0000_0001));
        assert_eq!(noted.tables().unwrap(), BTreeMap::new());
        noted.clear().unwrap();
        assert_eq!(noted.confirmed().unwrap(), None);
        documents.clear().unwrap();
        assert_eq!(documents.load().unwrap(), None);
    }
}
