//! Each property is broken by a little node of its own, and named for it.

use super::{Held, Property, Subject};
use crate::testing::rows;
use crate::{
    BatchSettings, BuildContext, ByteSize, Cells, Chunk, Code, CodedError, Deliveries, Delivery, Durable, Exit, Item, Items, Kind,
    NodeConfig, Op, Operator, OperatorConfig, Output, Period, RawItem, Registry, Render, RenderConfig, RenderContext, RowBatch, Sink,
    SinkConfig, Source, SourceConfig, SourceContext, StateKey, TableSchema, Token, Ts, Writer, WriterContext,
};
use arrow::array::{Array, StringArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use etl_stream_operators::sink::tally::Tally;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;

/// What a node does wrong; with `nothing` it complies.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Fault {
    #[default]
    Nothing,
    Refuses,
    Reorders,
    Doubles,
    Withholds,
    Ends,
    LosesMarks,
    ForgetsSchema,
    PanicsOnNothing,
    RefusesNulls,
    Fills,
    Counts,
    IsSilent,
    AcksEarly,
    NeverAcks,
    RunsAhead,
    GoesBack,
    Loses,
}

/// Settings of each little node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Faulty {
    /// What it does wrong.
    #[serde(default)]
    fault: Fault,
}

macro_rules! config {
    ($name:ident, $config:ident, $type:literal) => {
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(transparent)]
        struct $name(Faulty);
        impl NodeConfig for $name {
            const TYPE: &'static str = $type;
            const SUMMARY: &'static str = "does one thing wrong";
            const EXAMPLE: &'static str = "fault: nothing\n";
        }
    };
}
config!(Batches, OperatorConfig, "batches");
config!(Raw, RenderConfig, "raw");
config!(Shelf, SinkConfig, "shelf");
config!(Well, SourceConfig, "well");

/// Takes settings that it does not have, and says of none what it is.
#[derive(Debug, Deserialize, JsonSchema)]
struct Careless {
    #[serde(default)]
    #[expect(dead_code, reason = "read by nobody")]
    level: u8,
}

impl NodeConfig for Careless {
    const TYPE: &'static str = "careless";
    const SUMMARY: &'static str = "takes anything";
    const EXAMPLE: &'static str = "level: 3\n";
}

impl OperatorConfig for Careless {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Step { fault: Fault::Nothing, kept: None, calls: 0 }))
    }
}

const BROKEN: Code = Code::new("TEST1", Exit::Failure);

struct Step {
    fault: Fault,
    kept: Option<RowBatch>,
    calls: u64,
}

impl OperatorConfig for Batches {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Step { fault: self.0.fault, kept: None, calls: 0 }))
    }
}

fn with_text(batch: &mut RowBatch, mut change: impl FnMut(usize, Option<&str>) -> Option<String>) {
    for column in &mut batch.columns {
        if let Some(texts) = column.as_any().downcast_ref::<StringArray>().filter(|_| column.data_type() == &DataType::Utf8) {
            *column = Arc::new(texts.iter().enumerate().map(|(row, text)| change(row, text)).collect::<StringArray>());
        }
    }
}

impl Operator for Step {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let mut table = table.clone();
        if self.fault == Fault::ForgetsSchema {
            self.calls += 1;
            table.name = format!("{}{}", table.name, self.calls).into();
        }
        Ok(table)
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        batch.table = Arc::clone(out_table);
        match self.fault {
            Fault::Reorders => {
                let backwards: Vec<u32> = (0..batch.len() as u32).rev().collect();
                batch = batch.take(&backwards);
            }
            Fault::Refuses => return Err(CodedError::definite(BROKEN, "no rows today")),
            Fault::Doubles => out.send(batch.clone()),
            Fault::Withholds => {
                if let Some(kept) = self.kept.replace(batch) {
                    out.send(kept);
                }
                return Ok(());
            }
            Fault::PanicsOnNothing => drop(batch.first_token().expect("there is always a row")),
            Fault::RefusesNulls => {
                let all_null = !batch.is_empty() && batch.columns.iter().all(|column| column.null_count() == column.len());
                assert!(!all_null, "there is always a value");
            }
            Fault::Fills => {
                with_text(&mut batch, |_, text| Some(text.unwrap_or("").to_owned()));
                batch.unchanged = Cells::default();
            }
            Fault::Counts => {
                let first = self.calls;
                self.calls += batch.len() as u64;
                with_text(&mut batch, |row, text| text.map(|_| format!("row {}", first + row as u64)));
            }
            _ => {}
        }
        out.send(batch);
        Ok(())
    }
}

struct Part(Fault);

impl RenderConfig for Raw {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Render>, CodedError> {
        Ok(Box::new(Part(self.0.fault)))
    }
}

