//! Tables that are new while the source runs join the stream; those that are gone leave it.
//!
//! ```text
//!            survey ──new, made anew, published again, asked for──> side: describe
//! stream ──position past what was given of them──> X: noted, SnapshotBegin ──> side: copy, follow
//!        ──where the side stream has passed it──> Q: SnapshotEnd; changes from Q on are the stream's
//!        ──durable up to Q──> noted: streaming
//! ```
//! # Guarantees
//! - Until the hand-over the stream drops the tables' changes and counts them, so that tokens stay the same; from Q
//!   on it gives them, in every later run too. Each change comes once, and a table's tokens rise.
//! - A copy counts only when everything up to Q is durable in every sink and that is noted. Before that it starts
//!   again from nothing, and says from which attempt on the sinks remove what they have.
//! - The stream goes on beside all of it. It pauses only when the side stream is close behind, and then for a moment;
//!   a copy that fails is tried again and stops nothing; what it has in flight takes at most half of the credit.

mod choose;

use super::assemble::Assembler;
use super::catalog::Published;
use super::config::SnapshotMode;
use super::connect::Endpoint;
use super::report::POSITION_EVERY;
use super::run::Run;
use super::side::Said;
use super::state::{Stage, TableProgress};
use super::stream::{Known, Session};
use super::survey::Surveyed;
use crate::contract::{Chunk, CodedError, Credits, Durable, Item, Lsn, Mark, Phase, RawItem, TableSchema, TableStatus, Ts, next_together};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// How close behind the stream the side stream must be for the stream to wait: bytes of log.
const NEAR: u64 = 1 << 20;
/// The longest wait, and the least time before the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks, at least.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The first and the longest time before a copy that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Credit that a copy can always have.
const LEAST_CREDIT: usize = 512 << 10;
/// No commit at all.
const NONE: (u64, u64) = (u64::MAX, u64::MAX);

/// The time of what was sent last. Never goes back; chunks beside the stream move it by the least that counts, and
/// never to another LSN.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock(Ts);

impl Clock {
    /// The upper of a chunk of the stream.
    pub(super) fn main(&mut self, upper: Ts) -> Ts {
        self.0 = self.0.max(upper);
        self.0
    }

    /// The upper of a chunk beside it, sent at the stream's time.
    fn side(&mut self) -> Ts {
        self.0.seq = self.0.seq.saturating_add(1);
        self.0
    }
}

/// Tables that were handed over.
pub(super) struct Handed {
    /// Everything of them up to the hand-over is durable when everything before this is.
    upper: Ts,
    tables: BTreeMap<String, TableProgress>,
}

/// What happens beside the stream.
pub(super) enum Event {
    /// It is time to look for new tables.
    Due,
    Surveyed(Result<Surveyed, CodedError>),
    Said(Said),
    Failed(CodedError),
    Durable(Ts),
}

/// Tables on their way.
struct Join {
    tables: Vec<Published>,
    /// The task; ends with this.
    task: JoinSet<Result<(), CodedError>>,
    said: mpsc::UnboundedReceiver<Said>,
    go: Option<oneshot::Sender<u64>>,
    /// The schemas, and what the stream must have reached, until it has.
    described: Option<(Vec<Arc<TableSchema>>, u64)>,
    /// X.
    lsn: u64,
    /// How far the side stream is.
    followed: Option<u64>,
    /// When it came near.
    near: Option<Instant>,
    share: Credits,
    in_flight: VecDeque<(Ts, u32)>,
}

/// What a session does beside its stream.
pub(super) struct Joins {
    durable: watch::Receiver<Durable>,
    /// Whether something waits to be durable.
    waits: bool,
    /// One look at the most. A task: it has a connection of the budget, which the stream may be waiting for.
    surveying: JoinSet<Result<Surveyed, CodedError>>,
    look_at: Instant,
    looked: Option<Instant>,
    /// When it was seen that no table is to be copied anew.
    no_requests: Option<Instant>,
    /// What was visible before the last look, if that left nothing to do.
    settled: Option<Arc<str>>,
    current: Option<Join>,
    /// No copy starts before.
    retry_at: Instant,
    delay: Duration,
    /// Tables whose copy cannot work for now.
    aside: BTreeMap<String, Instant>,
    /// No table is added to the publication before.
    add_at: Instant,
    /// What the user was told of.
    told: BTreeSet<String>,
}

impl Joins {
    pub(super) fn new(durable: watch::Receiver<Durable>) -> Self {
        let now = Instant::now();
        Self {
            durable,
            waits: true,
            surveying: JoinSet::new(),
            look_at: now,
            looked: None,
            no_requests: None,
            settled: None,
            current: None,
            retry_at: now,
            delay: RETRY.0,
            aside: BTreeMap::new(),
            add_at: now,
            told: BTreeSet::new(),
        }
    }

