//! The runs: each in a folder of its own, one after the other, checked as it ends.

use super::checksum::Sums;
use super::machine::Machine;
use super::meter::{STEP, Window};
use super::plan::{Check, From, Run, Setup, To};
use super::report::{Arrived, Latency, Measured, NodeTime, Report, RunReport, SCHEMA, Timeline};
use super::{BENCH_SETTINGS, allocations, sample};
use crate::dataflow::{Busy, RunOptions, Until, start_watched};
use crate::{CodedError, PipelineStatus, Registry, SecretString};
use etl_stream_operators::source::synthetic::{Scenario, Scratch};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// How long a run may take to end once nothing more is sent.
const DRAIN: Duration = Duration::from_secs(60);
/// A run achieves its rate when it is at most so much slower.
const KEPT_UP: f64 = 0.99;
/// How often it is looked whether rows flow.
const LOOK: Duration = Duration::from_millis(5);

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is measured.
    pub setups: Vec<Setup>,
    /// Runs of each.
    pub runs: u32,
    /// Runs before them that do not count.
    pub warmup: u32,
    /// How long a run lasts; nothing: until its rows are there.
    pub duration: Option<Duration>,
}

/// Runs everything. The report has what there is, also when something fails or Ctrl-C ends it.
///
/// # Errors
/// When the process cannot run pipelines at all.
pub fn run(registry: &Registry, options: &Options, say: &mut dyn FnMut(&str)) -> Result<(Report, Option<CodedError>), CodedError> {
    let failed = |e| CodedError::definite(crate::dataflow::RUN_RUNTIME, "the input and output threads were not started").caused_by(e);
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("etl-stream-io").enable_all().build().map_err(failed)?;
    allocations::start();
    let mut report = Report {
        schema: SCHEMA.into(),
        started: millis() / 1_000,
        version: env!("CARGO_PKG_VERSION").into(),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        machine: Machine::this(),
        partial: false,
        valid: true,
        results: Vec::new(),
    };
    let error = runtime.block_on(async {
        let interrupted = interrupts()?;
        for setup in &options.setups {
            if interrupted.load(Ordering::Relaxed) {
                report.partial = true;
                break;
            }
            report.results.push(measured(setup, options));
            let last = report.results.len() - 1;
            let ended = each(registry, setup, options, &interrupted, &mut report.results[last], say).await;
            report.partial |= interrupted.load(Ordering::Relaxed) || ended.is_err();
            ended?;
        }
        Ok(())
    });
    runtime.shutdown_background();
    report.valid = error.is_ok() && report.results.iter().all(|result| result.runs.iter().all(|run| run.valid));
    Ok((report, error.err()))
}

/// Becomes true with the first signal; the pipeline that runs then drains by itself.
fn interrupts() -> Result<Arc<AtomicBool>, CodedError> {
    let listen = |kind| {
        signal(kind).map_err(|e| CodedError::definite(crate::dataflow::RUN_RUNTIME, "the signal handlers were not installed").caused_by(e))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        flag.store(true, Ordering::Relaxed);
    });
    Ok(interrupted)
}

fn millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

fn measured(setup: &Setup, options: &Options) -> Measured {
    let (scenario, source) = match &setup.from {
        From::Synthetic => (setup.scenario.word(), "synthetic"),
        From::Replay(_) => ("replay", "replay"),
        From::Postgres(_) => (setup.scenario.word(), "postgres"),
    };
    let sink = match &setup.to {
        To::Blackhole => "blackhole".to_owned(),
        To::File(_, format) => format!("file {format}"),
        To::Pipeline(path) => path.display().to_string(),
    };
    Measured {
        scenario: scenario.into(),
        source: source.into(),
        sink,
        mode: if setup.rate.is_some() { "open" } else { "closed" }.into(),
        offered_rate: setup.rate,
        rows: setup.rows,
        seed: setup.seed,
        workers: setup.workers.unwrap_or(1).into(),
        warmup: options.warmup,
        runs: Vec::new(),
    }
}

/// All runs of one setup. What it made on a live server is gone afterwards.
async fn each(
    registry: &Registry,
    setup: &Setup,
    options: &Options,
    interrupted: &AtomicBool,
    result: &mut Measured,
    say: &mut dyn FnMut(&str),
) -> Result<(), CodedError> {
    let live = Live::make(setup).await?;
    let ended = runs(registry, setup, options, interrupted, live.as_ref(), result, say).await;
    if let Some(live) = live {
        live.forget().await?;
        live.scratch.remove().await?;
    }
    ended
}

