//! The demo: a shop in a real PostgreSQL, its copy in the local Snowflake, and proof that they are equal.
//!
//! ```text
//! servers ──> database ──> pipeline (a child `etl-stream run`) ──> workload ──> caught up ──> report
//! ```
//! Everything happens in a private temporary folder, which goes with the demo unless it is to be kept.
//! Progress goes to stderr, the report to stdout.

mod database;
mod pipeline;
mod progress;
mod report;
mod servers;
mod workload;

use etl_stream_operators::contract::{Code, CodedError, Exit};
use progress::Progress;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A table differs between PostgreSQL and Snowflake.
pub const DEMO_DIFFERS: Code = Code::new("DEMO0001", Exit::Negative);
/// A server of the demo did not start.
pub const DEMO_SERVER: Code = Code::new("DEMO0002", Exit::Environment);
/// A step of the demo failed.
pub const DEMO_STEP: Code = Code::new("DEMO0003", Exit::Failure);

/// How long the copy of the existing rows may take.
const SNAPSHOT: Duration = Duration::from_secs(120);
/// How long the pipeline may take to catch up once the workload has ended.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Connections of the workload.
const WRITERS: u64 = 4;

/// What the demo is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// How long the workload changes the shop, in seconds.
    pub seconds: u64,
    /// Rows of the shop in all, before the workload; below 2,300 there are somewhat more.
    pub rows: u32,
    /// Keep the folder; on a terminal, keep the servers too until Ctrl-C.
    pub keep: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { seconds: 20, rows: 200_000, keep: false }
    }
}

/// How long the parts took and how much was streamed, for the report.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    snapshot_rows: u64,
    snapshot: Duration,
    workload: Duration,
    /// Transactions that the workload committed.
    committed: u64,
    /// Transactions of the workload that ended in a rollback.
    aborted: u64,
    /// Transactions and changes that the pipeline read from the log.
    transactions: u64,
    changes: u64,
    /// Rows that Snowflake refused.
    rejected: u64,
    /// From the workload's last commit to the confirmation of everything.
    caught_up: Duration,
    /// From the request to stop to the end of the pipeline's process.
    drained: Duration,
}

/// Runs the demo on a runtime of its own, until it is over or Ctrl-C. Its servers and its folder end with it.
///
/// # Errors
/// `DEMO0001` when a table differs, `DEMO0002` when a server does not start, `DEMO0003` when anything else fails.
pub fn run(options: DemoOptions) -> Result<(), CodedError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| step("the demo did not get its threads").caused_by(e))?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = demo(options) => result,
            _ = tokio::signal::ctrl_c() => Err(step("the demo was interrupted")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Runs the demo. Dropped, it ends its servers.
async fn demo(options: DemoOptions) -> Result<(), CodedError> {
    let mut folder = tempfile::Builder::new()
        .prefix("etl-stream-demo-")
        .tempdir()
        .map_err(|e| CodedError::definite(DEMO_SERVER, "the demo did not get a temporary folder").caused_by(e))?;
    folder.disable_cleanup(options.keep);
    let result = steps(options, folder.path()).await;
    if options.keep {
        eprintln!("kept {}", folder.path().display());
    } else if result.is_err() {
        // What went wrong stands in the logs: they are worth more than a tidy folder.
        folder.disable_cleanup(true);
        eprintln!("the logs are in {}", folder.path().display());
    }
    result
}

async fn steps(options: DemoOptions, folder: &std::path::Path) -> Result<(), CodedError> {
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let mut measured = Measured::default();

    progress.step("starting PostgreSQL and the local Snowflake");
    let servers = servers::Servers::start(folder, options.keep).await?;

    progress.step(&format!("filling the shop with {} rows in 13 tables", options.rows));
    let database = database::Database::create(servers.postgres(), options.rows).await?;

    progress.step("copying them to Snowflake: etl-stream run shop.yaml");
    let mut pipeline = pipeline::Pipeline::start(folder, &servers)?;
    let started = Instant::now();
    let copied = pipeline.until("the copy of the existing rows", SNAPSHOT, &mut progress, pipeline::Status::is_streaming).await?;
    measured.snapshot = started.elapsed();
    measured.snapshot_rows = copied.snapshot_rows;

    progress.step(&format!("changing the shop over {WRITERS} connections for {} s while the changes stream", options.seconds));
    let started = Instant::now();
    let work = workload::run(database.url(), WRITERS, Duration::from_secs(options.seconds));
    let done = pipeline.beside(work, &mut progress).await?;
    measured.workload = started.elapsed();
    (measured.committed, measured.aborted) = (done.committed, done.aborted);

    progress.step("waiting until the last change is in Snowflake");
    let started = Instant::now();
    let end = database.position().await?;
    let last = pipeline.until("the last change", CATCH_UP, &mut progress, move |status| status.confirmed >= end).await?;
    measured.caught_up = started.elapsed();
    (measured.transactions, measured.changes, measured.rejected) = (last.transactions, last.changes, last.rejected_rows);
    let started = Instant::now();
    pipeline.stop().await?;
    measured.drained = started.elapsed();

    progress.step("comparing every row of every table");
    let compared = report::compare(&servers, database.url()).await?;
    progress.finish();
    servers.keep_log(folder);

    print(&report::render(&compared, &measured))?;
    let stays = options.keep && std::io::stderr().is_terminal();
    print(&report::next(folder, &servers, options.keep, stays))?;
    if stays {
        eprintln!("both servers run until Ctrl-C");
        let _ = tokio::signal::ctrl_c().await;
    }
    report::verdict(&compared)
}

/// Prints to stdout; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), CodedError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(step("the report was not written").caused_by(error)),
        _ => Ok(()),
    }
}

/// A step that failed.
fn step(message: impl Into<String>) -> CodedError {
    CodedError::definite(DEMO_STEP, message)
}
