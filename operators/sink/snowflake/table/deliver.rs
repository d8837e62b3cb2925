//! Rows on their way: encoded, sent, asked for, acknowledged in order.

use super::super::account::Accounted;
use super::super::channel::{Channel, Position};
use super::super::opening::rejected;
use super::super::sending::{Round, TAKE, repair_all, send_all};
use super::super::streaming::{ChannelStatus, Pipe};
use super::{Pending, Table};
use crate::contract::{Ack, CodedError, Delivery, RowBatch, Token};
use crate::failpoint;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Table {
    pub(super) fn note_channels(&mut self) {
        self.names = self.channels.iter().map(|c| c.name().to_owned()).collect();
        self.positions = self.channels.iter().map(|c| Arc::clone(c.position())).collect();
    }

    /// Rows under the schema in force from the front of the queue, as many as are encoded at once.
    pub(super) fn take_up(&mut self) -> Vec<(RowBatch, Ack)> {
        let mut taken = Vec::new();
        while let Ok(delivery) = self.inbox.try_recv() {
            self.queue.push_back(delivery);
        }
        let Some(opened) = &self.opened else { return taken };
        let schema = &opened.plan.schema;
        let mut room = (TAKE * self.positions.len()) as isize;
        while room > 0
            && matches!(self.queue.front(), Some(Delivery::Rows { batch, .. }) if Arc::ptr_eq(&batch.table, schema) || *batch.table == **schema)
            && let Some(Delivery::Rows { batch, ack }) = self.queue.pop_front()
        {
            room -= batch.bytes() as isize;
            taken.push((batch, ack));
        }
        taken
    }

    pub(super) fn start_encoding(&mut self, deliveries: Vec<(RowBatch, Ack)>) -> Result<(), CodedError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let stop = self.identity.shared.dead_letters.stop();
        if stop && opened.rejected > opened.progress.rejected {
            // Of an earlier process, which ended before it could say so.
            let more = opened.rejected - opened.progress.rejected;
            return Err(rejected(&opened.plan.schema.full_name(), more, "found when the channels were opened", ""));
        }
        let round = self
            .ready
            .take()
            .unwrap_or_else(|| Round::new(Arc::clone(&opened.plan), self.positions.len(), self.identity.shared.streaming.plain()));
        let done: Vec<(Token, Token)> = self.positions.iter().map(|p| (p.committed(), p.sent())).collect();
        self.encoding = Some(Box::pin(round.add(Arc::clone(&self.identity.shared), deliveries, done, stop)));
        Ok(())
    }

    pub(super) fn start_sending(&mut self, mut round: Round) -> Result<(), CodedError> {
        for delivery in &round.deliveries {
            let batch = &delivery.rows.batch;
            self.accounting.delivered = self.accounting.delivered.max(batch.last_token().unwrap_or_default());
            if self.identity.shared.options.merge {
                self.ledger.observe(&round.plan, batch, &delivery.rows.hashes, self.merged)?;
            }
        }
        self.identity.shared.http.meter.exact(round.exact);
        let parts = round.ready()?;
        let Round { plan, deliveries, refused, .. } = round;
        let nothing = refused.is_empty() && deliveries.iter().all(|delivery| delivery.sent == 0);
        let pending = deliveries.into_iter().map(Pending::new);
        if nothing {
            self.pending.extend(pending);
            return Ok(());
        }
        let pending = pending.collect();
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
        self.sending = Some((Box::pin(sending), pending));
        Ok(())
    }

    /// Opens channels again that the service called invalid, and sends what is not committed of them.
    pub(super) fn start_repair(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        self.sending = Some((Box::pin(repair_all(channels)), Vec::new()));
    }

    /// Goes on once rows are accepted.
    pub(super) fn accepted(&mut self, pending: Vec<Pending>) {
        let accepted = Instant::now();
        self.pending.extend(pending.into_iter().map(|pending| Pending { accepted, ..pending }));
        if self.poll_at.is_none() && self.polling.is_none() {
            self.poll_later();
        }
    }

    /// Sets when to ask what is committed.
    fn poll_later(&mut self) {
        let pace = &self.identity.shared.pace;
        self.poll_at = self.pending.front().map(|front| pace.next(front.accepted, Instant::now()));
    }

    pub(super) fn poll(&mut self) {
        self.poll_at = None;
        let Some(front) = self.pending.front_mut() else { return };
        front.asked += 1;
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
            position.set_broken(status.as_ref().is_none_or(|status| !status.valid), status.as_ref().is_some_and(|status| status.taken));
        }
        if total > known || opened.recovering {
            if statuses.iter().all(Option::is_some) {
                self.accounting.suspect = Some(statuses.into_iter().flatten().collect());
            } else {
                // A channel that is gone is opened again first.
                self.poll_later();
            }
            return Ok(());
        }
        for (position, status) in self.positions.iter().zip(statuses) {
            if let Some(status) = status {
                position.settle(status.committed, Some(status.rejected));
            }
        }
        self.acknowledge();
        self.poll_later();
        Ok(())
    }

    /// Goes on once it is known which rows were rejected.
    pub(super) fn accounted(&mut self, accounted: &Accounted) {
        let Some(opened) = &mut self.opened else { return };
        opened.progress.rejected = accounted.rejected;
        opened.recovering &= !accounted.whole;
        accounted.settle(&self.positions);
        self.acknowledge();
        self.poll_later();
    }

    /// Acknowledges, in order, what is committed.
    pub(super) fn acknowledge(&mut self) {
        let shared = &self.identity.shared;
        let before = self.completed;
        while let Some(front) = self.pending.front() {
            let committed = |(last, position): (&Option<Token>, &Arc<Position>)| last.is_none_or(|last| last <= position.committed());
            if !front.lasts.iter().zip(&self.positions).all(committed) {
                break;
            }
            if let Some(done) = self.pending.pop_front() {
                if done.asked > 0 {
                    shared.pace.seen(done.accepted.elapsed(), done.asked == 1);
                }
                shared.http.meter.committed(done.rows);
                self.completed += 1;
                failpoint::reach("snowflake.committed");
                done.ack.durable();
            }
        }
        if self.completed > before {
            self.channels.iter_mut().for_each(Channel::prune);
        }
        if self.pending.is_empty() {
            self.poll_at = None;
        }
    }
}
