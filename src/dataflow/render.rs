//! Runs a [`Render`] in the dataflow.
//!
//! ```text
//! Items ──> enter ──> the node's own part of the dataflow ──> leave ──> Items
//!           count                                             count, tap
//! ```
//!
//! # Guarantees
//! Order, progress and failure are the node's own. A panic of it ends the worker, and with it the pipeline.

use super::passed::Passed;
use super::tap::Tap;
use etl_stream_operators::contract::{Items, Render, RenderContext, Ts};
use std::rc::Rc;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

/// Builds the node between two counters.
pub(crate) fn render<'scope>(
    stream: Stream<'scope, Ts, Items>,
    node: Box<dyn Render>,
    cx: RenderContext,
    tap: Arc<Tap>,
) -> Stream<'scope, Ts, Items> {
    let passed = Rc::new(Passed::new(&cx.pipeline, &cx.node));
    let (enter, leave) = (format!("Enter {}", cx.node), format!("Leave {}", cx.node));
    let counted = Rc::clone(&passed);
    let entered = look(stream, enter, move |items| counted.received(items));
    let left = node.render(cx, entered);
    look(left, leave, move |items| {
        passed.sent(items);
        tap.show(items);
    })
}

/// Passes everything on, and looks at it.
fn look<'scope>(stream: Stream<'scope, Ts, Items>, name: String, look: impl Fn(&Items) + 'static) -> Stream<'scope, Ts, Items> {
    let mut builder = OperatorBuilder::new(name, stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (output, stream) = builder.new_output::<Items>();
    let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
    builder.build(move |_| {
        move |_| {
            input.for_each(|capability, items| {
                if let Some(capability) = capability.retain_least(0) {
                    look(items);
                    output.activate().session(&capability).give_container(items);
                }
            });
        }
    });
    stream
}
