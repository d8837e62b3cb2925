//! The Snowflake sink at full speed, against the local Snowflake that keeps bodies and looks at them afterwards.
//!
//! ```text
//! ready Arrow batches ──deliveries──> writer ──NDJSON, zstd──> local Snowflake (50 ms a request)
//!        ^                              │
//!        └── at most `credit` rows ─────┴── acknowledged: committed
//! ```
//! `one_table`: one table, 4 channels, batches as the batch stage seals them (16 MiB). `many_tables`: 100,000
//! changes over 50 tables in transactions that touch all, 1 s until a commit shows, each table's part of a transaction a
//! delivery of its own. The clock runs from the first delivery to the last acknowledgement. A run is
//! invalid unless the rows that the server counts in the bodies are those that were delivered.
//!
//! `cargo bench --bench snowflake_sink -- [--runs N] [--only one_table|many_tables|many_tables_merge] [--rows N]
//! [--credit ROWS]`. One JSON line a run.

#[allow(dead_code)] // its binary form is not sent here
mod row;

use etl_stream_operators::contract::{
    Ack, AckReport, BuildContext, Cells, CodedError, Delivery, Format, MemoryState, Op, Peers, PipelineStatus, RowBatch, Sink, SinkConfig,
    TableSchema, Ts, WriterContext,
};
use etl_stream_operators::encode::Encoder;
use etl_stream_operators::sink::json::{Dialect, RowWriter};
use etl_stream_operators::sink::snowflake::SnowflakeConfig;
use etl_stream_operators::testing::snowflake::{LocalSnowflake, PRIVATE_KEY};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// The binary's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LATENCY: Duration = Duration::from_millis(50);
const COMMIT: Duration = Duration::from_secs(1);
const TABLES: usize = 50;
const CHANGES: usize = 100_000;
/// Changes of one transaction in `many_tables`.
const TRANSACTION: usize = 1_000;
const REQUEST_LIMIT: f64 = 4.0 * 1024.0 * 1024.0;
/// What the batch stage seals at for this sink.
const BATCH_BYTES: usize = 16 << 20;
/// Rows that are decoded at once.
const PIECE: usize = 4_096;
const DEADLINE: Duration = Duration::from_secs(120);

fn table(name: &str) -> Arc<TableSchema> {
    let mut table = (*row::table(&row::columns())).clone();
    table.name = name.into();
    for (at, column) in table.columns.iter_mut().enumerate() {
        (column.number, column.nullable) = (Some(at as i16 + 1), column.key.is_none());
    }
    Arc::new(table)
}

/// Rows as the engine makes them from PostgreSQL's text, joined up to the size of a sealed batch.
fn batch(table: &Arc<TableSchema>, numbers: Range<usize>) -> RowBatch {
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    for first in numbers.clone().step_by(PIECE) {
        if out.iter().map(RowBatch::bytes).sum::<usize>() >= BATCH_BYTES {
            break;
        }
        let raw = row::raw(table, Format::PgOutput, first..numbers.end.min(first + PIECE), row::text_row);
        encoder.push(&raw, &mut out).expect("rows in their documented form");
        encoder.flush(&mut out);
    }
    RowBatch::concat(out).expect("batches of one schema")
}

/// The same rows of another table, as changes of transaction `lsn` from `ordinal` on.
fn again(rows: &RowBatch, table: &Arc<TableSchema>, lsn: u64, ordinal: u64) -> RowBatch {
    let count = rows.len();
    RowBatch {
        table: Arc::clone(table),
        columns: rows.columns.clone(),
        ops: vec![Op::Insert.letter(); count].into(),
        commit_lsn: vec![lsn; count].into(),
        ordinal: (ordinal..ordinal + count as u64).collect::<Vec<_>>().into(),
        commit_time: vec![1_764_288_000_000_000 + lsn as i64; count].into(),
        unchanged: Cells::default(),
        exact: Cells::default(),
    }
}

/// What is delivered and not acknowledged, in rows.
#[derive(Default)]
struct Acked {
    rows: Mutex<Vec<u64>>,
    open: AtomicU64,
    less: Notify,
}

