//! A sink, given a copy and changes of every table: in peace, with a crash, and again after it.

use super::operator::{batches, cut, story};
use super::{Breaches, Held, Property, Subject, counted, sum};
use crate::testing::flow::{NODE, Step};
use crate::testing::rows::{nulls, table};
use crate::{
    Ack, AckReport, CodedError, ColumnType, Delivery, Item, MemoryState, Op, ParsedNode, PipelineStatus, ReplicaIdentity, RowBatch,
    TableSchema, Token, Ts, WriterContext,
};
use etl_stream_operators::sink::tally::COMMITTED_ROWS;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// After this a sink counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Steps that are written before the crash.
const PEACE: usize = 3;

/// What was acknowledged, by the delivery's place.
#[derive(Default)]
struct Acks {
    done: Mutex<BTreeSet<u64>>,
    first: Notify,
    /// Rows of deliveries, to be there when they are acknowledged.
    rows: Vec<(String, Vec<Token>)>,
    held: Option<Arc<dyn Fn() -> Held + Send + Sync>>,
    early: Mutex<Option<String>>,
}

impl AckReport for Acks {
    fn durable(&self, id: u64) {
        if let (Some(held), Some((table, tokens))) = (&self.held, self.rows.get(id as usize)) {
            let there = read(held);
            let there = there.get(table).map_or(&[][..], Vec::as_slice);
            if let Some(token) = tokens.iter().find(|token| !there.contains(token)) {
                let what = format!("the row with token {token} of table \"{table}\" is acknowledged, and is not there");
                self.early.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
            }
        }
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.first.notify_one();
    }
}

/// Reads on a thread of its own, where a runtime may be made.
fn read(held: &Arc<dyn Fn() -> Held + Send + Sync>) -> Held {
    std::thread::scope(|scope| scope.spawn(|| held()).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// How a run ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The deliveries end, and the writer with them.
    Drained,
    /// The writer is dropped at its first acknowledgement.
    Crashed,
}

/// What came of a run.
struct Written {
    result: Result<(), CodedError>,
    acks: Arc<Acks>,
    /// The step of each delivery.
    steps: Vec<usize>,
    status: Arc<PipelineStatus>,
}

impl Written {
    fn acknowledged(&self, id: usize) -> bool {
        self.acks.done.lock().unwrap_or_else(PoisonError::into_inner).contains(&(id as u64))
    }

    /// The step of the first delivery that was not acknowledged.
    fn missing(&self) -> Option<usize> {
        (0..self.steps.len()).find(|id| !self.acknowledged(*id)).and_then(|id| self.steps.get(id).copied())
    }
}

struct Bench<'a> {
    subject: &'a Subject<'a>,
    parsed: &'a dyn ParsedNode,
    state: Arc<MemoryState>,
}

