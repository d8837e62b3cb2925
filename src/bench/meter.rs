//! Measures at the edges of a pipeline, without the pipeline knowing: around its sources and its sinks.
//!
//! ```text
//! source ──Chunk──> [ start of the window ] ──> … ──Delivery──> [ sums ] ──> sink
//!                                                  ack  <──── [ latency, end of the window ] <── ack
//! ```
//! # Guarantees
//! What counts as arrived is what the sink has acknowledged. Latency is from a row's commit time to its acknowledgement;
//! with an open loop the commit time is the moment the row was to be sent, so that nothing needs correcting.

use super::checksum::Sums;
use super::sample::{Sample, Spent};
use crate::{
    Ack, AckReport, BatchSettings, BuildContext, Chunk, ChunkSender, CodedError, DeadLetters, Deliveries, Delivery, Findings, OperatorNode,
    ParsedNode, RowBatch, Sink, Source, SourceClosed, SourceContext, Watch, Writer, WriterContext,
};
use async_trait::async_trait;
use hdrhistogram::Histogram;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// The longest latency that is told apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// A step of the timeline.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// What is measured while rows flow.
#[derive(Debug)]
pub(super) struct Window {
    /// When the first row was sent.
    pub(super) start: Option<Sample>,
    /// When the last row was acknowledged.
    pub(super) end: Option<Sample>,
    /// Microseconds from commit to acknowledgement, each row once for each sink.
    pub(super) latency: Histogram<u64>,
    /// Rows acknowledged in each [`STEP`] since the start.
    pub(super) timeline: Vec<u64>,
}

/// Measures one run.
#[derive(Debug)]
pub(super) struct Meter {
    window: Mutex<Window>,
    /// What each sink has acknowledged.
    sinks: Mutex<HashMap<Arc<str>, Sums>>,
    /// CPU that the sums took.
    summing: Spent,
    /// CPU of the tasks of sources and sinks, by name.
    tasks: Mutex<BTreeMap<String, Spent>>,
    /// The clock, read once: what steps it during a run moves nothing.
    clock: (i64, Instant),
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are right");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_micros()).ok());
        Arc::new(Self {
            window: Mutex::new(Window { start: None, end: None, latency, timeline: Vec::new() }),
            sinks: Mutex::default(),
            summing: Spent::default(),
            tasks: Mutex::default(),
            clock: (now.unwrap_or(0), Instant::now()),
        })
    }

    /// Looks at the window.
    pub(super) fn window<T>(&self, look: impl FnOnce(&mut Window) -> T) -> T {
        look(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a sink has acknowledged.
    pub(super) fn sums(&self, sink: &str) -> Sums {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).get(sink).copied().unwrap_or_default()
    }

    /// CPU that the sums took, of all sinks.
    pub(super) fn summing(&self) -> Duration {
        self.summing.total()
    }

    /// CPU of the tasks of sources and sinks, by name.
    pub(super) fn tasks(&self) -> BTreeMap<String, Duration> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().map(|(name, spent)| (name.clone(), spent.total())).collect()
    }

    fn task(&self, name: String) -> Spent {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }

    fn started(&self) {
        self.window(|window| _ = window.start.get_or_insert_with(Sample::now));
    }

    fn acknowledged(&self, sink: &Arc<str>, waiting: &Waiting) {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).entry(Arc::clone(sink)).or_default().add(waiting.sums);
        let sample = Sample::now();
        let now = self.clock.0 + i64::try_from(sample.at.duration_since(self.clock.1).as_micros()).unwrap_or(i64::MAX);
        self.window(|window| {
            window.end = Some(sample);
            for (time, rows) in &waiting.times {
                let micros = u64::try_from(now.saturating_sub(*time)).unwrap_or(0).clamp(1, LONGEST);
                window.latency.record_n(micros, *rows).expect("the latency is within the bounds");
            }
            let since = window.start.map_or(Duration::ZERO, |start| sample.at.duration_since(start.at));
            let at = usize::try_from(since.as_millis() / STEP.as_millis()).unwrap_or(0);
            if window.timeline.len() <= at {
                window.timeline.resize(at + 1, 0);
            }
            if let Some(step) = window.timeline.get_mut(at) {
                *step += waiting.sums.rows;
            }
        });
    }
}

/// A node whose edges are measured.
pub(super) struct Metered {
    node: Arc<dyn ParsedNode>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn of(node: Arc<dyn ParsedNode>, meter: &Arc<Meter>) -> Arc<dyn ParsedNode> {
        Arc::new(Self { node, meter: Arc::clone(meter) })
    }
}