impl AckReport for Acked {
    fn durable(&self, id: u64) {
        let rows = std::mem::take(&mut self.rows.lock().expect("no panic")[id as usize]);
        self.open.fetch_sub(rows, Ordering::AcqRel);
        self.less.notify_one();
    }
}

/// A writer of the sink at work.
struct Run {
    sender: mpsc::UnboundedSender<Delivery>,
    acked: Arc<Acked>,
    task: JoinHandle<Result<(), CodedError>>,
    context: WriterContext,
    credit: u64,
}

impl Run {
    async fn start(server: &LocalSnowflake, schema: &str, settings: Value, credit: u64) -> Self {
        let mut all = json!({
            "account": "LOCAL", "url": server.url(), "user": "LOADER", "private_key": { "plain": PRIVATE_KEY },
            "database": "RAW", "schema": schema, "warehouse": "LOAD"
        });
        for (name, value) in settings.as_object().cloned().unwrap_or_default() {
            all[name] = value;
        }
        let config: SnowflakeConfig = serde_json::from_value(all).expect("settings");
        let sink: Arc<dyn Sink> = config
            .build(&BuildContext {
                pipeline: "bench".into(),
                node: "warehouse".into(),
                folder: Path::new("/").into(),
                peers: Peers::default(),
            })
            .expect("a sink");
        let context = WriterContext {
            pipeline: "bench".into(),
            sink: "warehouse".into(),
            source: "shop".into(),
            worker: 0,
            workers: 1,
            process: 0,
            processes: 1,
            state: Arc::new(MemoryState::default()),
            status: Arc::new(PipelineStatus::default()),
        };
        sink.prepare(&context).await.expect("the server is there");
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(sink.writer(context.clone()).run(receiver));
        Self { sender, acked: Arc::default(), task, context, credit }
    }

    async fn wait(&self, most: u64) {
        while self.acked.open.load(Ordering::Acquire) > most {
            assert!(!self.task.is_finished(), "the writer ended");
            let _ = tokio::time::timeout(Duration::from_secs(1), self.acked.less.notified()).await;
        }
    }

    /// Delivers rows, once fewer than the credit are under way.
    async fn deliver(&self, batch: RowBatch) {
        let rows = batch.len() as u64;
        self.wait(self.credit.saturating_sub(rows)).await;
        let id = {
            let mut all = self.acked.rows.lock().expect("no panic");
            all.push(rows);
            all.len() as u64 - 1
        };
        self.acked.open.fetch_add(rows, Ordering::AcqRel);
        let ack = Ack::new(id, Arc::clone(&self.acked) as Arc<dyn AckReport>);
        self.sender.send(Delivery::Rows { batch, ack }).expect("the writer works");
    }

    fn upper(&self, lsn: u64) {
        let _ = self.sender.send(Delivery::Upper(Ts::after(lsn)));
    }

    async fn settled(&self) {
        tokio::time::timeout(DEADLINE, self.wait(0)).await.expect("everything is acknowledged in time");
    }

    fn sent_bytes(&self) -> u64 {
        self.context.status.sink("warehouse").bytes.load(Ordering::Relaxed)
    }

    async fn finish(self) {
        drop(self.sender);
        self.task.await.expect("no panic").expect("the writer ends well");
    }
}

fn own_cpu() -> f64 {
    // SAFETY: the call fills the struct it is given.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// CPU seconds of another process.
fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// What was used between two moments.
struct Clock<'a> {
    server: &'a LocalSnowflake,
    begun: Instant,
    own: f64,
    server_cpu: f64,
    bytes: u64,
    requests: Value,
}

impl<'a> Clock<'a> {
    async fn start(server: &'a LocalSnowflake, run: &Run) -> Self {
        let requests = server.state().await["requests"].take();
        Self { server, begun: Instant::now(), own: own_cpu(), server_cpu: cpu_of(server.pid()), bytes: run.sent_bytes(), requests }
    }

