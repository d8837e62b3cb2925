//! The operator in the dataflow: batches out to the workers and back, without waiting for them.
//!
//! ```text
//! Items ──> lanes (one a table) ──Request──> Pool
//!              │  ^                           │
//! Items <──────┘  └────────── answers ────────┘
//! ```
//! # Guarantees
//! - Order: a table's items leave in the order they came, marks between the batches they came between.
//! - Progress: an item's time is held until it has left or is durable in the dead letters.
//! - A table waits for its own worker alone; of one worker's requests, [`OUTSTANDING`] are on the way and the rest waits
//!   here, where the source's credit bounds it. Small batches that wait become one.
//! - Failure: an error keeps every time that is held, and stops the pipeline.

use super::errors::{PY_DIED, PY_RAISED, PY_TIMEOUT};
use super::frame::Frame;
use super::lanes::{Content, Lanes};
use super::letters::Letters;
use super::pool::Pool;
use super::rows::{leave, read, record_batch, stream};
use super::shape::{arrow_schema, refused, table_of};
use super::told::Told;
use super::worker::Request;
use crate::contract::{CodedError, Item, Items, Render, RenderContext, RowBatch, TablePattern, TableSchema, Ts};
use arrow::error::ArrowError;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::SyncActivator;

/// Requests that one instance has on the way to one worker: one is worked on while the next is brought.
const OUTSTANDING: usize = 2;
/// Schemas that are remembered.
const SCHEMAS: usize = 100_000;

/// One instance, for one source on one worker thread.
pub(super) struct PythonOperator {
    pub(super) pool: Arc<Pool>,
    pub(super) tables: Vec<TablePattern>,
    pub(super) letters: Option<Letters>,
    pub(super) show: bool,
    pub(super) timeout: Duration,
}

impl PythonOperator {
    fn acts_on(&self, table: &TableSchema) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|p| p.matches(&table.schema, &table.name))
    }
}

fn schema_request(table: &TableSchema, number: u64) -> Result<Frame, CodedError> {
    let body = stream(&arrow_schema(table), None).map_err(|e| encoding(table, e))?;
    Ok(Frame { header: json!({ "call": "schema", "schema": number }), body })
}

fn schema_answer(answer: Result<Frame, CodedError>, table: &TableSchema, show: bool) -> Result<TableSchema, Box<Failed>> {
    let answer = answer?;
    if let Some(told) = Told::of(&answer.header) {
        return Err(raised(told, &format!("the schema of table \"{}\"", table.full_name()), show));
    }
    let (schema, _) = read(answer.body).map_err(|e| refused(table, "its schema was not read").caused_by(e))?;
    Ok(table_of(&schema, table)?)
}

fn encoding(table: &TableSchema, error: ArrowError) -> CodedError {
    refused(table, "its rows did not become Arrow").caused_by(error)
}

/// What failed, and what the user's code said.
struct Failed {
    error: CodedError,
    told: Option<Told>,
}

impl From<CodedError> for Box<Failed> {
    fn from(error: CodedError) -> Self {
        Self::new(Failed { error, told: None })
    }
}

/// The error of an exception.
fn raised(told: Told, subject: &str, show: bool) -> Box<Failed> {
    let shown = if show && !told.words.is_empty() { &told.words } else { &told.message };
    let error = if told.kind == "result" {
        CodedError::definite(super::errors::PY_RESULT, format!("the Python operator's answer over {subject} was not taken: {shown}"))
    } else {
        CodedError::definite(PY_RAISED, format!("the Python operator raised {shown} over {subject}")).hint(
            "`on_error: dead_letter` sets such rows aside; `show_exceptions: true` shows the exception's words, which may hold values",
        )
    };
    Box::new(Failed { error: error.caused_by(told.clone()), told: Some(told) })
}

