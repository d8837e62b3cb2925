//! Beside the stream: copies new tables and follows them until the stream takes them over.
//!
//! ```text
//! describe ──Described──> join ──X──> temporary slot, snapshot ──> tables locked ──> copy ──> START_REPLICATION
//!                                          consistent point S            Rows, Rows, …        Rows + before, …
//! ```
//! As PostgreSQL's own table synchronisation, but that nothing waits for it. All of it is one task with
//! connections of its own; what it reads goes to the session, which sends it. The slot is temporary: it ends with
//! the connection, however that ends.
//!
//! # Order
//! The copied rows carry X, a position of the stream at which it had given every change of these tables that it
//! will give before the hand-over. The slot is made after X was chosen, so X < S. Changes carry the tokens that the
//! stream would have given them: the same publication, counted the same way.
//!
//! Hot path: see `frame` and `assemble`; what this reads of other tables is framed and dropped.

use super::assemble::{Assembler, StreamError};
use super::catalog::{Catalog, Published};
use super::codes;
use super::confirm::Confirm;
use super::connect::{Endpoint, ReadChunk, Replication, ReplicationReader, sqlstate};
use super::control::Control;
use super::credit::Held;
use super::frame::{self, DATA_HEADER, Frame};
use super::quote::{identifier, replication_literal};
use super::report::{self, Notes, Reporter};
use super::setup::Server;
use super::snapshot::{Locked, Places, Shape, Snapshot};
use super::stream::{READ_LEAST, READ_MOST};
use super::survey::position;
use crate::contract::{
    Chunk, ChunkSender, CodedError, Connections, Credits, Durable, Lsn, RawItem, SourceClosed, SourceStatus, TableSchema,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info;

/// The first version with `CREATE_REPLICATION_SLOT`'s options in parentheses.
const SLOT_OPTIONS: u32 = 150_000;
/// SQLSTATE of a limit of the server's settings.
const LIMIT: &str = "53400";
/// Bytes kept of the source's slot's name in that of the temporary one.
const SLOT_PREFIX: usize = 40;
/// How often the server is asked where it is: the stream may wait for the answer.
const ASK: Duration = Duration::from_millis(100);

/// What the task says to the session.
#[derive(Debug)]
pub(super) enum Said {
    /// The tables are these, and everything that was given of them before stands before `after`.
    Described { schemas: Vec<Arc<TableSchema>>, after: u64 },
    /// Rows of the copy, or changes.
    Rows { items: Vec<RawItem>, held: Held },
    /// Every change that committed before `before`, and none at or after it, has been said.
    Followed { before: u64, schemas: Vec<Arc<TableSchema>> },
}

/// The task.
pub(super) struct Side {
    pub endpoint: Endpoint,
    pub control: Control,
    pub server: Server,
    pub slot: String,
    pub publication: String,
    pub workers: u16,
    pub connections: Arc<Connections>,
    pub range_bytes: u64,
    pub catalog: Catalog,
    pub tables: Vec<Published>,
    pub credits: Credits,
    pub durable: watch::Receiver<Durable>,
    pub status: Arc<SourceStatus>,
    pub said: mpsc::UnboundedSender<Said>,
    /// Brings X.
    pub go: oneshot::Receiver<u64>,
}

/// Passes chunks of the copy on; times are the session's to give.
struct Relay(mpsc::UnboundedSender<Said>, Credits);

impl ChunkSender for Relay {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        if chunk.items.is_empty() {
            return Ok(());
        }
        let held = Held::of(&self.1, chunk.credit);
        self.0.send(Said::Rows { items: chunk.items, held }).map_err(|_| SourceClosed)
    }
}

/// The session went on without this task, which is about to end.
fn gone() -> CodedError {
    CodedError::transient(codes::CLOSED, "the stream that the tables were to join has ended")
}

/// The command that makes the slot.
fn create(slot: &str, version: u32) -> String {
    let options = if version < SLOT_OPTIONS { "EXPORT_SNAPSHOT" } else { "(SNAPSHOT 'export')" };
    format!("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput {options}", identifier(slot))
}

/// The command that reads it. Protocol 1: whole committed transactions only, which is where a hand-over is.
fn start(slot: &str, publication: &str, from: u64) -> String {
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
        identifier(slot),
        Lsn(from),
        replication_literal(&identifier(publication))
    )
}

