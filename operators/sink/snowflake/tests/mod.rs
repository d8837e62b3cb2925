//! Tables and batches for this sink's tests, and a writer at work against the local Snowflake.

mod faults;
mod landing;
mod merging;
mod model;
mod poison;
mod schema_changes;
mod stopped;
mod via_sdk;

use crate::contract::{
    Ack, AckReport, BuildContext, Cells, CodedError, Column, ColumnType, Delivery, Mark, MemoryState, Op, PgType, PipelineStatus,
    ReplicaIdentity, RowBatch, Sink, SinkConfig, TableSchema, Token, Ts, WriterContext,
};
use crate::testing::snowflake::{LocalSnowflake, PRIVATE_KEY};
use arrow::array::{ArrayRef, Int32Array, StringArray};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A table whose first `key` columns are its key.
pub(super) fn schema(source: &str, schema: &str, name: &str, columns: &[(&str, ColumnType)], key: u16) -> Arc<TableSchema> {
    let column = |(at, (name, ty)): (usize, &(&str, ColumnType))| Column {
        name: (*name).into(),
        ty: ty.clone(),
        pg_type: PgType { oid: 0, modifier: -1, name: "".into() },
        nullable: at as u16 >= key,
        key: ((at as u16) < key).then_some(at as u16),
        missing: None,
        number: Some(at as i16 + 1),
        filled: false,
    };
    Arc::new(TableSchema {
        source: source.into(),
        id: 1,
        schema: schema.into(),
        name: name.into(),
        columns: columns.iter().enumerate().map(column).collect(),
        identity: ReplicaIdentity::Default,
        storage: None,
    })
}

/// Inserts of one transaction.
pub(super) fn batch_of(table: &Arc<TableSchema>, columns: Vec<ArrayRef>) -> RowBatch {
    let rows = columns.first().map_or(0, |c| c.len());
    RowBatch {
        table: Arc::clone(table),
        columns,
        ops: vec![Op::Insert.letter(); rows].into(),
        commit_lsn: vec![1; rows].into(),
        ordinal: (0..rows as u64).collect::<Vec<_>>().into(),
        commit_time: vec![0; rows].into(),
        unchanged: Cells::default(),
        exact: Cells::default(),
    }
}

/// A row of the table `(id int, a text, b text, n int)`; `Err(())` stands for a value that was not sent.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) lsn: u64,
    pub(super) ordinal: u64,
    pub(super) op: Op,
    pub(super) id: i32,
    pub(super) a: Result<Option<String>, ()>,
    pub(super) b: Result<Option<String>, ()>,
    pub(super) n: Option<i32>,
}

/// The table of [`Change`]s.
pub(super) fn items() -> Arc<TableSchema> {
    let columns = [("id", ColumnType::Int4), ("a", ColumnType::Text), ("b", ColumnType::Text), ("n", ColumnType::Int4)];
    schema("pg", "public", "items", &columns, 1)
}

/// Changes as a batch.
pub(super) fn batch(table: &Arc<TableSchema>, changes: &[Change]) -> RowBatch {
    let text = |get: fn(&Change) -> &Result<Option<String>, ()>| -> ArrayRef {
        Arc::new(changes.iter().map(|c| get(c).clone().unwrap_or_default()).collect::<StringArray>())
    };
    let ids = changes.iter().map(|c| (c.op != Op::Truncate).then_some(c.id)).collect::<Int32Array>();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(ids), text(|c| &c.a), text(|c| &c.b), Arc::new(changes.iter().map(|c| c.n).collect::<Int32Array>())];
    let mut unchanged = Cells::default();
    for (row, change) in changes.iter().enumerate() {
        for (column, value) in [(1, &change.a), (2, &change.b)] {
            if value.is_err() {
                unchanged.push(row, column, ());
            }
        }
    }
    RowBatch {
        table: Arc::clone(table),
        columns,
        ops: changes.iter().map(|c| c.op.letter()).collect(),
        commit_lsn: changes.iter().map(|c| c.lsn).collect(),
        ordinal: changes.iter().map(|c| c.ordinal).collect(),
        commit_time: changes.iter().map(|c| c.lsn as i64 * 1_000_000).collect(),
        unchanged,
        exact: Cells::default(),
    }
}

/// An insert.
pub(super) fn insert(lsn: u64, ordinal: u64, id: i32, a: &str) -> Change {
    Change { lsn, ordinal, op: Op::Insert, id, a: Ok(Some(a.into())), b: Ok(None), n: Some(id) }
}

/// What was acknowledged.
#[derive(Default)]
struct Acked(Mutex<Vec<u64>>);

impl AckReport for Acked {
    fn durable(&self, id: u64) {
        self.0.lock().unwrap().push(id);
    }
}

