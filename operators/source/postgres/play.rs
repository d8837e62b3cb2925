//! Plays a stream that no server sends: payloads that another source has are framed and assembled as a server's are.
//!
//! ```text
//! bytes of COPY ──> snapshot::tuples ──┐
//!                                      ├──Chunk──> dataflow
//! payloads ──> frame ──> assemble ─────┘              │
//!     ^                                               │
//!     └───────────── reached (state) <── Durable ─────┘
//! ```
//! # Guarantees
//! What is durable is noted, at the latest a second after. A run starts there: it gives nothing before it, and what came
//! after it, with the same tokens as before, so that sinks drop what they have. A state of another stream is refused. A copy
//! that did not finish is replaced as a whole. Bytes are made when there is credit for them.

use super::assemble::{Assembler, StreamError};
use super::credit::Held;
use super::frame::{self, DATA_HEADER, Frame, FrameError};
use super::run::stopped;
use super::snapshot;
use super::snapshot::tuples::{TupleError, Tuples};
use super::stream::{PROGRESS_EVERY, READ_MOST};
use crate::contract::{
    Chunk, ChunkSender, Code, CodedError, Commit, Credits, Durable, Exit, Format, Item, Mark, Phase, RawItem, RawRow, RawRows,
    SourceClosed, SourceContext, SourceStatus, StateKey, StateStore, TableSchema, Ts,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state is of another stream.
pub(crate) const OTHER_STREAM: Code = Code::new("REC0004", Exit::Environment);

/// How often what is durable is noted.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Played {
    /// What the stream is.
    stream: String,
    /// Every transaction that commits before it is durable.
    reached: u64,
    /// Copies begun; the last one's rows have it as their LSN.
    attempts: u64,
}

/// One read of a stream.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    /// The bytes, with or without the frames around the payloads.
    pub(crate) bytes: Bytes,
    /// Start and end of each payload.
    pub(crate) messages: Vec<(u32, u32)>,
}

/// A source's end of the dataflow.
pub(crate) struct Player {
    out: Option<Box<dyn ChunkSender>>,
    durable: watch::Receiver<Durable>,
    credits: Credits,
    store: Arc<dyn StateStore>,
    key: StateKey,
    status: Arc<SourceStatus>,
    stop: watch::Receiver<bool>,
    played: Played,
    /// A note on its way.
    noting: Option<JoinHandle<Result<(), CodedError>>>,
    noted: Instant,
    assembler: Assembler,
    sent: Ts,
    told: Option<Instant>,
}

impl Player {
    /// The bytes that one [`Player::room`] is for.
    pub(crate) const ROOM: usize = READ_MOST;
    /// How far below a stream's beginning the rows of its copies stand, the first attempt's one above that.
    pub(crate) const ATTEMPTS: u64 = 1 << 16;

    /// Starts to play a stream that ends at `end`; nothing: it does not.
    ///
    /// # Errors
    /// `REC0004` when the state is of another stream.
    pub(crate) fn start(cx: SourceContext, stream: String, end: Option<u64>) -> Result<Self, CodedError> {
        let key = StateKey::node(&cx.pipeline, &cx.source);
        let other = || {
            CodedError::definite(OTHER_STREAM, format!("the state of source \"{}\" is of another stream than {stream}", cx.source))
                .hint("give the source another name, or start with a new state file")
        };
        let played = match cx.state.load(&key)? {
            Some(document) => serde_json::from_value::<Played>(document).map_err(|e| other().caused_by(e))?,
            None => Played { stream: stream.clone(), ..Played::default() },
        };
        if played.stream != stream {
            return Err(other());
        }
        cx.source_status.server_lsn.store(end.unwrap_or(1), Ordering::Relaxed);
        let mut assembler = Assembler::new();
        assembler.start(played.reached);
        assembler.reached(Ts::new(played.reached, 0));
        Ok(Self {
            out: Some(cx.out),
            durable: cx.durable,
            credits: cx.credits,
            store: cx.state,
            key,
            status: cx.source_status,
            stop: cx.stop,
            played,
            noting: None,
            noted: Instant::now(),
            assembler,
            sent: Ts::default(),
            told: None,
        })
    }

