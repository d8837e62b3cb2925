//! Runs an [`Operator`] in the dataflow.
//!
//! ```text
//! Items ──> Operator ──Items──> output 0, output 1, …
//! ```
//!
//! # Guarantees
//! - Order: as the operator keeps it; marks stay between the batches they came between, on every output.
//! - Progress: leaves at the time it came.
//! - Failure: an error or a panic keeps the capability, drops later input and is reported.
//! - Metrics: rows in and out, counted once for each container.

use super::failure::Failures;
use super::passed::Passed;
use super::tap::Tap;
use etl_stream_operators::contract::{CodedError, Item, Items, Operator, Output, TableSchema, Ts};
use std::collections::HashMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

/// An operator and the schemas it has been asked for.
struct Running {
    operator: Box<dyn Operator>,
    /// By the address of the schema that came in, which the entry keeps alive. One for each version of
    /// each table; emptied when it has grown past any real number of tables.
    schemas: HashMap<usize, (Arc<TableSchema>, Arc<TableSchema>)>,
    out: Output,
}

const SCHEMAS: usize = 100_000;

impl Running {
    fn out_table(&mut self, table: &Arc<TableSchema>) -> Result<Arc<TableSchema>, CodedError> {
        let address = Arc::as_ptr(table) as usize;
        if let Some((_, out)) = self.schemas.get(&address) {
            return Ok(Arc::clone(out));
        }
        if self.schemas.len() >= SCHEMAS {
            self.schemas.clear();
        }
        let made = self.operator.schema(table)?;
        // An untouched table keeps its identity, so that later nodes compare pointers.
        let out = if made == **table { Arc::clone(table) } else { Arc::new(made) };
        self.schemas.insert(address, (Arc::clone(table), Arc::clone(&out)));
        Ok(out)
    }

    fn take(&mut self, item: Item, outputs: &mut [Items]) -> Result<(), CodedError> {
        let out_table = self.out_table(item.table())?;
        match item {
            Item::Rows(batch) => {
                self.operator.apply(batch, &out_table, &mut self.out)?;
                for (output, batch) in self.out.drain() {
                    outputs[output].0.push(Item::Rows(batch));
                }
            }
            Item::Mark(mark) => outputs.iter_mut().for_each(|output| output.0.push(Item::Mark(mark.with_table(Arc::clone(&out_table))))),
        }
        Ok(())
    }
}

/// Builds the operator with as many outputs as it has taps.
pub(crate) fn operator<'scope>(
    stream: Stream<'scope, Ts, Items>,
    node: Arc<str>,
    operator: Box<dyn Operator>,
    taps: Vec<Arc<Tap>>,
    passed: Passed,
    failures: Failures,
) -> Vec<Stream<'scope, Ts, Items>> {
    let outputs = taps.len();
    let mut builder = OperatorBuilder::new(format!("Operator {node}"), stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (mut ports, streams): (Vec<_>, Vec<_>) = (0..outputs)
        .map(|_| {
            let (port, stream) = builder.new_output::<Items>();
            (OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(port), stream)
        })
        .unzip();
    builder.build(move |_| {
        let mut running = Running { operator, schemas: HashMap::new(), out: Output::default() };
        let mut made: Vec<Items> = (0..outputs).map(|_| Items::default()).collect();
        let mut wedged: Vec<Capability<Ts>> = Vec::new();
        move |_| {
            input.for_each(|capability, items| {
                if !wedged.is_empty() {
                    return;
                }
                passed.received(items);
                let result = Failures::guard(&node, || items.0.drain(..).try_for_each(|item| running.take(item, &mut made)));
                if let Err(error) = result {
                    failures.report(&node, error);
                    wedged = (0..outputs).filter_map(|output| capability.retain_least(output)).collect();
                    return;
                }
                for (output, (port, items)) in ports.iter_mut().zip(&mut made).enumerate() {
                    if !items.0.is_empty()
                        && let Some(capability) = capability.retain_least(output)
                    {
                        passed.sent(items);
                        if let Some(tap) = taps.get(output) {
                            tap.show(items);
                        }
                        port.activate().session(&capability).give_container(items);
                    }
                    items.0.clear();
                }
            });
        }
    });
    streams
}
