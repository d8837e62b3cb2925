//! Runs an operator in a dataflow of its own, as the engine does: rows at times in, rows at times and frontiers out.
//!
//! ```text
//! Step, Step … ──> input ──> operator ──> what left, and each output's frontier, after each step
//! ```

use crate::dataflow::{Failures, Passed, operator, render};
use crate::{CodedError, Durable, Item, Items, MemoryState, OperatorNode, RenderContext, StateStore, Ts};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::worker::Worker;
use tokio::sync::watch;

/// The operator's name in a flow.
pub const NODE: &str = "node";

/// Rounds in which whatever is on its way arrives: far more than a node's own part of the dataflow has operators.
const ROUNDS: usize = 64;

/// How long an operator over the stream may take for what it does elsewhere, once the input has passed, if nothing else is said.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Items at a time. Times of steps go up.
#[derive(Clone, Debug)]
pub struct Step {
    /// The time of the edge: at or before that of every row, a copy's excepted.
    pub time: Ts,
    /// What comes.
    pub items: Vec<Item>,
}

/// Something that left.
#[derive(Clone, Debug)]
pub struct Left {
    /// By which output.
    pub output: usize,
    /// At which time.
    pub time: Ts,
    /// What.
    pub item: Item,
}

/// What was seen behind the operator.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The time of the input by then; none: it has ended.
    pub input: Option<Ts>,
    /// What left since the last look, in order.
    pub left: Vec<Left>,
    /// The frontier of each output; none: it has ended.
    pub frontiers: Vec<Option<Ts>>,
}

/// How an operator is run.
pub struct Flow {
    /// How many outputs it has.
    pub outputs: usize,
    /// What it keeps beyond its life.
    pub state: Arc<dyn StateStore>,
    /// Whether everything before a step counts as durable when the step comes; otherwise nothing ever does.
    pub durable: bool,
    /// Whether the input ends; otherwise the dataflow is dropped after the last step, as by a crash.
    pub ends: bool,
    /// How long an operator over the stream may take for what it does elsewhere, once the input has passed.
    pub patience: Duration,
}

impl Default for Flow {
    fn default() -> Self {
        Self { outputs: 1, state: Arc::new(MemoryState::default()), durable: false, ends: true, patience: PATIENCE }
    }
}

/// What is behind the outputs, while the worker runs.
#[derive(Default)]
struct Behind {
    left: Vec<Left>,
    frontiers: Vec<Option<Ts>>,
}

impl Flow {
    /// Runs the steps. Two looks for each step: when time has come to it, and when its items have been sent; one more when
    /// time has passed the last, and one when the input has ended.
    ///
    /// # Errors
    /// The operator's error, or its panic, with what was seen until then.
    pub fn run(&self, node: OperatorNode, steps: Vec<Step>) -> (Vec<Seen>, Result<(), CodedError>) {
        let (failures, mut failed) = Failures::new();
        let (durable, durable_now) = watch::channel(Durable { upper: Ts::default(), finished: false });
        let reports = failures.clone();
        // Whether there is nothing to wait for: it has failed, or what it does it does at once.
        let done = Arc::new(AtomicBool::new(matches!(node, OperatorNode::Batches(_))));
        let fails = Arc::clone(&done);
        let cx = RenderContext {
            pipeline: "test".into(),
            node: NODE.into(),
            source: "s".into(),
            state: Arc::clone(&self.state),
            durable: durable_now,
            fail: Arc::new(move |error| {
                fails.store(true, Ordering::Relaxed);
                reports.report(&NODE.into(), error);
            }),
        };
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (outputs, follows, ends, patience, looks) = (self.outputs, self.durable, self.ends, self.patience, Arc::clone(&seen));
        let node = Mutex::new(Some(node));
        let run = move |worker: &mut Worker| {
            let behind = Rc::new(RefCell::new(Behind { left: Vec::new(), frontiers: vec![Some(Ts::default()); outputs] }));
            let mut input = worker.dataflow::<Ts, _, _>(|scope| {
                let (input, stream) = scope.new_input_with_builder::<CapacityContainerBuilder<Items>>();
                let node = node.lock().unwrap_or_else(PoisonError::into_inner).take().expect("the one worker builds once");
                let streams = match node {
                    OperatorNode::Batches(made) => {
                        let (name, taps) = (Arc::clone(&cx.node), (0..outputs).map(|_| Arc::default()).collect());
                        operator(stream, name, made, taps, Passed::new(&cx.pipeline, &cx.node), failures.clone())
                    }
                    OperatorNode::Stream(made) => vec![render(stream, made, cx.clone(), Arc::default())],
                };
                streams.into_iter().enumerate().for_each(|(output, stream)| watch_output(stream, output, Rc::clone(&behind)));
                input
            });
            let look = |worker: &mut Worker, input: Option<Ts>, last: bool| {
                (0..ROUNDS).for_each(|_| _ = worker.step());
                let late = Instant::now() + patience;
                let behind_input = || behind.borrow().frontiers.iter().any(|at| at.is_some_and(|at| input.is_none_or(|input| at < input)));
                while last && behind_input() && !done.load(Ordering::Relaxed) && Instant::now() < late {
                    worker.step_or_park(Some(Duration::from_millis(1)));
                }
                let mut behind = behind.borrow_mut();
                let seen = Seen { input, left: std::mem::take(&mut behind.left), frontiers: behind.frontiers.clone() };
                looks.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            };
            for step in &steps {
                advance(&mut input, step.time);
                if follows {
                    durable.send_replace(Durable { upper: step.time, finished: false });
                }
                look(worker, Some(step.time), false);
                input.send_batch(&mut Items(step.items.clone()));
                input.flush();
                look(worker, Some(step.time), false);
            }
            if ends {
                let past = Ts::after(steps.last().map_or(0, |step| step.time.lsn));
                advance(&mut input, past);
                look(worker, Some(past), true);
                drop(input);
                look(worker, None, true);
            }
            worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
        };
        let ran = catch_unwind(AssertUnwindSafe(|| timely::execute_directly(run)));
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        let error = failed.try_recv().ok().map(|(_, error)| error);
        let error = error.or_else(|| ran.err().map(|panic| crate::dataflow::panicked(NODE, &*panic)));
        (seen, error.map_or(Ok(()), Err))
    }
}

fn advance(input: &mut InputHandle<Ts, CapacityContainerBuilder<Items>>, time: Ts) {
    if time > *input.time() {
        input.advance_to(time);
    }
}

/// Notes what comes, and the frontier.
fn watch_output(stream: Stream<'_, Ts, Items>, output: usize, behind: Rc<RefCell<Behind>>) {
    let mut builder = OperatorBuilder::new("Watch".into(), stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Always);
    builder.build(move |_| {
        move |frontiers| {
            let mut behind = behind.borrow_mut();
            input.for_each(|time, items| {
                let Some(time) = time.least().copied() else { return };
                behind.left.extend(items.0.drain(..).map(|item| Left { output, time, item }));
            });
            if let Some(seen) = behind.frontiers.get_mut(output) {
                *seen = frontiers[0].frontier().first().copied();
            }
        }
    });
}
