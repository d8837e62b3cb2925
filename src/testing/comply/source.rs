//! A source: run to a point and stopped, run and crashed with nothing durable, run again.

use super::{Breaches, Property, Subject};
use crate::testing::flow::NODE;
use crate::{
    Chunk, ChunkSender, CodedError, ConnectionSettings, Connections, Credits, Durable, Item, MemoryState, Op, ParsedNode, PipelineStatus,
    RawItem, RowBatch, SourceClosed, SourceContext, Token, Ts,
};
use etl_stream_operators::encode::Encoder;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};

/// After this a source counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes in flight.
const CREDIT: usize = 8 << 20;

/// A row's table and token.
type Place = (String, Token);

/// What a source gave.
#[derive(Default)]
struct Given {
    rows: BTreeMap<Place, RowBatch>,
    /// The last token of each table.
    last: BTreeMap<String, Token>,
    upper: Ts,
    wrong: Vec<(Property, String)>,
}

struct Collect {
    given: Arc<Mutex<Given>>,
    encoder: Encoder,
    credits: Credits,
    durable: watch::Sender<Durable>,
    /// Whether what comes is durable at once.
    keeps: bool,
    arrived: Arc<Notify>,
}

impl ChunkSender for Collect {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let before = given.upper;
        if chunk.upper < before {
            given.wrong.push((Property::Frontier, format!("a chunk reaches {:?} after one that reached {before:?}", chunk.upper)));
        }
        given.upper = given.upper.max(chunk.upper);
        let mut batches = Vec::new();
        for item in chunk.items {
            match item {
                RawItem::Raw(raw) => {
                    if let Err(error) = self.encoder.push(&raw, &mut batches) {
                        given.wrong.push((Property::Rows, error.report()));
                    }
                }
                RawItem::Ready(Item::Rows(batch)) => {
                    self.encoder.flush_table(&batch.table, &mut batches);
                    batches.push(batch);
                }
                RawItem::Ready(Item::Mark(mark)) => self.encoder.flush_table(mark.table(), &mut batches),
            }
        }
        self.encoder.flush(&mut batches);
        batches.iter().for_each(|batch| given.take(batch, before, chunk.upper));
        drop(given);
        // What is not durable keeps its credit; it is more than the runs here take.
        if self.keeps {
            self.credits.give(chunk.credit);
            self.durable.send_modify(|durable| durable.upper = durable.upper.max(chunk.upper));
        }
        self.arrived.notify_one();
        Ok(())
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        if self.keeps {
            self.durable.send_modify(|durable| durable.finished = true);
        }
        self.arrived.notify_one();
    }
}

impl Given {
    fn take(&mut self, batch: &RowBatch, before: Ts, upper: Ts) {
        for row in 0..batch.len() {
            let (token, table) = (batch.token(row), batch.table.full_name());
            let time = Ts::from(token);
            // A copy's rows stand at its LSN, whatever the time.
            if batch.op(row) != Op::Read && !(before..upper).contains(&time) {
                let what = format!("the row with token {token} of table \"{table}\" came between {before:?} and {upper:?}");
                self.wrong.push((Property::Frontier, what));
            }
            if self.last.insert(table.clone(), token).is_some_and(|last| last >= token) {
                self.wrong
                    .push((Property::Order, format!("the row with token {token} of table \"{table}\" is not after the one before it")));
            }
            // The time of a commit may be the clock's, where there is no log that says it.
            let row = RowBatch { commit_time: vec![0].into(), ..batch.slice(row, 1) };
            self.rows.insert((table, token), row);
        }
    }
}

/// When a run ends.
enum Until<'g> {
    /// Stopped after its first rows, everything durable.
    Rows,
    /// Crashed after its first rows, nothing durable.
    Crash,
    /// Stopped when all of these rows have come, everything durable.
    Again(&'g BTreeMap<Place, RowBatch>),
}

struct Bench<'a> {
    subject: &'a Subject<'a>,
    parsed: &'a dyn ParsedNode,
    state: Arc<MemoryState>,
}