async fn runs(
    registry: &Registry,
    setup: &Setup,
    options: &Options,
    interrupted: &AtomicBool,
    live: Option<&Live>,
    result: &mut Measured,
    say: &mut dyn FnMut(&str),
) -> Result<(), CodedError> {
    let mut first: Option<Vec<Sums>> = None;
    for at in 0..options.warmup + options.runs {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let folder = tempfile::tempdir()
            .map_err(|e| CodedError::definite(BENCH_SETTINGS, "a temporary folder for the run's state was not made").caused_by(e))?;
        // Milliseconds of the clock, far enough apart that no run's log reaches the next one's.
        let run = setup.run(registry, folder.path(), millis() << 22, live.map(|live| live.schema.as_str()))?;
        let (mut made, sums) = once(setup, options, &run, interrupted).await?;
        if let Some(live) = live {
            live.forget().await?;
        }
        result.workers = run.graph.engine.workers as u64;
        if !made.partial && options.duration.is_none() {
            let first = first.get_or_insert_with(|| sums.clone());
            repeated(setup, &run, first, &sums, &mut made);
        }
        made.valid = made.problems.is_empty();
        let warm = at < options.warmup;
        let name = if warm { "warm-up".to_owned() } else { format!("run {}", at + 1 - options.warmup) };
        say(&format!("{}, {name}: {}", result.scenario, line(&made)));
        if !warm || made.partial || !made.valid {
            result.runs.push(made);
        }
    }
    Ok(())
}

/// A run in a line.
fn line(run: &RunReport) -> String {
    let mut text = format!(
        "{} changes in {:.2} s, {:.0}/s, {:.2} CPU s per million",
        run.changes, run.seconds, run.achieved_rate, run.cpu_seconds_per_million
    );
    if let Some(latency) = &run.latency {
        text.push_str(&format!(", p50 {:.1} ms, p99 {:.1} ms", latency.p50 as f64 / 1e3, latency.p99 as f64 / 1e3));
    }
    if run.saturated {
        text.push_str(", SATURATED");
    }
    if run.partial {
        text.push_str(", partial");
    }
    for problem in &run.problems {
        text.push_str(&format!("\n  INVALID: {problem}"));
    }
    text
}

/// The table of a live server.
struct Live {
    scratch: Scratch,
    schema: String,
}

impl Live {
    async fn make(setup: &Setup) -> Result<Option<Self>, CodedError> {
        let From::Postgres(url) = &setup.from else { return Ok(None) };
        if setup.scenario != Scenario::Snapshot || setup.rows.is_none() || matches!(setup.to, To::Pipeline(_)) {
            return Err(CodedError::definite(BENCH_SETTINGS, "with a live server only scenario `snapshot` runs, with --rows and a sink")
                .hint("record a stream with `etl-stream bench capture` and run it with --source replay FILE"));
        }
        let schema = format!("etl_stream_bench_{}", std::process::id());
        let workload = Arc::new(setup.live_workload()?);
        let scratch = Scratch::make(&SecretString::from(url.clone()), &schema, &workload).await?;
        Ok(Some(Self { scratch, schema }))
    }

    /// The next run starts anew.
    async fn forget(&self) -> Result<(), CodedError> {
        let name = "etl_stream_bench_bench";
        self.scratch.forget(name, name).await
    }
}

/// One run, from its start until everything is durable.
async fn once(setup: &Setup, options: &Options, run: &Run, interrupted: &AtomicBool) -> Result<(RunReport, Vec<Sums>), CodedError> {
    let busy = Busy::default();
    let live = matches!(setup.from, From::Postgres(_));
    let how = RunOptions { until: live.then_some(Until::CaughtUp), shutdown_timeout: DRAIN };
    sample::reset_peak();
    let started = Box::pin(start_watched(run.graph.clone(), how, Some(busy.clone()))).await?;
    let (status, stop) = (started.status(), started.stopper());
    let meter = Arc::clone(&run.meter);
    let timer = options.duration.map(|duration| {
        tokio::spawn(async move {
            while meter.window(|window| window.start.is_none()) {
                tokio::time::sleep(LOOK).await;
            }
            tokio::time::sleep(duration).await;
            stop.send_replace(true);
        })
    });
    let ended = Box::pin(started.supervise()).await;
    if let Some(timer) = timer {
        timer.abort();
    }
    ended?;
    let cut = interrupted.load(Ordering::Relaxed);
    Ok(reported(setup, options, run, &status, &busy, cut))
}

/// Changes that a source has given.
fn given(status: &PipelineStatus, source: &str) -> u64 {
    let source = status.source(source);
    let copied: u64 = source.tables().values().map(|table| table.snapshot_rows).sum();
    copied + source.changes.load(Ordering::Relaxed)
}

