//! Thousands of sources under one WAL monitor, against servers that only speak the protocol.
//!
//! ```text
//! this process: wal_monitor ──TCP──> child process: N listeners, each a server with its share of the slots
//!                           ──────> one that takes connections and never answers, one that refuses
//! ```
//! The servers run in a process of their own, so that the processor time shown is the monitor's. What is isolated: schedule,
//! connections, the protocol, reading the answer, making rows. What is not there: PostgreSQL's own time for a check.
//!
//! `cargo bench --bench monitor` runs the two figures of the plan: 1,000 sources on 4 servers and 10,000 on 40, each
//! server every ten seconds; `ROUNDS` periods are measured after the first, in which servers that hang are found out.

use etl_stream::{
    BuildContext, Chunk, ChunkSender, ConnectionSettings, Connections, Credits, Durable, Kind, MemoryState, ParsedNode, Peers,
    PipelineStatus, Registry, SourceClosed, SourceContext, Ts,
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Periods that are measured.
const ROUNDS: u32 = 4;
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps what histograms are told.
#[derive(Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().expect("no panic").push(value);
    }
}

/// Hands out one histogram for the start delay; nothing else is kept.
struct Delays(Arc<Samples>);

impl Recorder for Delays {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() == "etl_stream_monitor_start_delay_seconds" { Histogram::from_arc(Arc::clone(&self.0)) } else { Histogram::noop() }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--servers") {
        let number = |offset: usize| arguments.get(at + offset).and_then(|n| n.parse().ok()).expect("a number");
        return serve(number(1), number(2));
    }
    let samples = Arc::new(Samples::default());
    metrics::set_global_recorder(Delays(Arc::clone(&samples))).expect("no other recorder");
    println!(
        "| sources | servers | limit | checks | start delay p50 | p99 | max | CPU of a core | connections at once | of these seen by the servers |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let rows = [(1_000, 4, 4), (10_000, 40, 40), (10_000, 40, 10)];
    // One of them by its number, where a machine is not to be kept quiet for all.
    let only = arguments.iter().find_map(|argument| argument.parse::<usize>().ok());
    for (sources, servers, limit) in rows.into_iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at)).map(|(_, row)| row)
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let row = runtime.block_on(measure(sources, servers, limit, &samples));
        runtime.shutdown_background();
        println!("{row}");
    }
}

/// A sink that has everything at once.
struct Taken(Credits, watch::Sender<Durable>, Arc<AtomicUsize>);

impl ChunkSender for Taken {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        self.2.fetch_add(chunk.items.len(), Ordering::Relaxed);
        self.0.give(chunk.credit);
        self.1.send_replace(Durable { upper: chunk.upper, finished: false });
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.1.send_modify(|durable| durable.finished = true);
    }
}

