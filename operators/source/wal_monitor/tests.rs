//! The monitor against real servers, one that never answers and one that refuses.

use super::WalMonitorConfig;
use crate::contract::{
    BuildContext, Chunk, ChunkSender, CodedError, ConnectionSettings, Connections, Credits, Durable, Item, Kind, MemoryState, NodeConfig,
    ParsedNode, Peers, PipelineStatus, RawItem, Registry, RowBatch, SourceClosed, SourceConfig, SourceContext, StateStore, Token, Ts,
    WalServer, WalSlot,
};
use crate::testing::postgres::{Postgres, installations};
use arrow::array::{Array, AsArray};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(60);

/// A sink that has everything at once.
struct Taken(Arc<Mutex<Vec<RowBatch>>>, Credits, watch::Sender<Durable>);

impl ChunkSender for Taken {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        let mut taken = self.0.lock().unwrap();
        for item in chunk.items {
            let RawItem::Ready(Item::Rows(batch)) = item else { panic!("a monitor sends rows") };
            assert!(batch.last_token().is_some_and(|last| Ts::from(last) < chunk.upper));
            taken.push(batch);
        }
        self.1.give(chunk.credit);
        self.2.send_replace(Durable { upper: chunk.upper, finished: false });
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.2.send_modify(|durable| durable.finished = true);
    }
}

struct Monitor {
    taken: Arc<Mutex<Vec<RowBatch>>>,
    status: Arc<PipelineStatus>,
    connections: Arc<Connections>,
    stop: watch::Sender<bool>,
    run: JoinHandle<Result<(), CodedError>>,
}

/// `postgres` sources to watch: their names and settings.
fn peers(sources: &[(&str, Value)]) -> Peers {
    let registry = crate::source::register(Registry::empty());
    let parse = registry.get(Kind::Source, "postgres").expect("a source").parse;
    Peers::new(
        sources
            .iter()
            .map(|(name, settings)| -> (Arc<str>, Arc<dyn ParsedNode>) { ((*name).into(), parse(settings.clone()).expect("settings")) }),
    )
}

impl Monitor {
    fn start(settings: &Value, peers: Peers, limits: ConnectionSettings, state: &Arc<MemoryState>) -> Self {
        Self::start_with(settings, peers, limits, state, 1 << 24)
    }

    fn start_with(settings: &Value, peers: Peers, limits: ConnectionSettings, state: &Arc<MemoryState>, credit: usize) -> Self {
        let mut all = json!({ "interval": "100ms", "timeout": "2s" });
        settings.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        let config: WalMonitorConfig = serde_json::from_value(all).unwrap();
        let mut findings = crate::contract::Findings::default();
        config.check(&mut findings);
        assert!(findings.0.is_empty(), "{findings:?}");
        let source =
            config.build(&BuildContext { pipeline: "p".into(), node: "wal".into(), folder: Path::new("/").into(), peers }).unwrap();
        let (taken, status) = (Arc::default(), Arc::new(PipelineStatus::default()));
        let (durable, durable_end) = watch::channel(Durable { upper: Ts::default(), finished: false });
        let (stop, stop_end) = watch::channel(false);
        let credits = Credits::new(credit, Arc::new(Semaphore::new(1 << 30)));
        let connections = Connections::new(limits);
        let cx = SourceContext {
            pipeline: "p".into(),
            source: "wal".into(),
            out: Box::new(Taken(Arc::clone(&taken), credits.clone(), durable)),
            durable: durable_end,
            credits,
            connections: Arc::clone(&connections),
            state: Arc::clone(state) as Arc<dyn StateStore>,
            status: Arc::clone(&status),
            source_status: status.source("wal"),
            stop: stop_end,
            paused: watch::channel(false).1,
        };
        Self { taken, status, connections, stop, run: tokio::spawn(source.run(cx)) }
    }

    fn server(&self, name: &str) -> Option<Arc<WalServer>> {
        self.status.servers().get(name).cloned()
    }

    fn slot(&self, server: &str, slot: &str) -> Option<WalSlot> {
        self.server(server)?.slots.iter().find(|s| s.name == slot).cloned()
    }