fn reported(
    setup: &Setup,
    options: &Options,
    run: &Run,
    status: &PipelineStatus,
    busy: &Busy,
    interrupted: bool,
) -> (RunReport, Vec<Sums>) {
    let changes: Vec<u64> = run.sources.iter().map(|source| given(status, source)).collect();
    let whole = setup.rows.is_some_and(|rows| changes.iter().all(|changes| *changes >= rows)) || matches!(setup.from, From::Replay(_));
    let mut report = RunReport { changes: changes.iter().sum(), partial: interrupted && !whole, ..RunReport::default() };
    let expected = run.expected(&changes);
    let mut all = Vec::new();
    for (sink, check) in &run.sinks {
        let (sums, own) = (run.meter.sums(sink), status.sink(sink).rows.load(Ordering::Relaxed));
        all.push(sums);
        let check = if *check == Check::Repeat && (options.duration.is_some() || report.partial) { Check::Counted } else { *check };
        let arrived = arrived(sink, check, sums, expected, own, &mut report.problems);
        report.sinks.push(arrived);
    }
    if report.changes == 0 && !report.partial {
        report.problems.push("no row was sent".into());
    }
    run.meter.window(|window| times(setup, run, window, &mut report));
    for source in &run.sources {
        report.source_bytes += status.source(source).bytes.load(Ordering::Relaxed);
    }
    for (sink, _) in &run.sinks {
        report.sink_bytes += status.sink(sink).bytes.load(Ordering::Relaxed);
    }
    report.peak_rss_bytes = sample::peak_rss();
    let parts = busy.times().into_iter().chain(run.meter.tasks());
    report.nodes = parts.map(|(name, time)| NodeTime { name, seconds: time.as_secs_f64() }).collect();
    report.nodes.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    (report, all)
}

/// Compares what a sink acknowledged with what it must have, and with what it says itself.
fn arrived(sink: &str, check: Check, sums: Sums, expected: Option<Sums>, own: u64, problems: &mut Vec<String>) -> Arrived {
    let hex = |sum: u64| format!("{sum:016x}");
    let expected = expected.filter(|_| matches!(check, Check::Expected | Check::Content));
    if own != sums.rows {
        problems.push(format!("sink \"{sink}\" acknowledged {} rows and says that it wrote {own}", sums.rows));
    }
    if let Some(expected) = expected {
        if expected.rows != sums.rows {
            problems.push(format!("{} rows arrived in sink \"{sink}\", and {} were sent there", sums.rows, expected.rows));
        } else if expected.content != sums.content {
            problems.push(format!("the values that arrived in sink \"{sink}\" are not those that were sent: their sums differ"));
        } else if check == Check::Expected && expected.order != sums.order {
            problems.push(format!("the tokens that arrived in sink \"{sink}\" are not those that were sent: their sums differ"));
        }
    }
    Arrived {
        sink: sink.into(),
        check: check.word().into(),
        rows: sums.rows,
        expected_rows: expected.map(|expected| expected.rows),
        content: hex(sums.content),
        order: hex(sums.order),
        expected: expected.map(|expected| hex(if check == Check::Expected { expected.order } else { expected.content })),
    }
}

/// The first run is what the others must repeat.
fn repeated(setup: &Setup, run: &Run, first: &[Sums], sums: &[Sums], report: &mut RunReport) {
    for ((sink, check), (first, sums)) in run.sinks.iter().zip(first.iter().zip(sums)) {
        // Tokens are the capture's; those of a synthetic source may begin elsewhere each time.
        let tokens = matches!(setup.from, From::Replay(_)) && first.order != sums.order;
        if *check == Check::Repeat && (first.content != sums.content || first.rows != sums.rows || tokens) {
            report.problems.push(format!("what arrived in sink \"{sink}\" is not what arrived in the first run: the sums differ"));
        }
    }
}

/// What the window says.
fn times(setup: &Setup, run: &Run, window: &Window, report: &mut RunReport) {
    let (Some(start), Some(end)) = (window.start, window.end) else { return };
    report.seconds = end.at.duration_since(start.at).as_secs_f64();
    let (changes, summing) = (report.changes.max(1) as f64, run.meter.summing());
    report.achieved_rate = report.changes as f64 / report.seconds.max(1e-9);
    report.saturated = setup.rate.is_some_and(|rate| report.achieved_rate < KEPT_UP * f64::from(rate));
    report.check_cpu_seconds = summing.as_secs_f64();
    report.cpu_seconds = end.cpu.saturating_sub(start.cpu).saturating_sub(summing).as_secs_f64();
    report.cpu_seconds_per_million = report.cpu_seconds / changes * 1e6;
    report.allocations_per_change = end.allocations.zip(start.allocations).map(|(end, start)| (end - start) as f64 / changes);
    report.latency = setup.rate.is_some().then(|| latency(&window.latency));
    report.timeline = Timeline { step_seconds: STEP.as_secs_f64(), rows: window.timeline.clone() };
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |percent: f64| histogram.value_at_percentile(percent);
    // Evenly spread over the axis that percentiles are shown on: each step halves what is left.
    let points = (0..=60).map(|step| 100.0 * (1.0 - 0.5_f64.powf(f64::from(step) / 4.0)));
    Latency {
        count: histogram.len(),
        mean: histogram.mean(),
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p99_9: at(99.9),
        p99_99: at(99.99),
        max: histogram.max(),
        curve: points.map(|percent| (percent, at(percent))).collect(),
    }
}
