//! `etl-stream bench`: runs, compares and records benchmarks.

use super::Shell;
use crate::bench::{self, BENCH_INVALID, BENCH_REPORT, BENCH_SETTINGS, From, Options, Report, SCHEMA, Setup, To, Verdict};
use crate::exit::Failure;
use crate::{CodedError, Exit, SecretString};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use etl_stream_operators::source::replay::{Capture, Captured, inspect, record};
use etl_stream_operators::source::synthetic::Scenario;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Changes of a run, where nothing says how many.
const ROWS: u64 = 1_000_000;
/// How long an open loop runs, where nothing says how long.
const OPEN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Run scenarios and report what they took (the default).
    Run(RunArgs),
    /// Say whether report B is worse than report A; exits 4 on a regression.
    Compare(CompareArgs),
    /// Record a stream from a live slot, for --source replay and sources of type `replay`.
    Capture(CaptureArgs),
}

/// A scenario's word.
#[derive(Clone, Copy, Debug)]
struct Word(Scenario);

impl ValueEnum for Word {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Word; 7] = {
            let mut all = [Word(Scenario::NarrowInsert); 7];
            let mut at = 0;
            while at < 7 {
                all[at] = Word(Scenario::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }
    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.word()))
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What the rows are; several with commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME", default_value = "narrow_insert")]
    scenario: Vec<Word>,
    /// Where they come from: `synthetic`, `replay FILE` (a capture), or `postgres URL` (scenario `snapshot`: a table is made there,
    /// copied, and removed).
    #[arg(long, num_args = 1..=2, value_names = ["TYPE", "FILE|URL"], default_value = "synthetic")]
    source: Vec<String>,
    /// Where they go: `blackhole`, or `ndjson FOLDER` or `parquet FOLDER`, whose files stay.
    #[arg(long, num_args = 1..=2, value_names = ["TYPE", "FOLDER"], default_value = "blackhole", conflicts_with = "pipeline")]
    sink: Vec<String>,
    /// A pipeline file whose operators and sinks are measured; its sources are replaced by the one above.
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Changes of a run. Default: 1000000; with a rate, as many as come in 10 s.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// How long a run lasts, such as 30s, instead of how many changes it has.
    #[arg(long, value_name = "DURATION", value_parser = super::run::duration, conflicts_with = "rows")]
    duration: Option<Duration>,
    /// Changes a second, each at its time whatever became of those before it (an open loop): measures latency. Without it,
    /// changes come as fast as they are taken (a closed loop): measures the highest rate.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Runs of each scenario.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Runs before them that do not count.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    warmup: u32,
    /// Decides every row.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Worker threads of the engine. Default: 1, or what the pipeline file says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Write the report there instead of to stdout.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page with plots, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// The report before.
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The report after.
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Run n of A and run n of B were made one after the other: they are compared with each other.
    #[arg(long)]
    paired: bool,
    /// Compare reports of different machines or builds, and fewer than 5 runs.
    #[arg(long)]
    force: bool,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CaptureArgs {
    /// The server and its database, such as postgres://user@host/database.
    #[arg(env = "PG_URL", hide_env_values = true)]
    url: String,
    /// The file to make.
    file: PathBuf,
    /// The publication.
    #[arg(long, value_name = "NAME")]
    publication: String,
    /// A slot that is there; its position stays where it is. Default: one that ends with the recording.
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// Changes after which the next commit ends the recording; Ctrl-C ends it sooner.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
}

impl BenchArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        match self.command {
            None => self.run.run(shell),
            Some(BenchCommand::Run(args)) => args.run(shell),
            Some(BenchCommand::Compare(args)) => args.run(shell),
            Some(BenchCommand::Capture(args)) => args.run(shell),
        }
    }
}

fn usage(message: impl Into<String>, hint: &str) -> CodedError {
    CodedError::definite(BENCH_SETTINGS, message).hint(hint)
}

