//! The sink operator: hands sealed batches to a writer and holds their time until they are durable.
//!
//! ```text
//! batch ──Items──> sink ══Delivery══> Writer task
//! ends ──────────>  │ ^                   │            (with several processes)
//!        frontier   │ └────── acks ───────┘
//!                   └──> feedback to the source (carries no data)
//! ```
//!
//! # Guarantees
//! - Order: deliveries in the order items came; `Upper` after everything before it.
//! - Progress: one capability for each delivery, dropped by its acknowledgement and by nothing else.
//! - The queue to the writer is unbounded in count; the source's credit bounds its bytes.

use super::bridge::AckQueue;
use super::source::{Ends, LastUpper};
use etl_stream_operators::contract::{Ack, AckReport, Deliveries, Delivery, Item, Items, Pending, Ts};
use etl_stream_operators::failpoint;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use tokio::sync::mpsc;

/// The way to a writer.
pub(crate) struct ToWriter {
    /// Takes deliveries.
    pub(crate) sender: mpsc::UnboundedSender<Delivery>,
    /// Says what is not durable yet.
    pub(crate) pending: Arc<Pending>,
}

/// A delivery that is not durable.
struct InFlight {
    _held: Capability<Ts>,
    rows: u64,
    /// Commit time of its first row; 0 for a mark.
    time: i64,
}

/// Builds the operator; what comes back carries only progress.
pub(crate) fn sink<'scope>(
    stream: Stream<'scope, Ts, Items>,
    ends: Option<Ends<'scope>>,
    node: &str,
    writer: ToWriter,
    last: LastUpper,
) -> Stream<'scope, Ts, Items> {
    let scope = stream.scope();
    let mut builder = OperatorBuilder::new(format!("Sink {node}"), scope);
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Always);
    let (mut output, progress) = builder.new_output::<Items>();
    // Disconnected from the output: what has ended holds back nothing.
    let mut ends = ends.map(|ends| builder.new_input_connection(ends, Pipeline, []));
    if ends.is_some() {
        builder.set_notify_for(1, FrontierInterest::Always);
    }
    let (acks, done, waker) = AckQueue::new();
    waker.attach(scope.worker().sync_activator_for(builder.operator_info().address.to_vec()));
    builder.build(move |_| {
        let ToWriter { sender, pending } = writer;
        let mut writer = Some(sender);
        // In the order they came.
        let mut in_flight: BTreeMap<u64, InFlight> = BTreeMap::new();
        let mut rows = 0_u64;
        let mut next = 0_u64;
        let mut told = Ts::default();
        move |frontiers| {
            waker.clear();
            // Keeps the output, and with it the capabilities, valid; nothing is ever sent.
            let _ = output.activate();
            input.for_each(|capability, items| {
                for item in items.0.drain(..) {
                    let Some(capability) = capability.retain_least(0) else { continue };
                    next += 1;
                    let (count, time) = match &item {
                        Item::Rows(batch) => (batch.len() as u64, batch.commit_time.first().copied().unwrap_or(0)),
                        Item::Mark(_) => (0, 0),
                    };
                    rows += count;
                    in_flight.insert(next, InFlight { _held: capability, rows: count, time });
                    let ack = Ack::new(next, Arc::clone(&acks) as Arc<dyn AckReport>);
                    let delivery = match item {
                        Item::Rows(batch) => Delivery::Rows { batch, ack },
                        Item::Mark(mark) => Delivery::Mark { mark, ack },
                    };
                    // A writer that has failed has reported it; its capabilities stay.
                    if let Some(writer) = &writer {
                        failpoint::reach("sink.deliver");
                        let _ = writer.send(delivery);
                    }
                }
            });
            if let Some(ends) = &mut ends {
                ends.for_each(|_, reached| {
                    if let Some(reached) = reached.pop() {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
                    }
                });
            }
            match frontiers[0].frontier().first().copied() {
                Some(upper) if upper > told => {
                    told = upper;
                    if let Some(writer) = &writer {
                        let _ = writer.send(Delivery::Upper(upper));
                    }
                }
                Some(_) => {}
                // Where it ended is still on its way.
                None if frontiers.get(1).is_some_and(|ends| !ends.frontier().is_empty()) => {}
                None => {
                    let upper = *last.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (Some(writer), Some(upper)) = (writer.take(), upper)
                        && upper > told
                    {
                        let _ = writer.send(Delivery::Upper(upper));
                    }
                }
            }
            while let Ok(id) = done.try_recv() {
                failpoint::reach("sink.ack");
                rows -= in_flight.remove(&id).map_or(0, |done| done.rows);
            }
            pending.rows.store(rows, Ordering::Relaxed);
            pending.oldest.store(in_flight.values().find(|it| it.rows > 0).map_or(0, |it| it.time), Ordering::Relaxed);
        }
    });
    progress
}

/// The way to a writer, and the writer's end of it.
pub(crate) fn deliveries(pending: Arc<Pending>) -> (ToWriter, Deliveries) {
    let (sender, deliveries) = mpsc::unbounded_channel();
    (ToWriter { sender, pending }, deliveries)
}
