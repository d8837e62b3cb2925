//! The snapshot: rows that exist, copied at exactly the point where the changes begin.
//!
//! ```text
//!            ┌─ units ──> worker: COPY ──┐ tuples, with their credit
//! plan ──────┼─ units ──> worker: COPY ──┼──────────────────────────> feeder ──Chunk──> dataflow
//!            └─ units ──> worker: COPY ──┘                            (one task: ordinals, marks)
//! ```
//! # Order
//! All rows carry the snapshot's LSN, which lies just below the slot's consistent point and so below every
//! change. Ordinals count 0, 1, 2, … by table in the order the feeder sends. A chunk's upper counts the
//! rows of all tables: it only has to grow, so that credit comes back while the snapshot still runs.
//!
//! # Guarantees
//! Workers read under one exported snapshot, so no row is missing or doubled between the copy and the
//! stream. Tables stay locked in ACCESS SHARE mode, as by pg_dump: a rewrite or TRUNCATE, which would show
//! an empty table to an older snapshot, waits; one between slot and lock is noticed. A worker that fails ends the attempt as a whole; the next
//! one has a new slot and a higher LSN, and sinks remove what this one left.
//!
//! Memory: bytes are read after credit for them was taken.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod plan;
pub(super) mod tuples;

pub(super) use self::plan::Planned;
use self::plan::Unit;
use self::tuples::Tuples;
use super::catalog::{Catalog, Published};
use super::codes;
use super::connect::{Endpoint, Replication, classify, sqlstate};
use super::credit::Held;
use super::quote::{literal, table};
use super::setup::Server;
use super::types::Types;
use crate::contract::{
    Chunk, ChunkSender, Class, CodedError, Commit, Connections, Credits, Format, Item, Mark, Permit, Phase, RawItem, RawRow, RawRows,
    SourceStatus, TableSchema, Ts,
};
use crate::failpoint;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// SQLSTATE of a table that does not exist.
const NO_TABLE: &str = "42P01";
/// SQLSTATE of a missing privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;

/// What must be the same before the slot is made and when the tables are locked after it: an older snapshot
/// shows a rewritten or truncated table as empty, and an altered one under a schema its rows do not have.
///
/// Not locked before: making a slot waits for transactions that may wait for those locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The tables as the catalog has them.
    pub schemas: Vec<Arc<TableSchema>>,
    /// Table, relation that holds rows, and its file.
    files: Vec<(u32, u32, Option<u32>)>,
}

impl Shape {
    /// Looks at tables.
    pub(super) async fn of(client: &Client, catalog: &mut Catalog, version: u32, tables: &[Published]) -> Result<Self, CodedError> {
        let sql = "SELECT t.id, part.id, pg_relation_filenode(part.id) FROM unnest($1::oid[]) t(id)
                   CROSS JOIN LATERAL (SELECT t.id UNION SELECT relid::oid FROM pg_partition_tree(t.id)) part(id) ORDER BY 1, 2";
        let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
        let rows = client.query(sql, &[&ids]).await.map_err(|e| classify(&e, "looking at the files of the published tables"))?;
        let files = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        Ok(Self { schemas: catalog.describe(client, version, tables).await?, files })
    }
}

/// Holds the tables' locks for as long as it lives.
pub(super) struct Locked {
    client: Client,
}

impl Locked {
    /// Locks tables against rewriting.
    pub(super) async fn new(client: Client, tables: &[Published]) -> Result<Self, CodedError> {
        let names: Vec<String> = tables.iter().map(|t| table(&t.schema, &t.name)).collect();
        let sql = format!("BEGIN READ ONLY; LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        client.batch_execute(&sql).await.map_err(|e| {
            let error = classify(&e, "locking the tables of the snapshot against being rewritten");
            // Dropped since we looked: the next look will not find it.
            if sqlstate(&error) == Some(NO_TABLE) { CodedError { class: Class::Transient, ..error } } else { error }
        })?;
        Ok(Self { client })
    }

    /// The connection; statements run inside the locking transaction.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// What a snapshot is made of.