async fn measure(sources: usize, servers: usize, limit: u32, samples: &Samples) -> String {
    let (mut child, ports) = start_servers(servers, sources / servers);
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let refusing = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let all: Vec<u16> = ports.iter().copied().chain([hung.local_addr().expect("it listens").port(), refusing]).collect();
    let registry = Registry::builtin();
    let postgres = registry.get(Kind::Source, "postgres").expect("a source").parse;
    let peers = Peers::new((0..sources).map(|at| -> (Arc<str>, Arc<dyn ParsedNode>) {
        // The last two servers, which do not answer, have two of the sources.
        let port = if at < 2 { all[servers + at] } else { all[at % servers] };
        let url = format!("postgres://u@127.0.0.1:{port}/d{at}?sslmode=disable");
        (format!("s{at}").into(), postgres(json!({ "url": { "plain": url } })).expect("settings"))
    }));
    let monitor = registry.get(Kind::Source, "wal_monitor").expect("a source").parse;
    let monitor = monitor(json!({ "interval": "10s", "timeout": "5s" })).expect("settings");
    let context = BuildContext { pipeline: "bench".into(), node: "wal".into(), folder: Path::new("/").into(), peers };
    let source = monitor.source(&context).expect("a source");
    let (durable, durable_end) = watch::channel(Durable { upper: Ts::default(), finished: false });
    let (stop, stop_end) = watch::channel(false);
    let credits = Credits::new(1 << 30, Arc::new(Semaphore::new(1 << 30)));
    let connections = Connections::new(ConnectionSettings { total: limit, per_server: 1 });
    let status = Arc::new(PipelineStatus::default());
    let cx = SourceContext {
        pipeline: "bench".into(),
        source: "wal".into(),
        out: Box::new(Taken(credits.clone(), durable, Arc::default())),
        durable: durable_end,
        credits,
        connections: Arc::clone(&connections),
        state: Arc::<MemoryState>::default(),
        status: Arc::clone(&status),
        source_status: status.source("wal"),
        stop: stop_end,
        paused: watch::channel(false).1,
    };
    let run = tokio::spawn(source.run(cx));
    tokio::time::sleep(INTERVAL * 2).await;
    samples.0.lock().expect("no panic").clear();
    let (before, began) = (cpu(), Instant::now());
    let mut most = 0;
    while began.elapsed() < INTERVAL * ROUNDS {
        most = most.max(connections.open());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let used = (cpu() - before) / began.elapsed().as_secs_f64();
    let mut delays = std::mem::take(&mut *samples.0.lock().expect("no panic"));
    let (answering, slots) = status
        .servers()
        .values()
        .fold((0, 0), |(n, slots), server| if server.failed_checks == 0 { (n + 1, slots + server.slots.len()) } else { (n, slots) });
    assert_eq!((answering, slots), (servers, sources / servers * servers), "every server that answers was seen with all its slots");
    stop.send_replace(true);
    run.await.expect("no panic").expect("a good end");
    drop(child.stdin.take());
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
    let _ = child.wait();
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays.get(((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1))).copied().unwrap_or(0.0);
    format!(
        "| {sources} | {servers} | {limit} | {} | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} % | {most} | {} |",
        delays.len(),
        at(0.5) * 1e3,
        at(0.99) * 1e3,
        at(1.0) * 1e3,
        used * 100.0,
        said.trim()
    )
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: utime and stime are the 12th and 13th fields, in hundredths.
    let fields: Vec<f64> = text.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    fields.iter().skip(11).take(2).sum::<f64>() / 100.0
}

fn start_servers(servers: usize, slots: usize) -> (Child, Vec<u16>) {
    let own = std::env::current_exe().expect("a program");
    let mut child = Command::new(own)
        .args(["--servers", &servers.to_string(), &slots.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("the ports");
    let ports = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    (child, ports)
}

/// Serves until the standard input ends; then says how many connections there were at once.
fn serve(servers: usize, slots: usize) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut ports = Vec::new();
    for server in 0..servers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        ports.push(listener.local_addr().expect("it listens").port().to_string());
        let answer = Arc::new(answer(server, slots));
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (answer, now, most) = (Arc::clone(&answer), Arc::clone(&now), Arc::clone(&most));
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut socket = socket;
                    let _ = speak(&mut socket, &answer);
                    // As PostgreSQL does it: it counts a connection no more when it closes it.
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }
    println!("{}", ports.join(" "));
    let _ = std::io::stdin().read(&mut [0]);
    println!("{}", most.load(Ordering::SeqCst));
}

/// What a server with so many slots says of itself.
fn answer(server: usize, slots: usize) -> Vec<u8> {
    let names: Vec<String> = (0..slots).map(|slot| format!("etl_stream_slot_{server}_{slot}")).collect();
    let slot = |name: &String| {
        json!({ "slot_name": name, "slot_type": "logical", "plugin": "pgoutput", "database": "shop", "temporary": false, "active": true,
                "active_pid": 4242, "restart_lsn": "16/B374D848", "confirmed_flush_lsn": "16/B3750000", "wal_status": "reserved",
                "safe_wal_size": 1 << 30, "two_phase": false })
    };
    let decoded = |name: &String| {
        json!({ "slot_name": name, "spill_txns": 0, "spill_count": 0, "spill_bytes": 0, "stream_txns": 1, "stream_count": 1,
                "stream_bytes": 1000, "total_txns": 100, "total_bytes": 100_000 })
    };
    let all: Value = json!({
        "version": 150_018, "system": "7", "started": server, "recovery": false, "lsn": "16/B3800000", "slots_max": slots + 10,
        "senders_max": slots + 10, "connections_max": 5_000, "connections": slots, "slots": names.iter().map(slot).collect::<Vec<_>>(),
        "decoded": names.iter().map(decoded).collect::<Vec<_>>(), "senders": [],
    });
    let text = all.to_string();
    let mut bytes = Vec::new();
    // One column named "c", of type text; one row; the command's tag.
    message(&mut bytes, b'T', &[&[0, 1][..], b"c\0", &[0; 6], &[0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]].concat());
    message(&mut bytes, b'D', &[&[0, 1][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat());
    message(&mut bytes, b'C', b"SELECT 1\0");
    message(&mut bytes, b'Z', b"I");
    bytes
}

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// PostgreSQL's side of one connection.
fn speak(socket: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut startup = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    socket.read_exact(&mut startup)?;
    let mut welcome = Vec::new();
    message(&mut welcome, b'R', &[0, 0, 0, 0]);
    message(&mut welcome, b'S', b"server_version\x0015.18\0");
    message(&mut welcome, b'S', b"client_encoding\0UTF8\0");
    message(&mut welcome, b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
    message(&mut welcome, b'Z', b"I");
    socket.write_all(&welcome)?;
    let mut head = [0; 5];
    loop {
        socket.read_exact(&mut head)?;
        let mut body = vec![0; (u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize).saturating_sub(4)];
        socket.read_exact(&mut body)?;
        match head[0] {
            b'Q' if body.windows(17).any(|window| window == b"json_build_object") => socket.write_all(answer)?,
            b'Q' => {
                let mut done = Vec::new();
                message(&mut done, b'C', b"SET\0");
                message(&mut done, b'Z', b"I");
                socket.write_all(&done)?;
            }
            _ => return Ok(()),
        }
    }
}