/// A sink on a local Snowflake, from settings that override the test's own.
pub(super) fn sink(server: &LocalSnowflake, settings: Value) -> Arc<dyn Sink> {
    let mut all = json!({
        "account": "LOCAL", "url": server.url(), "user": "LOADER", "private_key": { "plain": PRIVATE_KEY },
        "database": "RAW", "schema": "SHOP", "warehouse": "LOAD", "merge": { "interval": "20ms" },
        "retry": { "initial": "20ms", "max": "200ms", "give_up_after": "60s" }
    });
    for (name, value) in settings.as_object().cloned().unwrap_or_default() {
        all[name] = value;
    }
    let config: super::SnowflakeConfig = serde_json::from_value(all).unwrap();
    let cx = BuildContext {
        pipeline: "shop".into(),
        node: "warehouse".into(),
        folder: Path::new("/").into(),
        peers: crate::contract::Peers::default(),
    };
    config.build(&cx).unwrap()
}

/// The context of the writer of source `pg`.
pub(super) fn context() -> WriterContext {
    WriterContext {
        pipeline: "shop".into(),
        sink: "warehouse".into(),
        source: "pg".into(),
        worker: 0,
        workers: 1,
        process: 0,
        processes: 1,
        state: Arc::new(MemoryState::default()),
        status: Arc::new(PipelineStatus::default()),
    }
}

/// A writer at work.
pub(super) struct Run {
    /// What the writer was made with.
    pub(super) cx: WriterContext,
    sender: Option<mpsc::UnboundedSender<Delivery>>,
    acked: Arc<Acked>,
    next: AtomicU64,
    task: JoinHandle<Result<(), CodedError>>,
}

impl Run {
    /// Prepares the sink and starts a writer.
    pub(super) async fn start(sink: &Arc<dyn Sink>) -> Self {
        Self::start_with(sink, context()).await
    }

    /// The same with a state that is there.
    pub(super) async fn start_with(sink: &Arc<dyn Sink>, cx: WriterContext) -> Self {
        sink.prepare(&cx).await.unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(sink.writer(cx.clone()).run(receiver));
        Self { cx, sender: Some(sender), acked: Arc::default(), next: AtomicU64::new(0), task }
    }

    fn ack(&self) -> Ack {
        Ack::new(self.next.fetch_add(1, Ordering::Relaxed), Arc::clone(&self.acked) as Arc<dyn AckReport>)
    }

    fn send(&self, delivery: Delivery) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(delivery);
        }
    }

    /// Delivers rows.
    pub(super) fn rows(&self, batch: RowBatch) {
        self.send(Delivery::Rows { batch, ack: self.ack() });
    }

    /// Delivers a mark.
    pub(super) fn mark(&self, mark: Mark) {
        self.send(Delivery::Mark { mark, ack: self.ack() });
    }

    /// Says that every transaction up to `lsn` was delivered.
    pub(super) fn upper(&self, lsn: u64) {
        self.send(Delivery::Upper(Ts::after(lsn)));
    }

    /// How many deliveries were acknowledged.
    pub(super) fn acked(&self) -> usize {
        self.acked.0.lock().unwrap().len()
    }

    /// The acknowledgements, as they came.
    pub(super) fn order(&self) -> Vec<u64> {
        self.acked.0.lock().unwrap().clone()
    }

    /// The tables that are stopped: name, first row not taken, how many were not, why.
    pub(super) fn stopped(&self) -> Vec<(String, Token, u64, String)> {
        let stopped = self.cx.status.sink(&self.cx.sink).stopped().into_iter();
        stopped.map(|((_, table), it)| (table, it.since, it.discarded_rows, it.error.to_string())).collect()
    }

    /// Waits until every delivery so far is acknowledged.
    pub(super) async fn settled(&self) {
        let wanted = self.next.load(Ordering::Relaxed) as usize;
        until("acknowledgements", || self.acked() >= wanted || self.task.is_finished()).await;
    }

    /// Ends the deliveries and waits for the writer.
    pub(super) async fn finish(mut self) -> Result<(), CodedError> {
        self.sender = None;
        tokio::time::timeout(Duration::from_secs(90), self.task).await.expect("the writer ends").unwrap()
    }

    /// Ends the writer as a crash would.
    pub(super) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits for the writer to fail by itself.
    pub(super) async fn failed(self) -> CodedError {
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("the writer fails").unwrap().unwrap_err()
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A query's rows, null as `∅`, joined by blanks.
pub(super) async fn rows(server: &LocalSnowflake, query: &str) -> Vec<String> {
    let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "∅".into());
    server.sql(query).await.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
}

/// A server with the database of [`sink`].
pub(super) async fn server() -> LocalSnowflake {
    let server = LocalSnowflake::start();
    server.sql("CREATE DATABASE RAW").await;
    server
}