pub(super) struct Snapshot<'a> {
    pub endpoint: &'a Endpoint,
    pub server: &'a Server,
    pub types: &'a Types,
    pub tables: &'a [(Published, Arc<TableSchema>)],
    /// `SET TRANSACTION SNAPSHOT`'s name.
    pub name: &'a str,
    /// The rows' `commit_lsn`.
    pub lsn: u64,
    /// The first attempt that was not completed.
    pub replaces: Option<u64>,
    /// Whether the tables' begin and end are said here.
    pub marks: bool,
    /// Most connections that copy; fewer where the process's budget has no more.
    pub workers: u16,
    pub connections: &'a Connections,
    pub range_bytes: u64,
    pub credits: &'a Credits,
    pub status: &'a Arc<SourceStatus>,
}

/// The connections that a snapshot cannot do without, of the process's budget: one that locks, one that copies.
pub(super) struct Places {
    lock: Permit,
    copy: Permit,
}

impl Places {
    /// Waits for both at once: snapshots that each had one and waited for another would wait for each other.
    pub(super) async fn take(connections: &Connections, endpoint: &Endpoint) -> Result<Self, CodedError> {
        let mut permits = connections.permits_to_hold(&endpoint.host_label(), 2).await;
        let (copy, lock) = (permits.pop(), permits.pop());
        copy.zip(lock).map(|(copy, lock)| Self { lock, copy }).ok_or_else(|| {
            CodedError::definite(codes::CONNECTIONS, "a snapshot needs two connections, and `engine.connections` allows one")
                .hint("set `total` and `per_server` of `engine.connections` to 2 or more")
        })
    }

    /// The place that locks, and the one that copies.
    pub(super) fn split(self) -> (Permit, Permit) {
        (self.lock, self.copy)
    }
}

/// The default size of a range.
pub(super) const RANGE_BYTES: u64 = plan::RANGE_BYTES;

/// From a worker to the feeder.
enum Event {
    Rows { table: usize, bytes: Bytes, rows: Vec<(u32, u32)>, held: Held },
    UnitDone { table: usize },
}

/// The shared queue of work.
struct Queue {
    units: Vec<Unit>,
    next: AtomicUsize,
}

impl Snapshot<'_> {
    /// Opens the workers' connections under the exported snapshot. After that the exporting connection is
    /// no longer needed.
    pub(super) async fn import(&self, locked: &Locked, first: Permit) -> Result<Ready, CodedError> {
        let (planned, units) = plan::plan(locked.client(), self.server, self.types, self.tables, self.range_bytes).await?;
        let workers = usize::from(self.workers).min(units.len()).max(1);
        let mut clients = Vec::with_capacity(workers);
        let mut next = Some(first);
        while clients.len() < workers
            && let Some(permit) = next.take()
        {
            let mut client = self.endpoint.copy_within(permit, "snapshot").await?;
            // Row security is refused instead of applied: it would leave rows out silently.
            let sql = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off",
                literal(self.name).trim_start()
            );
            client.simple_query(&sql).await?;
            clients.push(client);
            next = self.connections.try_permit_to_hold(&self.endpoint.host_label());
        }
        Ok(Ready { planned, units, clients, time: unix_micros() })
    }

    /// Copies every row and sends it. `out` is used by nobody else meanwhile. Returns how far it reached.
    pub(super) async fn copy(&self, ready: Ready, out: &mut dyn ChunkSender) -> Result<Vec<Planned>, CodedError> {
        let Ready { planned, units, clients, time } = ready;
        let queue = Arc::new(Queue { units, next: AtomicUsize::new(0) });
        let (events, mut received) = mpsc::channel(clients.len() * 2);
        let mut workers = JoinSet::new();
        let names: Arc<[String]> = planned.iter().map(|p| p.schema.full_name()).collect();
        for client in clients {
            let worker = Worker {
                client,
                queue: Arc::clone(&queue),
                names: Arc::clone(&names),
                credits: self.credits.clone(),
                events: events.clone(),
            };
            workers.spawn(worker.run());
        }
        drop(events);
        let mut feeder = Feeder::new(self, time, &planned, out);
        feeder.begin()?;
        loop {
            tokio::select! {
                biased;
                Some(ended) = workers.join_next() => match ended {
                    Ok(result) => result?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                event = received.recv() => match event {
                    Some(event) => feeder.take(event)?,
                    None => break,
                },
            }
        }
        feeder.end()?;
        Ok(planned)
    }
}