/// A name for a temporary slot beside a source's, of this connection alone.
pub(super) fn temporary_name(slot: &str, purpose: &str, pid: impl std::fmt::Display) -> String {
    format!("{}_{purpose}_{pid}", slot.get(..SLOT_PREFIX).unwrap_or(slot))
}

/// Makes a temporary slot. Gives its consistent point and its snapshot's name, which is good until the connection is
/// used again.
pub(super) async fn make_temporary(replication: &mut Replication, slot: &str, version: u32) -> Result<(u64, String), CodedError> {
    let rows = replication.simple_query(&create(slot, version)).await.map_err(|error| match sqlstate(&error) {
        Some(LIMIT) => CodedError::definite(codes::NO_SLOT_LEFT, error.message).hint(
            "a copy beside the stream needs a replication slot and a walsender more; raise max_replication_slots and max_wal_senders",
        ),
        _ => error,
    })?;
    let field = |index: usize| rows.first().and_then(|row| row.get(index)).cloned().flatten();
    let made = field(1).and_then(|text| text.parse::<Lsn>().ok()).zip(field(2));
    made.map(|(lsn, snapshot)| (lsn.0, snapshot))
        .ok_or_else(|| CodedError::definite(codes::STREAM, "the server's answer to CREATE_REPLICATION_SLOT was not understood"))
}

impl Side {
    fn say(&self, said: Said) -> Result<(), CodedError> {
        self.said.send(said).map_err(|_| gone())
    }

    /// Runs until the session ends it: after the hand-over, or because the stream ended.
    pub(super) async fn run(mut self) -> Result<(), CodedError> {
        let client = self.control.open().await?;
        let shape = Shape::of(&client, &mut self.catalog, self.server.version, &self.tables).await?;
        let after = position(&client).await?.lsn;
        client.keep();
        self.say(Said::Described { schemas: shape.schemas.clone(), after })?;
        let lsn = (&mut self.go).await.map_err(|_| gone())?;
        let places = Places::take(&self.connections, &self.endpoint).await?;
        let mut replication = self.endpoint.replicate("new tables").await?;
        let _counted = self.connections.replicating(&self.endpoint.host_label());
        let slot = temporary_name(&self.slot, "new", replication.backend_pid());
        let (consistent, snapshot) = make_temporary(&mut replication, &slot, self.server.version).await?;
        if lsn >= consistent {
            return Err(CodedError::transient(codes::COPY, "the new snapshot is not later than what was read"));
        }
        self.copy(&shape, &snapshot, lsn, places).await?;
        info!(tables = self.tables.len(), "new tables are copied; following them until the stream has caught up");
        self.follow(replication, &slot, consistent, &shape.schemas).await
    }

    async fn copy(&mut self, shape: &Shape, snapshot: &str, lsn: u64, places: Places) -> Result<(), CodedError> {
        let (lock, first) = places.split();
        let locked = Locked::new(self.endpoint.query_within(lock, "new tables").await?, &self.tables).await?;
        let now = Shape::of(locked.client(), &mut self.catalog, self.server.version, &self.tables).await?;
        if now != *shape {
            return Err(CodedError::transient(codes::COPY, "a table was altered or truncated while its snapshot began"));
        }
        let tables: Vec<_> = self.tables.iter().cloned().zip(shape.schemas.iter().cloned()).collect();
        let job = Snapshot {
            endpoint: &self.endpoint,
            server: &self.server,
            types: self.catalog.types(),
            tables: &tables,
            name: snapshot,
            lsn,
            replaces: None,
            marks: false,
            workers: self.workers,
            connections: &self.connections,
            range_bytes: self.range_bytes,
            credits: &self.credits,
            status: &self.status,
        };
        let ready = job.import(&locked, first).await?;
        job.copy(ready, &mut Relay(self.said.clone(), self.credits.clone())).await.map(|_| ())
    }

