//! What a schedule of faults happens to: servers, a proxy between, a pipeline with two sinks, a process.

use super::compare;
use super::workload::SCHEMA;
use crate::warehouse::account;
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::proxy::Proxy;
use etl_stream_operators::testing::random::Random;
use etl_stream_operators::testing::snowflake::{LocalSnowflake, PRIVATE_KEY};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the last run may take to bring everything home.
const CATCH_UP: Duration = Duration::from_secs(300);
/// How long a process may take to end after SIGTERM: its drain has a deadline of 20 s.
const TERMINATE: Duration = Duration::from_secs(40);

/// Codes that a process may end with while something is broken: it says what, and the next start goes on.
const ENDINGS: &[&str] = &["PG0001", "PG0005", "PG0006", "PG0012", "PG0021", "PG0022", "SF0002", "FS0001", "RUN0003", "RUN0010", "RUN0011"];

/// Nothing is wrong with Snowflake. A statement is told to be running within the time that a request may
/// take, as the real service's 45 s are within the default's 60 s.
pub(crate) fn calm() -> serde_json::Value {
    serde_json::json!({ "clear_failures": true, "commit_paused": false, "commit_delay_ms": 0, "latency_ms": {}, "sync_wait_ms": 1000 })
}

/// See the module.
pub(crate) struct World {
    folder: Option<tempfile::TempDir>,
    pub(crate) postgres: Postgres,
    pub(crate) proxy: Proxy,
    pub(crate) snowflake: LocalSnowflake,
    pub(crate) engine: Option<Child>,
    /// How processes have ended, in words.
    pub(crate) story: Vec<String>,
    seed: u64,
    started: Instant,
}

impl World {
    /// Servers with the workload's tables, and a pipeline file.
    pub(crate) async fn new(seed: u64, random: &mut Random) -> Self {
        let folder = tempfile::Builder::new().prefix("etl-stream-faults").tempdir().unwrap();
        // Odd seeds have their larger transactions streamed while they are in progress.
        let memory = if seed % 2 == 1 { "logical_decoding_work_mem=64kB" } else { "logical_decoding_work_mem=64MB" };
        let postgres = Postgres::start_with(&["wal_sender_timeout=3s", "max_wal_senders=20", memory]);
        postgres.database("shop").await.batch_execute(SCHEMA).await.unwrap();
        let data = folder.path().join("snowflake").display().to_string();
        let snowflake = LocalSnowflake::start_with(&["--data", &data]);
        snowflake.sql("CREATE DATABASE RAW").await;
        snowflake.faults(calm()).await;
        let proxy = Proxy::start(postgres.port());
        let pipeline = format!(
            "sources:
  shop:
    type: postgres
    url: {{ plain: \"postgres://postgres@127.0.0.1:{}/shop\" }}
    tables: {{ include: [\"public.*\"] }}
    keys: {{ public.journal: [id], public.badges: [code] }}
    snapshot: {{ workers: {} }}
    heartbeat: {{ interval: 1s }}
    receive_timeout: 4s
    retry: {{ initial: 20ms, max: 500ms, give_up_after: 20s }}
sinks:
  files:
    type: file
    inputs: [shop]
    path: out
    batch: {{ max_rows: {}, max_age: {}ms }}
    retry: {{ initial: 20ms, max: 200ms, give_up_after: 3s }}
  warehouse:
    {{ inputs: [shop], {}, schema: SHOP, channels: {}, batch: {{ max_rows: {}, max_age: {}ms }}, merge: {{ interval: {}ms }},
      request_timeout: 8s, retry: {{ initial: 20ms, max: 500ms, give_up_after: 90s }} }}
engine: {{ source_credit: {}MiB, credit: 16MiB }}
server: none
",
            proxy.port(),
            random.between(1, 4),
            random.between(5, 300),
            random.between(10, 200),
            account(&snowflake),
            random.between(1, 4),
            random.between(5, 500),
            random.between(10, 300),
            random.between(50, 1500),
            random.between(1, 9),
        );
        fs::write(folder.path().join("pipeline.yaml"), pipeline).unwrap();
        fs::write(folder.path().join("snowflake.p8"), PRIVATE_KEY).unwrap();
        Self { folder: Some(folder), postgres, proxy, snowflake, engine: None, story: Vec::new(), seed, started: Instant::now() }
    }

    fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/"), tempfile::TempDir::path)
    }

    /// Where the files are.
    pub(crate) fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    /// Notes what happened, with the time.
    pub(crate) fn tell(&mut self, what: impl Into<String>) {
        let line = format!("{:7.2} {}", self.started.elapsed().as_secs_f64(), what.into());
        if std::env::var_os("SOAK_VERBOSE").is_some() {
            eprintln!("{line}");
        }
        self.story.push(line);
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, workers: u64, failpoints: &str, more: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path().join("run.log")).unwrap();
        // Another build's, for a soak that goes on while this one is worked on.
        let binary = std::env::var_os("SOAK_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_etl-stream").into());
        let mut command = Command::new(binary);
        command
            .args(["run", "--shutdown-timeout", "20s", "--workers", &workers.to_string()])
            .args(more)
            .current_dir(self.path())
            .env("ETL_STREAM_FAILPOINTS", failpoints)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.engine = Some(command.spawn().unwrap());
    }

    /// Looks whether the process has ended by itself, and whether it may have.
    pub(crate) fn look(&mut self) {
        if let Some(status) = self.engine.as_mut().and_then(|engine| engine.try_wait().unwrap()) {
            self.ended(status);
        }
    }

    fn ended(&mut self, status: ExitStatus) {
        use std::os::unix::process::ExitStatusExt;
        self.engine = None;
        // SIGTERM ends a process that has not begun to read as it ends any.
        if matches!(status.signal(), Some(9 | 15)) || status.success() {
            self.tell(format!("  ended: {status}"));
            return;
        }
        let shown = self.last_words();
        // The last error is the one it ended by.
        let code = shown.rsplit_once("error[").and_then(|(_, rest)| ENDINGS.iter().find(|code| rest.starts_with(*code)));
        self.tell(format!("  ended: {status} {code:?}"));
        assert!(code.is_some(), "the process ended by itself with {status}:\n{shown}");
    }

    /// The end of the process's log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path().join("run.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let status = engine.wait().unwrap();
            self.engine = None;
            self.ended(status);
        }
    }

