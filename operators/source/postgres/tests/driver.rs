//! Runs a source without the engine: chunks are collected, durability is said by the test.

use super::super::config::PostgresConfig;
use crate::contract::{
    BuildContext, Chunk, ChunkSender, CodedError, ColumnType, ConnectionSettings, Connections, Credits, Durable, Format, Item, Mark,
    MemoryState, PipelineStatus, RawItem, RawRow, RawRows, Source, SourceClosed, SourceContext, SourceStatus, StateStore, TableSchema,
    Token, Ts,
};
use crate::testing::postgres::Postgres;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// How long a condition may take to come true.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Credit of a source that nothing stalls.
pub(super) const PLENTY: usize = 64 << 20;

/// Waits for a condition.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a sink would have.
#[derive(Default)]
pub(super) struct Replica {
    /// Rows by table and first column.
    pub tables: BTreeMap<String, BTreeMap<String, Vec<Option<String>>>>,
    /// Marks, rows and truncates in order, short.
    pub log: Vec<String>,
    /// Changes in order, each with the columns that it was read by.
    pub seen: Vec<String>,
    /// The last schema by table.
    pub schemas: BTreeMap<String, TableSchema>,
    /// Every token by table.
    pub tokens: BTreeMap<String, Vec<Token>>,
    /// What an earlier run left, by table: what comes again is dropped, as sinks do.
    left: BTreeMap<String, Token>,
    /// The first token of this run, by table.
    pub first: BTreeMap<String, Token>,
    /// Tables between a snapshot's begin and its end: their rows' tokens say nothing of their time.
    joining: BTreeSet<String>,
    /// What each snapshot that began replaces, in order.
    pub replaced: Vec<(String, Option<u64>)>,
    pub upper: Ts,
    pub credit: u64,
    pub rows: usize,
}

impl Replica {
    fn apply(&mut self, chunk: &Chunk) {
        assert!(chunk.upper >= self.upper, "upper went back from {:?} to {:?}", self.upper, chunk.upper);
        for item in &chunk.items {
            self.schemas.insert(item.table().full_name(), (**item.table()).clone());
            match item {
                RawItem::Raw(raw) => raw.rows.iter().for_each(|row| self.row(raw, row, chunk.upper)),
                RawItem::Ready(Item::Mark(mark)) => {
                    let table = mark.table().full_name();
                    match mark {
                        Mark::SnapshotBegin { replaces, .. } => {
                            self.joining.insert(table.clone());
                            self.replaced.push((table.clone(), *replaces));
                            self.tables.insert(table.clone(), BTreeMap::new());
                            self.log.push(format!("begin {table}"));
                        }
                        Mark::SnapshotEnd { .. } => {
                            self.joining.remove(&table);
                            self.log.push(format!("end {table}"));
                        }
                        Mark::Schema { table: schema } => {
                            let columns: Vec<&str> = schema.columns.iter().map(|c| &*c.name).collect();
                            self.log.push(format!("schema {table}({})", columns.join(",")));
                        }
                    }
                }
                RawItem::Ready(Item::Rows(_)) => panic!("the source sends no batches"),
            }
        }
        self.upper = chunk.upper;
        self.credit += u64::from(chunk.credit);
    }