    /// Says the tables' changes from the slot's consistent point on.
    async fn follow(&mut self, replication: Replication, slot: &str, from: u64, schemas: &[Arc<TableSchema>]) -> Result<(), CodedError> {
        let (mut reader, writer) = replication.start(&start(slot, &self.publication, from)).await?.split();
        let bell = Arc::new(Notify::new());
        let confirm = Arc::new(Mutex::new(Confirm::default()));
        confirm.lock().unwrap_or_else(PoisonError::into_inner).start(from);
        // Ends with this function: the sender of `finished` is dropped.
        let (_finish, finished) = oneshot::channel();
        let every = report::pace(self.server.sender_timeout).min(ASK);
        let reporter = Reporter {
            writer,
            confirm: Arc::clone(&confirm),
            durable: self.durable.clone(),
            status: Arc::default(),
            every,
            quiet: every,
            note: None,
            notes: Notes::new(0),
            bell: Arc::clone(&bell),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(reporter.run(finished));
        let mut assembler = Assembler::new();
        assembler.start(from);
        schemas.iter().for_each(|schema| assembler.sent_as(schema));
        let mut want = READ_LEAST;
        loop {
            let held = Held::take(&self.credits, want as u32).await;
            let chunk = read(&mut reader, want, &mut tasks).await?;
            want = (chunk.bytes.len() * 2).clamp(READ_LEAST, READ_MOST);
            self.take(&chunk, held, &mut assembler, &confirm, &bell).await?;
            if chunk.ended {
                return Err(CodedError::transient(codes::STREAM, "the server ended the replication stream of new tables"));
            }
        }
    }

    /// Handles what one read gave.
    async fn take(
        &mut self,
        chunk: &ReadChunk,
        mut held: Held,
        assembler: &mut Assembler,
        confirm: &Mutex<Confirm>,
        bell: &Notify,
    ) -> Result<(), CodedError> {
        for (start, end) in &chunk.messages {
            let payload = chunk.bytes.get(*start as usize..*end as usize);
            let payload = payload.ok_or(StreamError::Frame(frame::FrameError::Truncated("payload")))?;
            match frame::parse(payload).map_err(StreamError::from)? {
                Frame::Relation(relation) => {
                    let ours = self.tables.iter().any(|table| table.id == relation.id);
                    let schema = if ours {
                        let client = self.control.open().await?;
                        let schema = self.catalog.reconcile(&client, &relation).await?;
                        client.keep();
                        Some(schema)
                    } else {
                        None
                    };
                    assembler.relation(relation.id, schema);
                }
                Frame::Type { oid, name } => self.catalog.announce(oid, name),
                frame => {
                    if let Frame::Keepalive { wal_end, reply } = frame {
                        let mut confirm = confirm.lock().unwrap_or_else(PoisonError::into_inner);
                        confirm.received(wal_end);
                        confirm.asked = false;
                        if reply {
                            bell.notify_one();
                        }
                    }
                    assembler.frame(&frame, &chunk.bytes, start.saturating_add(DATA_HEADER as u32), *end)?;
                }
            }
        }
        held.settle(chunk.bytes.len()).await;
        let made = assembler.finish();
        if let Some((_, lsn)) = made.confirm {
            confirm.lock().unwrap_or_else(PoisonError::into_inner).received(lsn);
        }
        if !made.items.is_empty() {
            self.say(Said::Rows { items: made.items, held })?;
        }
        if let Some(before) = assembler.between() {
            let schemas = self.tables.iter().filter_map(|table| assembler.announced(table.id).cloned()).collect();
            self.say(Said::Followed { before, schemas })?;
        }
        Ok(())
    }
}

/// Reads, unless a task ends by an error.
async fn read(reader: &mut ReplicationReader, want: usize, tasks: &mut JoinSet<Result<(), CodedError>>) -> Result<ReadChunk, CodedError> {
    loop {
        tokio::select! {
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            chunk = reader.read(want) => return chunk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_by_version() {
        for (version, expected) in [(140_000, "EXPORT_SNAPSHOT"), (150_000, "(SNAPSHOT 'export')"), (180_000, "(SNAPSHOT 'export')")] {
            assert_eq!(create("s_new_1", version), format!("CREATE_REPLICATION_SLOT \"s_new_1\" TEMPORARY LOGICAL pgoutput {expected}"));
        }
        assert_eq!(
            start("s", "a'b", 0x16_0000_0001),
            "START_REPLICATION SLOT \"s\" LOGICAL 16/1 (proto_version '1', publication_names '\"a''b\"')"
        );
    }
}