    /// Asks the process to end, and waits.
    pub(crate) fn terminate(&mut self) {
        self.look();
        if let Some(engine) = &self.engine {
            crate::harness::signal(engine, "TERM");
            self.wait(TERMINATE, "SIGTERM");
        }
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self, patience: Duration, why: &str) {
        let deadline = Instant::now() + patience;
        while self.engine.is_some() {
            assert!(Instant::now() < deadline, "the process did not end within {} s of {why}", patience.as_secs());
            std::thread::sleep(Duration::from_millis(20));
            self.look();
        }
    }

    /// Lets everything work again, brings everything home, and compares.
    pub(crate) async fn settle(&mut self) {
        self.proxy.heal();
        self.snowflake.faults(calm()).await;
        self.kill();
        let began = Instant::now();
        self.start(1, "", &["--until", "caught-up"]);
        let deadline = began + CATCH_UP;
        let status = loop {
            if let Some(status) = self.engine.as_mut().and_then(|engine| engine.try_wait().unwrap()) {
                break status;
            }
            if Instant::now() > deadline {
                panic!("not caught up within {} s", CATCH_UP.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.engine = None;
        assert!(status.success(), "the last run ended with {status}:\n{}", self.last_words());
        self.tell(format!("caught up in {:.1} s", began.elapsed().as_secs_f64()));
        let client = self.postgres.client("shop").await;
        let mut problems = Vec::new();
        let tokens = compare::files(&client, &self.out(), &mut problems).await;
        compare::warehouse(&client, &self.snowflake, &tokens, &mut problems).await;
        let shown: Vec<&String> = problems.iter().take(12).collect();
        assert!(problems.is_empty(), "{} problems:\n{shown:#?}", problems.len());
        let rows: usize = tokens.values().map(std::collections::BTreeMap::len).sum();
        self.tell(format!("equal: {rows} rows in order and once"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let _ = fs::write(folder.path().join("postgres.log"), self.postgres.log());
            let _ = fs::write(folder.path().join("story.txt"), self.story.join("\n"));
            eprintln!("SEED={} failed; what it left is in {}\n{}", self.seed, folder.keep().display(), self.story.join("\n"));
        }
    }
}