    fn row(&mut self, raw: &RawRows, row: &RawRow, upper: Ts) {
        self.rows += 1;
        let name = raw.table.full_name();
        let token = Token::new(raw.commits[row.commit as usize].lsn, row.ordinal);
        self.first.entry(name.clone()).or_insert(token);
        if self.left.get(&name).is_some_and(|left| token <= *left) {
            return;
        }
        let tokens = self.tokens.entry(name.clone()).or_default();
        assert!(tokens.last().is_none_or(|last| *last < token), "{name}: {token} came after {:?}", tokens.last());
        tokens.push(token);
        let joining = self.joining.contains(&name);
        assert!(joining || Ts::from(token) < upper, "{name}: {token} is not below the chunk's upper {upper:?}");
        let table = self.tables.entry(name.clone()).or_default();
        let bytes = &raw.bytes[row.start as usize..row.end as usize];
        if raw.format == Format::CopyBinary {
            let values = binary(raw, bytes);
            let old = table.insert(values[0].clone().unwrap(), values);
            assert!(old.is_none(), "{name}: a row of the snapshot came twice");
            return;
        }
        // What came beside the stream moves time within an LSN.
        assert!(joining || token.commit_lsn >= self.upper.lsn, "{name}: {token} is below the last upper {:?}", self.upper);
        let (op, mut rest) = (bytes[0], &bytes[1..]);
        if op == b'T' {
            table.clear();
            self.log.push(format!("truncate {name} {}", token.ordinal));
            return;
        }
        rest = &rest[4..];
        let mut old = None;
        let mut new = None;
        while let Some((kind, tuple)) = rest.split_first() {
            rest = tuple;
            let values = text(&mut rest);
            if *kind == b'N' { new = Some(values) } else { old = Some(values) }
        }
        let key = |values: &[Field]| match &values[0] {
            Field::Value(key) => key.clone(),
            other => panic!("{name}: a key is {other:?}"),
        };
        let before = match (&old, &new, op) {
            (Some(old), ..) => Some(table.remove(&key(old)).unwrap_or_else(|| panic!("{name}: no row to change"))),
            (None, Some(new), b'U') => Some(table.remove(&key(new)).unwrap_or_else(|| panic!("{name}: no row to change"))),
            _ => None,
        };
        self.seen.push(described(op, &raw.table, new.as_deref().or(old.as_deref()).unwrap_or_default()));
        if let Some(new) = new {
            let values = new.iter().enumerate().map(|(i, field)| match field {
                Field::Null => None,
                Field::Value(value) => Some(value.clone()),
                Field::Unchanged => before.as_ref().and_then(|row| row.get(i).cloned().flatten()),
            });
            let replaced = table.insert(key(&new), values.collect());
            assert!(replaced.is_none(), "{name}: a row was inserted twice");
        }
        self.log.push(format!("{} {name} {}", op as char, token.ordinal));
    }
}

/// A field of a text tuple.
#[derive(Debug)]
enum Field {
    Null,
    Unchanged,
    Value(String),
}

/// `I t id#1*Int4=1 …`: each column with its number, whether it is of the key, its family and its value.
fn described(op: u8, table: &TableSchema, values: &[Field]) -> String {
    let mut line = format!("{} {}", op as char, table.name);
    assert_eq!(table.columns.len(), values.len(), "{}: columns and values", table.name);
    for (column, value) in table.columns.iter().zip(values) {
        let number = column.number.map_or_else(|| "?".into(), |n| n.to_string());
        let key = if column.key.is_some() { "*" } else { ":" };
        let value = match value {
            Field::Null => "∅",
            Field::Unchanged => "…",
            Field::Value(value) => value,
        };
        line += &format!(" {}#{number}{key}{:?}={value}", column.name, column.ty);
    }
    line
}

fn text(rest: &mut &[u8]) -> Vec<Field> {
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        *rest = tail;
        head
    };
    let count = i16::from_be_bytes(take(2).try_into().unwrap());
    (0..count)
        .map(|_| match take(1)[0] {
            b'n' => Field::Null,
            b'u' => Field::Unchanged,
            _ => {
                let length = i32::from_be_bytes(take(4).try_into().unwrap()) as usize;
                Field::Value(String::from_utf8(take(length).to_vec()).unwrap())
            }
        })
        .collect()
}

