//! The sink operator: hands sealed batches to a writer and holds their time until they are durable.
//!
//! ```text
//! batch ──Items──> sink ══Delivery══> Writer task
//!                   │ ^                   │
//!        frontier   │ └────── acks ───────┘
//!                   └──> feedback to the source (carries no data)
//! ```
//!
//! # Guarantees
//! - Order: deliveries in the order items came; `Upper` after everything before it.
//! - Progress: one capability for each delivery, dropped by its acknowledgement and by nothing else.
//! - The queue to the writer is unbounded in count; the source's credit bounds its bytes.

use super::bridge::AckQueue;
use super::source::LastUpper;
use etl_stream_operators::contract::{Ack, AckReport, Deliveries, Delivery, Item, Items, Ts};
use etl_stream_operators::failpoint;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use tokio::sync::mpsc;

/// Builds the operator; what comes back carries only progress.
pub(crate) fn sink<'scope>(
    stream: Stream<'scope, Ts, Items>,
    node: &str,
    writer: mpsc::UnboundedSender<Delivery>,
    last: LastUpper,
) -> Stream<'scope, Ts, Items> {
    let scope = stream.scope();
    let mut builder = OperatorBuilder::new(format!("Sink {node}"), scope);
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Always);
    let (mut output, progress) = builder.new_output::<Items>();
    let (acks, done, waker) = AckQueue::new();
    waker.attach(scope.worker().sync_activator_for(builder.operator_info().address.to_vec()));
    builder.build(move |_| {
        let mut writer = Some(writer);
        let mut in_flight: HashMap<u64, Capability<Ts>> = HashMap::new();
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
                    in_flight.insert(next, capability);
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
            match frontiers[0].frontier().first().copied() {
                Some(upper) if upper > told => {
                    told = upper;
                    if let Some(writer) = &writer {
                        let _ = writer.send(Delivery::Upper(upper));
                    }
                }
                Some(_) => {}
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
                in_flight.remove(&id);
            }
        }
    });
    progress
}

/// The writer's end of the queue.
pub(crate) fn deliveries() -> (mpsc::UnboundedSender<Delivery>, Deliveries) {
    mpsc::unbounded_channel()
}
