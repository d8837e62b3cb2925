//! One table of one source: its deliveries in order, what is in flight of them, and its merges.
//!
//! ```text
//! inbox ──> queue ──> encoding ──> sending ──> pending ──committed──> ack
//!             │                                   │
//!             └ schema, marks: once nothing       └ all that came before an upper: merging up to its fence
//!               is in flight
//! ```
//! Deliveries are encoded, and share requests, while those before them are sent; sending does not wait for commits;
//! merges run beside both. Channels of the table encode and send at the same time.

use super::account::{Accounted, Accounting};
use super::channel::{Channel, Position};
use super::errors::SF_UNKNOWN_VALUE;
use super::ledger::{Ledger, just_before};
use super::merge::{MergeTable, Range};
use super::merger::{self, Merged};
use super::opening::{Coming, Identity, Opened, rejected};
use super::progress::Progress;
use super::sending::{Encoded, Round, Sent, TAKE, repair_all, send_all};
use super::streaming::{ChannelStatus, Pipe};
use crate::contract::{Ack, CodedError, Delivery, Mark, RowBatch, Token, Ts};
use crate::failpoint;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Time between deletions of merged landing rows past their retention.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often another process may have merged what this one was about to.
const SURPRISES: usize = 3;

/// A delivery that is sent and not acknowledged.
struct Pending {
    /// The last token of each channel that has rows of it.
    lasts: Vec<Option<Token>>,
    rows: u64,
    ack: Ack,
    accepted: Instant,
    /// How often it was asked about as the first that is not committed.
    asked: u32,
}

impl Pending {
    fn new(Encoded { lasts, sent, ack, .. }: Encoded) -> Self {
        Self { lasts, rows: sent, ack, accepted: Instant::now(), asked: 0 }
    }
}

type Statuses = Result<Vec<Option<ChannelStatus>>, CodedError>;

/// See the module.
pub(super) struct Table {
    identity: Identity,
    inbox: mpsc::UnboundedReceiver<Delivery>,
    uppers: watch::Receiver<Ts>,
    /// Deliveries put into the inbox so far.
    enqueued: Arc<AtomicU64>,
    closed: bool,
    queue: VecDeque<Delivery>,
    opened: Option<Opened>,
    /// Known before the table is opened: what an earlier process left.
    found: Option<MergeTable>,
    channels: Vec<Channel>,
    names: Vec<String>,
    positions: Vec<Arc<Position>>,
    encoding: Option<BoxFuture<'static, Result<Round, CodedError>>>,
    /// The round that goes out next; never beside `encoding`, which adds to it.
    ready: Option<Round>,
    sending: Option<(BoxFuture<'static, Sent>, Vec<Pending>)>,
    pending: VecDeque<Pending>,
    polling: Option<BoxFuture<'static, Statuses>>,
    accounting: Accounting,
    poll_at: Option<Instant>,
    ledger: Ledger,
    noted: bool,
    /// Everything up to it is merged.
    merged: Token,
    snapshot: Option<u64>,
    /// Whether a snapshot has begun and not ended: its rows may come late, and no merge may take half of it.
    snapshotting: bool,
    /// A fence, and how many deliveries must be durable for it.
    candidate: Option<(Token, u64)>,
    merging: Option<BoxFuture<'static, Result<Merged, CodedError>>>,
    merge_at: Instant,
    swept: Instant,
    completed: u64,
    /// How often another process had merged what this one was about to.
    surprises: usize,
}

/// Awaits a future that may not be there: never, then.
async fn maybe<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Table {
    /// Makes it; `inbox` brings its deliveries.
    pub(super) fn new(
        identity: Identity,
        inbox: mpsc::UnboundedReceiver<Delivery>,
        uppers: watch::Receiver<Ts>,
        enqueued: Arc<AtomicU64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            merge_at: now + identity.shared.options.interval,
            identity,
            inbox,
            uppers,
            enqueued,
            closed: false,
            queue: VecDeque::new(),
            opened: None,
            found: None,
            channels: Vec::new(),
            names: Vec::new(),
            positions: Vec::new(),
            encoding: None,
            ready: None,
            sending: None,
            pending: VecDeque::new(),
            polling: None,
            accounting: Accounting::default(),
            poll_at: None,
            ledger: Ledger::default(),
            noted: false,
            merged: Token::ZERO,
            snapshot: None,
            snapshotting: false,
            candidate: None,
            merging: None,
            swept: now,
            completed: 0,
            surprises: 0,
        }
    }