/// The values of a binary tuple as PostgreSQL's text.
fn binary(raw: &RawRows, mut rest: &[u8]) -> Vec<Option<String>> {
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    };
    let count = i16::from_be_bytes(take(2).try_into().unwrap());
    assert_eq!(count as usize, raw.table.columns.len());
    let mut values = Vec::new();
    for column in &raw.table.columns {
        let length = i32::from_be_bytes(take(4).try_into().unwrap());
        values.push((length >= 0).then(|| {
            let bytes = take(length as usize);
            match &column.ty {
                ColumnType::Int4 => i32::from_be_bytes(bytes.try_into().unwrap()).to_string(),
                ColumnType::Int8 => i64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
                ColumnType::Text | ColumnType::Other => String::from_utf8(bytes.to_vec()).unwrap(),
                other => panic!("the test knows no binary {other:?}"),
            }
        }));
    }
    values
}

/// Shared between the test and the sender.
struct Shared {
    replica: Mutex<Replica>,
    durable: watch::Sender<Durable>,
    credits: Credits,
    /// Whether chunks are durable as they come.
    auto: AtomicBool,
}

struct Sender(Arc<Shared>);

impl ChunkSender for Sender {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        let mut replica = self.0.replica.lock().unwrap();
        replica.apply(&chunk);
        if self.0.auto.load(Ordering::Acquire) {
            self.0.release(&mut replica);
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.0.auto.load(Ordering::Acquire) {
            self.0.durable.send_modify(|durable| durable.finished = true);
        }
    }
}

impl Shared {
    fn release(&self, replica: &mut Replica) {
        self.credits.give(std::mem::take(&mut replica.credit) as u32);
        let upper = replica.upper;
        self.durable.send_modify(|durable| durable.upper = upper);
    }
}

/// A source that runs.
pub(super) struct Driver {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    pub pause: watch::Sender<bool>,
    pub status: Arc<SourceStatus>,
    run: JoinHandle<Result<(), CodedError>>,
}

/// What a source is started with.
#[derive(Clone)]
pub(super) struct Setup {
    pub config: Value,
    pub state: Arc<MemoryState>,
    pub credit: usize,
    pub auto: bool,
    pub range_bytes: u64,
    pub slot_patience: Duration,
    pub paused: bool,
}

impl Setup {
    pub(super) fn new(server: &Postgres, database: &str, settings: Value) -> Self {
        let mut config = json!({ "url": { "plain": server.url(database) }, "retry": { "initial": "10ms", "max": "200ms" } });
        settings.as_object().unwrap().iter().for_each(|(key, value)| {
            config[key] = value.clone();
        });
        Self { config, state: Arc::default(), credit: PLENTY, auto: true, range_bytes: 64 << 20, slot_patience: DEADLINE, paused: false }
    }

    pub(super) fn start(&self) -> Driver {
        self.start_after(Replica::default())
    }

    /// Starts with what an earlier run left.
    pub(super) fn start_after(&self, before: Replica) -> Driver {
        let left = before.tokens.iter().filter_map(|(name, tokens)| Some((name.clone(), *tokens.last()?))).collect();
        let replica = Replica { tables: before.tables, tokens: before.tokens, left, ..Replica::default() };
        let config: PostgresConfig = serde_json::from_value(self.config.clone()).unwrap();
        let cx = BuildContext {
            pipeline: "test".into(),
            node: "shop".into(),
            folder: Path::new("/").into(),
            peers: crate::contract::Peers::default(),
        };
        let mut source = config.source(&cx).unwrap();
        source.range_bytes = self.range_bytes;
        source.settings.slot_patience = self.slot_patience;
        let (durable, durable_end) = watch::channel(Durable { upper: Ts::default(), finished: false });
        let (stop, stop_end) = watch::channel(false);
        let (pause, paused) = watch::channel(self.paused);
        let credits = Credits::new(self.credit, Arc::new(Semaphore::new(1 << 30)));
        let shared = Arc::new(Shared { replica: Mutex::new(replica), durable, credits: credits.clone(), auto: AtomicBool::new(self.auto) });
        let status = Arc::new(SourceStatus::default());
        let cx = SourceContext {
            pipeline: "test".into(),
            source: "shop".into(),
            out: Box::new(Sender(Arc::clone(&shared))),
            durable: durable_end,
            credits,
            connections: Connections::new(ConnectionSettings::default()),
            state: Arc::clone(&self.state) as Arc<dyn StateStore>,
            status: Arc::new(PipelineStatus::default()),
            source_status: Arc::clone(&status),
            paused,
            stop: stop_end,
        };
        let run = tokio::spawn(Box::new(source).run(cx));
        Driver { shared, stop, pause, status, run }
    }
}