    /// The run's line. Counts what the server kept: `rows` must be all of it.
    async fn stop(self, run: &Run, rows: usize) -> Value {
        let seconds = self.begun.elapsed().as_secs_f64();
        let (own, server_cpu) = (own_cpu() - self.own, cpu_of(self.server.pid()) - self.server_cpu);
        let bytes = run.sent_bytes() - self.bytes;
        let state = self.server.state().await;
        let requests = |route: &str| state["requests"][route].as_u64().unwrap_or(0) - self.requests[route].as_u64().unwrap_or(0);
        let (appends, polls) = (requests("rows"), requests("status"));
        let counted = self.server.settle().await;
        assert_eq!(counted["rows"].as_u64(), Some(rows as u64), "invalid: not every row arrived once");
        let millions = rows as f64 / 1e6;
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "rows": rows,
            "seconds": rounded(seconds),
            "rows_per_s": (rows as f64 / seconds).round(),
            "cpu_s_per_million": rounded(own / millions),
            "server_cpu_s_per_million": rounded(server_cpu / millions),
            "append_requests": appends,
            "status_requests": polls,
            "rows_per_request": (rows as f64 / appends as f64).round(),
            "mean_fill_of_4MiB": rounded(bytes as f64 / appends as f64 / REQUEST_LIMIT),
            "mean_plain_MiB": rounded(counted["plain_bytes"].as_f64().unwrap_or(0.0) / appends as f64 / 1_048_576.0),
            "compressed_B_per_row": rounded(bytes as f64 / rows as f64),
            "plain_B_per_row": rounded(counted["plain_bytes"].as_f64().unwrap_or(0.0) / rows as f64),
        })
    }
}

/// Rows of every channel, as the server has counted them; tokens must be those of the last rows.
async fn channels(server: &LocalSnowflake, schema: &str) -> Vec<u64> {
    let state = server.state().await;
    let own = state["channels"].as_array().into_iter().flatten().filter(|c| c["schema_name"] == schema);
    own.map(|channel| {
        assert_eq!(channel["rows_errors"], 0, "invalid: rows were rejected");
        assert_eq!(channel["pending_batches"], 0, "invalid: rows are not committed");
        channel["rows_inserted"].as_u64().expect("a count")
    })
    .collect()
}

async fn server(commit: Duration) -> LocalSnowflake {
    let server = LocalSnowflake::start_with(&["--discard", "later"]);
    server.sql("CREATE DATABASE RAW").await;
    server.faults(json!({ "latency_ms": LATENCY.as_millis() as u64, "commit_delay_ms": commit.as_millis() as u64 })).await;
    server
}

/// One core, no network: the columns as NDJSON and zstd-1, in chunks that stay in the cache.
fn bare(batches: &[RowBatch]) -> f64 {
    let names: Vec<String> = row::columns().iter().map(|(name, _)| name.to_uppercase()).collect();
    let writer = RowWriter::new(&batches[0].table, &names, Dialect::Snowflake);
    let begun = Instant::now();
    let mut rows = 0;
    for batch in batches {
        let bound = writer.bind(batch);
        let mut encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(1 << 20), 1).expect("a context");
        let mut text = Vec::with_capacity(128 << 10);
        for row in 0..batch.len() {
            text.push(b'{');
            bound.write_columns(row, &mut text);
            text.extend_from_slice(b"}\n");
            if text.len() >= 64 << 10 {
                encoder.write_all(&text).expect("memory");
                text.clear();
            }
        }
        encoder.write_all(&text).expect("memory");
        std::hint::black_box(encoder.finish().expect("memory"));
        rows += batch.len();
    }
    begun.elapsed().as_secs_f64() / (rows as f64 / 1e6)
}

fn print(scenario: &str, run: usize, mut line: Value, more: Value) {
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        line[name] = value;
    }
    let mut all = json!({ "scenario": scenario, "run": run });
    for (name, value) in line.as_object().cloned().unwrap_or_default() {
        all[name] = value;
    }
    println!("{all}");
}

