//! Items of each table in the order they came, those that wait for an answer and those that may leave.

use crate::contract::{Item, Mark, RowBatch, TableSchema};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Rows that waiting batches are joined up to.
const JOINED: usize = 8_192;

/// What stands at a place of a lane.
#[derive(Debug)]
pub(super) enum Content {
    /// Rows that nobody has been asked about.
    Waiting {
        /// The rows.
        batch: RowBatch,
        /// Whether they stay by themselves: part of a batch that failed.
        alone: bool,
    },
    /// Rows that a worker has.
    Sent(RowBatch),
    /// Rows that came back.
    Left(RowBatch),
    /// A mark.
    Mark(Mark),
}

struct Slot<C> {
    number: u64,
    content: Content,
    held: C,
}

/// Lanes, by the table's route.
pub(super) struct Lanes<C> {
    lanes: HashMap<u64, VecDeque<Slot<C>>>,
    next: u64,
}

impl<C> Default for Lanes<C> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), next: 0 }
    }
}

impl<C: Clone> Lanes<C> {
    /// Adds what came.
    pub(super) fn push(&mut self, item: Item, held: C) {
        self.next += 1;
        let lane = self.lanes.entry(item.table().route()).or_default();
        let content = match item {
            Item::Rows(batch) => Content::Waiting { batch, alone: false },
            Item::Mark(mark) => Content::Mark(mark),
        };
        lane.push_back(Slot { number: self.next, content, held });
    }

    /// Whether nothing is here.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lanes that hold something.
    pub(super) fn busy(&mut self) -> Vec<u64> {
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.lanes.keys().copied().collect()
    }

    fn find(&mut self, lane: u64, slot: u64) -> Option<(&mut VecDeque<Slot<C>>, usize)> {
        let lane = self.lanes.get_mut(&lane)?;
        let at = lane.iter().position(|it| it.number == slot)?;
        Some((lane, at))
    }

    /// The schema of the first rows that nobody has been asked about.
    pub(super) fn next_table(&self, lane: u64) -> Option<Arc<TableSchema>> {
        let waiting =
            |slot: &Slot<C>| if let Content::Waiting { batch, .. } = &slot.content { Some(Arc::clone(&batch.table)) } else { None };
        self.lanes.get(&lane)?.iter().find_map(waiting)
    }

    /// The first rows that nobody has been asked about, which are now with a worker; small batches that follow each other
    /// under one schema as one, at the time of the first.
    pub(super) fn next_rows(&mut self, lane: u64) -> Option<(u64, RowBatch)> {
        let lane = self.lanes.get_mut(&lane)?;
        let at = lane.iter().position(|slot| matches!(slot.content, Content::Waiting { .. }))?;
        let mut parts: Vec<RowBatch> = Vec::new();
        let mut rows = 0;
        while let Some(Slot { content: Content::Waiting { batch, alone }, .. }) = lane.get(at + parts.len()) {
            let fits = parts.first().is_none_or(|first| !alone && rows + batch.len() <= JOINED && Arc::ptr_eq(&first.table, &batch.table));
            if !fits {
                break;
            }
            rows += batch.len();
            parts.push(batch.clone());
            if *alone {
                break;
            }
        }
        let count = parts.len();
        let first = parts[0].clone();
        // What does not join, for its text is too long, goes by itself.
        let (joined, batch) = RowBatch::concat(parts).map_or((1, first), |joined| (count, joined));
        lane.drain(at + 1..at + joined);
        let slot = lane.get_mut(at)?;
        slot.content = Content::Sent(batch.clone());
        Some((slot.number, batch))
    }

    /// The rows that a worker was given.
    pub(super) fn sent(&mut self, lane: u64, slot: u64) -> Option<RowBatch> {
        let (lane, at) = self.find(lane, slot)?;
        match &lane.get(at)?.content {
            Content::Sent(batch) => Some(batch.clone()),
            _ => None,
        }
    }

    /// Says what stands at a place.
    pub(super) fn set(&mut self, lane: u64, slot: u64, content: Content) {
        if let Some((lane, at)) = self.find(lane, slot) {
            lane[at].content = content;
        }
    }

    /// Puts two parts where one batch stood, to be asked about one by one.
    pub(super) fn split(&mut self, lane: u64, slot: u64, [first, second]: [RowBatch; 2]) {
        self.next += 1;
        let number = self.next;
        if let Some((lane, at)) = self.find(lane, slot) {
            let held = lane[at].held.clone();
            lane[at].content = Content::Waiting { batch: first, alone: true };
            lane.insert(at + 1, Slot { number, content: Content::Waiting { batch: second, alone: true }, held });
        }
    }

    /// Takes a place away.
    pub(super) fn remove(&mut self, lane: u64, slot: u64) {
        if let Some((lane, at)) = self.find(lane, slot) {
            lane.remove(at);
        }
    }

    /// What stands first.
    pub(super) fn front(&self, lane: u64) -> Option<&Content> {
        self.lanes.get(&lane)?.front().map(|slot| &slot.content)
    }

    /// Takes what stands first.
    pub(super) fn pop(&mut self, lane: u64) -> Option<(Content, C)> {
        self.lanes.get_mut(&lane)?.pop_front().map(|slot| (slot.content, slot.held))
    }
}
