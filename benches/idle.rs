//! What idle pipelines cost in one process, by their number: `run DIR` with sources that have nothing to say.
//!
//! ```text
//! this process: N files ──> child: run DIR ──> N pipelines in two cells
//!               /proc/<child> before and after a quiet while: CPU, memory, threads, open files
//! ```
//! `cargo bench --bench idle -- simulated [N …]` has sources that wait; what is isolated: files, state, dataflows, tasks, alerts'
//! and limits' looks. `-- slots N` has N sources of PostgreSQL, each with a slot of its own on one server that starts here, and
//! samples the connections it sees from the start on.

use async_trait::async_trait;
use etl_stream::{BuildContext, Chunk, ChunkSender, CodedError, NodeConfig, Phase, Registry, Source, SourceConfig, SourceContext, Ts};
use etl_stream_operators::testing::postgres::Postgres;
use schemars::JsonSchema;
use serde::Deserialize;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a quiet process is looked at.
const QUIET: Duration = Duration::from_secs(20);

/// How many sources run, and how many chunks of one came back as durable.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A source that has nothing to say, but the first, which measures a step of the engine when asked to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Idle {
    /// Whether it sends chunks without rows, one after the other, and says how long each takes to come back.
    #[serde(default)]
    pings: bool,
}

impl NodeConfig for Idle {
    const TYPE: &'static str = "idle";
    const SUMMARY: &'static str = "nothing";
    const EXAMPLE: &'static str = "pings: false\n";
}

impl SourceConfig for Idle {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Waits(self.pings)))
    }
}

struct Waits(bool);

#[async_trait]
impl Source for Waits {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let SourceContext { mut out, mut durable, mut stop, source_status, .. } = cx;
        source_status.set_phase(Phase::Streaming, None);
        RUNNING.fetch_add(1, Ordering::Relaxed);
        if self.0 {
            tokio::select! {
                () = ping(&mut *out, &mut durable) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        let _ = stop.wait_for(|stop| *stop).await;
        drop(out);
        let _ = durable.wait_for(|durable| durable.finished).await;
        Ok(())
    }
}

/// Waits until all are there and quiet, then measures the way from the source through the dataflow and back.
async fn ping(out: &mut dyn ChunkSender, durable: &mut tokio::sync::watch::Receiver<etl_stream::Durable>) {
    tokio::time::sleep(QUIET + Duration::from_secs(5)).await;
    let mut took = Vec::new();
    for lsn in 1..=2_000_u64 {
        let (began, upper) = (Instant::now(), Ts::after(lsn));
        if out.send(Chunk { items: Vec::new(), upper, credit: 0 }).is_err() || durable.wait_for(|d| d.upper >= upper).await.is_err() {
            return;
        }
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    took.sort();
    println!("step {} {}", took[took.len() / 2].as_micros(), took[took.len() * 99 / 100].as_micros());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers = |from: usize| arguments.iter().skip(from).filter_map(|n| n.parse().ok()).collect::<Vec<usize>>();
    match arguments.first().map(String::as_str) {
        Some("child") => child(&arguments[1], numbers(2)[0]),
        Some("slots") => slots(numbers(1).first().copied().unwrap_or(200)),
        _ => {
            let wanted = numbers(1);
            println!(
                "| pipelines | start | CPU of a core | memory | a pipeline | threads | open files | a step and back p50 | p99 |\n|---|---|---|---|---|---|---|---|---|"
            );
            for count in if wanted.is_empty() { vec![1, 100, 1_000, 5_000] } else { wanted } {
                simulated(count);
            }
        }
    }
}

/// The process that is looked at.
fn child(folder: &str, count: usize) {
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            let now = RUNNING.load(Ordering::Relaxed);
            if now != last {
                println!("running {now}");
                last = now;
            }
            // It is part of the process that is measured, and has no more to tell once all run.
            std::thread::sleep(Duration::from_millis(if now < count { 20 } else { 5_000 }));
        }
    });
    let arguments = ["etl-stream", "-q", "run", folder, "--workers", "2", "--listen", "none"].map(OsString::from);
    let code = etl_stream::cli::run_with(&Registry::builtin().source::<Idle>(), arguments, &mut std::io::stdout(), &mut std::io::stderr());
    std::process::exit(code.into());
}

