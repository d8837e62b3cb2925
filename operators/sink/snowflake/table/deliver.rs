//! Rows on their way: encoded, sent, asked for, acknowledged in order.

use super::super::account::Accounted;
use super::super::channel::Position;
use super::super::errors::SF_STREAMING;
use super::super::opening::rejected;
use super::super::sending::{Encoded, encode_all, repair_all, send_all};
use super::super::streaming::{ChannelStatus, Pipe};
use super::{FIRST_POLL, LONGEST_POLL, Pending, Table};
use crate::contract::{Ack, CodedError, RowBatch, Token};
use crate::failpoint;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Table {
    pub(super) fn note_channels(&mut self) {
        self.names = self.channels.iter().map(|c| c.name().to_owned()).collect();
        self.positions = self.channels.iter().map(|c| Arc::clone(c.position())).collect();
    }

    pub(super) fn start_encoding(&mut self, batch: RowBatch, ack: Ack) -> Result<(), CodedError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let stop = self.identity.shared.dead_letters.stop();
        if stop && opened.rejected > opened.progress.rejected {
            // Of an earlier process, which ended before it could say so.
            let more = opened.rejected - opened.progress.rejected;
            return Err(rejected(&opened.plan.schema.full_name(), more, "found when the channels were opened", ""));
        }
        let plan = Arc::clone(&opened.plan);
        let done: Vec<(Token, Token)> = self.positions.iter().map(|p| (p.committed(), p.sent())).collect();
        let job = tokio::task::spawn_blocking(move || encode_all(&plan, batch, &done, stop));
        self.encoding = Some((job, ack));
        Ok(())
    }

    pub(super) fn encoded(&mut self, done: Result<Result<Encoded, CodedError>, tokio::task::JoinError>) -> Result<(), CodedError> {
        let Some((_, ack)) = self.encoding.take() else { return Ok(()) };
        let encoded = done.map_err(|e| CodedError::definite(SF_STREAMING, "rows were not encoded").caused_by(e))??;
        self.ready = Some((encoded, ack));
        Ok(())
    }

    pub(super) fn start_sending(&mut self, encoded: Encoded, ack: Ack) -> Result<(), CodedError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let Encoded { batch, hashes, parts, exact, refused } = encoded;
        self.accounting.delivered = self.accounting.delivered.max(batch.last_token().unwrap_or_default());
        if self.identity.shared.options.merge {
            self.ledger.observe(&opened.plan, &batch, &hashes, self.merged)?;
        }
        self.identity.shared.http.meter.exact(exact);
        let lasts: Vec<Option<Token>> = parts.iter().map(|p| p.as_ref().and_then(|part| part.rows.last_token())).collect();
        let rows = parts.iter().flatten().map(|part| part.rows.len() as u64).sum();
        let pending = Pending { lasts, rows, ack };
        if rows == 0 && refused.is_empty() {
            self.pending.push_back(pending);
            return Ok(());
        }
        let plan = Arc::clone(&opened.plan);
        let shared = Arc::clone(&self.identity.shared);
        let channels = std::mem::take(&mut self.channels);
        let owner = self.identity.row.clone();
        self.identity.letters.fetch_or(!refused.is_empty(), Ordering::AcqRel);
        let sending = async move {
            // Before any row after them is sent, so that a committed token never stands for a lost letter.
            if !refused.is_empty()
                && let Err(error) = shared.dead_letters.write(&shared, &owner, refused, None).await
            {
                return (channels, Err(error));
            }
            send_all(shared, channels, plan, parts).await
        };
        self.sending = Some((Box::pin(sending), Some(pending)));
        Ok(())
    }

    /// Opens channels again that the service called invalid, and sends what is not committed of them.
    pub(super) fn start_repair(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        self.sending = Some((Box::pin(repair_all(channels)), None));
    }

    pub(super) fn poll(&mut self) {
        self.poll_at = None;
        if self.pending.is_empty() {
            return;
        }
        let landing = &self.identity.places.landing;
        let pipe = Pipe::of(&landing.database, &landing.schema, &landing.table);
        let (shared, names) = (Arc::clone(&self.identity.shared), self.names.clone());
        self.polling = Some(Box::pin(async move { shared.streaming.statuses(&pipe, &names).await }));
    }

    pub(super) fn polled(&mut self, statuses: Vec<Option<ChannelStatus>>) -> Result<(), CodedError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let known = opened.progress.rejected;
        let total: u64 = statuses.iter().flatten().map(|s| s.rejected).sum();
        if total > known && self.identity.shared.dead_letters.stop() {
            self.identity.shared.http.meter.rejected(total - known);
            let last = statuses.iter().flatten().filter(|s| !s.last_error_bound.is_empty()).max_by_key(|s| s.last_error_bound.clone());
            let (code, bound) = last.map_or(("no code given", ""), |s| (&s.last_error, &s.last_error_bound));
            return Err(rejected(&opened.plan.schema.full_name(), total - known, code, bound));
        }
        for (position, status) in self.positions.iter().zip(&statuses) {
            position.set_broken(status.as_ref().is_none_or(|status| !status.valid));
        }
        if total > known || opened.recovering {
            if statuses.iter().all(Option::is_some) {
                self.accounting.suspect = Some(statuses.into_iter().flatten().collect());
            } else {
                // A channel that is gone is opened again first.
                self.poll_at = Some(Instant::now() + self.poll_pause);
            }
            return Ok(());
        }
        let mut moved = false;
        for (position, status) in self.positions.iter().zip(statuses) {
            let before = position.committed();
            if let Some(status) = status {
                position.settle(status.committed, Some(status.rejected));
            }
            moved |= position.committed() > before;
        }
        self.poll_pause = if moved { FIRST_POLL } else { (self.poll_pause * 2).min(LONGEST_POLL) };
        self.poll_at = Some(Instant::now() + self.poll_pause);
        Ok(())
    }

    /// Goes on once it is known which rows were rejected.
    pub(super) fn accounted(&mut self, accounted: &Accounted) {
        let Some(opened) = &mut self.opened else { return };
        opened.progress.rejected = accounted.rejected;
        opened.recovering &= !accounted.whole;
        accounted.settle(&self.positions);
        self.poll_pause = (self.poll_pause * 2).min(LONGEST_POLL);
        self.poll_at = Some(Instant::now() + self.poll_pause);
    }

    /// Acknowledges, in order, what is committed.
    pub(super) fn acknowledge(&mut self) {
        while let Some(front) = self.pending.front() {
            let committed = |(last, position): (&Option<Token>, &Arc<Position>)| last.is_none_or(|last| last <= position.committed());
            if !front.lasts.iter().zip(&self.positions).all(committed) {
                return;
            }
            if let Some(done) = self.pending.pop_front() {
                self.identity.shared.http.meter.committed(done.rows);
                self.completed += 1;
                failpoint::reach("snowflake.committed");
                done.ack.durable();
            }
        }
        self.poll_at = None;
    }
}
