//! The engine's promises, under random chunks, workers and write delays. The seed is in every message.

use super::bridge::bridge;
use super::failure::Failures;
use super::plan::{OperatorPlan, Plan, SinkPlan, instances};
use super::sink::deliveries;
use super::source::SourceEnd;
use super::workers::Workers;
use arrow::array::Int64Array;
use etl_stream_operators::batch::Limits;
use etl_stream_operators::contract::{
    Ack, Chunk, ChunkSender, Code, CodedError, Column, ColumnType, Credits, Deliveries, Delivery, Durable, Exit, Item, MemoryState,
    Operator, OperatorNode, Output, PgType, RawItem, RenderContext, ReplicaIdentity, RowBatch, TableSchema, Token, Ts,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// A small generator of its own, so that a seed replays a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn table(number: u64) -> Arc<TableSchema> {
    let pg_type = PgType { oid: 20, modifier: -1, name: "bigint".into() };
    let id = Column {
        name: "id".into(),
        ty: ColumnType::Int8,
        pg_type,
        nullable: false,
        key: Some(0),
        missing: None,
        number: None,
        filled: false,
    };
    Arc::new(TableSchema {
        source: "s".into(),
        id: number as u32,
        schema: "public".into(),
        name: format!("t{number}").into(),
        columns: vec![id],
        identity: ReplicaIdentity::Default,
        storage: None,
    })
}

fn batch(table: &Arc<TableSchema>, tokens: &[Token]) -> RowBatch {
    RowBatch {
        columns: vec![Arc::new(Int64Array::from_iter_values(tokens.iter().map(|t| t.ordinal as i64)))],
        ops: tokens.iter().map(|_| b'i').collect(),
        commit_lsn: tokens.iter().map(|t| t.commit_lsn).collect(),
        ordinal: tokens.iter().map(|t| t.ordinal).collect(),
        commit_time: tokens.iter().map(|_| 0).collect(),
        ..RowBatch::empty(Arc::clone(table))
    }
}

/// What each sink has said is durable, by table.
type Ledger = Arc<Mutex<Vec<BTreeMap<Token, usize>>>>;

/// Acknowledges after random waits and out of order, and writes down what it acknowledged.
async fn write(sink: usize, mut deliveries: Deliveries, ledger: Ledger, mut random: Random) {
    let mut waiting: Vec<(RowBatch, Ack)> = Vec::new();
    let mut last: HashMap<String, Token> = HashMap::new();
    let mut complete = Ts::default();
    let acknowledge = |(batch, ack): (RowBatch, Ack)| {
        let mut ledger = ledger.lock().unwrap();
        (0..batch.len()).for_each(|row| *ledger[sink].entry(batch.token(row)).or_default() += 1);
        ack.durable();
    };
    loop {
        // Acknowledges also when nothing comes: the source may be waiting for the credit.
        let delivery = match tokio::time::timeout(Duration::from_millis(1), deliveries.recv()).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => break,
            Err(_) => {
                waiting.drain(..).for_each(acknowledge);
                continue;
            }
        };
        match delivery {
            Delivery::Rows { batch, ack } => {
                let first = batch.first_token().unwrap();
                let before = last.insert(batch.table.name.to_string(), batch.last_token().unwrap());
                assert!(before.is_none_or(|before| before < first), "a table's batches come in order");
                assert!(Ts::from(first) >= complete, "no row comes after the upper that covers it");
                waiting.push((batch, ack));
            }
            Delivery::Mark { ack, .. } => ack.durable(),
            Delivery::Upper(upper) => complete = upper,
        }
        while !waiting.is_empty() && random.below(3) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(300))).await;
            acknowledge(waiting.swap_remove(random.below(waiting.len() as u64) as usize));
        }
    }
    waiting.into_iter().for_each(acknowledge);
}

/// Drops every row whose ordinal is odd.
struct Halve;

impl Operator for Halve {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }
    fn apply(&mut self, batch: RowBatch, _: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let even: Vec<u32> = (0..batch.len() as u32).filter(|row| batch.ordinal[*row as usize].is_multiple_of(2)).collect();
        out.send(batch.take(&even));
        Ok(())
    }
}

