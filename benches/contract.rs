//! What the contract of a node costs: an operator that passes batches on, as a share of the engine's CPU.
//!
//! ```text
//! cargo bench --bench contract [-- ROUNDS]      synthetic -> N times `pass` -> blackhole, N = 0 and N = 1,000 in turn
//! ```
//! Everything is the engine's own: the call through a pointer, the schema's look-up, both counters, the guard against panics,
//! the tap, the timely operator. CPU is the process's; a thousand nodes make a thousandth visible.

use etl_stream::bench::Counting;
use etl_stream::config::{self, Environment};
use etl_stream::dataflow::{self, RunOptions, Until};
use etl_stream::{BuildContext, CodedError, NodeConfig, Operator, OperatorConfig, Output, Registry, RowBatch, TableSchema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The binary's own allocator, counted as it is there.
#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

const NODES: u64 = 1_000;
const ROWS: u64 = 2_000_000;
/// Rows of the batch that the share is of.
const BATCH: f64 = 8_192.0;

/// Batches that passed.
static PASSED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PassConfig {}

impl NodeConfig for PassConfig {
    const TYPE: &'static str = "pass";
    const SUMMARY: &'static str = "passes everything on";
    const EXAMPLE: &'static str = "";
}

impl OperatorConfig for PassConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Pass))
    }
}

struct Pass;

impl Operator for Pass {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }

    fn apply(&mut self, batch: RowBatch, _: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        PASSED.fetch_add(1, Ordering::Relaxed);
        out.send(batch);
        Ok(())
    }
}

/// CPU time of this process.
#[expect(unsafe_code, reason = "the standard library has no clock of a process's CPU time")]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all the call writes to.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Seconds of CPU of a run with so many nodes, and the batches that came to one of them.
fn run(registry: &Registry, nodes: u64) -> (f64, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = format!("sources:\n  s: {{ type: synthetic, scenario: narrow_insert, rows: {ROWS} }}\noperators:\n");
    for node in 0..nodes {
        let input = if node == 0 { "s".to_owned() } else { format!("n{}", node - 1) };
        text.push_str(&format!("  n{node}: {{ type: pass, inputs: [{input}] }}\n"));
    }
    let last = nodes.checked_sub(1).map_or_else(|| "s".to_owned(), |last| format!("n{last}"));
    text.push_str(&format!("sinks:\n  b: {{ type: blackhole, inputs: [{last}] }}\nserver: none\nengine: {{ workers: 1 }}\n"));
    if nodes == 0 {
        text = text.replace("operators:\n", "");
    }
    let loaded = config::parse("p.yaml", &text, &Path::new(folder.path()).join("p.yaml"), registry, &Environment::Lookup(&|_| None));
    let graph = loaded.graph.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    PASSED.store(0, Ordering::Relaxed);
    let before = cpu();
    dataflow::run(graph, RunOptions { until: Some(Until::CaughtUp), ..RunOptions::default() }).expect("the pipeline runs");
    ((cpu() - before).as_secs_f64(), PASSED.load(Ordering::Relaxed).checked_div(nodes).unwrap_or(0))
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let registry = Registry::builtin().operator::<PassConfig>();
    let mut shares = Vec::new();
    for round in 0..=rounds {
        let ((without, _), (with, batches)) = (run(&registry, 0), run(&registry, NODES));
        let each = (with - without) / (NODES * batches) as f64;
        let batch = without / ROWS as f64 * BATCH;
        eprintln!(
            "{without:.3} s without, {with:.3} s with {NODES} nodes; {:.0} rows a batch; a node takes {:.2} us of a batch, of {:.0} us that {BATCH} rows take",
            ROWS as f64 / batches as f64,
            each * 1e6,
            batch * 1e6
        );
        // The first warms up.
        if round > 0 {
            shares.push(each / batch * 100.0);
        }
    }
    shares.sort_by(f64::total_cmp);
    let (low, share, high) = (shares[0], shares[shares.len() / 2], shares[shares.len() - 1]);
    eprintln!("an operator's contract: {share:.3} % ({low:.3} to {high:.3}) of the engine's CPU, wanted < 2 %");
    println!(r#"{{"bench":"contract","percent":{share:.4},"low":{low:.4},"high":{high:.4},"rounds":{rounds}}}"#);
}