impl RunArgs {
    fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let options = self.options()?;
        let err = &mut *shell.err;
        let (report, error) = bench::run(shell.registry, &options, &mut |line| _ = writeln!(err, "{line}"))?;
        let text = serde_json::to_string_pretty(&report).expect("plain data becomes JSON");
        match &self.json {
            Some(path) => write_file(path, &text)?,
            None => writeln!(shell.out, "{text}")?,
        }
        if let Some(path) = &self.html {
            write_file(path, &bench::page(&report))?;
        }
        match error {
            Some(error) => Err(error.into()),
            None if report.valid => Ok(()),
            None => {
                let bad = report.results.iter().flat_map(|result| &result.runs).filter(|run| !run.valid).count();
                let message = format!("INVALID: in {bad} runs what arrived is not what was sent; their numbers say nothing");
                Err(CodedError::definite(BENCH_INVALID, message).into())
            }
        }
    }

    fn options(&self) -> Result<Options, CodedError> {
        let from = self.from()?;
        let to = self.to()?;
        let replayed = match &from {
            From::Replay(path) => Some(inspect(path)?.changes),
            _ => None,
        };
        let duration = self.duration.or_else(|| self.rate.filter(|_| self.rows.is_none() && replayed.is_none()).map(|_| OPEN));
        // With a rate, so many changes are that long; without, the run is stopped.
        let timed = duration.zip(self.rate).map(|(duration, rate)| (duration.as_secs_f64() * f64::from(rate)).ceil().max(1.0) as u64);
        let stopped = duration.filter(|_| timed.is_none() || replayed.is_some());
        let rows = replayed.or(self.rows).or(timed).or((duration.is_none()).then_some(ROWS));
        if replayed.is_some() && self.rows.is_some() {
            return Err(usage("a capture has as many changes as it has", "leave --rows out; --duration ends a run sooner"));
        }
        let mut setups = Vec::new();
        // A capture is what it is, whatever the scenario.
        let scenarios = if replayed.is_some() { self.scenario.get(..1) } else { self.scenario.get(..) };
        for Word(scenario) in scenarios.unwrap_or_default() {
            if *scenario == Scenario::Snapshot && replayed.is_none() && (self.rate.is_some() || stopped.is_some()) {
                return Err(usage("a snapshot has neither a rate nor a duration", "leave --rate and --duration out, or the scenario"));
            }
            setups.push(Setup {
                scenario: *scenario,
                from: from.clone(),
                to: to.clone(),
                rows,
                rate: self.rate,
                seed: self.seed,
                workers: self.workers,
            });
        }
        Ok(Options { setups, runs: self.runs, warmup: self.warmup, duration: stopped })
    }

    fn from(&self) -> Result<From, CodedError> {
        match self.source.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["synthetic"] => Ok(From::Synthetic),
            ["replay", path] => Ok(From::Replay(path.into())),
            ["postgres", url] => Ok(From::Postgres(url.to_owned())),
            _ => Err(usage("--source does not say where rows come from", "write synthetic, replay FILE or postgres URL")),
        }
    }

    fn to(&self) -> Result<To, CodedError> {
        if let Some(path) = &self.pipeline {
            return Ok(To::Pipeline(path.clone()));
        }
        let folder = |path: &str| std::path::absolute(path).unwrap_or_else(|_| path.into());
        match self.sink.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["blackhole"] => Ok(To::Blackhole),
            ["ndjson", path] => Ok(To::File(folder(path), "ndjson")),
            ["parquet", path] => Ok(To::File(folder(path), "parquet")),
            _ => Err(usage(
                "--sink does not say where rows go",
                "write blackhole, ndjson FOLDER or parquet FOLDER; any other sink is measured with --pipeline FILE",
            )),
        }
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), CodedError> {
    fs::write(path, text)
        .map_err(|e| CodedError::definite(BENCH_REPORT, format!("report \"{}\" was not written", path.display())).caused_by(e))
}

impl CompareArgs {
    fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let comparisons = bench::compare(&read(&self.a)?, &read(&self.b)?, self.paired, self.force)?;
        if self.json {
            let answer = serde_json::json!({ "schema": "etl-stream.bench-comparison/1", "comparisons": comparisons });
            writeln!(shell.out, "{answer:#}")?;
        } else {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["METRIC", "A", "B", "B/A", "95 %", "A/A", ""]);
            let mut title = "";
            for c in &comparisons {
                if c.title != title {
                    table.add_row([&c.title]);
                    title = &c.title;
                }
                table.add_row([
                    format!("  {}", c.metric),
                    format!("{:.3}", c.medians.0),
                    format!("{:.3}", c.medians.1),
                    format!("{:.3}", c.ratio),
                    format!("{:.3} to {:.3}", c.interval.0, c.interval.1),
                    format!("±{:.1} %", c.noise_floor * 100.0),
                    c.verdict.words().to_owned(),
                ]);
            }
            let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
            writeln!(shell.out, "{}", lines.join("\n"))?;
        }
        if comparisons.iter().any(|c| c.verdict == Verdict::Regression) { Err(Failure::Reported(Exit::Negative)) } else { Ok(()) }
    }
}

fn read(path: &Path) -> Result<Report, CodedError> {
    let failed = |why: String| {
        CodedError::definite(BENCH_REPORT, format!("report \"{}\" was not understood: {why}", path.display()))
            .hint("`etl-stream bench --json FILE` writes one")
    };
    let text = fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(|e| failed(e.to_string())),
        other => Err(failed(format!("its schema is {}, and this version reads {SCHEMA}", other.unwrap_or("not there")))),
    }
}

impl CaptureArgs {
    fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let failed = |e| CodedError::definite(crate::dataflow::RUN_RUNTIME, "the input and output threads were not started").caused_by(e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let what = Capture { url: SecretString::from(self.url), slot: self.slot, publication: self.publication, rows: self.rows };
        let captured = runtime.block_on(async {
            let (stop, stopped) = watch::channel(false);
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            tokio::spawn(async move {
                interrupt.recv().await;
                stop.send_replace(true);
                // Kept: a channel without its sender cannot say anything.
                stop.closed().await;
            });
            record(&what, &self.file, stopped, || eprintln!("recording; Ctrl-C ends it with the next commit")).await
        })?;
        let (file, Captured { changes, transactions, .. }) = (self.file.display(), captured);
        Ok(writeln!(shell.err, "{file}: {changes} changes in {transactions} transactions")?)
    }
}
