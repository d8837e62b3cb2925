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

mod deliver;
mod merges;
mod turn;

use super::account::Accounting;
use super::channel::{Channel, Position};
use super::ledger::Ledger;
use super::merge::MergeTable;
use super::merger::{self, Merged};
use super::opening::{Identity, Opened};
use super::progress::Progress;
use super::sending::{Encoded, Round, Sent};
use super::stop::Stopped;
use super::streaming::ChannelStatus;
use crate::contract::{Ack, CodedError, Delivery, Mark, StateStore, Token, Ts};
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

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
    /// Where the source keeps its own.
    state: Arc<dyn StateStore>,
    inbox: mpsc::UnboundedReceiver<Delivery>,
    uppers: watch::Receiver<Ts>,
    /// Deliveries put into the inbox so far.
    enqueued: Arc<AtomicU64>,
    closed: bool,
    queue: VecDeque<Delivery>,
    opened: Option<Opened>,
    /// Since when and why nothing of it is taken; it is not opened then.
    stopped: Option<Stopped>,
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
    /// Whether a snapshot is to begin, and what an earlier process landed before it may lack what came with it.
    awaits_copy: bool,
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
        state: Arc<dyn StateStore>,
        inbox: mpsc::UnboundedReceiver<Delivery>,
        uppers: watch::Receiver<Ts>,
        enqueued: Arc<AtomicU64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            merge_at: now + identity.shared.options.interval,
            identity,
            state,
            inbox,
            uppers,
            enqueued,
            closed: false,
            queue: VecDeque::new(),
            opened: None,
            stopped: None,
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
            awaits_copy: false,
            candidate: None,
            merging: None,
            swept: now,
            completed: 0,
            surprises: 0,
        }
    }

    /// Takes up what an earlier process left: a stop, and what it landed and did not merge.
    pub(super) async fn resume(&mut self, progress: &Progress) -> Result<(), CodedError> {
        if let Some(stopped) = &progress.stopped {
            self.halt(stopped.clone());
        }
        if !self.identity.shared.options.merge {
            return Ok(());
        }
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
        self.awaits_copy = self.found.is_some() && self.is_to_be_copied().await?;
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
                    self.accepted(pending.unwrap_or_default());
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
            if self.encoding.is_some() || self.ready.as_ref().is_some_and(Round::full) {
                return Ok(());
            }
            let Some(front) = self.queue.front() else { return Ok(()) };
            if self.stopped.is_some() && !matches!(front, Delivery::Mark { mark: Mark::SnapshotBegin { .. }, .. }) {
                if let Some(delivery) = self.queue.pop_front() {
                    self.discard(delivery);
                }
                continue;
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
}
