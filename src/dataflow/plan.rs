//! What one source's dataflow consists of: the part of the graph its rows can reach, ready to be built
//! alike on every worker.
//!
//! A pipeline is one dataflow for each source: log sequence numbers of two servers do not compare, and a
//! source that fails must not hold back another (`docs/adr/0001-one-dataflow-per-source.md`).

use super::batch::batch;
use super::decode::decode;
use super::failure::Failures;
use super::operator::operator;
use super::passed::Passed;
use super::render::render;
use super::sink::{ToWriter, sink};
use super::source::{LastUpper, SourceEnd, source};
use super::tap::Tap;
use etl_stream_operators::batch::Limits;
use etl_stream_operators::contract::{CodedError, Items, OperatorNode, Pressure, RenderContext, Ts};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use timely::dataflow::Stream;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Concatenate, ConnectLoop, Feedback};
use timely::worker::Worker;

/// One for each worker, taken as it builds.
pub(crate) type PerWorker<T> = Mutex<Vec<Option<T>>>;

/// An operator's instances, taken by each worker in turn.
pub(crate) struct OperatorPlan {
    pub(crate) context: RenderContext,
    pub(crate) inputs: Vec<(usize, usize)>,
    /// One for each output.
    pub(crate) taps: Vec<Arc<Tap>>,
    /// One for each worker.
    pub(crate) instances: PerWorker<OperatorNode>,
}

/// A sink's writers, one for each worker.
pub(crate) struct SinkPlan {
    pub(crate) name: Arc<str>,
    pub(crate) inputs: Vec<(usize, usize)>,
    pub(crate) limits: Limits,
    /// One for each worker, taken as it builds: what is left open here would keep a writer waiting.
    pub(crate) writers: PerWorker<ToWriter>,
}

/// One source's dataflow.
pub(crate) struct Plan {
    pub(crate) pipeline: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) node: usize,
    /// The worker that reads, of all processes' workers.
    pub(crate) home: usize,
    /// The first worker of this process.
    pub(crate) first: usize,
    /// Whether there are other processes.
    pub(crate) several: bool,
    pub(crate) end: Mutex<Option<SourceEnd>>,
    pub(crate) last: LastUpper,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) tap: Arc<Tap>,
    /// By node index, so that a node comes after its inputs.
    pub(crate) operators: BTreeMap<usize, OperatorPlan>,
    pub(crate) sinks: BTreeMap<usize, SinkPlan>,
    pub(crate) failures: Failures,
}

impl Plan {
    /// Builds the dataflow on one worker. Every worker builds the same operators in the same order.
    pub(crate) fn build(&self, worker: &mut Worker) {
        let own = worker.index() - self.first;
        let end = if worker.index() == self.home { self.end.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        worker.dataflow_named::<Ts, _, _>(&format!("{}: source {}", self.pipeline, self.name), |scope| {
            let (handle, acks) = scope.feedback::<Items>(());
            let (raw, ends) = source(scope, &self.name, acks, end, self.several);
            let ends = ends.map(Broadcast::broadcast);
            let decoded = decode(raw, Arc::clone(&self.name), Arc::clone(&self.tap), self.failures.clone(), self.several);
            let mut streams: HashMap<(usize, usize), Stream<'_, Ts, Items>> = HashMap::from([((self.node, 0), decoded)]);
            for (node, plan) in &self.operators {
                let input = gather(scope, &streams, &plan.inputs);
                let cx = &plan.context;
                let outputs = match take(&plan.instances, own) {
                    OperatorNode::Batches(made) => {
                        let passed = Passed::new(&cx.pipeline, &cx.node);
                        operator(input, Arc::clone(&cx.node), made, plan.taps.clone(), passed, self.failures.clone())
                    }
                    OperatorNode::Stream(made) => {
                        vec![render(input, made, cx.clone(), plan.taps.first().cloned().unwrap_or_default())]
                    }
                };
                streams.extend(outputs.into_iter().enumerate().map(|(output, stream)| ((*node, output), stream)));
            }
            let mut progress = Vec::new();
            for plan in self.sinks.values() {
                let input = gather(scope, &streams, &plan.inputs);
                let sealed = batch(
                    input,
                    Arc::clone(&self.pipeline),
                    Arc::clone(&plan.name),
                    plan.limits,
                    Arc::clone(&self.pressure),
                    self.failures.clone(),
                );
                progress.push(sink(sealed, ends.clone(), &plan.name, take(&plan.writers, own), Arc::clone(&self.last)));
            }
            scope.concatenate(progress).connect_loop(handle);
        });
    }
}

/// A worker's own of what was made for each worker of this process.
fn take<T>(made: &PerWorker<T>, worker: usize) -> T {
    let own = made.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker).and_then(Option::take);
    own.expect("one was made for each worker, and each builds once")
}

fn gather<'scope>(
    scope: timely::dataflow::Scope<'scope, Ts>,
    streams: &HashMap<(usize, usize), Stream<'scope, Ts, Items>>,
    inputs: &[(usize, usize)],
) -> Stream<'scope, Ts, Items> {
    let mut inputs: Vec<_> = inputs.iter().filter_map(|input| streams.get(input).cloned()).collect();
    if inputs.len() == 1 { inputs.remove(0) } else { scope.concatenate(inputs) }
}

/// Makes an operator's instances.
///
/// # Errors
/// As the node's build.
pub(crate) fn instances(
    workers: usize,
    make: impl Fn() -> Result<OperatorNode, CodedError>,
) -> Result<PerWorker<OperatorNode>, CodedError> {
    let made: Result<Vec<_>, _> = (0..workers).map(|_| make().map(Some)).collect();
    made.map(Mutex::new)
}