    /// Takes up what an earlier process landed and did not merge.
    pub(super) async fn resume(&mut self, progress: &Progress) -> Result<(), CodedError> {
        let shared = Arc::clone(&self.identity.shared);
        // Every table of the source asks at once.
        let _permit = shared.merges.acquire().await;
        let landing = &self.identity.places.landing;
        self.identity.note_letters().await?;
        self.found = self.identity.found(progress).await?;
        if self.found.is_some() {
            merger::load(&self.identity.shared, landing, progress.fence, &mut self.ledger).await?;
            self.noted = true;
        }
        (self.merged, self.snapshot) = (progress.fence, progress.snapshot);
        self.snapshotting = progress.snapshot.is_some() && !progress.snapshot_done;
        Ok(())
    }

    /// Works until there are no more deliveries and all that was delivered is durable and merged.
    pub(super) async fn run(mut self) -> Result<(), CodedError> {
        loop {
            self.advance().await?;
            if self.finished() {
                return Ok(());
            }
            let merges = self.merging.is_none() && self.candidate.is_none() && self.ledger.first().is_some();
            let wants_merge = merges && self.identity.shared.options.merge;
            tokio::select! {
                delivery = self.inbox.recv(), if !self.closed => match delivery {
                    Some(delivery) => self.queue.push_back(delivery),
                    None => self.closed = true,
                },
                round = maybe(self.encoding.as_mut()), if self.encoding.is_some() => {
                    self.encoding = None;
                    self.ready = Some(round?);
                }
                (channels, result) = maybe(self.sending.as_mut().map(|(sending, _)| sending)), if self.sending.is_some() => {
                    self.channels = channels;
                    let pending = self.sending.take().map(|(_, pending)| pending);
                    result?;
                    let accepted = Instant::now();
                    self.pending.extend(pending.into_iter().flatten().map(|pending| Pending { accepted, ..pending }));
                    if self.poll_at.is_none() && self.polling.is_none() {
                        self.poll_later();
                    }
                }
                statuses = maybe(self.polling.as_mut()), if self.polling.is_some() => {
                    self.polling = None;
                    self.polled(statuses?)?;
                }
                accounted = maybe(self.accounting.running.as_mut()), if self.accounting.running.is_some() => {
                    self.accounting.running = None;
                    self.accounted(&accounted?);
                }
                merged = maybe(self.merging.as_mut()), if self.merging.is_some() => {
                    self.merging = None;
                    self.merge_ended(merged?)?;
                }
                () = maybe(self.poll_at.map(sleep_until)), if self.poll_at.is_some() && self.polling.is_none() => self.poll(),
                () = sleep_until(self.merge_at), if wants_merge => self.consider_merge(),
            }
        }
    }

    /// Whether nothing is left to do. A merge that can be made now is.
    fn finished(&mut self) -> bool {
        let quiet = self.closed && self.queue.is_empty() && self.idle() && self.merging.is_none();
        if !quiet {
            return false;
        }
        let fence = self.uppers.borrow().fence();
        if self.mergeable(fence) {
            self.start_merge(fence);
            return self.merging.is_none();
        }
        true
    }

    /// Whether no row is on its way.
    fn idle(&self) -> bool {
        let sent = self.encoding.is_none() && self.ready.is_none() && self.sending.is_none();
        sent && self.pending.is_empty() && self.polling.is_none() && self.accounting.idle()
    }

