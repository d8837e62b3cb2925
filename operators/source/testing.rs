//! Runs a source to its end without the engine: rows are decoded and encoded, everything is durable as it comes.

use crate::contract::{
    Chunk, ChunkSender, CodedError, ConnectionSettings, Connections, Credits, Durable, Item, MemoryState, PipelineStatus, RawItem,
    RowBatch, Source, SourceClosed, SourceContext, SourceStatus, StateStore, Ts,
};
use crate::encode::Encoder;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, watch};

/// What a source gave.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Every row.
    pub(super) batches: Vec<RowBatch>,
    /// Marks, short.
    pub(super) marks: Vec<String>,
    /// What the source says of itself at the end: changes, transactions, received, the server's position.
    pub(super) counts: [u64; 4],
}

struct Collect {
    given: Arc<Mutex<(Given, Encoder, Ts)>>,
    durable: watch::Sender<Durable>,
    credits: Credits,
    /// Stops the source after so many chunks with rows.
    stop: Option<(usize, watch::Sender<bool>)>,
}

impl ChunkSender for Collect {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        let mut guard = self.given.lock().unwrap();
        let (given, encoder, upper) = &mut *guard;
        assert!(chunk.upper >= *upper, "time goes on");
        let before = *upper;
        *upper = chunk.upper;
        for item in &chunk.items {
            match item {
                RawItem::Raw(raw) => encoder.push(raw, &mut given.batches).expect("real bytes"),
                RawItem::Ready(Item::Mark(mark)) => given.marks.push(format!("{mark:?}").split_whitespace().next().unwrap().to_owned()),
                RawItem::Ready(Item::Rows(_)) => panic!("sources give no batches"),
            }
        }
        let first = given.batches.len();
        encoder.flush(&mut given.batches);
        for batch in given.batches.iter().skip(first) {
            // A snapshot's marks move time before its first row.
            assert!(batch.ops[0] == b'r' || batch.first_ts().unwrap() >= before);
            assert!(Ts::from(batch.last_token().unwrap()) < chunk.upper);
        }
        if let Some((left, stop)) = self.stop.as_mut().filter(|_| !chunk.items.is_empty()) {
            *left = left.saturating_sub(1);
            stop.send_replace(*left == 0);
        }
        self.credits.give(chunk.credit);
        self.durable.send_modify(|durable| durable.upper = chunk.upper);
        Ok(())
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        self.durable.send_modify(|durable| durable.finished = true);
    }
}

/// Runs it with a state, and stops it after so many chunks.
pub(super) async fn run(source: Box<dyn Source>, state: &Arc<MemoryState>, chunks: Option<usize>) -> Result<Given, CodedError> {
    let given: Arc<Mutex<(Given, Encoder, Ts)>> = Arc::default();
    let (durable, durable_end) = watch::channel(Durable { upper: Ts::default(), finished: false });
    let (stop, stop_end) = watch::channel(false);
    let credits = Credits::new(4 << 20, Arc::new(Semaphore::new(1 << 30)));
    let status = Arc::new(SourceStatus::default());
    let stop = chunks.map(|chunks| (chunks, stop));
    let cx = SourceContext {
        pipeline: "test".into(),
        source: "s".into(),
        out: Box::new(Collect { given: Arc::clone(&given), durable, credits: credits.clone(), stop }),
        durable: durable_end,
        credits: credits.clone(),
        connections: Connections::new(ConnectionSettings::default()),
        state: Arc::clone(state) as Arc<dyn StateStore>,
        status: Arc::new(PipelineStatus::default()),
        source_status: Arc::clone(&status),
        stop: stop_end,
        paused: watch::channel(false).1,
    };
    source.run(cx).await?;
    assert_eq!(credits.left(), 4 << 20, "all credit came back");
    let mut given = std::mem::take(&mut given.lock().unwrap().0);
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    given.counts = [count(&status.changes), count(&status.transactions), count(&status.received_lsn), count(&status.server_lsn)];
    Ok(given)
}
