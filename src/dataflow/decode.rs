//! The decode operator: wire bytes in, Arrow row batches out.
//!
//! ```text
//! source ──RawItems──⇄ by table ⇄──> decode ──Items──> operators
//! ```
//!
//! # Guarantees
//! - Order: a table's rows and marks leave in the order they came.
//! - State: none between activations; what an activation takes in, it gives out. With several processes the schemas of the
//!   tables it has seen: what comes from another process brings its own copy each time, and later nodes tell schemas
//!   apart by their place in memory.
//! - Progress: leaves at the earliest time it took in.
//! - Failure: the capability is kept, later input is dropped, the failure reported.

use super::exchange::ByTable;
use super::failure::Failures;
use super::tap::Tap;
use etl_stream_operators::contract::{Item, Items, RawItem, RawItems, RowBatch, TableId, TableSchema, Ts};
use etl_stream_operators::encode::Encoder;
use etl_stream_operators::failpoint;
use std::collections::HashMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{DistributorPact, ParallelizationContract, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

/// Builds the operator.
pub(crate) fn decode<'scope>(
    stream: Stream<'scope, Ts, RawItems>,
    node: Arc<str>,
    tap: Arc<Tap>,
    failures: Failures,
    several: bool,
) -> Stream<'scope, Ts, Items> {
    if stream.scope().peers() > 1 {
        build(stream, DistributorPact(ByTable::new), node, tap, failures, several)
    } else {
        build(stream, Pipeline, node, tap, failures, several)
    }
}

/// One schema of each version of each table, whichever copy came.
#[derive(Default)]
struct Schemas(HashMap<TableId, Vec<Arc<TableSchema>>>);

/// Versions of a table that are remembered; older ones are copies again if they come.
const VERSIONS: usize = 8;

impl Schemas {
    fn settle(&mut self, table: &mut Arc<TableSchema>) {
        let known = self.0.entry(table.id).or_default();
        match known.iter().find(|known| Arc::ptr_eq(known, table) || ***known == **table) {
            Some(known) => *table = Arc::clone(known),
            None => {
                if known.len() >= VERSIONS {
                    known.remove(0);
                }
                known.push(Arc::clone(table));
            }
        }
    }
}

fn build<'scope, P>(
    stream: Stream<'scope, Ts, RawItems>,
    pact: P,
    node: Arc<str>,
    tap: Arc<Tap>,
    failures: Failures,
    several: bool,
) -> Stream<'scope, Ts, Items>
where
    P: ParallelizationContract<Ts, RawItems>,
    P::Puller: timely::communication::Pull<Message<Ts, RawItems>>,
{
    let mut builder = OperatorBuilder::new(format!("Decode {node}"), stream.scope());
    let mut input = builder.new_input(stream, pact);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (output, decoded) = builder.new_output::<Items>();
    let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
    builder.build(move |_| {
        let mut encoder = Encoder::new();
        let mut batches = Vec::new();
        let mut schemas = several.then(Schemas::default);
        let mut wedged: Option<Capability<Ts>> = None;
        move |_| {
            let mut earliest: Option<Capability<Ts>> = None;
            let mut items = Items::default();
            let mut failed = None;
            input.for_each(|capability, raw| {
                if earliest.is_none() {
                    earliest = capability.retain_least(0);
                }
                if wedged.is_none() && failed.is_none() {
                    if let Some(schemas) = &mut schemas {
                        raw.0.iter_mut().for_each(|item| schemas.settle(item.table_mut()));
                    }
                    let result =
                        Failures::guard(&node, || raw.0.drain(..).try_for_each(|item| take(&mut encoder, item, &mut batches, &mut items)));
                    failed = result.err();
                }
            });
            let Some(earliest) = earliest else { return };
            if wedged.is_some() {
                return;
            }
            if let Some(error) = failed {
                failures.report(&node, error);
                wedged = Some(earliest);
                return;
            }
            encoder.flush(&mut batches);
            give(&mut batches, &mut items);
            if !items.0.is_empty() {
                failpoint::reach("decode.done");
                tap.show(&items);
                output.activate().session(&earliest).give_container(&mut items);
            }
        }
    });
    decoded
}

fn give(batches: &mut Vec<RowBatch>, items: &mut Items) {
    items.0.extend(batches.drain(..).map(Item::Rows));
}

fn take(
    encoder: &mut Encoder,
    item: RawItem,
    batches: &mut Vec<RowBatch>,
    items: &mut Items,
) -> Result<(), etl_stream_operators::contract::CodedError> {
    match item {
        RawItem::Raw(raw) => encoder.push(&raw, batches)?,
        RawItem::Ready(item) => {
            encoder.flush_table(item.table(), batches);
            give(batches, items);
            items.0.push(item);
        }
    }
    give(batches, items);
    Ok(())
}
