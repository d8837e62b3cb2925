//! Gives what was read to the player: as it is, or each transaction when it is due and with the time it was due.

use super::reader::Records;
use crate::contract::{CodedError, TableSchema};
use crate::source::pace::Pace;
use crate::source::postgres::{Held, Part, Payloads, Player, part, stamp};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A recording on its way.
pub(super) struct Paced {
    /// The source's name, which its tables have.
    name: Arc<str>,
    rate: Option<u32>,
    pace: Option<Pace>,
    /// Changes given.
    changes: u64,
    /// The open transaction's commit time.
    time: Option<i64>,
    tables: VecDeque<TableSchema>,
}

impl Paced {
    pub(super) fn new(name: Arc<str>, rate: Option<u32>) -> Self {
        Self { name, rate, pace: None, changes: 0, time: None, tables: VecDeque::new() }
    }

    /// Plays records. False: the source is to stop, between two transactions.
    pub(super) async fn play(&mut self, player: &mut Player, records: Records, held: Held) -> Result<bool, CodedError> {
        let Records { mut bytes, messages, tables, .. } = records;
        self.tables.extend(tables);
        let mut stopping = player.stopping();
        if self.rate.is_none() && !stopping {
            self.take(player, bytes, messages, held).await?;
            return Ok(true);
        }
        // What was cut off the front, and the first message that is left.
        let (mut cut, mut first, mut held) = (0_usize, 0, Some(held));
        for (at, (start, end)) in messages.iter().enumerate() {
            let place = (*start as usize).saturating_sub(cut)..(*end as usize).saturating_sub(cut);
            let Some(payload) = bytes.get_mut(place.clone()) else { continue };
            match part(payload) {
                Part::Begin(commit_lsn) => {
                    let due = if commit_lsn < player.reached() { None } else { self.due() };
                    if stopping || due.is_some_and(|due| due > Instant::now()) {
                        let head = bytes.split_to(place.start);
                        let ready = rebased(messages.get(first..at), cut);
                        let credit = match held.take() {
                            Some(held) => held,
                            None => player.room().await?,
                        };
                        self.take(player, head, ready, credit).await?;
                        (cut, first) = (*start as usize, at);
                        stopping = stopping || !player.until(due.unwrap_or_else(Instant::now)).await?;
                        if stopping {
                            return Ok(false);
                        }
                    }
                    self.time = due.and_then(|_| self.pace.and_then(|pace| pace.commit_time(self.changes)));
                }
                Part::Change => self.changes += 1,
                Part::Commit | Part::Other => {}
            }
            let place = (*start as usize).saturating_sub(cut)..(*end as usize).saturating_sub(cut);
            if let (Some(time), Some(payload)) = (self.time, bytes.get_mut(place)) {
                stamp(payload, time);
            }
        }
        let ready = rebased(messages.get(first..), cut);
        let credit = match held {
            Some(held) => held,
            None => player.room().await?,
        };
        self.take(player, bytes, ready, credit).await?;
        Ok(true)
    }

    /// When the next change is due; the first one is at once.
    fn due(&mut self) -> Option<Instant> {
        let (rate, changes) = (self.rate?, self.changes);
        self.pace.get_or_insert_with(|| Pace::start(Some(rate), changes)).due(changes)
    }

    async fn take(&mut self, player: &mut Player, bytes: BytesMut, messages: Vec<(u32, u32)>, held: Held) -> Result<(), CodedError> {
        let read = Payloads { bytes: bytes.freeze(), messages };
        let (name, tables) = (&self.name, &mut self.tables);
        player
            .take(&read, held, |relation| {
                let found = tables.pop_front().filter(|table| table.id == relation.id);
                let table = found.ok_or_else(|| super::undescribed(relation))?;
                Ok(Arc::new(TableSchema { source: Arc::clone(name), ..table }))
            })
            .await
    }
}

fn rebased(messages: Option<&[(u32, u32)]>, cut: usize) -> Vec<(u32, u32)> {
    let cut = cut as u32;
    messages.unwrap_or_default().iter().map(|(start, end)| (start.saturating_sub(cut), end.saturating_sub(cut))).collect()
}