/// Fails, or panics, at an ordinal of 3.
struct Break {
    panic: bool,
}

const BROKEN: Code = Code::new("TEST1", Exit::Failure);

impl Operator for Break {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }
    fn apply(&mut self, batch: RowBatch, _: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        if batch.ordinal.contains(&3) && batch.commit_lsn.iter().any(|lsn| *lsn > 100) {
            assert!(!self.panic, "a defect");
            return Err(CodedError::definite(BROKEN, "broken"));
        }
        out.send(batch);
        Ok(())
    }
}

struct Rig {
    sender: super::bridge::BridgeSender,
    credits: Credits,
    durable: watch::Receiver<Durable>,
    workers: Workers,
    failed: tokio::sync::mpsc::UnboundedReceiver<(Arc<str>, CodedError)>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    ledger: Ledger,
}

/// Node 0 is the source, node 1 an operator, node 2 a sink of the source, node 3 a sink of the operator.
fn rig(seed: u64, workers: usize, make: impl Fn() -> Box<dyn Operator>) -> Rig {
    let (failures, failed) = Failures::new();
    let (sender, bridge) = bridge();
    let credits = Credits::new(64 << 10, Arc::new(Semaphore::new(1 << 20)));
    let (durable, durable_now) = watch::channel(Durable { upper: Ts::default(), finished: false });
    let last = Arc::default();
    let ledger: Ledger = Arc::new(Mutex::new(vec![BTreeMap::new(); 2]));
    let mut tasks = Vec::new();
    let mut sink = |number: usize, inputs: Vec<(usize, usize)>| {
        let mut senders = Vec::new();
        for worker in 0..workers {
            let (sender, deliveries) = deliveries(Arc::default());
            senders.push(Some(sender));
            tasks.push(tokio::spawn(write(number, deliveries, Arc::clone(&ledger), Random(seed * 31 + worker as u64 + 1))));
        }
        let limits = Limits { rows: 50, bytes: 1 << 20, age: Duration::from_millis(5), piece: if number == 1 { 256 } else { usize::MAX } };
        SinkPlan { name: format!("sink{number}").into(), inputs, limits, writers: Mutex::new(senders) }
    };
    let sinks = BTreeMap::from([(2, sink(0, vec![(0, 0)])), (3, sink(1, vec![(1, 0)]))]);
    let instances = instances(workers, || Ok(OperatorNode::Batches(make()))).unwrap();
    let context = RenderContext {
        pipeline: "p".into(),
        node: "half".into(),
        source: "s".into(),
        state: Arc::new(MemoryState::default()),
        durable: durable_now.clone(),
        fail: Arc::new(|_| ()),
    };
    let plan = Plan {
        pipeline: "p".into(),
        name: "s".into(),
        node: 0,
        home: seed as usize % workers,
        first: 0,
        several: false,
        end: Mutex::new(Some(SourceEnd { bridge, credits: credits.clone(), durable, last: Arc::clone(&last) })),
        last,
        pressure: Arc::clone(credits.pressure()),
        tap: Arc::default(),
        operators: BTreeMap::from([(1, OperatorPlan { context, inputs: vec![(0, 0)], taps: vec![Arc::default()], instances })]),
        sinks,
        failures: failures.clone(),
    };
    let workers = Workers::start(workers, vec![plan], failures, None).unwrap();
    Rig { sender, credits, durable: durable_now, workers, failed, writers: tasks, ledger }
}

