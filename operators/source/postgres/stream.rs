//! The stream: reads pgoutput, frames it, sends chunks.
//!
//! ```text
//! credit ──> read ──> frame ──> assemble ──Chunk──> dataflow
//!                       │ Relation: a look-up on the side connection
//!                       │ a transaction in progress: `streamed`
//! ```
//! What comes beside the stream (`join`) is handled between its reads, and while it waits.
//!
//! # Guarantees
//! Bytes are read after credit for them was taken; pausing is not reading. A read that gave no selected row
//! still moves time. On `stop` the stream ends in good order: what is durable is confirmed before it closes.
//!
//! Hot path: see `frame` and `assemble`.

use super::catalog::Catalog;
use super::connect::{ReadChunk, Replication, ReplicationReader};
use super::control::Control;
use super::credit::Held;
use super::frame::{self, DATA_HEADER, Frame};
use super::hold::Hold;
use super::join::Joins;
use super::quote::{identifier, replication_literal};
use super::report::{self, Notes, Reporter};
use super::run::{Run, resumed, stopped, within};
use super::setup::Server;
use super::{assemble::StreamError, codes, snapshot};
use crate::contract::{Chunk, CodedError, Lsn, Phase, TableSchema, Ts};
use crate::failpoint;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tracing::info;

/// Bytes read at a time while there is much.
pub(super) const READ_MOST: usize = 256 << 10;
/// Bytes read at a time, and credit held, while there is little.
pub(super) const READ_LEAST: usize = 16 << 10;
/// How often a chunk without rows is sent.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// How long the server may take to end the stream.
const CLOSE: Duration = Duration::from_secs(5);

/// What streaming starts from.
pub(super) struct Prepared {
    pub server: Server,
    pub control: Control,
    pub replication: Replication,
    /// Where the server is asked to start.
    pub start: u64,
    /// Tables that were there at the start.
    pub known: Known,
}

/// Tables by `schema.table`: the object id, and the commits whose changes the stream gives.
pub(super) type Known = BTreeMap<String, (u32, (u64, u64))>;

/// The command that starts the stream: with the highest protocol that the server has, and transactions in progress
/// where it can send them. `two_phase` is not asked for, so that prepared transactions come at their commit.
pub(super) fn command(slot: &str, publication: &str, start: u64, version: u32, streaming: bool) -> String {
    let protocol = match version {
        0..140_000 => 1,
        140_000..150_000 => 2,
        150_000..160_000 => 3,
        _ => 4,
    };
    let streaming = if streaming && protocol > 1 { ", streaming 'on'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{protocol}', publication_names {}{streaming})",
        identifier(slot),
        Lsn(start),
        replication_literal(&identifier(publication))
    )
}

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rested {
    /// The source is to go on.
    Resumed,
    /// It is to stop.
    Stopped,
}

/// The reading side of one session.
pub(super) struct Session<'a> {
    pub run: &'a mut Run,
    pub control: Control,
    pub server: Server,
    /// Transactions in progress.
    pub hold: Hold,
    bell: Arc<Notify>,
    pub known: Known,
    pub joins: Joins,
    /// How far chunks have reached.
    sent: Ts,
    told: Option<Instant>,
}

impl Run {
    /// Streams until stopped, or until something fails.
    pub(super) async fn stream(&mut self, prepared: Prepared) -> Result<(), CodedError> {
        let Prepared { server, control, replication, start, known } = prepared;
        let settings = &self.settings;
        let command = command(&settings.slot, &settings.publication, start, server.version, settings.streaming);
        let started = within(settings.receive_timeout, "starting to stream", replication.start(&command)).await?;
        let (mut reader, writer) = started.split();
        self.confirm.lock().unwrap_or_else(PoisonError::into_inner).start(start);
        self.assembler.start(start);
        // New tables have not been looked for yet.
        self.status.joining.fetch_max(1, Ordering::Relaxed);
        self.status.set_phase(Phase::Streaming, None);
        for (table, (.., (from, until))) in &known {
            let phase = if *until < u64::MAX { Phase::Removed } else { Phase::Streaming };
            self.status.table(table, |table| table.phase = if *from == u64::MAX { Phase::Starting } else { phase });
        }
        info!(slot = self.settings.slot, lsn = %Lsn(start), "streaming");
        let hold = Hold::new(&self.settings.spill, &self.settings.spill_name, Arc::clone(&self.status));
        let bell = Arc::new(Notify::new());
        let (finish, finished) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let reporter = Reporter {
            writer,
            confirm: Arc::clone(&self.confirm),
            durable: self.durable.clone(),
            status: Arc::clone(&self.status),
            every: report::pace(server.sender_timeout),
            quiet: report::quiet_pace(server.sender_timeout, self.settings.receive_timeout),
            note: Some(self.note()),
            notes: Notes::new(self.documents().confirmed()?.unwrap_or(0)),
            bell: Arc::clone(&bell),
        };
        tasks.spawn(reporter.run(finished));
        let (beat, standby, status) = (self.settings.heartbeat.0, server.standby, Arc::clone(&self.status));
        tasks.spawn(report::heartbeat(control.clone(), beat, standby, status, self.settings.receive_timeout));
        let joins = Joins::new(self.durable.clone());
        let mut session = Session { run: self, control, server, hold, bell, known, joins, sent: Ts::default(), told: None };
        session.read(&mut reader, &mut tasks).await?;
        session.close(reader, finish).await
    }
}