impl Render for Part {
    fn render<'scope>(self: Box<Self>, _: RenderContext, input: Stream<'scope, Ts, Items>) -> Stream<'scope, Ts, Items> {
        use timely::container::CapacityContainerBuilder;
        use timely::dataflow::operators::generic::OutputBuilder;
        use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
        let fault = self.0;
        if fault == Fault::Ends {
            // An output that the input is not connected to: its frontier is gone at once.
            let mut builder = OperatorBuilder::new("Ends".into(), input.scope());
            let mut input = builder.new_input_connection(input, Pipeline, []);
            let (_, stream) = builder.new_output_connection::<Items, _>([]);
            builder.build(move |_| move |_| input.for_each(|_, _| ()));
            return stream;
        }
        let mut builder = OperatorBuilder::new("Part".into(), input.scope());
        let mut input = builder.new_input(input, Pipeline);
        let (output, stream) = builder.new_output::<Items>();
        let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
        let mut kept = Vec::new();
        builder.build(move |_| {
            move |_| {
                input.for_each(|capability, items| {
                    let Some(capability) = capability.retain_least(0) else { return };
                    if fault == Fault::LosesMarks {
                        items.0.retain(|item| matches!(item, Item::Rows(_)));
                    }
                    output.activate().session(&capability).give_container(items);
                    if fault == Fault::Withholds {
                        kept.push(capability);
                    }
                });
            }
        });
        stream
    }
}

type Tokens = Arc<Mutex<Held>>;

thread_local! {
    /// What the shelf of this test holds: each test has a thread of its own.
    static HELD: Tokens = Tokens::default();
}

impl SinkConfig for Shelf {
    fn build(&self, _: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Shelved(self.0.fault, HELD.with(Arc::clone))))
    }
}

struct Shelved(Fault, Tokens);

#[async_trait]
impl Sink for Shelved {
    fn batch(&self) -> BatchSettings {
        BatchSettings::new(10, ByteSize::mib(1), Period::millis(1))
    }
    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        Ok(())
    }
    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        Box::new(Shelver { fault: self.0, held: Arc::clone(&self.1), tally: Tally::new(&cx) })
    }
}

struct Shelver {
    fault: Fault,
    held: Tokens,
    tally: Tally,
}

#[async_trait]
impl Writer for Shelver {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        while let Some(delivery) = deliveries.recv().await {
            // As a sink that waits for something: what follows an acknowledgement may not come.
            tokio::task::yield_now().await;
            match delivery {
                Delivery::Rows { batch, ack } => {
                    let mut ack = Some(ack);
                    if self.fault == Fault::AcksEarly {
                        ack.take().into_iter().for_each(crate::Ack::durable);
                    }
                    {
                        let mut held = self.held.lock().unwrap();
                        let there = held.entry(batch.table.full_name()).or_default();
                        let new = match there.last().filter(|_| self.fault != Fault::Doubles) {
                            Some(last) => batch.after(*last),
                            None => batch,
                        };
                        let tokens = (0..new.len()).map(|row| new.token(row));
                        if self.fault == Fault::Reorders {
                            there.extend(tokens.rev())
                        } else {
                            there.extend(tokens)
                        }
                        if self.fault != Fault::IsSilent {
                            self.tally.committed(new.len() as u64, 1);
                        }
                    }
                    if self.fault != Fault::NeverAcks {
                        ack.into_iter().for_each(crate::Ack::durable);
                    }
                }
                Delivery::Mark { ack, .. } => ack.durable(),
                Delivery::Upper(_) => {}
            }
        }
        Ok(())
    }
}

impl SourceConfig for Well {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Draw(self.0.fault)))
    }
}

struct Draw(Fault);

/// So that a source that is not to repeat itself does not.
static ONCE: AtomicU64 = AtomicU64::new(0);