/// Sends random transactions; returns the tokens sent.
async fn feed(rig: &mut Rig, random: &mut Random, transactions: u64, known: &Mutex<Vec<Token>>) -> Vec<Token> {
    let tables: Vec<_> = (0..5).map(table).collect();
    let mut sent = Vec::new();
    let mut lsn = 0;
    for _ in 0..transactions {
        lsn += 1 + random.below(5);
        let rows = random.below(40);
        let before = sent.len();
        let mut items = Vec::new();
        let mut ordinal = 0;
        while ordinal < rows {
            let run = 1 + random.below(9);
            let tokens: Vec<Token> = (ordinal..ordinal + run).map(|ordinal| Token::new(lsn, ordinal)).collect();
            items.push(RawItem::Ready(Item::Rows(batch(&tables[random.below(5) as usize], &tokens))));
            sent.extend(tokens);
            ordinal += run;
        }
        // Known to whoever checks before it is sent: it may be durable at once.
        known.lock().unwrap().extend(&sent[before..]);
        rig.credits.take(4096).await;
        if rig.sender.send(Chunk { items, upper: Ts::after(lsn), credit: 4096 }).is_err() {
            break;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_never_passes_a_row_that_a_sink_has_not_made_durable() {
    for seed in 1..=12_u64 {
        let mut random = Random(seed * 7919);
        let mut rig = rig(seed, 1 + seed as usize % 3, || Box::new(Halve));
        let sent = Arc::new(Mutex::new(Vec::<Token>::new()));
        let (ledger, mut durable, seen) = (Arc::clone(&rig.ledger), rig.durable.clone(), Arc::clone(&sent));
        let checker = tokio::spawn(async move {
            let mut before = Ts::default();
            loop {
                let now = *durable.borrow_and_update();
                assert!(now.upper >= before, "seed {seed}: the durable time goes back");
                before = now.upper;
                {
                    let ledger = ledger.lock().unwrap();
                    for token in seen.lock().unwrap().iter().filter(|t| Ts::from(**t) < now.upper) {
                        assert!(ledger[0].contains_key(token), "seed {seed}: {token} is not durable in the first sink at {:?}", now.upper);
                        assert!(
                            ledger[1].contains_key(token) || !token.ordinal.is_multiple_of(2),
                            "seed {seed}: {token} is not durable in the second sink"
                        );
                    }
                }
                if now.finished || durable.changed().await.is_err() {
                    return now;
                }
            }
        });
        let all = feed(&mut rig, &mut random, 120, &sent).await;
        let Rig { sender, workers, writers, ledger, credits, .. } = rig;
        drop(sender);
        let end = tokio::time::timeout(Duration::from_secs(30), checker).await.expect("the stream ends").unwrap();
        assert!(end.finished);
        for writer in writers {
            writer.await.unwrap();
        }
        tokio::task::spawn_blocking(move || workers.join()).await.unwrap();
        let ledger = ledger.lock().unwrap();
        assert_eq!(ledger[0].keys().copied().collect::<Vec<_>>(), all, "seed {seed}: every row once");
        assert!(ledger.iter().flat_map(BTreeMap::values).all(|times| *times == 1), "seed {seed}: no row twice");
        assert_eq!(ledger[1].len(), all.iter().filter(|t| t.ordinal.is_multiple_of(2)).count(), "seed {seed}");
        assert_eq!(credits.left(), 64 << 10, "seed {seed}: all credit came back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_acknowledges_nothing_of_what_it_did_not_finish() {
    for (seed, panic) in [(1_u64, false), (2, true), (3, false)] {
        let mut random = Random(seed * 104_729);
        let mut rig = rig(seed, 1 + seed as usize % 2, move || Box::new(Break { panic }));
        let sending = async {
            // Stops by itself when credit no longer comes back.
            let _ = tokio::time::timeout(Duration::from_secs(2), feed(&mut rig, &mut random, 400, &Mutex::default())).await;
        };
        sending.await;
        let (node, error) =
            tokio::time::timeout(Duration::from_secs(10), rig.failed.recv()).await.expect("the failure is reported").unwrap();
        assert_eq!((&*node, error.code.id), ("half", if panic { "RUN0001" } else { "TEST1" }), "seed {seed}");
        let upper = rig.durable.borrow().upper;
        {
            let ledger = rig.ledger.lock().unwrap();
            for token in ledger[0].keys().filter(|t| Ts::from(**t) < upper) {
                assert!(ledger[1].contains_key(token), "seed {seed}: {token} was acknowledged and never left the failed node");
            }
        }
        rig.workers.abort();
        let workers = rig.workers;
        tokio::task::spawn_blocking(move || workers.join()).await.unwrap();
    }
}
