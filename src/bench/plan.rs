//! What a run is: a pipeline of the benchmark's own, or the operators and sinks of a pipeline file, behind a source
//! that is known.
//!
//! ```text
//! scenario, source, sink ──YAML──> graph ──source replaced──> metered graph
//! pipeline file ─────────────────────┘
//! ```

use super::checksum::{Sums, Way};
use super::meter::{Meter, Metered};
use super::{BENCH_SETTINGS, BENCH_SOURCE};
use crate::checkpoint::StateAt;
use crate::config::{self, Environment};
use crate::graph::Graph;
use crate::{CodedError, Kind, Lsn, ParsedNode, Registry};
use aws_lc_rs::hmac;
use etl_stream_operators::source::synthetic::{Scenario, SyntheticConfig, Value, Workload};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum From {
    /// Made from a seed.
    Synthetic,
    /// A capture.
    Replay(PathBuf),
    /// A live server, by its URL: the benchmark makes a table in it and removes it.
    Postgres(String),
}

/// Where rows go.
#[derive(Clone, Debug)]
pub enum To {
    /// Nowhere.
    Blackhole,
    /// Files of a format, in a folder.
    File(PathBuf, &'static str),
    /// Through the operators and into the sinks of a pipeline file, whose sources are replaced.
    Pipeline(PathBuf),
}

/// What is measured, run after run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the rows are.
    pub scenario: Scenario,
    /// Where they come from.
    pub from: From,
    /// Where they go.
    pub to: To,
    /// How many; nothing: until the time is up.
    pub rows: Option<u64>,
    /// Changes a second; nothing: a closed loop.
    pub rate: Option<u32>,
    /// Decides the rows.
    pub seed: u64,
    /// Worker threads of the engine; nothing: one, or what the pipeline file says.
    pub workers: Option<u16>,
}

/// The condition that [`Scenario::MaskFilter`] keeps rows by, and what it masks.
const FILTER: (&str, i128) = ("quantity", 50);
const MASK: (&str, &str) = ("note", "etl-stream benchmark key");

/// How a sink's rows are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Against what the workload says, token for token.
    Expected,
    /// The same without tokens: those of a live server are its own.
    Content,
    /// Against the other runs: the same rows come each time.
    Repeat,
    /// Not: how many there must be depends on how long the run was.
    Counted,
}

impl Check {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Content => "content",
            Self::Repeat => "repeat",
            Self::Counted => "counted",
        }
    }
}

/// One run, ready to start.
pub(super) struct Run {
    pub(super) graph: Graph,
    pub(super) meter: Arc<Meter>,
    /// The names of the sources.
    pub(super) sources: Vec<Arc<str>>,
    /// The names of the sinks, and how each one's rows are checked.
    pub(super) sinks: Vec<(Arc<str>, Check)>,
    /// The workload of a source by its place in `sources`.
    workloads: Vec<Option<Workload>>,
    scenario: Scenario,
    /// Whether the operators are the scenario's.
    own: bool,
}

impl Run {
    /// What a sink must have when the sources have given so many changes each, as far as that is known.
    pub(super) fn expected(&self, changes: &[u64]) -> Option<Sums> {
        let mut sums = Sums::default();
        for (workload, changes) in self.workloads.iter().zip(changes) {
            let workload = workload.as_ref()?;
            sums.add(if self.own { expected(self.scenario, workload, *changes) } else { Way::PLAIN.expected(workload, *changes) });
        }
        Some(sums)
    }
}