    /// Every transaction that commits before it is durable already.
    pub(crate) fn reached(&self) -> u64 {
        self.played.reached
    }

    /// Whether the source is to stop.
    pub(crate) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits for a moment. False: the source is to stop.
    pub(crate) async fn until(&mut self, moment: Instant) -> Result<bool, CodedError> {
        self.note().await?;
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stopped(&mut stop) => Ok(false),
            () = tokio::time::sleep_until(moment.into()) => Ok(true),
        }
    }

    /// Waits for credit for [`Player::ROOM`] bytes.
    pub(crate) async fn room(&mut self) -> Result<Held, CodedError> {
        self.note().await?;
        Ok(Held::take(&self.credits, READ_MOST as u32).await)
    }

    /// Starts the stream.
    pub(crate) fn stream(&mut self) -> Result<(), CodedError> {
        self.status.set_phase(Phase::Streaming, None);
        self.send(None)
    }

    /// Frames, assembles and sends one read. `table` gives the schema that a relation's message stands for.
    ///
    /// # Errors
    /// `PG0021` when the payloads do not follow the protocol; `table`'s.
    pub(crate) async fn take(
        &mut self,
        read: &Payloads,
        mut held: Held,
        mut table: impl FnMut(&frame::Relation) -> Result<Arc<TableSchema>, CodedError>,
    ) -> Result<(), CodedError> {
        self.status.bytes.fetch_add(read.bytes.len() as u64, Ordering::Relaxed);
        held.settle(read.bytes.len()).await;
        for (start, end) in &read.messages {
            let payload = read.bytes.get(*start as usize..*end as usize);
            let payload = payload.ok_or(StreamError::Frame(FrameError::Truncated("payload")))?;
            match frame::parse(payload).map_err(StreamError::from)? {
                Frame::Relation(relation) => {
                    let schema = table(&relation)?;
                    self.status.table(&schema.full_name(), |table| table.phase = Phase::Streaming);
                    self.assembler.relation(relation.id, Some(schema));
                }
                frame => self.assembler.frame(&frame, &read.bytes, start.saturating_add(DATA_HEADER as u32), *end)?,
            }
        }
        self.send(Some(held))
    }

    fn send(&mut self, held: Option<Held>) -> Result<(), CodedError> {
        let made = self.assembler.finish();
        self.status.changes.fetch_add(made.changes, Ordering::Relaxed);
        self.status.transactions.fetch_add(made.transactions, Ordering::Relaxed);
        if let Some((_, lsn)) = made.confirm {
            self.status.received_lsn.fetch_max(lsn, Ordering::Relaxed);
        }
        let recently = self.told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY);
        if made.items.is_empty() && (made.upper <= self.sent || recently) {
            return Ok(());
        }
        (self.sent, self.told) = (made.upper, Some(Instant::now()));
        let credit = held.filter(|_| !made.items.is_empty()).map_or(0, Held::hand_over);
        self.give(Chunk { items: made.items, upper: made.upper, credit })
    }

    fn give(&mut self, chunk: Chunk) -> Result<(), CodedError> {
        let out = self.out.as_mut().ok_or(SourceClosed).map_err(snapshot::closed)?;
        out.send(chunk).map_err(snapshot::closed)
    }

    /// Copies a table whose `COPY … (FORMAT binary)` comes piece by piece from `next`, and waits until it is durable. Its
    /// rows stand below `stream`, where the stream begins. Nothing happens when it is durable already. False: the source
    /// is to stop.
    ///
    /// # Errors
    /// `PG0022` when the bytes are no binary copy.
    pub(crate) async fn copy(
        &mut self,
        table: &Arc<TableSchema>,
        time: i64,
        stream: u64,
        mut next: impl FnMut() -> Option<Vec<u8>>,
    ) -> Result<bool, CodedError> {
        if self.played.reached >= stream {
            return Ok(true);
        }
        let broken = |e: TupleError| CodedError::definite(super::codes::COPY, format!("copying table \"{}\": {e}", table.full_name()));
        self.played.attempts += 1;
        self.store.store(&[self.document()])?;
        let first = stream - Self::ATTEMPTS + 1;
        let lsn = (first + self.played.attempts - 1).min(stream - 1);
        let replaces = (lsn > first).then_some(first);
        let name = table.full_name();
        self.status.set_phase(Phase::Snapshot, None);
        self.status.table(&name, |table| table.phase = Phase::Snapshot);
        self.give(Chunk { items: Vec::new(), upper: Ts::new(lsn, 0), credit: 0 })?;
        let begin = Mark::SnapshotBegin { table: Arc::clone(table), lsn, replaces };
        self.give(Chunk { items: vec![RawItem::Ready(Item::Mark(begin))], upper: Ts::new(lsn, 1), credit: 0 })?;
        let mut tuples = Tuples::new(READ_MOST + READ_MOST / 8);
        let mut rows = 0_u64;
        while !self.stopping() {
            let mut held = Held::take(&self.credits, READ_MOST as u32).await;
            let Some(bytes) = next() else { break };
            tuples.push(&bytes).map_err(broken)?;
            let (bytes, places) = tuples.take();
            let count = places.len() as u64;
            let made = places.into_iter().zip(rows..).map(|((start, end), ordinal)| RawRow { start, end, commit: 0, ordinal });
            self.status.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            held.settle(bytes.len()).await;
            rows += count;
            let raw = RawRows {
                table: Arc::clone(table),
                format: Format::CopyBinary,
                bytes,
                commits: vec![Commit { lsn, time }],
                rows: made.collect(),
            };
            self.status.table(&name, |table| table.snapshot_rows += count);
            // At least one more than the rows sent: the upper of a chunk lies past its rows' tokens.
            self.give(Chunk { items: vec![RawItem::Raw(raw)], upper: Ts::new(lsn, rows + 1), credit: held.hand_over() })?;
        }
        if self.stopping() {
            return Ok(false);
        }
        tuples.end().map_err(broken)?;
        let end = RawItem::Ready(Item::Mark(Mark::SnapshotEnd { table: Arc::clone(table), lsn }));
        self.give(Chunk { items: vec![end], upper: Ts::new(lsn, rows + 1), credit: 0 })?;
        self.give(Chunk { items: Vec::new(), upper: Ts::after(lsn), credit: 0 })?;
        self.assembler.sent_as(table);
        self.assembler.start(stream);
        self.assembler.reached(Ts::after(lsn));
        self.status.received_lsn.fetch_max(stream, Ordering::Relaxed);
        Ok(true)
    }

    /// Ends the stream, waits until all of it is durable and notes that.
    pub(crate) async fn finish(mut self) -> Result<(), CodedError> {
        self.told = None;
        self.send(None)?;
        self.out = None;
        self.noted().await?;
        // The engine's end is gone when the pipeline failed: what is noted stays as it is.
        if self.durable.wait_for(|durable| durable.finished).await.is_ok() {
            self.played.reached = self.played.reached.max(self.sent.lsn);
            self.store.store(&[self.document()])?;
        }
        self.status.set_phase(Phase::Stopped, None);
        Ok(())
    }

    /// Notes what is durable, once in a while and beside the playing: a disk's pause is none of the stream's.
    async fn note(&mut self) -> Result<(), CodedError> {
        let upper = self.durable.borrow().upper;
        self.status.confirmed_lsn.fetch_max(upper.lsn, Ordering::Relaxed);
        // Within a copy nothing is done before all of it is.
        let copying = self.status.phase().0 == Phase::Snapshot;
        let busy = self.noting.as_ref().is_some_and(|noting| !noting.is_finished());
        if upper.lsn <= self.played.reached || copying || busy || self.noted.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        self.noted().await?;
        self.played.reached = upper.lsn;
        let (store, change) = (Arc::clone(&self.store), self.document());
        self.noting = Some(tokio::task::spawn_blocking(move || store.store(&[change])));
        self.noted = Instant::now();
        Ok(())
    }

    /// Waits for a note on its way.
    async fn noted(&mut self) -> Result<(), CodedError> {
        match self.noting.take() {
            Some(noting) => noting.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())),
            None => Ok(()),
        }
    }

    fn document(&self) -> (StateKey, Option<serde_json::Value>) {
        (self.key.clone(), Some(serde_json::to_value(&self.played).expect("plain data becomes JSON")))
    }
}
