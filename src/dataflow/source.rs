//! The source operator: chunks in from the source's task, durable times back to it.
//!
//! ```text
//!  source task ══bridge══> source ──RawItems──> decode
//!       ^                    ^
//!   Durable, credit          └── acks: a disconnected input whose frontier is what is durable
//! ```
//!
//! # Guarantees
//! - Active on one worker, its home; the others hold nothing.
//! - Progress: items leave at the time that everything before them reached; the capability is then
//!   downgraded past them, once for each activation.
//! - Credit and `Durable` follow the frontier of the acks and nothing else.
//! - How far the stream reached is said when it ends: to this process's sinks by [`LastUpper`], to those of others by an
//!   output that carries nothing else.

use super::bridge::BridgeReceiver;
use etl_stream_operators::contract::{Credits, Durable, Items, RawItems, Ts};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::operate::FrontierInterest;
use tokio::sync::watch;

/// Bytes passed on in one activation, so that other operators of the worker get their turn.
const FUEL: usize = 4 << 20;

/// The operator's end of a source: there on its home worker only.
pub(crate) struct SourceEnd {
    /// Chunks.
    pub(crate) bridge: BridgeReceiver,
    /// Credit to give back.
    pub(crate) credits: Credits,
    /// What is durable.
    pub(crate) durable: watch::Sender<Durable>,
    /// Told how far the stream reached, when it ends.
    pub(crate) last: LastUpper,
}

/// How far a stream reached, once it has ended: an empty frontier does not say.
pub(crate) type LastUpper = Arc<Mutex<Option<Ts>>>;

/// Where streams have ended, for the sinks of other processes.
pub(crate) type Ends<'scope> = Stream<'scope, Ts, Vec<Ts>>;

/// Builds the operator; with `several` processes it says the end on an output of its own.
pub(crate) fn source<'scope>(
    scope: Scope<'scope, Ts>,
    name: &str,
    acks: Stream<'scope, Ts, Items>,
    end: Option<SourceEnd>,
    several: bool,
) -> (Stream<'scope, Ts, RawItems>, Option<Ends<'scope>>) {
    let mut builder = OperatorBuilder::new(format!("Source {name}"), scope);
    let mut acks = builder.new_input_connection(acks, Pipeline, []);
    builder.set_notify_for(0, FrontierInterest::Always);
    let (output, stream) = builder.new_output_connection::<RawItems, _>([]);
    let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<RawItems>>::from(output);
    let (mut says, ends) = if several {
        let (says, ends) = builder.new_output_connection::<Vec<Ts>, _>([]);
        (Some(OutputBuilder::<Ts, CapacityContainerBuilder<Vec<Ts>>>::from(says)), Some(ends))
    } else {
        (None, None)
    };
    let info = builder.operator_info();
    let activator = scope.activator_for(Rc::clone(&info.address));
    if let Some(end) = &end {
        end.bridge.waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
    }
    builder.build(move |mut capabilities| {
        let mut to_say = if several { capabilities.pop().filter(|_| end.is_some()) } else { None };
        let mut capability = capabilities.pop().filter(|_| end.is_some());
        // What was sent and is not yet durable: where it reaches, and the credit it took.
        let mut in_flight: VecDeque<(Ts, u32)> = VecDeque::new();
        let mut sent = Ts::default();
        move |frontiers| {
            let Some(end) = &end else { return };
            acks.for_each(|_, _| ());
            let frontier = frontiers[0].frontier().first().copied();
            let upper = frontier.unwrap_or(sent);
            while in_flight.front().is_some_and(|(reaches, _)| *reaches <= upper) {
                in_flight.pop_front().into_iter().for_each(|(_, credit)| end.credits.give(credit));
            }
            let durable = Durable { upper, finished: frontier.is_none() };
            end.durable.send_if_modified(|last| std::mem::replace(last, durable) != durable);

            end.bridge.waker.clear();
            let Some(held) = capability.as_mut() else { return };
            let mut items = RawItems::default();
            let mut bytes = 0;
            let mut ended = false;
            loop {
                match end.bridge.chunks.try_recv() {
                    Ok(chunk) => {
                        bytes += chunk.credit as usize;
                        items.0.extend(chunk.items);
                        sent = sent.max(chunk.upper);
                        in_flight.push_back((sent, chunk.credit));
                        if bytes >= FUEL {
                            activator.activate();
                            break;
                        }
                    }
                    Err(error) => {
                        ended = error.is_disconnected();
                        break;
                    }
                }
            }
            if !items.0.is_empty() {
                output.activate().session(held).give_container(&mut items);
            }
            if ended {
                *end.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
                if let (Some(says), Some(held)) = (&mut says, to_say.take()) {
                    says.activate().session(&held).give_container(&mut vec![sent]);
                }
                capability = None;
            } else if sent > *held.time() {
                held.downgrade(&sent);
            }
        }
    });
    (stream, ends)
}