fn unix_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_micros()).ok()).unwrap_or(0)
}

/// A snapshot whose workers are connected.
pub(super) struct Ready {
    planned: Vec<Planned>,
    units: Vec<Unit>,
    clients: Vec<Replication>,
    time: i64,
}

/// Copies units until there are none.
struct Worker {
    client: Replication,
    queue: Arc<Queue>,
    names: Arc<[String]>,
    credits: Credits,
    events: mpsc::Sender<Event>,
}

impl Worker {
    async fn run(mut self) -> Result<(), CodedError> {
        let queue = Arc::clone(&self.queue);
        while let Some(unit) = queue.units.get(queue.next.fetch_add(1, Ordering::Relaxed)) {
            self.copy(unit).await?;
            if self.events.send(Event::UnitDone { table: unit.table }).await.is_err() {
                break;
            }
        }
        self.client.close().await;
        Ok(())
    }

    async fn copy(&mut self, unit: &Unit) -> Result<(), CodedError> {
        let names = Arc::clone(&self.names);
        let name = names.get(unit.table).map_or("", String::as_str);
        let doing = format!("copying table \"{name}\"");
        let failed = |error: CodedError| match sqlstate(&error) {
            Some(INSUFFICIENT_PRIVILEGE) => CodedError::definite(codes::NO_SELECT, error.message)
                .hint("the user needs SELECT on the table and its partitions, and BYPASSRLS where row level security is on"),
            _ => error,
        };
        let broken =
            |e: tuples::TupleError| CodedError::transient(codes::COPY, format!("the copy of table \"{name}\" was not understood: {e}"));
        // Credit first: the server starts to send with the statement.
        let mut held = Held::take(&self.credits, CHUNK as u32).await;
        self.client.copy_out(&unit.sql, &doing).await.map_err(failed)?;
        let mut tuples = Tuples::new(CHUNK + CHUNK / 4);
        while self.client.copied(&doing, |bytes| tuples.push(bytes).map_err(broken)).await.map_err(failed)? {
            if tuples.len() >= CHUNK {
                if !self.send(unit.table, &mut tuples, held).await {
                    return Ok(());
                }
                held = Held::take(&self.credits, CHUNK as u32).await;
            }
        }
        tuples.end().map_err(broken)?;
        self.send(unit.table, &mut tuples, held).await;
        Ok(())
    }

    /// Sends the whole tuples with the credit for them. False: the snapshot is over.
    async fn send(&self, table: usize, tuples: &mut Tuples, mut held: Held) -> bool {
        let (bytes, rows) = tuples.take();
        if rows.is_empty() {
            return true;
        }
        held.settle(bytes.len()).await;
        self.events.send(Event::Rows { table, bytes, rows, held }).await.is_ok()
    }
}

/// A table on its way.
struct Progress {
    ordinal: u64,
    units_left: usize,
    name: String,
}

/// The one task that sends: it gives rows their order.
struct Feeder<'a> {
    lsn: u64,
    replaces: Option<u64>,
    marks: bool,
    time: i64,
    planned: &'a [Planned],
    progress: Vec<Progress>,
    rows: u64,
    out: &'a mut dyn ChunkSender,
    status: &'a SourceStatus,
}