impl Render for PythonOperator {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        if !self.acts_on(table) {
            return Ok(table.clone());
        }
        let (done, answer) = mpsc::channel();
        let subject = format!("the schema of table \"{}\"", table.full_name());
        let frame = schema_request(table, self.pool.number())?;
        self.pool.ask(self.pool.worker_of(table.route()), Request::new(frame, subject.clone(), Box::new(move |it| drop(done.send(it)))));
        let late = |_| CodedError::definite(PY_TIMEOUT, format!("{subject} was not said in time"));
        // Three processes may be tried, each for as long as it takes.
        let answer = answer.recv_timeout(self.timeout * 8).map_err(late)?;
        schema_answer(answer, table, self.show).map_err(|failed| failed.error)
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        !self.acts_on(table)
    }

    fn render<'scope>(self: Box<Self>, cx: RenderContext, input: Stream<'scope, Ts, Items>) -> Stream<'scope, Ts, Items> {
        let scope = input.scope();
        let mut builder = OperatorBuilder::new(format!("Python {}", cx.node), scope);
        let mut input = builder.new_input(input, Pipeline);
        builder.set_notify_for(0, FrontierInterest::Never);
        let (output, stream) = builder.new_output::<Items>();
        let mut output = OutputBuilder::<Ts, CapacityContainerBuilder<Items>>::from(output);
        let wake = Arc::new(scope.worker().sync_activator_for(builder.operator_info().address.to_vec()));
        builder.build(move |_| {
            let mut hosted = Hosted::new(*self, wake);
            let mut failed = false;
            move |_| {
                let mut result = Ok(());
                input.for_each(|capability, items| {
                    for item in items.0.drain(..) {
                        if !failed && let Some(capability) = capability.retain_least(0) {
                            hosted.take(item, capability);
                        }
                    }
                });
                if !failed {
                    result = hosted.work();
                    for (item, capability) in hosted.left.drain(..) {
                        output.activate().session(&capability).give_container(&mut Items(vec![item]));
                    }
                }
                if let Err(error) = result {
                    failed = true;
                    cx.fail(error);
                }
            }
        });
        stream
    }
}

/// What is known of a schema.
struct Known {
    table: Arc<TableSchema>,
    number: u64,
    /// What leaves; nothing while it is asked for.
    out: Option<Arc<TableSchema>>,
}

/// An outcome, on its way back to the worker thread.
enum Outcome {
    Schema(usize, Result<TableSchema, Box<Failed>>),
    Rows(u64, u64, Result<RowBatch, Box<Failed>>),
}

/// An instance at work.
struct Hosted {
    operator: PythonOperator,
    /// By the schema's address, which the entry keeps alive.
    schemas: HashMap<usize, Known>,
    lanes: Lanes<Capability<Ts>>,
    /// Requests on the way, by worker.
    outstanding: HashMap<usize, usize>,
    answers: Receiver<Outcome>,
    answer: Sender<Outcome>,
    wake: Arc<SyncActivator>,
    left: Vec<(Item, Capability<Ts>)>,
}

impl Hosted {
    fn new(operator: PythonOperator, wake: Arc<SyncActivator>) -> Self {
        let (answer, answers) = unbounded();
        let (schemas, lanes, outstanding) = (HashMap::new(), Lanes::default(), HashMap::new());
        Self { operator, schemas, lanes, outstanding, answers, answer, wake, left: Vec::new() }
    }

    fn take(&mut self, item: Item, capability: Capability<Ts>) {
        if self.operator.acts_on(item.table()) { self.lanes.push(item, capability) } else { self.left.push((item, capability)) }
    }

    /// Takes answers, asks what can be asked, and lets go what may leave.
    fn work(&mut self) -> Result<(), CodedError> {
        while let Ok(outcome) = self.answers.try_recv() {
            match outcome {
                Outcome::Schema(address, made) => {
                    let out = made.map_err(|failed| failed.error)?;
                    if let Some(known) = self.schemas.get_mut(&address) {
                        known.out = Some(if out == *known.table { Arc::clone(&known.table) } else { Arc::new(out) });
                    }
                }
                Outcome::Rows(lane, slot, made) => self.answered(lane, slot, made)?,
            }
        }
        for lane in self.lanes.busy() {
            self.advance(lane)?;
        }
        if self.schemas.len() > SCHEMAS && self.lanes.is_empty() {
            self.schemas.clear();
        }
        Ok(())
    }

    fn answered(&mut self, lane: u64, slot: u64, made: Result<RowBatch, Box<Failed>>) -> Result<(), CodedError> {
        *self.outstanding.entry(self.operator.pool.worker_of(lane)).or_default() -= 1;
        let failed = match made {
            Ok(batch) => {
                self.lanes.set(lane, slot, Content::Left(batch));
                return Ok(());
            }
            Err(failed) => failed,
        };
        let Some(letters) = &self.operator.letters else { return Err(failed.error) };
        let Some(batch) = self.lanes.sent(lane, slot) else { return Err(failed.error) };
        if failed.error.code == PY_RAISED && batch.len() > 1 {
            let half = batch.len() / 2;
            let halves = [batch.slice(0, half), batch.slice(half, batch.len() - half)];
            self.lanes.split(lane, slot, halves);
        } else if [PY_RAISED, PY_TIMEOUT, PY_DIED].contains(&failed.error.code) {
            letters.write(self.operator.pool.node(), &batch, &failed.error, failed.told.as_ref())?;
            self.lanes.remove(lane, slot);
        } else {
            return Err(failed.error);
        }
        Ok(())
    }

