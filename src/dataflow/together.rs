//! One small dataflow over all processes: a stop that one is asked for reaches every one.
//!
//! ```text
//! StopAll::ask ──> tell ──⇄ to every worker ⇄──> hear ──> the stop of each process
//! ```

use super::bridge::Waker;
use etl_stream_operators::contract::Ts;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::worker::Worker;
use tokio::sync::watch;

/// A stop of every process.
#[derive(Clone)]
pub(crate) struct StopAll {
    asked: Arc<AtomicBool>,
    waker: Arc<Waker>,
    stop: watch::Sender<bool>,
}

impl StopAll {
    /// `stop` is told when any process is asked.
    pub(crate) fn new(stop: watch::Sender<bool>) -> Self {
        Self { asked: Arc::default(), waker: Arc::default(), stop }
    }

    /// Asks for it.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Builds the dataflow on one worker; `first` is the first of this process, which tells and hears for it.
pub(crate) fn together(worker: &mut Worker, stop: &StopAll, first: usize) {
    let ours = worker.index() == first;
    let (asks, hears) = (stop.clone(), stop.stop.clone());
    worker.dataflow_named::<Ts, _, _>("stop", |scope| {
        let mut builder = OperatorBuilder::new("Tell".to_owned(), scope);
        let (output, told) = builder.new_output::<Vec<u64>>();
        let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Vec<u64>>>::from(output);
        if ours {
            asks.waker.attach(scope.worker().sync_activator_for(builder.operator_info().address.to_vec()));
        }
        builder.build(move |mut capabilities| {
            let mut capability = capabilities.pop().filter(|_| ours);
            move |_| {
                asks.waker.clear();
                if asks.asked.load(Ordering::Acquire)
                    && let Some(held) = capability.take()
                {
                    output.activate().session(&held).give_container(&mut vec![first as u64]);
                }
            }
        });
        let mut builder = OperatorBuilder::new("Hear".to_owned(), scope);
        let mut input = builder.new_input(told.broadcast(), Pipeline);
        builder.build(move |_| {
            move |_| {
                input.for_each(|_, told| {
                    told.clear();
                    if ours {
                        hears.send_replace(true);
                    }
                });
            }
        });
    });
}