impl Driver {
    /// Looks at what has arrived.
    pub(super) fn replica<T>(&self, look: impl FnOnce(&mut Replica) -> T) -> T {
        look(&mut self.shared.replica.lock().unwrap())
    }

    pub(super) fn credit_left(&self) -> usize {
        self.shared.credits.left()
    }

    /// Makes everything that has arrived, and whatever follows, durable.
    pub(super) fn release(&self) {
        let mut replica = self.shared.replica.lock().unwrap();
        self.shared.auto.store(true, Ordering::Release);
        self.shared.release(&mut replica);
    }

    /// From here on nothing becomes durable.
    pub(super) fn hold(&self) {
        self.shared.auto.store(false, Ordering::Release);
    }

    /// Waits until something has arrived.
    pub(super) async fn until(&self, what: &str, mut condition: impl FnMut(&Replica) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !self.replica(|replica| condition(replica)) {
            assert!(!self.run.is_finished(), "the source ended before: {what}: {:?}", self.status.phase());
            let log = || self.replica(|replica| (replica.upper, replica.log.len()));
            assert!(Instant::now() < deadline, "in vain: {what}: {:?} {:?}", self.status.phase(), log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until everything committed so far has arrived.
    pub(super) async fn caught_up(&self, client: &Client) {
        let lsn = current(client).await;
        self.until("caught up", |replica| replica.upper >= Ts::new(lsn, 0)).await;
    }

    /// Stops in good order.
    pub(super) async fn stop(self) -> Replica {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.run).await.expect("the source stops").expect("no panic").expect("a good end");
        std::mem::take(&mut *self.shared.replica.lock().unwrap())
    }

    /// Stops in good order while the sink takes nothing more; what has arrived is durable then.
    pub(super) async fn stop_stalled(self) -> Replica {
        self.shared.auto.store(true, Ordering::Release);
        self.stop().await
    }

    /// Ends it as a crash would.
    pub(super) async fn crash(self) -> Replica {
        self.run.abort();
        let _ = self.run.await;
        std::mem::take(&mut *self.shared.replica.lock().unwrap())
    }

    /// Waits for it to fail.
    pub(super) async fn error(self) -> CodedError {
        tokio::time::timeout(DEADLINE, self.run).await.expect("the source ends").expect("no panic").expect_err("an error")
    }
}

/// The end of the server's log.
pub(super) async fn current(client: &Client) -> u64 {
    lsn(client, "SELECT pg_current_wal_lsn()::text").await.unwrap()
}

/// An LSN by a query.
pub(super) async fn lsn(client: &Client, sql: &str) -> Option<u64> {
    let text: Option<String> = client.query_opt(sql, &[]).await.unwrap()?.get(0);
    text.map(|text| text.parse::<crate::contract::Lsn>().unwrap().0)
}

/// A table's rows as the server has them: every column as text, by the first.
pub(super) async fn rows(client: &Client, table: &str, columns: &[&str]) -> BTreeMap<String, Vec<Option<String>>> {
    let list: Vec<String> = columns.iter().map(|c| format!("\"{c}\"::text")).collect();
    let rows = client.query(&format!("SELECT {} FROM {table}", list.join(", ")), &[]).await.unwrap();
    let values = |row: &tokio_postgres::Row| (0..columns.len()).map(|i| row.get::<_, Option<String>>(i)).collect::<Vec<_>>();
    rows.iter().map(|row| (row.get(0), values(row))).collect()
}