    /// What happens next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        let (idle, look_at) = (self.surveying.is_empty(), self.look_at);
        tokio::select! {
            Some(found) = self.surveying.join_next() => {
                Event::Surveyed(found.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
            }
            () = sleep_until(look_at), if idle => Event::Due,
            event = async { match &mut self.current { Some(join) => join.next().await, None => pending().await } } => event,
            // A pipeline that is gone is noticed by the next chunk.
            Ok(()) = self.durable.changed(), if self.waits => Event::Durable(self.durable.borrow_and_update().upper),
            else => pending().await,
        }
    }

    /// Looks for new tables before long, whatever the server said last.
    fn soon(&mut self) {
        self.settled = None;
        let earliest = self.looked.map_or_else(Instant::now, |looked| looked + LOOK_AGAIN);
        self.look_at = self.look_at.min(earliest);
    }
}

impl Join {
    async fn next(&mut self) -> Event {
        if let Some(said) = self.said.recv().await {
            return Event::Said(said);
        }
        match self.task.join_next().await {
            Some(Ok(Err(error))) => Event::Failed(error),
            Some(Err(panic)) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            _ => pending().await,
        }
    }

    fn landed(&mut self, upper: Ts) {
        while let Some((reaches, credit)) = self.in_flight.front()
            && *reaches <= upper
        {
            self.share.landed(*credit);
            self.in_flight.pop_front();
        }
    }

    /// How long the stream waits for the side stream.
    fn pause(&mut self, stream: &Assembler) -> Duration {
        let near = self.followed.and_then(|before| stream.next_commit().checked_sub(before)).filter(|behind| (1..=NEAR).contains(behind));
        if near.is_none() {
            self.near = None;
            return Duration::ZERO;
        }
        let waited = self.near.get_or_insert_with(Instant::now).elapsed();
        if waited >= 2 * PAUSE {
            self.near = None;
        }
        PAUSE.saturating_sub(waited)
    }
}

impl Run {
    fn endpoint(&self) -> Result<Endpoint, CodedError> {
        self.connect.resolve(&self.folder)
    }

    /// The tables that are known, and which of their changes the stream gives.
    pub(super) fn windows(&self) -> Result<Known, CodedError> {
        let mut tables = self.documents().tables()?;
        tables.extend(self.handed.iter().flat_map(|handed| handed.tables.clone()));
        Ok(tables.into_iter().map(|(name, table)| (name, (table.relation, table.window()))).collect())
    }

