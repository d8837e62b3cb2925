//! The node's part of the dataflow: facts wait until the dimension is known, and go on with its texts.

use super::versions::{Versions, texts_of};
use super::{COLUMN, EnrichConfig, no_column};
use etl_stream::arrow::array::{Array, StringArray};
use etl_stream::timely::container::CapacityContainerBuilder;
use etl_stream::timely::dataflow::Stream;
use etl_stream::timely::dataflow::channels::Message;
use etl_stream::timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use etl_stream::timely::dataflow::channels::pushers::exchange::Distributor;
use etl_stream::timely::dataflow::operators::Capability;
use etl_stream::timely::dataflow::operators::generic::OutputBuilder;
use etl_stream::timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use etl_stream::timely::dataflow::operators::generic::operator::Operator;
use etl_stream::timely::{communication::Push, progress::Stamp};
use etl_stream::{
    Cells, Code, CodedError, Exit, Item, Items, Op, Render, RenderContext, ReplicaIdentity, RowBatch, StateKey, TableSchema, Token, Ts,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// The dimension's copy comes too late.
const WAITING: Code = Code::new("ENRICH2", Exit::Failure);
/// Bytes of facts that may wait for it.
const MOST_WAITING: usize = 32 << 20;

/// The operator.
pub(crate) struct Enrich(pub(crate) EnrichConfig);

/// Sends everything to the worker that has the facts. It may leave nothing out: what was sent is counted at both ends.
struct ToFacts {
    worker: usize,
}

impl Distributor<Items> for ToFacts {
    fn partition<T: Clone, P: Push<Message<T, Items>>>(&mut self, items: &mut Items, stamp: &Stamp<T>, pushers: &mut [P]) {
        Message::push_at(items, stamp.clone(), &mut pushers[self.worker]);
    }
    fn flush<T: Clone, P: Push<Message<T, Items>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}

/// The dimension alone.
fn dimension_of<'scope>(input: Stream<'scope, Ts, Items>, config: EnrichConfig) -> Stream<'scope, Ts, Items> {
    input.unary::<CapacityContainerBuilder<Items>, _, _, _>(Pipeline, "Dimension", move |_, _| {
        move |input, output| {
            input.for_each(|time, items| {
                items.0.retain(|item| config.is_dimension(item));
                if !items.0.is_empty() {
                    output.session(&time).give_container(items);
                }
            });
        }
    })
}

/// A batch of facts with the dimension's texts.
fn enriched(config: &EnrichConfig, versions: &Versions, mut batch: RowBatch) -> Result<RowBatch, CodedError> {
    let out = Arc::new(config.out_table(&batch.table)?);
    let by = batch.table.column(&config.by).ok_or_else(|| no_column(&batch.table, &config.by, "column"))?;
    let keys = texts_of(&batch.columns[by], &batch.table, by)?;
    let added = batch.columns.len();
    let (mut texts, mut unchanged) = (Vec::with_capacity(batch.len()), Cells::default());
    for row in 0..batch.len() {
        batch.unchanged.row(row).for_each(|(column, ())| unchanged.push(row, column, ()));
        if batch.unchanged.get(row, by).is_some() {
            // The key was not sent, so neither is what follows from it.
            unchanged.push(row, added, ());
        }
        let before = if batch.op(row) == Op::Read { Token::end_of(batch.commit_lsn[row]) } else { batch.token(row) };
        let text = if batch.columns[by].is_null(row) { None } else { versions.at(&keys.value(row).to_string(), before) };
        texts.push(text);
    }
    let texts: StringArray = texts.into_iter().collect();
    drop(keys);
    batch.columns.push(Arc::new(texts));
    Ok(RowBatch { table: out, unchanged, ..batch })
}

/// The facts that wait, and what they wait for.
struct Joining {
    config: EnrichConfig,
    versions: Versions,
    waiting: VecDeque<(Capability<Ts>, Item)>,
    bytes: usize,
}

impl Joining {
    /// Whether the first that waits can go on.
    fn is_ready(&self, frontier: Option<Ts>) -> bool {
        self.waiting.front().is_some_and(|(_, item)| match item {
            Item::Rows(batch) => {
                batch.len().checked_sub(1).is_none_or(|last| self.versions.knows(batch.token(last), batch.op(last), frontier))
            }
            Item::Mark(_) => true,
        })
    }

    fn out(&self, item: Item) -> Result<Item, CodedError> {
        match item {
            Item::Rows(batch) => enriched(&self.config, &self.versions, batch).map(Item::Rows),
            Item::Mark(mark) => Ok(Item::Mark(mark.with_table(Arc::new(self.config.out_table(mark.table())?)))),
        }
    }
}