    /// How often a server has been checked.
    fn checks(&self, server: &str) -> usize {
        let of = |batch: &&RowBatch| &*batch.table.name == "wal_servers" && text(batch, "server", 0).as_deref() == Some(server);
        self.taken.lock().unwrap().iter().filter(of).count()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(!self.run.is_finished(), "the monitor ended before: {what}");
            assert!(Instant::now() < deadline, "in vain: {what}: {:?}", self.status.servers());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> Vec<RowBatch> {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.run).await.expect("it stops").expect("no panic").expect("a good end");
        let taken = std::mem::take(&mut *self.taken.lock().unwrap());
        let tokens: Vec<Token> = taken.iter().flat_map(|batch| (0..batch.len()).map(|row| batch.token(row))).collect();
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "tokens rise");
        taken.iter().for_each(crate::testing::drive::assert_well_formed);
        taken
    }
}

fn text(batch: &RowBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.columns[batch.table.column(column).expect("a column")].as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn servers(of: &[(&str, String)]) -> Value {
    let servers: serde_json::Map<String, Value> =
        of.iter().map(|(name, url)| ((*name).to_owned(), json!({ "url": { "plain": url } }))).collect();
    json!({ "servers": servers })
}

/// Makes a logical slot; in a transaction of its own, which has written nothing.
fn logical(slot: &str) -> String {
    format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
}

async fn version(postgres: &Postgres) -> u32 {
    let client = postgres.client("postgres").await;
    let number: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
    number.parse::<u32>().unwrap() / 10_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_lags_on_every_version() {
    for bin in installations() {
        let postgres = Postgres::start_from(bin, &[]);
        let version = version(&postgres).await;
        let client = postgres.database("shop").await;
        client.batch_execute("CREATE TABLE t (v text)").await.unwrap();
        client.batch_execute("SELECT pg_create_physical_replication_slot('standby')").await.unwrap();
        client.batch_execute(&logical("etl_stream_p_shop")).await.unwrap();
        let state = Arc::default();
        let peers = peers(&[("shop", json!({ "url": { "plain": postgres.url("shop") } }))]);
        let monitor = Monitor::start(&json!({ "retained_wal_limit": "1MiB" }), peers, ConnectionSettings::default(), &state);
        let name = format!("127.0.0.1:{}", postgres.port());
        monitor.until("seen", |m| m.slot(&name, "etl_stream_p_shop").is_some()).await;
        let before = monitor.slot(&name, "etl_stream_p_shop").unwrap();
        assert_eq!((before.source.as_deref(), before.database.as_deref(), before.active), (Some("shop"), Some("shop"), false), "{version}");
        assert!(before.inactive_since.is_some() && before.decoded.is_some() && !before.over_limit, "{version}: {before:?}");
        assert_eq!(monitor.slot(&name, "standby").unwrap().slot_type, "physical");
        client.batch_execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 5000)").await.unwrap();
        monitor.until("it lags", |m| m.slot(&name, "etl_stream_p_shop").unwrap().over_limit).await;
        let after = monitor.slot(&name, "etl_stream_p_shop").unwrap();
        assert!(after.retained_bytes.unwrap() > (1 << 20) && after.unconfirmed_bytes > before.unconfirmed_bytes, "{version}: {after:?}");
        assert_eq!((after.wal_status.as_deref(), after.conflicting), (Some("reserved"), (version >= 16).then_some(false)), "{version}");
        let server = monitor.server(&name).unwrap();
        assert_eq!((server.version.map(|v| v / 10_000), server.in_recovery), (Some(i64::from(version)), Some(false)));
        assert_eq!((server.slots_used, server.slots_max, server.senders_max), (Some(2), Some(40), Some(40)), "{version}");
        monitor.until("a rate", |m| m.server(&name).unwrap().wal_rate.is_some()).await;
        // One connection does all of it, and says what it is for.
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl-stream wal monitor'";
        let connections: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!((connections, monitor.connections.open()), (1, 1), "{version}");
        let batches = monitor.stop().await;
        let slots = batches.iter().find(|batch| &*batch.table.name == "wal_slots").expect("rows of slots");
        assert_eq!(
            (text(slots, "slot_name", 0).as_deref(), text(slots, "source", 0).as_deref()),
            (Some("etl_stream_p_shop"), Some("shop"))
        );
        assert_eq!((text(slots, "slot_name", 1).as_deref(), text(slots, "source", 1)), (Some("standby"), None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_and_one_that_refuses_delay_nobody() {
    let postgres = Postgres::start();
    // Takes connections and says nothing; and a port where nobody listens.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = |port: u16| format!("postgres://u@127.0.0.1:{port}/d");
    let mut settings =
        servers(&[("good", postgres.url("postgres")), ("hung", url(hung.local_addr().unwrap().port())), ("refusing", url(gone))]);
    settings["checks"] = json!(2);
    settings["timeout"] = json!("1s");
    let state = Arc::default();
    let monitor = Monitor::start(&settings, Peers::default(), ConnectionSettings::default(), &state);
    monitor.until("all three were looked at", |m| m.status.servers().len() == 3).await;
    let (good, hung_checks) = (monitor.checks("good"), monitor.checks("hung"));
    monitor.until("the good one goes on", |m| m.checks("good") > good + 20).await;
    assert!(monitor.checks("hung") < hung_checks + 10, "the one that hangs is looked at less often");
    let error = |name: &str| monitor.server(name).unwrap().error.clone().unwrap_or_default();
    assert!(error("hung").contains("PG0041") && error("refusing").contains("PG0001"), "{} {}", error("hung"), error("refusing"));
    assert_eq!(monitor.server("good").unwrap().error, None);
    // A monitor of which some servers answer is there.
    assert_eq!(monitor.status.source("wal").phase().0, crate::contract::Phase::Streaming);
    let batches = monitor.stop().await;
    let of_hung = batches.iter().find(|batch| text(batch, "server", 0).as_deref() == Some("hung")).expect("a row");
    assert!(&*of_hung.table.name == "wal_servers" && text(of_hung, "error", 0).unwrap().contains("PG0041"));
    assert_eq!(text(of_hung, "system_identifier", 0), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_lost() {
    let postgres = Postgres::start_with(&["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=48MB"]);
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (v text)").await.unwrap();
    client.batch_execute(&logical("lost_one")).await.unwrap();
    let state = Arc::default();
    let monitor = Monitor::start(&servers(&[("db", postgres.url("shop"))]), Peers::default(), ConnectionSettings::default(), &state);
    monitor.until("seen", |m| m.slot("db", "lost_one").is_some_and(|slot| slot.safe_wal_size.is_some())).await;
    let deadline = Instant::now() + DEADLINE;
    while monitor.slot("db", "lost_one").unwrap().wal_status.as_deref() != Some("lost") {
        assert!(Instant::now() < deadline, "{:?}", monitor.slot("db", "lost_one"));
        for sql in
            ["INSERT INTO t SELECT repeat(md5(i::text), 100) FROM generate_series(1, 5000) i", "SELECT pg_switch_wal()", "CHECKPOINT"]
        {
            client.batch_execute(sql).await.unwrap();
        }
    }
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_of_one_server_share_its_checks_by_whatever_name() {
    let postgres = Postgres::start();
    postgres.database("a").await;
    postgres.database("b").await;
    let url =
        |host: &str, database: &str| json!({ "url": { "plain": format!("postgres://postgres@{host}:{}/{database}", postgres.port()) } });
    let peers = peers(&[("one", url("127.0.0.1", "a")), ("two", url("127.0.0.1", "b")), ("three", url("localhost", "b"))]);
    let state = Arc::default();
    let monitor = Monitor::start(&json!({}), peers, ConnectionSettings::default(), &state);
    let sources = |m: &Monitor| {
        m.status.servers().values().map(|s| s.sources.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    monitor
        .until("they are put together", |m| {
            let mut all = sources(m);
            all.iter_mut().for_each(|s| s.sort());
            all == [["one", "three", "two"]]
        })
        .await;
    let client = postgres.client("postgres").await;
    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl-stream wal monitor'";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    // The second name's connection is kept until it is needed elsewhere; it is not used.
    assert!(count().await <= 2);
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_within_the_budget() {
    let servers_running = [Postgres::start(), Postgres::start(), Postgres::start()];
    let of: Vec<(String, String)> = servers_running.iter().enumerate().map(|(at, p)| (format!("s{at}"), p.url("postgres"))).collect();
    let of: Vec<(&str, String)> = of.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let state = Arc::default();
    let limits = ConnectionSettings { total: 1, per_server: 1 };
    let monitor = Monitor::start(&servers(&of), Peers::default(), limits, &state);
    let deadline = Instant::now() + DEADLINE;
    while !of.iter().all(|(name, _)| monitor.checks(name) >= 5) {
        assert!(Instant::now() < deadline, "{:?}", monitor.status.servers());
        assert!(monitor.connections.open() <= 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(of.iter().all(|(name, _)| monitor.server(name).unwrap().failed_checks == 0));
    // Somebody else takes the place: it is said, and the next check after it is free works again.
    let permits = monitor.connections.permits(&format!("127.0.0.1:{}", servers_running[0].port()), 1).await;
    monitor
        .until("no place", |m| of.iter().any(|(name, _)| m.server(name).unwrap().error.as_deref().is_some_and(|e| e.contains("PG0042"))))
        .await;
    drop(permits);
    monitor.until("a place again", |m| of.iter().all(|(name, _)| m.server(name).unwrap().failed_checks == 0)).await;
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_free_connection() {
    let postgres = Postgres::start_with(&["max_connections=5", "superuser_reserved_connections=0"]);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(postgres.client("postgres").await);
    }
    let state = Arc::default();
    let monitor = Monitor::start(&servers(&[("db", postgres.url("postgres"))]), Peers::default(), ConnectionSettings::default(), &state);
    monitor.until("it is full", |m| m.server("db").and_then(|s| s.error.clone()).is_some_and(|error| error.contains("PG0005"))).await;
    clients.pop();
    monitor.until("there is a place", |m| m.server("db").unwrap().failed_checks == 0).await;
    // It is full again, with the monitor's own connection: that is kept, and the checks go on.
    assert!(tokio_postgres::connect(&postgres.url("postgres"), tokio_postgres::NoTls).await.is_err());
    let checks = monitor.checks("db");
    monitor.until("checks go on", |m| m.checks("db") > checks + 5).await;
    assert_eq!(monitor.server("db").unwrap().failed_checks, 0);
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rise_over_restarts_of_the_monitor_and_of_the_server() {
    let mut postgres = Postgres::start();
    let state = Arc::default();
    let start = |postgres: &Postgres| {
        Monitor::start(&servers(&[("db", postgres.url("postgres"))]), Peers::default(), ConnectionSettings::default(), &state)
    };
    let monitor = start(&postgres);
    monitor.until("some checks", |m| m.checks("db") > 3).await;
    postgres.kill();
    monitor.until("it is gone", |m| m.server("db").unwrap().failed_checks > 0).await;
    postgres.resume();
    monitor.until("it is back", |m| m.server("db").unwrap().failed_checks == 0).await;
    let first = monitor.stop().await;
    let monitor = start(&postgres);
    monitor.until("some checks", |m| m.checks("db") > 3).await;
    let second = monitor.stop().await;
    assert!(first.last().unwrap().last_token() < second.first().unwrap().first_token(), "tokens rise over a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credit_rows_are_left_out_and_checks_go_on() {
    let postgres = Postgres::start();
    let state = Arc::default();
    let settings = servers(&[("db", postgres.url("postgres"))]);
    let monitor = Monitor::start_with(&settings, Peers::default(), ConnectionSettings::default(), &state, 1);
    monitor.until("a check", |m| m.server("db").is_some()).await;
    let first = monitor.server("db").unwrap().checked_at;
    monitor.until("another", |m| m.server("db").unwrap().checked_at > first).await;
    assert!(monitor.stop().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_slot_drops_what_a_source_of_the_file_reads_and_nothing_else() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (v text)").await.unwrap();
    for slot in ["etl_stream_p_shop", "theirs"] {
        client.batch_execute(&logical(slot)).await.unwrap();
    }
    let state = Arc::default();
    let peers = peers(&[("shop", json!({ "url": { "plain": postgres.url("shop") } }))]);
    let settings = json!({ "retained_wal_limit": "1MiB", "on_limit": "drop_slot" });
    let monitor = Monitor::start(&settings, peers, ConnectionSettings::default(), &state);
    let name = format!("127.0.0.1:{}", postgres.port());
    monitor.until("seen", |m| m.slot(&name, "etl_stream_p_shop").is_some()).await;
    client.batch_execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 5000)").await.unwrap();
    monitor
        .until("it is gone", |m| m.server(&name).is_some_and(|s| s.failed_checks == 0) && m.slot(&name, "etl_stream_p_shop").is_none())
        .await;
    let left: Vec<String> =
        client.query("SELECT slot_name::text FROM pg_replication_slots", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["theirs"]);
    assert!(monitor.slot(&name, "theirs").is_some_and(|slot| slot.over_limit));
    monitor.stop().await;
}