    /// Notes the tables whose copy is durable.
    pub(super) fn joined(&mut self, upper: Ts) -> Result<(), CodedError> {
        while let Some(at) = self.handed.iter().position(|handed| handed.upper <= upper) {
            self.documents().change(&self.handed[at].tables, &[])?;
            for name in self.handed.swap_remove(at).tables.keys() {
                self.status.table(name, |table| table.phase = Phase::Streaming);
                info!(table = name, "the table's copy is complete and durable: it is part of the stream");
            }
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Handles what happened beside the stream.
    pub(super) fn on(&mut self, event: Event) -> Result<(), CodedError> {
        match event {
            Event::Due if self.nothing_new()? => {
                self.joins.look_at = next_together(POSITION_EVERY);
            }
            Event::Due => self.look()?,
            Event::Surveyed(Ok(found)) => self.surveyed(found)?,
            // A lost connection ends the session anyway.
            Event::Surveyed(Err(error)) => warn!(%error, "new tables were not looked for"),
            Event::Said(said) => self.said(said)?,
            Event::Failed(error) => self.failed(error),
            Event::Durable(upper) => {
                if let Some(join) = &mut self.joins.current {
                    join.landed(upper);
                }
                let before = self.run.handed.len();
                self.run.joined(upper)?;
                if self.run.handed.len() < before {
                    self.joins.look_at = Instant::now();
                }
            }
        }
        self.joins.waits = self.joins.current.is_some() || !self.run.handed.is_empty();
        Ok(())
    }

    /// How long the stream waits for what comes beside it: mostly it does not.
    pub(super) fn pause(&mut self) -> Duration {
        self.joins.current.as_mut().map_or(Duration::ZERO, |join| join.pause(&self.run.assembler))
    }

    /// Which changes of a relation the stream gives.
    pub(super) fn window(&mut self, id: u32, name: &str) -> (u64, u64) {
        match self.known.get(name) {
            Some((known, window)) if *known == id => *window,
            _ if self.run.settings.snapshot.mode == SnapshotMode::Never => (0, u64::MAX),
            _ => {
                self.joins.soon();
                NONE
            }
        }
    }

    fn limit(&mut self, name: &str, id: u32, window: (u64, u64)) {
        self.known.insert(name.to_owned(), (id, window));
        self.run.assembler.limit(id, window);
    }

    fn said(&mut self, said: Said) -> Result<(), CodedError> {
        let Some(join) = &mut self.joins.current else { return Ok(()) };
        match said {
            Said::Described { schemas, after } => {
                join.described = Some((schemas, after));
                self.announce()
            }
            Said::Rows { items, held } => {
                let (upper, credit) = (self.run.clock.side(), held.hand_over());
                join.in_flight.push_back((upper, credit));
                self.run.send(Chunk { items, upper, credit })
            }
            Said::Followed { before, schemas } => {
                join.followed = Some(before);
                if before >= self.run.assembler.next_commit() { self.hand_over(before, schemas) } else { Ok(()) }
            }
        }
    }

    /// Announces the copy once the stream stands, between transactions, past all that was ever given of the tables.
    pub(super) fn announce(&mut self) -> Result<(), CodedError> {
        let Some(join) = &mut self.joins.current else { return Ok(()) };
        let Some(position) = self.run.assembler.between() else { return Ok(()) };
        let Some((schemas, _)) = join.described.take_if(|(_, after)| *after <= position) else { return Ok(()) };
        join.lsn = position.max(self.run.clock.0.lsn);
        let (lsn, documents) = (join.lsn, self.run.documents().tables()?);
        let names: Vec<String> = join.tables.iter().map(Published::full_name).collect();
        let mut changes = BTreeMap::new();
        let mut marks = Vec::new();
        for ((table, name), schema) in join.tables.iter().zip(&names).zip(schemas) {
            let before = documents.get(name);
            let replaces = before.and_then(|before| before.attempt_lsn);
            let copying = TableProgress {
                stage: Stage::Copying,
                attempt_lsn: Some(replaces.map_or(lsn, |attempt| attempt.min(lsn))),
                ..TableProgress::streaming(table.id, Some(table.membership), before.and_then(|before| before.snapshot_lsn))
            };
            changes.insert(name.clone(), copying);
            marks.push(RawItem::Ready(Item::Mark(Mark::SnapshotBegin { table: schema, lsn, replaces })));
            self.run.status.table(name, |status| status.phase = Phase::Snapshot);
        }
        // Noted before the sinks know: an attempt of which nobody knew could not be removed.
        self.run.documents().change(&changes, &names)?;
        let go = join.go.take();
        changes.into_iter().for_each(|(name, table)| self.limit(&name, table.relation, NONE));
        let upper = self.run.clock.side();
        self.run.send(Chunk { items: marks, upper, credit: 0 })?;
        // A task that has ended says why by itself.
        go.map(|go| go.send(lsn));
        Ok(())
    }

    /// The stream takes over from `before` on, which it has not reached.
    fn hand_over(&mut self, before: u64, schemas: Vec<Arc<TableSchema>>) -> Result<(), CodedError> {
        let Some(join) = self.joins.current.take() else { return Ok(()) };
        let mut tables = BTreeMap::new();
        for table in &join.tables {
            let name = table.full_name();
            self.limit(&name, table.id, (before, u64::MAX));
            let streaming = TableProgress::streaming(table.id, Some(table.membership), Some(join.lsn));
            tables.insert(name, TableProgress { from_lsn: Some(before), ..streaming });
        }
        schemas.iter().for_each(|schema| self.run.assembler.sent_as(schema));
        let end = |table| RawItem::Ready(Item::Mark(Mark::SnapshotEnd { table, lsn: join.lsn }));
        let upper = self.run.clock.side();
        self.run.send(Chunk { items: schemas.into_iter().map(end).collect(), upper, credit: 0 })?;
        info!(tables = tables.len(), lsn = %Lsn(before), "the stream takes new tables over");
        // Up to there also where a sink merges by the stream's time.
        self.run.handed.push(Handed { upper: upper.max(Ts::new(before, 0)), tables });
        (self.joins.delay, self.joins.retry_at) = (RETRY.0, Instant::now());
        Ok(())
    }

    /// A copy failed: later again. The stream does not stop for it.
    fn failed(&mut self, error: CodedError) {
        let Some(join) = self.joins.current.take() else { return };
        let now = Instant::now();
        let names: Vec<String> = join.tables.iter().map(Published::full_name).collect();
        if error.is_transient() {
            self.joins.retry_at = now + self.joins.delay;
            self.joins.look_at = self.joins.look_at.min(self.joins.retry_at);
            self.joins.delay = (self.joins.delay * 2).min(RETRY.1);
        } else {
            self.joins.aside.extend(names.iter().map(|name| (name.clone(), now + RETRY.1)));
            self.joins.look_at = now;
        }
        warn!(code = error.code.id, hint = error.hint, tables = names.join(", "), "copying new tables failed and is tried again: {error}");
        let error = Arc::new(error);
        let failed = |status: &mut TableStatus| {
            status.phase = Phase::Retrying;
            status.failed = (!error.is_transient()).then(|| Arc::clone(&error));
        };
        names.iter().for_each(|name| self.run.status.table(name, failed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_beside_the_stream() {
        let mut clock = Clock::default();
        assert_eq!(clock.main(Ts::new(5, 4)), Ts::new(5, 4));
        assert_eq!((clock.side(), clock.side()), (Ts::new(5, 5), Ts::new(5, 6)));
        // a transaction goes on below: its rows are not late, since nothing but the order within an LSN is
        assert_eq!(clock.main(Ts::new(5, 6)), Ts::new(5, 6));
        assert_eq!(clock.main(Ts::after(5)), Ts::after(5));
    }
}