impl Bench<'_> {
    fn run(&self, until: &Until<'_>, breaches: &mut Breaches) -> Option<(Given, Arc<PipelineStatus>)> {
        let keeps = !matches!(until, Until::Crash);
        let given: Arc<Mutex<Given>> = Arc::default();
        let (durable, durable_now) = watch::channel(Durable { upper: Ts::default(), finished: false });
        let (stop, stopped) = watch::channel(false);
        let credits = Credits::new(CREDIT, Arc::new(Semaphore::new(CREDIT)));
        let (status, arrived) = (Arc::new(PipelineStatus::default()), Arc::new(Notify::new()));
        let out = Collect {
            given: Arc::clone(&given),
            encoder: Encoder::new(),
            credits: credits.clone(),
            durable,
            keeps,
            arrived: Arc::clone(&arrived),
        };
        let cx = SourceContext {
            pipeline: "test".into(),
            source: NODE.into(),
            out: Box::new(out),
            durable: durable_now,
            credits: credits.clone(),
            connections: Connections::new(ConnectionSettings::default()),
            state: Arc::clone(&self.state) as _,
            status: Arc::clone(&status),
            source_status: status.source(NODE),
            stop: stopped,
            paused: watch::channel(false).1,
        };
        let enough = || {
            let given = given.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Until::Rows | Until::Crash => !given.rows.is_empty(),
                Until::Again(rows) => rows.keys().all(|place| given.rows.contains_key(place)),
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime of the test");
        let ended: Result<Option<()>, CodedError> = runtime.block_on(async {
            let mut running = self.parsed.source(&self.subject.context())?.run(cx);
            let deadline = tokio::time::sleep(PATIENCE);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    result = &mut running => return result.map(Some),
                    () = arrived.notified() => {
                        if enough() {
                            if !keeps {
                                return Ok(Some(()));
                            }
                            stop.send_replace(true);
                        }
                    }
                    () = &mut deadline => return Ok(None),
                }
            }
        });
        runtime.shutdown_background();
        match ended {
            Err(error) => {
                breaches.add(Property::Rows, error.report());
                return None;
            }
            Ok(None) if enough() => {
                breaches.add(Property::Frontier, format!("it still runs {} s after it was to stop", PATIENCE.as_secs()));
                return None;
            }
            Ok(None) if matches!(until, Until::Again(_)) => {}
            Ok(None) => {
                breaches.add(Property::Rows, format!("it gave no row in {} s", PATIENCE.as_secs()));
                return None;
            }
            Ok(Some(())) => {
                let whole = !keeps || credits.left() == CREDIT;
                breaches.unless(whole, Property::Frontier, || "credit that it took did not come back with its chunks".into());
            }
        }
        let mut given = std::mem::take(&mut *given.lock().unwrap_or_else(PoisonError::into_inner));
        given.wrong.drain(..).for_each(|(property, what)| breaches.add(property, what));
        Some((given, status))
    }
}

/// Checks every property of a source.
pub(super) fn check(subject: &Subject<'_>, parsed: &dyn ParsedNode, breaches: &mut Breaches) {
    let bench = Bench { subject, parsed, state: Arc::default() };
    let changes = || subject.changes.iter().for_each(|changes| std::thread::scope(|scope| drop(scope.spawn(changes).join())));
    let Some((first, status)) = bench.run(&Until::Rows, breaches) else { return };
    let source = status.source(NODE);
    let copied: u64 = source.tables().values().map(|table| table.snapshot_rows).sum();
    let said = source.changes.load(Ordering::Relaxed) + copied;
    let rows = first.rows.len() as u64;
    breaches.unless((1..=rows).contains(&said), Property::Metrics, || {
        format!("the status says {said} changes and copied rows, and {rows} rows came; count them in `SourceContext::source_status`")
    });
    let bytes = source.bytes.load(Ordering::Relaxed);
    breaches.unless(bytes > 0, Property::Metrics, || "the status says that 0 bytes were read".into());
    changes();
    let Some((lost, _)) = bench.run(&Until::Crash, breaches) else { return };
    if subject.observes {
        return;
    }
    let Some((again, _)) = bench.run(&Until::Again(&lost.rows), breaches) else { return };
    for (place, row) in &lost.rows {
        let (table, token) = place;
        match again.rows.get(place) {
            None => breaches.add(Property::Replay, format!("the row with token {token} of table \"{table}\" was not durable, and is lost")),
            Some(other) if other != row => {
                breaches.add(Property::Replay, format!("the row with token {token} of table \"{table}\" is another one the second time"));
            }
            Some(_) => continue,
        }
        return;
    }
}