/// What arrives of a scenario's first changes behind its own operators.
fn expected(scenario: Scenario, workload: &Workload, changes: u64) -> Sums {
    if scenario != Scenario::MaskFilter {
        return Way::PLAIN.expected(workload, changes);
    }
    let columns = scenario.columns();
    let place = |wanted: &str| columns.iter().position(|(name, _)| name == wanted).expect("the scenario has the column");
    let (quantity, note) = (place(FILTER.0), place(MASK.0));
    let key = hmac::Key::new(hmac::HMAC_SHA256, MASK.1.as_bytes());
    let masked = |text: &str| {
        hmac::sign(&key, text.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    };
    // The values are those after the key.
    let passes = |values: &[Value]| matches!(values.get(quantity - 1), Some(Value::Integer(value)) if *value < FILTER.1);
    Way { passes: &passes, mask: Some((note, &masked)) }.expected(workload, changes)
}

impl Setup {
    /// The pipeline of the benchmark's own.
    fn yaml(&self, scratch: Option<&str>) -> String {
        let source = match &self.from {
            From::Synthetic | From::Replay(_) => json!({ "type": "synthetic", "scenario": self.scenario.word(), "rows": 1 }),
            From::Postgres(url) => {
                let tables = format!("{}.*", scratch.unwrap_or("none"));
                json!({ "type": "postgres", "url": { "plain": url }, "tables": { "include": [tables] } })
            }
        };
        let operators = match (self.scenario, &self.from) {
            (Scenario::MaskFilter, From::Synthetic) => json!({
                "keep": { "type": "filter", "inputs": ["bench"], "where": format!("{} < {}", FILTER.0, FILTER.1) },
                "hide": { "type": "mask", "inputs": ["keep"], "columns": { MASK.0: { "with": "hmac_sha256", "key": { "plain": MASK.1 } } } },
            }),
            _ => json!({}),
        };
        let input = if operators.as_object().is_some_and(serde_json::Map::is_empty) { "bench" } else { "hide" };
        let sink = match &self.to {
            To::File(path, format) => json!({ "type": "file", "inputs": [input], "path": path, "format": format }),
            To::Blackhole | To::Pipeline(_) => json!({ "type": "blackhole", "inputs": [input] }),
        };
        let sink = match (self.rate, sink) {
            // Latency is what is asked for: a batch waits no longer than that.
            (Some(_), serde_json::Value::Object(mut sink)) => {
                sink.insert("batch".into(), json!({ "max_age": "10ms" }));
                serde_json::Value::Object(sink)
            }
            (_, sink) => sink,
        };
        json!({
            "name": "bench",
            "server": "none",
            "sources": { "bench": source },
            "operators": operators,
            "sinks": { "out": sink },
        })
        .to_string()
    }

    fn graph(&self, registry: &Registry, scratch: Option<&str>) -> Result<Graph, CodedError> {
        let lookup = |name: &str| std::env::var(name).ok();
        let (shown, loaded) = match &self.to {
            To::Pipeline(path) => (path.display().to_string(), config::load(path, registry, &Environment::Lookup(&lookup))),
            _ => {
                let text = self.yaml(scratch);
                ("the benchmark".to_owned(), config::parse("bench.yaml", &text, Path::new("bench.yaml"), registry, &Environment::Opaque))
            }
        };
        let why = || {
            let first = loaded.problems.list.iter().find(|problem| problem.severity == config::Severity::Error);
            first.map_or_else(String::new, |problem| problem.message.clone())
        };
        loaded.graph.ok_or_else(|| {
            CodedError::definite(BENCH_SETTINGS, format!("the pipeline of {shown} has a problem: {}", why()))
                .hint("`etl-stream validate FILE` shows every problem, with its place")
        })
    }

    /// The settings of a synthetic source.
    fn synthetic(&self, start: u64) -> serde_json::Value {
        let mut settings = json!({ "scenario": self.scenario.word(), "seed": self.seed });
        let mut set = |name: &str, value: serde_json::Value| {
            if let Some(settings) = settings.as_object_mut() {
                settings.insert(name.into(), value);
            }
        };
        if let Some(rows) = self.rows {
            set("rows", rows.into());
        }
        if let Some(rate) = self.rate {
            set("rate", rate.into());
        }
        // Sinks that keep what they had drop what has come before: each run begins later in the log than those before it.
        if !matches!(self.to, To::Blackhole) {
            set("start", Lsn(start).to_string().into());
        }
        settings
    }

    /// Makes a run whose state is in `folder`. `start` is where its log begins, `scratch` the live database's schema.
    pub(super) fn run(&self, registry: &Registry, folder: &Path, start: u64, scratch: Option<&str>) -> Result<Run, CodedError> {
        let mut graph = self.graph(registry, scratch)?;
        graph.state = StateAt::Sqlite(folder.join("state.db"));
        graph.server = None;
        if let Some(workers) = self.workers {
            graph.engine.workers = workers.into();
        }
        let meter = Meter::new();
        let sources: Vec<usize> = graph.sources().collect();
        let mut workloads = Vec::new();
        for at in &sources {
            let (source, name) = (Arc::clone(&graph.nodes[*at].parsed), Arc::clone(&graph.nodes[*at].name));
            let (parsed, workload): (Arc<dyn ParsedNode>, _) = match &self.from {
                From::Synthetic => {
                    let settings = self.synthetic(start);
                    let config: SyntheticConfig = serde_json::from_value(settings.clone()).map_err(|e| unfit("synthetic", e))?;
                    (parse(registry, "synthetic", settings)?, Some(Workload::new(&config, &name)))
                }
                From::Replay(path) => {
                    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                    let mut settings = json!({ "path": path });
                    if let (Some(rate), Some(map)) = (self.rate, settings.as_object_mut()) {
                        map.insert("rate".into(), rate.into());
                    }
                    (parse(registry, "replay", settings)?, None)
                }
                From::Postgres(_) => (source, Some(self.live_workload()?)),
            };
            graph.nodes[*at].parsed = Metered::of(parsed, &meter);
            workloads.push(workload);
        }
        let own = !matches!(self.to, To::Pipeline(_));
        let mut sinks = Vec::new();
        for at in graph.sinks().collect::<Vec<_>>() {
            let whole = own || is_plain(&graph, at, sources.len());
            let check = match &self.from {
                From::Synthetic if whole => Check::Expected,
                From::Postgres(_) if whole => Check::Content,
                _ => Check::Repeat,
            };
            let node = &mut graph.nodes[at];
            node.parsed = Metered::of(Arc::clone(&node.parsed), &meter);
            sinks.push((Arc::clone(&node.name), check));
        }
        let sources = sources.into_iter().map(|at| Arc::clone(&graph.nodes[at].name)).collect();
        Ok(Run { graph, meter, sources, sinks, workloads, scenario: self.scenario, own })
    }

    /// The workload that a live server's table is filled with.
    pub(super) fn live_workload(&self) -> Result<Workload, CodedError> {
        let settings = json!({ "scenario": "snapshot", "rows": self.rows, "seed": self.seed });
        let config: SyntheticConfig = serde_json::from_value(settings).map_err(|e| unfit("synthetic", e))?;
        Ok(Workload::new(&config, "bench"))
    }
}

/// Whether every source goes to a sink and nothing stands between.
fn is_plain(graph: &Graph, sink: usize, sources: usize) -> bool {
    let inputs = &graph.nodes[sink].inputs;
    inputs.len() == sources && inputs.iter().all(|input| graph.nodes[input.node].kind == Kind::Source)
}

/// Reads the settings of a source.
fn parse(registry: &Registry, name: &str, settings: serde_json::Value) -> Result<Arc<dyn ParsedNode>, CodedError> {
    let node = registry.get(Kind::Source, name).ok_or_else(|| {
        CodedError::definite(BENCH_SOURCE, format!("this binary has no source of type `{name}`"))
            .hint("start from Registry::builtin() in a binary of your own")
    })?;
    (node.parse)(settings).map_err(|e| unfit(name, e.into_inner()))
}

fn unfit(name: &str, error: serde_json::Error) -> CodedError {
    CodedError::definite(BENCH_SETTINGS, format!("the settings of the `{name}` source do not fit")).caused_by(error)
}
