//! Runs and comparisons, in this process: rows that are not those that were sent, reports that differ or do not.

use super::plan::{From, Setup, To};
use super::report::{Latency, Measured, Report, RunReport, SCHEMA};
use super::{Machine, Options, Verdict, compare, page, run};
use crate::{
    BuildContext, Chunk, ChunkSender, CodedError, Item, NodeConfig, RawItem, Registry, Source, SourceClosed, SourceConfig, SourceContext,
};
use async_trait::async_trait;
use etl_stream_operators::sink::blackhole::BlackholeConfig;
use etl_stream_operators::source::synthetic::{Scenario, SyntheticConfig};
use schemars::JsonSchema;
use serde::Deserialize;

/// The synthetic source, with something done to what it sends.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
struct Tampered<const HOW: u8>(SyntheticConfig);

impl<const HOW: u8> NodeConfig for Tampered<HOW> {
    const TYPE: &'static str = "synthetic";
    const SUMMARY: &'static str = "a source that does not say what it should";
    const EXAMPLE: &'static str = "";
}

impl<const HOW: u8> SourceConfig for Tampered<HOW> {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Tampering { source: self.0.build(cx)?, how: HOW }))
    }
}

struct Tampering {
    source: Box<dyn Source>,
    how: u8,
}

#[async_trait]
impl Source for Tampering {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let out = Box::new(Sender { out: cx.out, how: self.how, done: false });
        self.source.run(SourceContext { out, ..cx }).await
    }
}

struct Sender {
    out: Box<dyn ChunkSender>,
    how: u8,
    done: bool,
}

impl ChunkSender for Sender {
    fn send(&mut self, mut chunk: Chunk) -> Result<(), SourceClosed> {
        let raw = chunk.items.iter_mut().find_map(|item| if let RawItem::Raw(raw) = item { Some(raw) } else { None });
        if let Some(raw) = raw.filter(|_| !self.done) {
            self.done = true;
            match self.how {
                // a digit of the first row's key
                0 => {
                    let mut bytes = raw.bytes.to_vec();
                    let at = raw.rows[0].start as usize + 13;
                    assert!(bytes[at].is_ascii_digit());
                    bytes[at] ^= 1;
                    raw.bytes = bytes.into();
                }
                1 => drop(raw.rows.pop()),
                // two rows change places
                2 => {
                    let (first, second) = (raw.rows[0], raw.rows[1]);
                    (raw.rows[0].start, raw.rows[0].end) = (second.start, second.end);
                    (raw.rows[1].start, raw.rows[1].end) = (first.start, first.end);
                }
                _ => raw.commits[0].lsn -= 1,
            }
        }
        assert!(chunk.items.iter().all(|item| !matches!(item, RawItem::Ready(Item::Rows(_)))));
        self.out.send(chunk)
    }
}

fn setup(scenario: Scenario) -> Setup {
    Setup { scenario, from: From::Synthetic, to: To::Blackhole, rows: Some(500), rate: None, seed: 3, workers: None }
}

fn options(scenario: Scenario) -> Options {
    Options { setups: vec![setup(scenario)], runs: 2, warmup: 0, duration: None }
}

fn tampered<const HOW: u8>() -> Report {
    let registry = Registry::empty().source::<Tampered<HOW>>().sink::<BlackholeConfig>();
    let (report, error) = run(&registry, &options(Scenario::NarrowInsert), &mut |_| ()).unwrap();
    assert!(error.is_none(), "{error:?}");
    report
}

#[test]
fn what_is_not_what_was_sent_makes_a_run_invalid() {
    for (report, says) in [
        (tampered::<0>(), "the values that arrived"),
        (tampered::<1>(), "499 rows arrived in sink \"out\", and 500 were sent"),
        (tampered::<2>(), "the tokens that arrived"),
        (tampered::<3>(), "the tokens that arrived"),
    ] {
        assert!(!report.valid, "{says}");
        for run in &report.results[0].runs {
            assert!(!run.valid && run.problems.len() == 1 && run.problems[0].contains(says), "{says}: {:?}", run.problems);
        }
        assert!(page(&report).contains("INVALID"), "{says}");
    }
}

#[test]
fn every_scenario_is_valid_on_more_workers_too() {
    let mut options = options(Scenario::NarrowInsert);
    let setups = Scenario::ALL.map(|scenario| Setup { workers: Some(3), rows: Some(5_000), ..setup(scenario) });
    options.setups = setups.into();
    let (report, error) = run(&Registry::builtin(), &options, &mut |_| ()).unwrap();
    assert!(error.is_none() && report.valid && !report.partial, "{error:?} {report:?}");
    assert_eq!(report.results.len(), 7);
    for result in &report.results {
        for run in &result.runs {
            let sink = &run.sinks[0];
            assert_eq!((run.changes, sink.check.as_str(), Some(&sink.order)), (5_000, "expected", sink.expected.as_ref()), "{result:?}");
            assert!(run.seconds > 0.0 && run.cpu_seconds > 0.0 && run.latency.is_none(), "{run:?}");
            assert_eq!(run.timeline.rows.iter().sum::<u64>(), sink.rows);
            let named = |name: &str| run.nodes.iter().any(|node| node.name.starts_with(name));
            assert!(
                ["Source bench", "Decode bench", "Batch out", "Sink out", "Progress", "Task of source", "Task of sink"]
                    .iter()
                    .all(|n| named(n))
            );
        }
        // The filter keeps about half of the inserts.
        let rows = result.runs[0].sinks[0].rows;
        assert_eq!(rows < 5_000, result.scenario == "mask_filter", "{}: {rows}", result.scenario);
    }
}