impl Session<'_> {
    /// Reads until stopped.
    async fn read(&mut self, reader: &mut ReplicationReader, tasks: &mut JoinSet<Result<(), CodedError>>) -> Result<(), CodedError> {
        let mut stop = self.run.stop.clone();
        let mut want = READ_LEAST;
        self.send(None)?;
        loop {
            if *self.run.paused.borrow() && self.rest(tasks).await? == Rested::Stopped {
                return Ok(());
            }
            let (credits, most, patience) = (self.run.credits.clone(), want, self.run.settings.receive_timeout);
            let mut read = std::pin::pin!(async {
                let held = Held::take(&credits, most as u32).await;
                // The reporter asks for keepalives: a server that is there is never silent for long.
                (held, within(patience, "sending changes", reader.read(most)).await)
            });
            let (held, chunk) = loop {
                let pause = self.pause();
                // Nobody first: neither the stream nor what comes beside it may keep the other waiting.
                tokio::select! {
                    () = stopped(&mut stop) => {
                        // The end of the last transaction may be due, and the sinks merge up to it.
                        self.told = None;
                        return self.send(None);
                    }
                    Some(ended) = tasks.join_next() => match ended {
                        Ok(result) => result?,
                        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                    },
                    event = self.joins.next() => self.on(event)?,
                    () = tokio::time::sleep(pause), if !pause.is_zero() => {}
                    (held, chunk) = &mut read, if pause.is_zero() => break (held, chunk?),
                }
            };
            failpoint::reach("source.read");
            self.run.advanced = true;
            want = (chunk.bytes.len() * 2).clamp(READ_LEAST, READ_MOST);
            self.take(&chunk, held).await?;
            // A replay may have ended early, and what followed it in this chunk was left out: nothing is read after it.
            if *stop.borrow() {
                self.told = None;
                return self.send(None);
            }
            self.announce()?;
            if chunk.ended {
                return Err(CodedError::transient(codes::STREAM, "the server ended the replication stream"));
            }
        }
    }

    /// Waits out a pause. Nothing is read; what was is sent and confirmed, and status goes on, so that the server keeps
    /// the connection and the slot stays in use.
    async fn rest(&mut self, tasks: &mut JoinSet<Result<(), CodedError>>) -> Result<Rested, CodedError> {
        self.told = None;
        self.send(None)?;
        self.run.status.set_phase(Phase::Paused, None);
        info!(slot = self.run.settings.slot, "paused");
        let (mut stop, mut paused) = (self.run.stop.clone(), self.run.paused.clone());
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return Ok(Rested::Stopped),
                () = resumed(&mut paused) => break,
                Some(ended) = tasks.join_next() => match ended {
                    Ok(result) => result?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        }
        self.run.status.set_phase(Phase::Streaming, None);
        info!(slot = self.run.settings.slot, "resumed");
        Ok(Rested::Resumed)
    }

    /// Handles what one read gave.
    async fn take(&mut self, chunk: &ReadChunk, mut held: Held) -> Result<(), CodedError> {
        self.run.status.bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        held.settle(chunk.bytes.len()).await;
        let mut sent = 0;
        for (start, end) in &chunk.messages {
            let payload = chunk.bytes.get(*start as usize..*end as usize);
            let payload = payload.ok_or(StreamError::Frame(frame::FrameError::Truncated("payload")))?;
            let frame = if self.hold.in_block() { frame::parse_in_block(payload) } else { frame::parse(payload) };
            match frame.map_err(StreamError::from)? {
                Frame::Relation(relation) => self.relation(&relation).await?,
                Frame::Type { oid, name } => self.run.catalog.announce(oid, name),
                frame @ (Frame::Streamed { .. } | Frame::StreamStart { .. } | Frame::StreamStop | Frame::StreamAbort { .. }) => {
                    self.streamed(&frame).await?;
                }
                Frame::StreamCommit(commit) => {
                    self.send(Some(held.split(*end as usize - sent)))?;
                    sent = *end as usize;
                    // What follows in this read is small. Held back, its credit could be what the transaction waits for.
                    drop(held);
                    self.committed(commit).await?;
                    held = Held::take(&self.run.credits, 0).await;
                    held.settle(chunk.bytes.len().saturating_sub(sent)).await;
                    if *self.run.stop.borrow() {
                        return Ok(());
                    }
                }
                frame => {
                    if let Frame::Keepalive { wal_end, reply } = frame {
                        self.keepalive(wal_end, reply);
                    }
                    self.run.assembler.frame(&frame, &chunk.bytes, start.saturating_add(DATA_HEADER as u32), *end)?;
                }
            }
        }
        self.send(Some(held))
    }

    fn keepalive(&self, wal_end: u64, reply: bool) {
        let mut confirm = self.run.confirm.lock().unwrap_or_else(PoisonError::into_inner);
        confirm.received(wal_end);
        confirm.asked = false;
        if reply {
            self.bell.notify_one();
        }
    }

    /// Sends what was assembled, with its credit. Without rows the credit goes back.
    pub(super) fn send(&mut self, held: Option<Held>) -> Result<(), CodedError> {
        let made = self.run.assembler.finish();
        let status = Arc::clone(&self.run.status);
        status.changes.fetch_add(made.changes, Ordering::Relaxed);
        status.transactions.fetch_add(made.transactions, Ordering::Relaxed);
        {
            let mut confirm = self.run.confirm.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((ts, lsn)) = made.confirm {
                confirm.when(ts, lsn);
            }
            status.received_lsn.store(confirm.read_to(), Ordering::Relaxed);
            status.heard(confirm.read_to());
        }
        for table in &made.first {
            self.first(table);
        }
        let recently = self.told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY);
        if made.items.is_empty() && (made.upper <= self.sent || recently) {
            return Ok(());
        }
        self.sent = made.upper;
        self.told = Some(Instant::now());
        let credit = held.filter(|_| !made.items.is_empty()).map_or(0, Held::hand_over);
        let upper = self.run.clock.main(made.upper);
        failpoint::reach("source.send");
        let sent = self.run.send(Chunk { items: made.items, upper, credit });
        failpoint::reach("source.sent");
        sent
    }

    /// Says when a table was not there at the start, and is not copied.
    fn first(&mut self, table: &TableSchema) {
        let name = table.full_name();
        if !self.known.contains_key(&name) {
            info!(table = name, "the table is new to the stream: rows from before it was published are not copied");
            self.run.status.table(&name, |table| table.phase = Phase::Streaming);
            self.known.insert(name, (table.id, (0, u64::MAX)));
        }
    }

    pub(super) async fn relation(&mut self, relation: &frame::Relation) -> Result<(), CodedError> {
        let (schema, name) = (&relation.schema, &relation.name);
        let system = schema.starts_with("pg_") || schema == "information_schema";
        if system || !self.run.settings.tables.matches(schema, name) {
            self.run.assembler.relation(relation.id, None);
            return Ok(());
        }
        let catalog: &mut Catalog = &mut self.run.catalog;
        // As long as others have every place of the budget: it is not the server that is silent then.
        let client = self.control.open().await?;
        let looked = catalog.reconcile(&client, relation);
        let table = within(self.run.settings.receive_timeout, "describing a table", looked).await?;
        client.keep();
        let window = self.window(relation.id, &table.full_name());
        self.run.assembler.relation(relation.id, Some(table));
        self.run.assembler.limit(relation.id, window);
        Ok(())
    }

    /// Ends in good order: waits until everything sent is durable, confirms it, closes the stream.
    async fn close(self, mut reader: ReplicationReader, finish: oneshot::Sender<()>) -> Result<(), CodedError> {
        drop(self.joins);
        let all = self.run.drained().await;
        if all {
            self.run.joined(Ts::new(u64::MAX, u64::MAX))?;
            self.run.confirm.lock().unwrap_or_else(PoisonError::into_inner).all_durable();
        }
        if finish.send(()).is_err() {
            // The connection is gone; what is durable is read again next time, and the sinks know it.
            return Ok(());
        }
        let ended = async {
            while let Ok(chunk) = reader.read(READ_MOST).await {
                if chunk.ended {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE, ended).await;
        Ok(())
    }
}

impl Run {
    /// Sends a chunk.
    pub(super) fn send(&mut self, chunk: Chunk) -> Result<(), CodedError> {
        match &mut self.out {
            Some(out) => out.send(chunk).map_err(snapshot::closed),
            None => Err(snapshot::closed(crate::contract::SourceClosed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_command_are_quoted() {
        assert_eq!(
            command("s", "a'b\"c", 0x16_0000_0001, 130_000, true),
            "START_REPLICATION SLOT \"s\" LOGICAL 16/1 (proto_version '1', publication_names '\"a''b\"\"c\"')"
        );
    }

    #[test]
    fn options_by_version() {
        for (version, streaming, expected) in [
            (130_023, true, "(proto_version '1', publication_names '\"p\"')"),
            (140_019, true, "(proto_version '2', publication_names '\"p\"', streaming 'on')"),
            (140_019, false, "(proto_version '2', publication_names '\"p\"')"),
            (150_018, true, "(proto_version '3', publication_names '\"p\"', streaming 'on')"),
            (160_000, true, "(proto_version '4', publication_names '\"p\"', streaming 'on')"),
            (180_004, false, "(proto_version '4', publication_names '\"p\"')"),
        ] {
            assert_eq!(command("s", "p", 1, version, streaming).split_once("0/1 ").unwrap().1, expected);
        }
    }
}
