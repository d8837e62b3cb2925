//! Runs a [`Batcher`] in front of each sink.
//!
//! ```text
//! Items ──> batch ──sealed Items──> sink
//! ```
//!
//! # Guarantees
//! As the batch stage's; the clock is the worker's, looked at once for each activation. One timer is
//! armed at a time.

use super::bridge::Waker;
use super::failure::Failures;
use etl_stream_operators::batch::{Batcher, Limits, SealReason, Sealed};
use etl_stream_operators::contract::{Code, CodedError, Exit, Items, Pressure, Ts};
use etl_stream_operators::failpoint;
use metrics::counter;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

/// Batches of one schema did not join.
pub(crate) const RUN_JOIN: Code = Code::new("RUN0002", Exit::Failure);

/// Timers are no finer than this.
const TICK: Duration = Duration::from_millis(2);

/// Builds the operator.
pub(crate) fn batch<'scope>(
    stream: Stream<'scope, Ts, Items>,
    pipeline: Arc<str>,
    node: Arc<str>,
    limits: Limits,
    pressure: Arc<Pressure>,
    failures: Failures,
) -> Stream<'scope, Ts, Items> {
    let scope = stream.scope();
    let mut builder = OperatorBuilder::new(format!("Batch {node}"), scope);
    let mut input = builder.new_input(stream, Pipeline);
    // Only the end matters, and only while rows wait.
    builder.set_notify_for(0, FrontierInterest::IfCapability);
    let (output, stream) = builder.new_output::<Items>();
    let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
    let info = builder.operator_info();
    let activator = scope.activator_for(Rc::clone(&info.address));
    let waker = Arc::new(Waker::default());
    waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
    let wake = Arc::clone(&waker);
    pressure.on_starved(move || wake.wake());
    builder.build(move |_| {
        let mut batcher: Batcher<Capability<Ts>> = Batcher::new(limits);
        let mut sealed: Vec<Sealed<Capability<Ts>>> = Vec::new();
        let mut armed: Option<Instant> = None;
        let mut wedged: Option<Capability<Ts>> = None;
        move |frontiers| {
            waker.clear();
            let now = Instant::now();
            let mut result = Ok(());
            input.for_each(|capability, items| {
                if wedged.is_some() || result.is_err() {
                    return;
                }
                let Some(capability) = capability.retain_least(0) else { return };
                for item in items.0.drain(..) {
                    result = batcher.push(item, capability.clone(), now, &mut sealed);
                    if result.is_err() {
                        wedged = Some(capability);
                        return;
                    }
                }
            });
            let ended = frontiers[0].frontier().is_empty();
            if ended {
                result = result.and_then(|()| batcher.seal_all(SealReason::End, &mut sealed));
            } else if pressure.is_starved() {
                result = result.and_then(|()| batcher.seal_all(SealReason::Pressure, &mut sealed));
            } else {
                result = result.and_then(|()| batcher.seal_aged(now, &mut sealed));
            }
            if let Err(error) = result {
                wedged = wedged.take().or_else(|| sealed.first().map(|s| s.capability.clone()));
                failures.report(
                    &node,
                    CodedError::definite(RUN_JOIN, format!("sink \"{node}\": rows of one schema did not join into a batch"))
                        .caused_by(error),
                );
                return;
            }
            for Sealed { item, capability, reason } in sealed.drain(..) {
                if let Some(reason) = reason {
                    let labels = [("pipeline", pipeline.to_string()), ("sink", node.to_string()), ("reason", reason.word().to_owned())];
                    counter!("etl_stream_batches_sealed_total", &labels).increment(1);
                }
                failpoint::reach("batch.seal");
                output.activate().session(&capability).give_container(&mut Items(vec![item]));
            }
            if let Some(deadline) = batcher.deadline()
                && armed.is_none_or(|at| at <= now || at > deadline)
            {
                let wait = deadline.saturating_duration_since(now).max(TICK);
                armed = Some(now + wait);
                activator.activate_after(wait);
            }
        }
    });
    stream
}