async fn one_table(runs: usize, rows: usize, credit: u64) {
    let server = server(Duration::ZERO).await;
    let orders = table("orders");
    let parts: Vec<RowBatch> = (0..4).map(|part| batch(&orders, part * 100_000..(part + 1) * 100_000)).collect();
    let run = Run::start(&server, "ONE", json!({ "channels": 4, "write_mode": "append" }), credit).await;
    let mut lsn = 1;
    run.deliver(again(&parts[0].slice(0, 1_000), &orders, lsn, 0)).await;
    run.settled().await;
    server.settle().await;
    let mut delivered = 1_000;
    for number in 1..=runs {
        let bare = bare(&parts);
        let clock = Clock::start(&server, &run).await;
        let mut count = 0;
        while count < rows {
            lsn += 1;
            let part = &parts[lsn as usize % parts.len()];
            count += part.len();
            run.deliver(again(part, &orders, lsn, 0)).await;
        }
        run.settled().await;
        let line = clock.stop(&run, count).await;
        delivered += count;
        let by_channel = channels(&server, "ONE").await;
        assert_eq!((by_channel.len(), by_channel.iter().sum::<u64>()), (4, delivered as u64), "invalid: counts of channels");
        let own = line["cpu_s_per_million"].as_f64().unwrap_or(0.0);
        let ratio = |value: f64| (value * 1000.0).round() / 1000.0;
        let more = json!({
            "credit_rows": credit, "delivery_rows": parts[0].len(), "rows_by_channel": by_channel,
            "bare_cpu_s_per_million": ratio(bare), "cpu_over_bare": ratio(own / bare),
            "of_target": ratio(line["rows_per_s"].as_f64().unwrap_or(0.0) / 1e6),
        });
        print("one_table", number, line, more);
    }
    run.finish().await;
}

async fn many_tables(scenario: &str, runs: usize, merge: bool, credit: u64) {
    let server = server(COMMIT).await;
    let tables: Vec<_> = (0..TABLES).map(|at| table(&format!("t{at:02}"))).collect();
    let rows = batch(&tables[0], 0..CHANGES / TABLES);
    let mode = if merge { "merge" } else { "append" };
    let run = Run::start(&server, "MANY", json!({ "write_mode": mode }), credit).await;
    let opening = Instant::now();
    for table in &tables {
        run.deliver(again(&rows.slice(0, 10), table, 1, 0)).await;
    }
    run.settled().await;
    let opening = opening.elapsed().as_secs_f64();
    server.settle().await;
    let each = TRANSACTION / TABLES;
    let mut lsn = 1;
    let mut delivered = TABLES * 10;
    for number in 1..=runs {
        let clock = Clock::start(&server, &run).await;
        for at in (0..rows.len()).step_by(each) {
            lsn += 1;
            let part = rows.slice(at, each.min(rows.len() - at));
            for (nth, table) in tables.iter().enumerate() {
                run.deliver(again(&part, table, lsn, (nth * each) as u64)).await;
            }
            run.upper(lsn);
        }
        run.settled().await;
        let line = clock.stop(&run, CHANGES).await;
        delivered += CHANGES;
        let by_channel = channels(&server, "MANY").await;
        let even = by_channel.iter().all(|rows| *rows == (delivered / TABLES) as u64);
        assert!(by_channel.len() == TABLES && even, "invalid: counts of channels");
        let rate = line["rows_per_s"].as_f64().unwrap_or(0.0);
        // One request each, all at once, and the commit.
        let bound = CHANGES as f64 / (LATENCY + COMMIT).as_secs_f64();
        let ratio = |value: f64| (value * 1000.0).round() / 1000.0;
        let more = json!({
            "tables": TABLES, "changes_a_transaction": TRANSACTION, "opening_s": ratio(opening),
            "of_bound": ratio(rate / bound), "of_target": ratio(rate / 60_000.0),
        });
        print(scenario, number, line, more);
    }
    let begun = Instant::now();
    run.finish().await;
    if merge {
        println!("{}", json!({ "scenario": scenario, "last_merges_s": (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0 }));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let number = |name: &str, default: u64| given(name).map_or(default, |text| text.parse().expect("a number"));
    let runs = number("--runs", 5) as usize;
    let rows = number("--rows", 3_000_000) as usize;
    let credit = number("--credit", 1_000_000);
    let only = given("--only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wanted("one_table") {
            one_table(runs, rows, credit).await;
        }
        if wanted("many_tables") {
            many_tables("many_tables", runs, false, credit).await;
        }
        if wanted("many_tables_merge") {
            many_tables("many_tables_merge", runs, true, credit).await;
        }
    });
}