/// A process that runs what is in a folder; it says when so many sources of ours run.
fn start(folder: &Path, count: usize) -> Child {
    let own = std::env::current_exe().expect("a program");
    Command::new(own).arg("child").arg(folder).arg(count.to_string()).stdout(Stdio::piped()).spawn().expect("it starts")
}

fn stop(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let _ = child.wait();
}

/// What the system says of a process: seconds of processor, bytes resident, threads, open files.
fn looked(pid: u32) -> (f64, f64, usize, usize) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let ticks: Vec<f64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    let status = read("status");
    let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (ticks.iter().skip(11).take(2).sum::<f64>() / 100.0, line("VmRSS:") * 1024.0, line("Threads:") as usize, files)
}

fn simulated(count: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    for at in 0..count {
        let pings = at == 0;
        let text = format!("sources: {{ s: {{ type: idle, pings: {pings} }} }}\nsinks: {{ b: {{ type: blackhole, inputs: [s] }} }}\n");
        std::fs::write(folder.path().join(format!("p{at}.yaml")), text).expect("a file");
    }
    let began = Instant::now();
    let mut child = start(folder.path(), count);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let all = format!("running {count}");
    assert!(lines.any(|line| line == all), "every pipeline starts");
    let started = began.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    let (before, ..) = looked(child.id());
    std::thread::sleep(QUIET);
    let (after, bytes, threads, files) = looked(child.id());
    let step = lines.find_map(|line| line.strip_prefix("step ").map(str::to_owned)).unwrap_or_default();
    let mut step = step.split(' ');
    stop(&mut child);
    println!(
        "| {count} | {:.1} s | {:.2} % | {:.1} MB | {:.0} KB | {threads} | {files} | {} µs | {} µs |",
        started.as_secs_f64(),
        (after - before) / QUIET.as_secs_f64() * 100.0,
        bytes / 1e6,
        bytes / 1e3 / count as f64,
        step.next().unwrap_or_default(),
        step.next().unwrap_or_default(),
    );
}

fn slots(count: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let room = count + 20;
    let settings = [format!("max_wal_senders={room}"), format!("max_replication_slots={room}"), format!("max_connections={}", room + 100)];
    let postgres = Postgres::start_with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let client = postgres.database("shop").await;
        for at in 0..count {
            client.batch_execute(&format!("CREATE TABLE t{at} (id int PRIMARY KEY); INSERT INTO t{at} VALUES (1)")).await.expect("a table");
        }
    });
    for at in 0..count {
        let text = format!(
            "sources: {{ s: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.t{at}\"] }} }} }}\n\
             sinks: {{ f: {{ type: file, inputs: [s], path: out/{at} }} }}\n",
            postgres.url("shop")
        );
        std::fs::write(folder.path().join(format!("p{at}.yaml")), text).expect("a file");
    }
    std::fs::write(folder.path().join("etl-stream.yaml"), "engine: { connections: { total: 16, per_server: 16 } }\n").expect("a file");
    let (most, done) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let sample = {
        let (client, most, done) = (runtime.block_on(postgres.client("postgres")), Arc::clone(&most), Arc::clone(&done));
        runtime.spawn(async move {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name LIKE 'etl-stream%'";
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(client.query_one(sql, &[]).await.map_or(0, |row| row.get(0)), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let began = Instant::now();
    let mut child = start(folder.path(), 0);
    let streaming = runtime.block_on(async {
        let client = postgres.client("postgres").await;
        loop {
            let row = client.query_one("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &[]).await.expect("an answer");
            if row.get::<_, i64>(0) as usize >= count {
                return began.elapsed();
            }
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    done.store(true, Ordering::Relaxed);
    let _ = runtime.block_on(sample);
    std::thread::sleep(Duration::from_secs(10));
    let (before, ..) = looked(child.id());
    std::thread::sleep(QUIET * 2);
    let (after, bytes, threads, files) = looked(child.id());
    stop(&mut child);
    println!(
        "| slots | all streaming after | most connections of 16 | CPU of a core | memory | a source | threads | open files |\n|---|---|---|---|---|---|---|---|"
    );
    println!(
        "| {count} | {:.1} s | {} | {:.2} % | {:.1} MB | {:.0} KB | {threads} | {files} |",
        streaming.as_secs_f64(),
        most.load(Ordering::Relaxed),
        (after - before) / (QUIET * 2).as_secs_f64() * 100.0,
        bytes / 1e6,
        bytes / 1e3 / count as f64,
    );
}