/// A report of one result whose runs have these rates and CPU.
fn report(mode: &str, runs: &[(f64, f64)]) -> Report {
    let run = |(rate, cpu): &(f64, f64)| {
        let micros = |factor: f64| (cpu * factor) as u64;
        let latency = Latency { p50: micros(1e3), p99: micros(5e3), p99_9: micros(9e3), ..Latency::default() };
        let latency = (mode == "open").then_some(latency);
        RunReport { valid: true, achieved_rate: *rate, cpu_seconds_per_million: *cpu, latency, ..RunReport::default() }
    };
    let result = Measured {
        scenario: "narrow_insert".into(),
        source: "synthetic".into(),
        sink: "blackhole".into(),
        mode: mode.into(),
        offered_rate: (mode == "open").then_some(1_000),
        rows: Some(1_000),
        seed: 1,
        workers: 1,
        warmup: 1,
        runs: runs.iter().map(run).collect(),
    };
    Report {
        schema: SCHEMA.into(),
        started: 0,
        version: "1".into(),
        build: "release".into(),
        machine: Machine::default(),
        partial: false,
        valid: true,
        results: vec![result],
    }
}

/// Eight runs around a rate and a CPU, with a noise of two percent.
fn runs(rate: f64, cpu: f64) -> Vec<(f64, f64)> {
    (0..8).map(|n| 0.98 + f64::from(n * 3 % 8) * 0.005).map(|noise| (rate * noise, cpu / noise)).collect()
}

fn verdicts(a: &Report, b: &Report, paired: bool) -> Vec<(&'static str, Verdict)> {
    compare(a, b, paired, false).unwrap().into_iter().map(|c| (c.metric, c.verdict)).collect()
}

#[test]
fn a_difference_is_told_from_noise() {
    let a = report("closed", &runs(1e6, 0.5));
    for (rate, cpu, on_rate, on_cpu) in [
        (1e6, 0.5, Verdict::NoDifference, Verdict::NoDifference),
        (1.002e6, 0.501, Verdict::NoDifference, Verdict::NoDifference),
        (0.8e6, 0.5, Verdict::Regression, Verdict::NoDifference),
        (1.3e6, 0.7, Verdict::Improvement, Verdict::Regression),
        (1e6, 0.3, Verdict::NoDifference, Verdict::Improvement),
    ] {
        let b = report("closed", &runs(rate, cpu));
        for paired in [false, true] {
            let said = verdicts(&a, &b, paired);
            let of = |name: &str| said.iter().find(|(metric, _)| *metric == name).map(|(_, verdict)| *verdict);
            // Run by run these have no noise, and the floor of A against A still counts.
            assert_eq!((of("achieved_rate"), of("cpu_seconds_per_million")), (Some(on_rate), Some(on_cpu)), "{rate} {cpu} {paired}");
            assert_eq!(of("latency_p99"), None, "a closed loop has no latency");
        }
    }
    let (a, b) = (report("open", &runs(1e3, 2.0)), report("open", &runs(1e3, 3.0)));
    let said = verdicts(&a, &b, false);
    assert!(said.contains(&("latency_p99", Verdict::Regression)) && !said.iter().any(|(metric, _)| *metric == "achieved_rate"), "{said:?}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let a = report("closed", &runs(1e6, 0.5));
    let few = report("closed", &runs(1e6, 0.5)[..3]);
    let mut other = a.clone();
    other.machine.cores = 96;
    let mut seeded = a.clone();
    seeded.results[0].seed = 2;
    let mut invalid = a.clone();
    invalid.results[0].runs.iter_mut().take(5).for_each(|run| run.valid = false);
    for (b, paired, force, error) in [
        (&few, false, false, Some("at least 5")),
        (&few, false, true, None),
        (&few, true, true, Some("as many runs")),
        (&other, false, false, Some("one machine")),
        (&other, false, true, None),
        (&seeded, false, true, Some("the same scenario")),
        (&invalid, false, false, Some("at least 5")),
    ] {
        let said = compare(&a, b, paired, force);
        assert_eq!(said.as_ref().err().map(|e| e.code.id), error.map(|_| "BEN0003"));
        assert!(error.is_none_or(|hint| said.err().and_then(|e| e.hint).is_some_and(|given| given.contains(hint))), "{error:?}");
    }
}

#[test]
fn the_page_shows_plots_and_strikes_what_is_saturated_through() {
    let mut report = report("open", &runs(1e3, 2.0));
    let run = &mut report.results[0].runs[0];
    run.saturated = true;
    run.timeline.rows = vec![5, 0, 9];
    run.timeline.step_seconds = 0.1;
    run.latency.as_mut().unwrap().p50 = 2_000;
    run.latency.as_mut().unwrap().curve = vec![(0.0, 100), (50.0, 900), (99.9, 40_000)];
    let node = super::NodeTime { name: "Decode <b>".into(), seconds: 0.25 };
    report.results[0].runs.iter_mut().for_each(|run| run.nodes.push(node.clone()));
    let page = page(&report);
    for part in
        ["<svg class=\"timeline\"", "<svg class=\"latency\"", "<svg class=\"nodes\"", "<del>2.00 ms</del>", "Decode &lt;b&gt;", "<polyline"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("http"), "one file, nothing from outside");
}