impl Bench<'_> {
    /// Writes with a new instance, in a runtime of its own, all on this thread.
    fn write(&self, steps: &[Step], end: End) -> Written {
        let items = || steps.iter().enumerate().flat_map(|(at, step)| step.items.iter().map(move |item| (at, item)));
        let tokens = |item: &Item| match item {
            Item::Rows(batch) => (batch.table.full_name(), (0..batch.len()).map(|row| batch.token(row)).collect()),
            Item::Mark(_) => (String::new(), Vec::new()),
        };
        let rows = items().map(|(_, item)| tokens(item)).collect();
        let acks = Arc::new(Acks { rows, held: self.subject.held.clone(), ..Acks::default() });
        let status = Arc::new(PipelineStatus::default());
        let cx = WriterContext {
            pipeline: "test".into(),
            sink: NODE.into(),
            source: "s".into(),
            worker: 0,
            workers: 1,
            process: 0,
            processes: 1,
            state: Arc::clone(&self.state) as _,
            status: Arc::clone(&status),
        };
        let (sender, deliveries) = mpsc::unbounded_channel();
        let mut id = 0;
        for step in steps {
            for item in &step.items {
                let ack = Ack::new(id, Arc::clone(&acks) as Arc<dyn AckReport>);
                id += 1;
                let delivery = match item.clone() {
                    Item::Rows(batch) => Delivery::Rows { batch, ack },
                    Item::Mark(mark) => Delivery::Mark { mark, ack },
                };
                let _ = sender.send(delivery);
            }
            let _ = sender.send(Delivery::Upper(Ts::after(step.time.lsn)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime of the test");
        let result = runtime.block_on(async {
            let sink = self.parsed.sink(&self.subject.context())?;
            sink.prepare(&cx).await?;
            let writing = sink.writer(cx).run(deliveries);
            // In a crash the deliveries never end.
            let open = (end == End::Crashed).then_some(sender);
            let ended = tokio::select! {
                result = writing => Some(result),
                () = acks.first.notified(), if end == End::Crashed => Some(Ok(())),
                () = tokio::time::sleep(PATIENCE) => None,
            };
            drop(open);
            ended.unwrap_or(Ok(()))
        });
        runtime.shutdown_background();
        let steps = items().map(|(at, _)| at).collect();
        Written { result, acks, steps, status }
    }

    /// Writes everything to its end, and says what is wrong then.
    fn whole(&self, steps: &[Step], property: Property, breaches: &mut Breaches) -> Option<Written> {
        let written = self.write(steps, End::Drained);
        if let Err(error) = &written.result {
            breaches.add(property, error.report());
            return None;
        }
        if let Some(step) = written.missing() {
            let time = steps.get(step).map(|step| step.time);
            breaches.add(Property::Frontier, format!("a delivery at {time:?} is not acknowledged: its source's position stays behind it"));
            return None;
        }
        if let Some(early) = written.acks.early.lock().unwrap_or_else(PoisonError::into_inner).take() {
            breaches.add(Property::Frontier, early);
        }
        Some(written)
    }

    /// Whether the place holds exactly the rows of these steps, in order.
    fn holds(&self, steps: &[Step], property: Property, breaches: &mut Breaches) {
        let Some(held) = &self.subject.held else { return };
        let mut expected = Held::new();
        for batch in batches(steps.iter().flat_map(|step| &step.items)) {
            expected.entry(batch.table.full_name()).or_default().extend((0..batch.len()).map(|row| batch.token(row)));
        }
        let held = read(held);
        for (table, expected) in expected.iter().filter(|(_, tokens)| !tokens.is_empty()) {
            let there = held.get(table).map_or(&[][..], Vec::as_slice);
            let mut sorted = there.to_vec();
            sorted.sort_unstable();
            if sorted == *expected {
                breaches.unless(there == expected, Property::Order, || format!("the rows of table \"{table}\" are not in order"));
            } else {
                let count = |token: &Token| there.iter().filter(|there| *there == token).count();
                let wrong =
                    expected.iter().find(|token| count(token) != 1).or_else(|| there.iter().find(|token| !expected.contains(token)));
                let wrong = wrong.map_or_else(String::new, |token| format!("; the row with token {token} is there {} times", count(token)));
                breaches.add(property, format!("table \"{table}\" has {} rows, not {}{wrong}", there.len(), expected.len()));
            }
        }
    }
}

/// Checks every property of a sink.
pub(super) fn check(subject: &Subject<'_>, parsed: &dyn ParsedNode, breaches: &mut Breaches) {
    let bench = Bench { subject, parsed, state: Arc::default() };
    let steps = story(&subject.tables);
    let (peace, war) = steps.split_at(PEACE);
    let (written, page) = counted(|| bench.whole(peace, Property::Rows, breaches));
    let Some(written) = written else { return };
    bench.holds(peace, Property::Rows, breaches);
    let rows: u64 = batches(peace.iter().flat_map(|step| &step.items)).map(|batch| batch.len() as u64).sum();
    let said = written.status.sink(NODE).rows.load(Ordering::Relaxed);
    breaches.unless(said == rows, Property::Metrics, || format!("the status says {said} rows after {rows}; use `Tally`"));
    let said = sum(&page, COMMITTED_ROWS, &format!("sink=\"{NODE}\""));
    breaches.unless(said == rows, Property::Metrics, || format!("{COMMITTED_ROWS} is {said} after {rows} rows; use `Tally`"));

    let crashed = bench.write(war, End::Crashed);
    if let Err(error) = &crashed.result {
        breaches.add(Property::Rows, error.report());
        return;
    }
    let from = crashed.missing().unwrap_or(war.len());
    if bench.whole(&cut(&war[from..]), Property::Replay, breaches).is_none() {
        return;
    }
    bench.holds(&steps, Property::Replay, breaches);
    for from in [1, steps.len() - 1] {
        if bench.whole(&cut(&steps[from..]), Property::Replay, breaches).is_none() {
            return;
        }
        bench.holds(&steps, Property::Replay, breaches);
    }

    let end = steps.last().map_or(0, |step| step.time.lsn);
    let later = |lsn: u64, items: Vec<Item>| [Step { time: Ts::new(end + lsn, 0), items }];
    let empty = subject.tables.iter().map(|table| RowBatch::empty(Arc::clone(table)).into()).collect();
    bench.whole(&later(1, empty), Property::Empty, breaches);
    let blank = TableSchema {
        identity: ReplicaIdentity::Full,
        ..table("public.blank", &[("a", ColumnType::Int8, "bigint"), ("b", ColumnType::Text, "text"), ("c", ColumnType::Date, "date")])
    };
    let mut blank = blank;
    blank.columns.iter_mut().for_each(|column| (column.key, column.nullable) = (None, true));
    let nulls = later(2, vec![nulls(&Arc::new(blank), Op::Insert, 4, Token::new(end + 2, 0)).into()]);
    if bench.whole(&nulls, Property::Nulls, breaches).is_some() {
        bench.holds(&nulls, Property::Nulls, breaches);
    }
}