impl<'a> Feeder<'a> {
    fn new(of: &Snapshot<'a>, time: i64, planned: &'a [Planned], out: &'a mut dyn ChunkSender) -> Self {
        let progress = planned.iter().map(|p| Progress { ordinal: 0, units_left: p.units, name: p.schema.full_name() });
        Self {
            lsn: of.lsn,
            replaces: of.replaces,
            marks: of.marks,
            time,
            planned,
            progress: progress.collect(),
            rows: 0,
            out,
            status: of.status,
        }
    }

    fn send(&mut self, items: Vec<RawItem>, credit: u32) -> Result<(), CodedError> {
        // At least one more than the rows sent: the upper of a chunk lies past its rows' tokens.
        let upper = Ts::new(self.lsn, self.rows.saturating_add(1));
        self.out.send(Chunk { items, upper, credit }).map_err(closed)
    }

    /// Moves time to the snapshot, announces every table before the first row of any, so that a sink can refuse
    /// names and keys while nothing is written, and ends tables that have no unit at all (a root without
    /// partitions).
    fn begin(&mut self) -> Result<(), CodedError> {
        failpoint::reach("snapshot.begin");
        self.out.send(Chunk { items: Vec::new(), upper: Ts::new(self.lsn, 0), credit: 0 }).map_err(closed)?;
        for (progress, planned) in self.progress.iter().zip(self.planned) {
            self.status.table(&progress.name, |table| {
                table.phase = Phase::Snapshot;
                table.snapshot_rows = 0;
                table.estimated_rows = planned.estimated_rows;
            });
        }
        if !self.marks {
            return Ok(());
        }
        let begin = |planned: &Planned| {
            RawItem::Ready(Item::Mark(Mark::SnapshotBegin { table: Arc::clone(&planned.schema), lsn: self.lsn, replaces: self.replaces }))
        };
        self.send(self.planned.iter().map(begin).collect(), 0)?;
        let ends =
            (0..self.planned.len()).filter(|table| self.progress[*table].units_left == 0).map(|table| self.mark_end(table)).collect();
        self.send(ends, 0)
    }

    fn mark_end(&self, table: usize) -> RawItem {
        let table = Arc::clone(&self.planned[table].schema);
        RawItem::Ready(Item::Mark(Mark::SnapshotEnd { table, lsn: self.lsn }))
    }

    fn take(&mut self, event: Event) -> Result<(), CodedError> {
        let (Event::Rows { table, .. } | Event::UnitDone { table }) = event;
        match event {
            Event::Rows { bytes, rows, held, .. } => {
                let count = rows.len() as u64;
                self.status.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let progress = &mut self.progress[table];
                let row = |((start, end), ordinal)| RawRow { start, end, commit: 0, ordinal };
                let rows = rows.into_iter().zip(progress.ordinal..).map(row).collect();
                progress.ordinal += count;
                self.rows += count;
                self.status.table(&progress.name, |status| status.snapshot_rows += count);
                let raw = RawItem::Raw(RawRows {
                    table: Arc::clone(&self.planned[table].schema),
                    format: Format::CopyBinary,
                    bytes,
                    commits: vec![Commit { lsn: self.lsn, time: self.time }],
                    rows,
                });
                self.send(vec![raw], held.hand_over())
            }
            Event::UnitDone { .. } => {
                failpoint::reach("snapshot.range");
                self.progress[table].units_left -= 1;
                if self.progress[table].units_left > 0 || !self.marks { Ok(()) } else { self.send(vec![self.mark_end(table)], 0) }
            }
        }
    }

    /// Moves time past the snapshot.
    fn end(&mut self) -> Result<(), CodedError> {
        failpoint::reach("snapshot.end");
        debug_assert!(self.progress.iter().all(|p| p.units_left == 0), "a worker that ends early is an error");
        self.out.send(Chunk { items: Vec::new(), upper: Ts::after(self.lsn), credit: 0 }).map_err(closed)
    }
}

/// The dataflow is gone.
pub(super) fn closed(error: crate::contract::SourceClosed) -> CodedError {
    CodedError::definite(codes::CLOSED, error.to_string())
}