fn size(item: &Item) -> usize {
    if let Item::Rows(batch) = item { batch.bytes() } else { 0 }
}

impl Render for Enrich {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        self.0.out_table(table)
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        table.full_name() != self.0.facts
    }

    fn render<'scope>(self: Box<Self>, cx: RenderContext, input: Stream<'scope, Ts, Items>) -> Stream<'scope, Ts, Items> {
        let config = self.0;
        let scope = input.scope();
        let worker = worker_of(&cx.source, &config.facts, scope.peers());
        let mut builder = OperatorBuilder::new(format!("Enrich {}", cx.node), scope);
        let dimension = dimension_of(input.clone(), config.clone());
        // Connected to the output: what is on its way here holds the time back that would make it durable.
        let mut dimension = builder.new_input(dimension, DistributorPact(move |_| ToFacts { worker }));
        let mut items = builder.new_input(input, Pipeline);
        let (output, stream) = builder.new_output::<Items>();
        let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
        let key = StateKey::table(&cx.pipeline, &format!("{}/{}", cx.node, cx.source), &config.dimension);
        builder.build(move |_| {
            let mut joining = Joining { config, versions: Versions::default(), waiting: VecDeque::new(), bytes: 0 };
            let mut failed = match cx.state.load(&key).map(|kept| kept.map(serde_json::from_value).transpose()) {
                Ok(Ok(kept)) => {
                    joining.versions = kept.unwrap_or_default();
                    None
                }
                Ok(Err(error)) => Some(CodedError::definite(COLUMN, "what it kept is not what it keeps").caused_by(error)),
                Err(error) => Some(error),
            };
            // What it could not do keeps its capabilities.
            let mut wedged = false;
            move |frontiers| {
                let mut changed = false;
                dimension.for_each(|_, items| {
                    for item in items.0.drain(..) {
                        if failed.is_none() && !wedged {
                            changed = true;
                            failed = joining.versions.take(&joining.config, &item).err();
                        }
                    }
                });
                if changed && failed.is_none() {
                    joining.versions.forget(cx.durable.borrow().upper);
                    // Before their capability is dropped: what is durable does not come again.
                    failed = serde_json::to_value(&joining.versions)
                        .map_err(|error| CodedError::definite(COLUMN, "what it keeps is not written").caused_by(error))
                        .and_then(|kept| cx.state.store(&[(key.clone(), Some(kept))]))
                        .err();
                }
                items.for_each(|capability, items| {
                    let Some(capability) = capability.retain_least(0) else { return };
                    let (facts, others): (Vec<Item>, Vec<Item>) =
                        items.0.drain(..).partition(|item| item.table().full_name() == joining.config.facts);
                    if !others.is_empty() {
                        output.activate().session(&capability).give_container(&mut Items(others));
                    }
                    for item in facts {
                        joining.bytes += size(&item);
                        joining.waiting.push_back((capability.clone(), item));
                    }
                });
                let frontier = frontiers[0].frontier().first().copied();
                while failed.is_none() && !wedged && joining.is_ready(frontier) {
                    let Some((capability, item)) = joining.waiting.pop_front() else { break };
                    joining.bytes -= size(&item);
                    match joining.out(item.clone()) {
                        Ok(item) => output.activate().session(&capability).give_container(&mut Items(vec![item])),
                        Err(error) => {
                            joining.waiting.push_front((capability, item));
                            failed = Some(error);
                        }
                    }
                }
                if failed.is_none() && joining.versions.copying.is_some() && joining.bytes > MOST_WAITING {
                    let message = format!("{} MiB of facts wait for a copy of table \"{}\"", joining.bytes >> 20, joining.config.dimension);
                    failed = Some(
                        CodedError::definite(WAITING, message)
                            .hint("copy the dimension first: leave the facts out of `tables` until it is there"),
                    );
                }
                if let Some(error) = failed.take() {
                    wedged = true;
                    cx.fail(error);
                }
            }
        });
        stream
    }
}

/// The worker that owns a table.
pub(crate) fn worker_of(source: &Arc<str>, table: &str, workers: usize) -> usize {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    let table = TableSchema {
        source: Arc::clone(source),
        id: 0,
        schema: schema.into(),
        name: name.into(),
        columns: Vec::new(),
        identity: ReplicaIdentity::Default,
        storage: None,
    };
    (table.route() % workers as u64) as usize
}