    /// The schema that leaves for a table; nothing while it is not known.
    fn out(&mut self, table: &Arc<TableSchema>) -> Result<Option<(u64, Arc<TableSchema>)>, CodedError> {
        let address = Arc::as_ptr(table) as usize;
        if let Some(known) = self.schemas.get(&address) {
            return Ok(known.out.as_ref().map(|out| (known.number, Arc::clone(out))));
        }
        let (pool, show) = (&self.operator.pool, self.operator.show);
        let number = pool.number();
        let frame = schema_request(table, number)?;
        let (answer, wake, asked) = (self.answer.clone(), Arc::clone(&self.wake), Arc::clone(table));
        let done = Box::new(move |it| {
            let _ = answer.send(Outcome::Schema(address, schema_answer(it, &asked, show)));
            let _ = wake.activate();
        });
        let subject = format!("the schema of table \"{}\"", table.full_name());
        pool.ask(pool.worker_of(table.route()), Request::new(frame, subject, done));
        self.schemas.insert(address, Known { table: Arc::clone(table), number, out: None });
        Ok(None)
    }

    fn advance(&mut self, lane: u64) -> Result<(), CodedError> {
        let worker = self.operator.pool.worker_of(lane);
        while self.outstanding.get(&worker).copied().unwrap_or(0) < OUTSTANDING {
            let Some(table) = self.lanes.next_table(lane) else { break };
            let Some((number, out)) = self.out(&table)? else { break };
            let Some((slot, batch)) = self.lanes.next_rows(lane) else { break };
            self.ask(lane, slot, batch, number, out)?;
            *self.outstanding.entry(worker).or_default() += 1;
        }
        loop {
            let left = match self.lanes.front(lane) {
                Some(Content::Left(_)) => self.lanes.pop(lane),
                Some(Content::Mark(mark)) => {
                    let table = Arc::clone(mark.table());
                    let Some((_, out)) = self.out(&table)? else { break };
                    let left = self.lanes.pop(lane);
                    left.map(|(content, capability)| match content {
                        Content::Mark(mark) => (Content::Mark(mark.with_table(out)), capability),
                        content => (content, capability),
                    })
                }
                _ => break,
            };
            match left {
                Some((Content::Left(batch), capability)) if !batch.is_empty() => self.left.push((Item::Rows(batch), capability)),
                Some((Content::Mark(mark), capability)) => self.left.push((Item::Mark(mark), capability)),
                _ => {}
            }
        }
        Ok(())
    }

    fn ask(&mut self, lane: u64, slot: u64, batch: RowBatch, number: u64, out: Arc<TableSchema>) -> Result<(), CodedError> {
        let table = Arc::clone(&batch.table);
        let body = record_batch(&batch).and_then(|made| stream(&made.schema(), Some(&made))).map_err(|e| encoding(&table, e))?;
        let token = batch.first_token().unwrap_or_default();
        let subject = format!("the batch of {} rows at {token} of table \"{}\"", batch.len(), table.full_name());
        let frame = Frame { header: json!({ "call": "batch", "schema": number }), body };
        let (answer, wake, show, words) = (self.answer.clone(), Arc::clone(&self.wake), self.operator.show, subject.clone());
        let done = Box::new(move |it: Result<Frame, CodedError>| {
            let made = it.map_err(Box::from).and_then(|it| made_of(it, &batch, &out, &words, show));
            let _ = answer.send(Outcome::Rows(lane, slot, made));
            let _ = wake.activate();
        });
        self.operator.pool.ask(self.operator.pool.worker_of(lane), Request::new(frame, subject, done));
        Ok(())
    }
}

/// The batch of an answer.
fn made_of(answer: Frame, batch: &RowBatch, out: &Arc<TableSchema>, subject: &str, show: bool) -> Result<RowBatch, Box<Failed>> {
    if let Some(told) = Told::of(&answer.header) {
        return Err(raised(told, subject, show));
    }
    let body: Bytes = answer.body;
    let (schema, made) = read(body).map_err(|e| refused(&batch.table, "it is no Arrow stream").caused_by(e))?;
    let made = made.unwrap_or_else(|| arrow::record_batch::RecordBatch::new_empty(schema));
    Ok(leave(batch, &made, out)?)
}