    /// Starts everything that can start.
    async fn advance(&mut self) -> Result<(), CodedError> {
        loop {
            self.acknowledge();
            if let Some((fence, need)) = self.candidate
                && self.completed >= need
                && self.merging.is_none()
            {
                self.candidate = None;
                if self.mergeable(fence) {
                    self.start_merge(fence);
                }
            }
            if self.sending.is_none() {
                if let Some(opened) = &self.opened {
                    self.accounting.start(&self.identity, &self.channels, opened.progress.rejected);
                }
                if self.positions.iter().any(|p| p.broken()) {
                    self.start_repair();
                } else if let Some(round) = self.ready.take() {
                    self.start_sending(round)?;
                    if self.sending.is_none() {
                        // All of it was there already: it is acknowledged in its turn.
                        continue;
                    }
                }
            }
            if self.encoding.is_some() || self.ready.as_ref().is_some_and(Round::full) || self.queue.is_empty() {
                return Ok(());
            }
            let deliveries = self.take_up();
            if !deliveries.is_empty() {
                self.start_encoding(deliveries)?;
            } else if self.idle() && self.merging.is_none() {
                if let Some(delivery) = self.queue.pop_front() {
                    self.turn(delivery).await?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Handles what needs the table to itself.
    async fn turn(&mut self, delivery: Delivery) -> Result<(), CodedError> {
        match delivery {
            Delivery::Rows { batch, ack } => {
                if let Some(at) = batch.first_token() {
                    self.adopt(Coming { schema: &batch.table, at, replaced: false, landed: false }).await?;
                    self.queue.push_front(Delivery::Rows { batch, ack });
                } else {
                    ack.durable();
                    self.completed += 1;
                }
            }
            // The first rows under it say from where on it is in force.
            Delivery::Mark { mark: Mark::Schema { .. }, ack } => {
                ack.durable();
                self.completed += 1;
            }
            Delivery::Mark { mark, ack } => {
                let (Mark::SnapshotBegin { lsn, .. } | Mark::SnapshotEnd { lsn, .. }) = mark else { return Ok(()) };
                // The end's schema is that of rows to come, which bring it: those that have landed are of the one before.
                if self.opened.is_none() || matches!(mark, Mark::SnapshotBegin { .. }) {
                    self.adopt(Coming { schema: mark.table(), at: Token::new(lsn, 0), replaced: true, landed: false }).await?;
                }
                let Some(opened) = &mut self.opened else { return Ok(()) };
                match mark {
                    Mark::Schema { .. } => {}
                    Mark::SnapshotBegin { replaces, .. } => {
                        if let Some(removed) = self.identity.begin_snapshot(opened, &mut self.channels, lsn, replaces).await? {
                            self.ledger.removed(removed);
                        }
                        (self.snapshot, self.snapshotting) = (opened.progress.snapshot, true);
                        self.note_channels();
                    }
                    Mark::SnapshotEnd { .. } => {
                        self.identity.end_snapshot(opened, lsn).await?;
                        self.snapshotting = false;
                    }
                }
                ack.durable();
                self.completed += 1;
            }
            Delivery::Upper(_) => {}
        }
        Ok(())
    }

    /// Makes a schema the one in force. Whatever landed under the one before is merged first, as it was.
    async fn adopt(&mut self, mut coming: Coming<'_>) -> Result<(), CodedError> {
        if let Some(opened) = &self.opened {
            if *opened.plan.schema == **coming.schema {
                return Ok(());
            }
            if self.identity.changes(&opened.progress, coming)? {
                coming.landed = !self.merged_before(coming).await? && !coming.replaced;
            }
            if let Some(opened) = &mut self.opened {
                self.identity.evolve(opened, &mut self.channels, coming).await?;
            }
            return Ok(());
        }
        let mut progress = self.identity.begin(coming.schema).await?;
        self.merged = self.merged.max(progress.fence);
        self.snapshot = progress.snapshot;
        self.snapshotting = progress.snapshot.is_some() && !progress.snapshot_done;
        if self.identity.changes(&progress, coming)? {
            coming.landed = !self.merged_before(coming).await? && !coming.replaced;
            progress.fence = self.merged;
        }
        let shared = Arc::clone(&self.identity.shared);
        let _permit = shared.sends.acquire().await;
        let (opened, channels) = self.identity.open(coming, progress, &mut self.ledger, self.noted).await?;
        (self.opened, self.channels) = (Some(opened), channels);
        self.note_channels();
        Ok(())
    }

    /// As [`Self::merge_before`]; values that are not known are not asked for when a snapshot replaces all rows.
    async fn merged_before(&mut self, coming: Coming<'_>) -> Result<bool, CodedError> {
        match self.merge_before(coming.at).await {
            Err(error) if coming.replaced && error.code == SF_UNKNOWN_VALUE => Ok(false),
            merged => merged,
        }
    }

    /// Merges what landed before a row, be it in the middle of a transaction. Nothing of the table is in flight.
    /// Says whether all of it is merged.
    async fn merge_before(&mut self, at: Token) -> Result<bool, CodedError> {
        let fence = just_before(at);
        while self.mergeable(fence) {
            self.start_merge(fence);
            let Some(merging) = self.merging.take() else { break };
            let merged = merging.await?;
            self.merge_ended(merged)?;
        }
        Ok(!self.identity.shared.options.merge || !self.ledger.ripe(fence))
    }

    fn note_channels(&mut self) {
        self.names = self.channels.iter().map(|c| c.name().to_owned()).collect();
        self.positions = self.channels.iter().map(|c| Arc::clone(c.position())).collect();
    }

    /// Rows under the schema in force from the front of the queue, as many as are encoded at once.
    fn take_up(&mut self) -> Vec<(RowBatch, Ack)> {
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

    fn start_encoding(&mut self, deliveries: Vec<(RowBatch, Ack)>) -> Result<(), CodedError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let stop = self.identity.shared.dead_letters.stop();
        if stop && opened.rejected > opened.progress.rejected {
            // Of an earlier process, which ended before it could say so.
            let more = opened.rejected - opened.progress.rejected;
            return Err(rejected(&opened.plan.schema.full_name(), more, "found when the channels were opened", ""));
        }
        let round = self.ready.take().unwrap_or_else(|| Round::new(Arc::clone(&opened.plan), self.positions.len()));
        let done: Vec<(Token, Token)> = self.positions.iter().map(|p| (p.committed(), p.sent())).collect();
        self.encoding = Some(Box::pin(round.add(Arc::clone(&self.identity.shared), deliveries, done, stop)));
        Ok(())
    }

    fn start_sending(&mut self, mut round: Round) -> Result<(), CodedError> {
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
    fn start_repair(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        self.sending = Some((Box::pin(repair_all(channels)), Vec::new()));
    }

    /// Sets when to ask what is committed.
    fn poll_later(&mut self) {
        let pace = &self.identity.shared.pace;
        self.poll_at = self.pending.front().map(|front| pace.next(front.accepted, Instant::now()));
    }

    fn poll(&mut self) {
        self.poll_at = None;
        let Some(front) = self.pending.front_mut() else { return };
        front.asked += 1;
        let landing = &self.identity.places.landing;
        let pipe = Pipe::of(&landing.database, &landing.schema, &landing.table);
        let (shared, names) = (Arc::clone(&self.identity.shared), self.names.clone());
        self.polling = Some(Box::pin(async move { shared.streaming.statuses(&pipe, &names).await }));
    }

    fn polled(&mut self, statuses: Vec<Option<ChannelStatus>>) -> Result<(), CodedError> {
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
    fn accounted(&mut self, accounted: &Accounted) {
        let Some(opened) = &mut self.opened else { return };
        opened.progress.rejected = accounted.rejected;
        opened.recovering &= !accounted.whole;
        accounted.settle(&self.positions);
        self.acknowledge();
        self.poll_later();
    }

    /// Acknowledges, in order, what is committed.
    fn acknowledge(&mut self) {
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

    fn mergeable(&self, fence: Token) -> bool {
        self.identity.shared.options.merge && !self.snapshotting && fence > self.merged && self.ledger.ripe(fence)
    }

    /// Notes what a merge now would cover, or looks again later.
    fn consider_merge(&mut self) {
        // The upper first: every delivery that it speaks of is then in the count.
        let fence = self.uppers.borrow().fence();
        let need = self.enqueued.load(Ordering::Acquire);
        self.merge_at = Instant::now() + self.identity.shared.options.interval;
        if self.mergeable(fence) {
            self.candidate = Some((fence, need));
        }
    }

    fn start_merge(&mut self, fence: Token) {
        let Some(table) = self.opened.as_ref().map(|o| o.merge.clone()).or_else(|| self.found.clone()) else { return };
        let options = &self.identity.shared.options;
        let range = Range { from: self.merged, fence, snapshot: self.snapshot, delete_landed: options.retention.is_zero() };
        let statements = merger::planned(&table, &self.ledger, range);
        let sweep = (!options.retention.is_zero() && self.swept.elapsed() >= SWEEP).then_some(options.retention);
        if sweep.is_some() {
            self.swept = Instant::now();
        }
        self.merging = Some(Box::pin(merger::merge(Arc::clone(&self.identity.shared), table, statements, range, sweep)));
    }

    fn merge_ended(&mut self, merged: Merged) -> Result<(), CodedError> {
        self.merge_at = Instant::now() + self.identity.shared.options.interval;
        match merged {
            Merged::Upto(fence) => {
                self.merged = fence;
                self.ledger.merged(fence);
                Ok(())
            }
            // A process that ended may have had a merge under way, and a table that is known from bookkeeping
            // alone may be another worker's: what they merged needs no merging. Two that go on are a mistake.
            Merged::Elsewhere(fence) => {
                self.surprises += usize::from(self.opened.is_some());
                if fence <= self.merged || self.surprises > SURPRISES {
                    return Err(merger::elsewhere(&self.identity.places.target, fence));
                }
                self.merged = fence;
                self.ledger.merged(fence);
                Ok(())
            }
        }
    }
}
