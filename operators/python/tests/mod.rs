//! Operators in Python, in a dataflow of their own, against the interpreter of the tests.

mod bad_input;
mod rows;

use super::settings::PythonConfig;
use crate::contract::{
    BuildContext, CodedError, Durable, Item, Items, MemoryState, Op, Peers, RenderConfig, RenderContext, RowBatch, Token, Ts,
};
use crate::testing::python::python;
use crate::testing::random::Random;
use crate::testing::rows::{rows, tables};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::worker::Worker;
use tokio::sync::watch;

/// A test that does not end by then has failed.
const DEADLINE: Duration = Duration::from_secs(120);

/// A folder with a module `ops` of this text.
pub(super) fn module(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ops.py"), text).unwrap();
    folder
}

pub(super) fn config(settings: Value) -> PythonConfig {
    let mut all = json!({ "module": "ops", "python": python(), "timeout": "20s" });
    for (name, value) in settings.as_object().cloned().unwrap_or_default() {
        all[name] = value;
    }
    serde_json::from_value(all).unwrap()
}

pub(super) fn build_context(folder: &Path) -> BuildContext {
    BuildContext { pipeline: "p".into(), node: "py".into(), folder: folder.into(), peers: Peers::default() }
}

/// Rows of `public.orders` with these operations, from `lsn` on.
pub(super) fn orders(ops: &[Op], lsn: u64) -> RowBatch {
    rows(&tables()[0], ops, Token::new(lsn, 0), &mut Random::new(lsn))
}

/// What left, what stopped it, and whether a time before what is missing was let go.
pub(super) struct Outcome {
    pub(super) left: Vec<(Ts, Item)>,
    pub(super) error: Option<CodedError>,
    /// Where the output stood in the end; none: at its end.
    pub(super) frontier: Option<Ts>,
}

impl Outcome {
    pub(super) fn batches(&self) -> Vec<&RowBatch> {
        self.left.iter().filter_map(|(_, item)| if let Item::Rows(batch) = item { Some(batch) } else { None }).collect()
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        self.batches().iter().flat_map(|batch| (0..batch.len()).map(|row| batch.token(row))).collect()
    }
}

/// Runs items through the operator of these settings, each at its own time.
pub(super) fn run(folder: &Path, settings: Value, items: Vec<Item>) -> Outcome {
    let node = config(settings).build(&build_context(folder)).unwrap();
    let error: Arc<Mutex<Option<CodedError>>> = Arc::default();
    let failed = Arc::clone(&error);
    let cx = RenderContext {
        pipeline: "p".into(),
        node: "py".into(),
        source: "s".into(),
        state: Arc::new(MemoryState::default()),
        durable: watch::channel(Durable { upper: Ts::default(), finished: false }).1,
        fail: Arc::new(move |error| *failed.lock().unwrap() = Some(error)),
    };
    let made = Mutex::new(Some((node, items)));
    let stopped = Arc::clone(&error);
    let (left, frontier) = timely::execute_directly(move |worker: &mut Worker| {
        let (node, items) = made.lock().unwrap().take().unwrap();
        let seen = Rc::new(RefCell::new((Vec::new(), Some(Ts::default()))));
        let mut input = worker.dataflow::<Ts, _, _>(|scope| {
            let (input, stream) = scope.new_input_with_builder::<CapacityContainerBuilder<Items>>();
            let stream = node.render(cx, stream);
            let mut builder = OperatorBuilder::new("Watch".into(), stream.scope());
            let mut output = builder.new_input(stream, Pipeline);
            builder.set_notify_for(0, FrontierInterest::Always);
            let seen = Rc::clone(&seen);
            builder.build(move |_| {
                move |frontiers| {
                    let mut seen = seen.borrow_mut();
                    output.for_each(|time, items| {
                        let time = *time.least().unwrap();
                        seen.0.extend(items.0.drain(..).map(|item| (time, item)));
                    });
                    seen.1 = frontiers[0].frontier().first().copied();
                }
            });
            input
        });
        for item in items {
            if let Item::Rows(batch) = &item
                && batch.first_ts().unwrap() > *input.time()
            {
                input.advance_to(batch.first_ts().unwrap());
            }
            input.send_batch(&mut Items(vec![item]));
            input.flush();
            worker.step();
        }
        drop(input);
        let deadline = Instant::now() + DEADLINE;
        while seen.borrow().1.is_some() && stopped.lock().unwrap().is_none() {
            worker.step_or_park(Some(Duration::from_millis(20)));
            assert!(Instant::now() < deadline, "it does not end");
        }
        worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
        seen.take()
    });
    let error = error.lock().unwrap().take();
    Outcome { left, error, frontier }
}
