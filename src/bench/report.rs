//! The report: what `etl-stream bench` writes, and what `bench compare` reads. `docs/how-to/benchmark.md` describes it.

use super::machine::Machine;
use serde::{Deserialize, Serialize};

/// The version of the layout. A change that a reader must know of makes another one.
pub const SCHEMA: &str = "etl-stream.bench/1";

/// A whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// The program's version.
    pub version: String,
    /// `release`, or `debug`: its numbers say nothing.
    pub build: String,
    /// Where it ran.
    pub machine: Machine,
    /// Whether it ended before its time.
    pub partial: bool,
    /// Whether every run is valid.
    pub valid: bool,
    /// One for each scenario.
    pub results: Vec<Measured>,
}

/// The runs of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario; of a capture, `replay`.
    pub scenario: String,
    /// `synthetic`, `replay` or `postgres`.
    pub source: String,
    /// `blackhole`, `file ndjson`, `file parquet`, or the pipeline file.
    pub sink: String,
    /// `open`: changes are sent when they are due. `closed`: as fast as they are taken.
    pub mode: String,
    /// Changes a second, where the loop is open.
    pub offered_rate: Option<u32>,
    /// Changes of a run; nothing: as many as there is time for.
    pub rows: Option<u64>,
    /// Decides the rows.
    pub seed: u64,
    /// Worker threads of the engine.
    pub workers: u64,
    /// Runs before these that were thrown away.
    pub warmup: u32,
    /// The runs.
    pub runs: Vec<RunReport>,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// Whether it was ended before its time.
    pub partial: bool,
    /// Whether what arrived is what was sent.
    pub valid: bool,
    /// Why not.
    pub problems: Vec<String>,
    /// Changes that the sources gave.
    pub changes: u64,
    /// From the first chunk sent to the last acknowledgement.
    pub seconds: f64,
    /// Changes a second over that time.
    pub achieved_rate: f64,
    /// Whether that is less than 99 % of what was offered: then the latency says how long the queue was.
    pub saturated: bool,
    /// CPU of the process, user and system, without that of the sums.
    pub cpu_seconds: f64,
    /// The same for a million changes.
    pub cpu_seconds_per_million: f64,
    /// CPU of the sums over what arrived.
    pub check_cpu_seconds: f64,
    /// Allocations of the process for each change, sums included.
    pub allocations_per_change: Option<f64>,
    /// Bytes that the sources read or made.
    pub source_bytes: u64,
    /// Bytes that the sinks say they have written.
    pub sink_bytes: u64,
    /// Peak of resident memory.
    pub peak_rss_bytes: Option<u64>,
    /// What arrived, by sink.
    pub sinks: Vec<Arrived>,
    /// Commit to acknowledgement, where the loop is open.
    pub latency: Option<Latency>,
    /// CPU or time of each part, longest first.
    pub nodes: Vec<NodeTime>,
    /// Rows acknowledged over time.
    pub timeline: Timeline,
}

/// What a sink acknowledged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Arrived {
    /// The sink.
    pub sink: String,
    /// What its rows are checked against: `expected` the workload; `content` the same without tokens; `repeat` the
    /// other runs; `counted` nothing but the sink's own count.
    pub check: String,
    /// Rows acknowledged.
    pub rows: u64,
    /// Rows there must be.
    pub expected_rows: Option<u64>,
    /// Sum over the rows' values, in hexadecimal.
    pub content: String,
    /// Sum over values and tokens.
    pub order: String,
    /// The sum there must be: of values and tokens, or of values where the check is `content`.
    pub expected: Option<String>,
}

/// Latency in microseconds: from the moment a row was to be sent until its sink acknowledged it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Rows.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// 50 % of the rows took no longer, and so on.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// 99.99 %.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
    /// Percentiles and values between them, for a plot.
    pub curve: Vec<(f64, u64)>,
}

/// What a part of the pipeline took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeTime {
    /// An operator of the dataflow, such as `Decode bench`, or the task of a source or a sink.
    pub name: String,
    /// An operator's time on its workers, all of them together; a task's CPU.
    pub seconds: f64,
}

/// Rows over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Length of a step.
    pub step_seconds: f64,
    /// Rows acknowledged in each.
    pub rows: Vec<u64>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Higher,
    Lower,
}

/// A number of a run that runs are compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) better: Better,
    /// Nothing: the run does not have it, or it says nothing in this mode.
    pub(super) of: fn(&RunReport) -> Option<f64>,
    /// Whether it is one of the closed loop, of the open one, or of both.
    pub(super) modes: &'static [&'static str],
}

/// The metrics, in the order they are shown.
pub(super) const METRICS: [Metric; 7] = [
    Metric { name: "achieved_rate", better: Better::Higher, of: |run| Some(run.achieved_rate), modes: &["closed"] },
    Metric { name: "cpu_seconds_per_million", better: Better::Lower, of: |run| Some(run.cpu_seconds_per_million), modes: BOTH },
    Metric { name: "allocations_per_change", better: Better::Lower, of: |run| run.allocations_per_change, modes: BOTH },
    Metric { name: "peak_rss_bytes", better: Better::Lower, of: |run| run.peak_rss_bytes.map(|bytes| bytes as f64), modes: BOTH },
    Metric { name: "latency_p50", better: Better::Lower, of: |run| latency(run).map(|l| l.p50 as f64), modes: &["open"] },
    Metric { name: "latency_p99", better: Better::Lower, of: |run| latency(run).map(|l| l.p99 as f64), modes: &["open"] },
    Metric { name: "latency_p99_9", better: Better::Lower, of: |run| latency(run).map(|l| l.p99_9 as f64), modes: &["open"] },
];

const BOTH: &[&str] = &["open", "closed"];

/// The latency of a run that kept up.
fn latency(run: &RunReport) -> Option<&Latency> {
    run.latency.as_ref().filter(|_| !run.saturated)
}

impl Measured {
    /// The values of a metric in its valid, whole runs, in their order.
    pub(super) fn values(&self, metric: &Metric) -> Vec<f64> {
        let counts = |run: &&RunReport| run.valid && !run.partial;
        let runs = self.runs.iter().filter(counts).filter(|_| metric.modes.contains(&self.mode.as_str()));
        runs.filter_map(metric.of).collect()
    }

    /// A line for people.
    pub(super) fn title(&self) -> String {
        let mode = match self.offered_rate {
            Some(rate) => format!("open loop, {rate}/s offered"),
            None => "closed loop: the highest rate".to_owned(),
        };
        format!("{} · {} to {} · {mode}", self.scenario, self.source, self.sink)
    }
}