impl ParsedNode for Metered {
    fn check(&self, findings: &mut Findings) {
        self.node.check(findings);
    }
    fn outputs(&self) -> Vec<String> {
        self.node.outputs()
    }
    fn watches(&self) -> Vec<Watch> {
        self.node.watches()
    }
    fn may_be_unread(&self) -> bool {
        self.node.may_be_unread()
    }
    fn settings(&self) -> &dyn Any {
        self.node.settings()
    }
    fn claims(&self, cx: &BuildContext) -> Result<Vec<String>, CodedError> {
        self.node.claims(cx)
    }
    fn source(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(MeteredSource { source: self.node.source(cx)?, meter: Arc::clone(&self.meter) }))
    }
    fn operator(&self, cx: &BuildContext) -> Result<OperatorNode, CodedError> {
        self.node.operator(cx)
    }
    fn sink(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(MeteredSink { sink: self.node.sink(cx)?, meter: Arc::clone(&self.meter) }))
    }
}

struct MeteredSource {
    source: Box<dyn Source>,
    meter: Arc<Meter>,
}

struct MeteredSender {
    out: Box<dyn ChunkSender>,
    meter: Arc<Meter>,
    begun: bool,
}

impl ChunkSender for MeteredSender {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        if !self.begun && !chunk.items.is_empty() {
            self.begun = true;
            self.meter.started();
        }
        self.out.send(chunk)
    }
}

#[async_trait]
impl Source for MeteredSource {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let Self { source, meter } = *self;
        let spent = meter.task(format!("Task of source {}", cx.source));
        let out = Box::new(MeteredSender { out: cx.out, meter, begun: false });
        spent.of(source.run(SourceContext { out, ..cx })).await
    }
}

struct MeteredSink {
    sink: Arc<dyn Sink>,
    meter: Arc<Meter>,
}

#[async_trait]
impl Sink for MeteredSink {
    fn batch(&self) -> BatchSettings {
        self.sink.batch()
    }
    fn in_pieces(&self) -> bool {
        self.sink.in_pieces()
    }
    async fn prepare(&self, cx: &WriterContext) -> Result<(), CodedError> {
        self.sink.prepare(cx).await
    }
    fn dead_letters(&self, pipeline: &str) -> Option<Box<dyn DeadLetters>> {
        self.sink.dead_letters(pipeline)
    }
    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        let acks = Acks { sink: Arc::clone(&cx.sink), meter: Arc::clone(&self.meter), waiting: Mutex::default() };
        Box::new(MeteredWriter { writer: self.sink.writer(cx), acks: Arc::new(acks) })
    }
}

/// A batch that has not been acknowledged.
#[derive(Debug)]
struct Waiting {
    sums: Sums,
    /// Commit times in microseconds since 1970, and how many rows have each.
    times: Vec<(i64, u64)>,
}

impl Waiting {
    fn of(batch: &RowBatch) -> Self {
        let mut times: Vec<(i64, u64)> = Vec::new();
        for time in batch.commit_time.iter() {
            match times.last_mut() {
                Some((last, rows)) if last == time => *rows += 1,
                _ => times.push((*time, 1)),
            }
        }
        Self { sums: Sums::of(batch), times }
    }
}

/// Acknowledgements of one writer, on their way to the engine.
struct Acks {
    sink: Arc<str>,
    meter: Arc<Meter>,
    waiting: Mutex<HashMap<u64, (Waiting, Ack)>>,
}

impl AckReport for Acks {
    fn durable(&self, id: u64) {
        let found = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some((waiting, ack)) = found {
            self.meter.acknowledged(&self.sink, &waiting);
            ack.durable();
        }
    }
}

struct MeteredWriter {
    writer: Box<dyn Writer>,
    acks: Arc<Acks>,
}

#[async_trait]
impl Writer for MeteredWriter {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        let (sender, measured) = mpsc::unbounded_channel();
        let acks = self.acks;
        let spent = acks.meter.task(format!("Task of sink {}", acks.sink));
        // A task of its own: the sums take none of the writer's time.
        let summing = tokio::spawn(async move {
            let mut next = 0_u64;
            while let Some(delivery) = deliveries.recv().await {
                let delivery = match delivery {
                    Delivery::Rows { batch, ack } => {
                        next += 1;
                        let waiting = acks.meter.summing.on(|| Waiting::of(&batch));
                        acks.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(next, (waiting, ack));
                        Delivery::Rows { batch, ack: Ack::new(next, Arc::clone(&acks) as Arc<dyn AckReport>) }
                    }
                    other => other,
                };
                if sender.send(delivery).is_err() {
                    break;
                }
            }
        });
        let result = spent.of(self.writer.run(measured)).await;
        summing.abort();
        result
    }
}