#[async_trait]
impl Source for Draw {
    async fn run(self: Box<Self>, mut cx: SourceContext) -> Result<(), CodedError> {
        let key = StateKey::node(&cx.pipeline, &cx.source);
        let durable = cx.state.load(&key)?.and_then(|at| at.as_u64()).unwrap_or(0);
        let table =
            Arc::new(rows::table("public.drawn", &[("id", crate::ColumnType::Int8, "bigint"), ("t", crate::ColumnType::Text, "text")]));
        let first = durable + 1;
        for lsn in first..first + 20 {
            if *cx.stop.borrow() {
                break;
            }
            let seed = if self.0 == Fault::Counts { ONCE.fetch_add(1, Ordering::Relaxed) } else { lsn };
            let mut random = crate::testing::random::Random::new(seed);
            let mut batch = rows::rows(&table, &[Op::Insert; 5], Token::new(lsn, 0), &mut random);
            if self.0 == Fault::Reorders {
                batch = batch.take(&[4, 3, 2, 1, 0]);
            }
            cx.credits.take(100).await;
            if self.0 != Fault::IsSilent {
                cx.source_status.changes.fetch_add(5, Ordering::Relaxed);
                cx.source_status.bytes.fetch_add(100, Ordering::Relaxed);
            }
            let upper = match self.0 {
                Fault::RunsAhead => Ts::new(lsn, 2),
                _ => Ts::after(lsn),
            };
            if self.0 == Fault::Loses {
                cx.state.store(&[(key.clone(), Some(json!(lsn)))])?;
            }
            if cx.out.send(Chunk { items: vec![RawItem::Ready(Item::Rows(batch))], upper, credit: 100 }).is_err() {
                break;
            }
            if self.0 == Fault::GoesBack && cx.out.send(Chunk { items: Vec::new(), upper: Ts::new(lsn, 0), credit: 0 }).is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(cx.out);
        let finished = cx.durable.wait_for(|durable: &Durable| durable.finished).await.map(|durable| *durable);
        if let Ok(durable) = finished {
            cx.state.store(&[(key, Some(json!(durable.upper.lsn.saturating_sub(1))))])?;
        }
        Ok(())
    }
}

fn registry() -> Registry {
    Registry::builtin().operator::<Batches>().operator::<Careless>().render::<Raw>().sink::<Shelf>().source::<Well>()
}

fn broken(kind: Kind, name: &str, fault: &str) -> BTreeSet<Property> {
    let registry = registry();
    HELD.with(|held| held.lock().unwrap().clear());
    let held = HELD.with(Arc::clone);
    let subject = Subject::of(&registry, kind, name)
        .set("fault", json!(fault))
        .patience(Duration::from_millis(50))
        .held(move || held.lock().unwrap().clone());
    let breaches = subject.breaches();
    breaches.iter().map(|breach| breach.property).collect()
}

#[test]
fn each_breach_is_named() {
    use Property as P;
    let mut wrong = Vec::new();
    for (kind, name, fault, expected) in [
        (Kind::Operator, "batches", "nothing", &[][..]),
        (Kind::Operator, "batches", "refuses", &[P::Rows]),
        (Kind::Operator, "batches", "reorders", &[P::Order, P::Nulls, P::Replay]),
        (Kind::Operator, "batches", "doubles", &[P::Order, P::Replay]),
        (Kind::Operator, "batches", "withholds", &[P::Frontier, P::Marks, P::Replay]),
        (Kind::Operator, "batches", "forgets_schema", &[P::Schema]),
        (Kind::Operator, "batches", "panics_on_nothing", &[P::Empty]),
        (Kind::Operator, "batches", "refuses_nulls", &[P::Nulls]),
        (Kind::Operator, "batches", "fills", &[P::Unchanged]),
        (Kind::Operator, "batches", "counts", &[P::Replay]),
        (Kind::Operator, "raw", "nothing", &[]),
        (Kind::Operator, "raw", "ends", &[P::Frontier, P::Marks]),
        (Kind::Operator, "raw", "withholds", &[P::Frontier]),
        (Kind::Operator, "raw", "loses_marks", &[P::Marks]),
        (Kind::Sink, "shelf", "nothing", &[]),
        (Kind::Sink, "shelf", "reorders", &[P::Order, P::Replay]),
        (Kind::Sink, "shelf", "doubles", &[P::Replay]),
        (Kind::Sink, "shelf", "acks_early", &[P::Frontier]),
        (Kind::Sink, "shelf", "never_acks", &[P::Frontier]),
        (Kind::Sink, "shelf", "is_silent", &[P::Metrics]),
        (Kind::Source, "well", "nothing", &[]),
        (Kind::Source, "well", "reorders", &[P::Order]),
        (Kind::Source, "well", "runs_ahead", &[P::Frontier]),
        (Kind::Source, "well", "goes_back", &[P::Frontier]),
        (Kind::Source, "well", "counts", &[P::Replay]),
        (Kind::Source, "well", "loses", &[P::Replay]),
        (Kind::Source, "well", "is_silent", &[P::Metrics]),
    ] {
        let found = broken(kind, name, fault);
        if found != expected.iter().copied().collect() {
            wrong.push(format!("{} {name} that {fault}: {found:?} and not {expected:?}", kind.noun()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn careless_settings() {
    let registry = registry();
    let breaches = Subject::of(&registry, Kind::Operator, "careless").breaches();
    let said: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|what| what.contains("`level` does not say what it is")), "{said:?}");
    assert!(said.iter().any(|what| what.contains("serde takes a setting")), "{said:?}");
    assert!(breaches.iter().all(|breach| breach.property == Property::Settings), "{said:?}");
}
