//! Whether sinks hold what their sources have: row by row, at one point of the log.
//!
//! ```text
//! source ──copy at a point──> spelled by the sink ──> Rows ──┐
//!                                                            ├─ compare ──> Compared
//! sink ──read back, up to the point ───────────────> Rows ──┘
//! ```
//! # Guarantees
//! A table is compared at one point, or not at all: rows that changed since the point are left out where the sink has no
//! history. A table whose rows an operator may change is skipped, and said to be. Nothing is written anywhere; the copy
//! takes a replication slot for as long as its snapshot is imported. Values are never kept, but keys that are to be shown.
//!
//! Memory: about 40 bytes and 8 for each column for a row, on both sides, of all tables that are compared at a time.

mod rows;
#[cfg(test)]
mod tests;

pub use rows::{Compared, Side};

use crate::Kind;
use crate::graph::{Graph, Node};
use etl_stream_operators::contract::{
    Chunk, ChunkSender, Code, CodedError, Contents, Exit, Held, Item, Lsn, RawItem, RowBatch, SourceClosed, TableSchema, WantTable,
};
use etl_stream_operators::encode::Encoder;
use rows::Rows;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a sink holds was not understood.
pub(crate) const VERIFY_LINE: Code = Code::new("RUN0034", Exit::Failure);
/// A sink did not reach the point of the comparison.
const NOT_REACHED: Code = Code::new("RUN0035", Exit::Environment);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// What is compared.
pub struct Wanted<'a> {
    /// Which tables.
    pub tables: &'a WantTable<'a>,
    /// One sink alone.
    pub sink: Option<&'a str>,
    /// How many differing keys are shown; none: none are kept.
    pub keys: usize,
    /// How long a sink may take to have everything up to the point.
    pub patience: Duration,
    /// Where a source of the running pipeline stands: what is durable in every sink. `None`: it does not run.
    pub confirmed: &'a (dyn Fn(&str) -> Option<Lsn> + Sync),
}

/// What came of one table in one sink.
#[derive(Debug)]
pub struct Verified {
    /// The source.
    pub source: Arc<str>,
    /// The sink.
    pub sink: Arc<str>,
    /// `schema.table` at the source.
    pub table: String,
    /// How they compare, or why they were not compared.
    pub outcome: Result<Compared, String>,
}

/// A table on its way, and what may have changed its rows.
type Passed = (Arc<TableSchema>, Option<String>);

/// Compares what is wanted, source by source and sink by sink.
///
/// # Errors
/// When a side cannot be read, or a sink does not come to the point in time.
pub async fn verify(graph: &Graph, wanted: &Wanted<'_>) -> Result<Vec<Verified>, CodedError> {
    let mut all = Vec::new();
    for source in graph.sources() {
        for sink in graph.reachable(source) {
            let node = &graph.nodes[sink];
            if node.kind == Kind::Sink && wanted.sink.is_none_or(|name| name == &*node.name) {
                one(graph, source, sink, wanted, &mut all).await?;
            }
        }
    }
    Ok(all)
}

async fn one(graph: &Graph, source: usize, sink: usize, wanted: &Wanted<'_>, all: &mut Vec<Verified>) -> Result<(), CodedError> {
    let (from, to) = (&graph.nodes[source], &graph.nodes[sink]);
    let mut say = |table: String, outcome| {
        all.push(Verified { source: Arc::clone(&from.name), sink: Arc::clone(&to.name), table, outcome });
    };
    let built = to.parsed.sink(&graph.context(to))?;
    let Some(contents) = built.contents(&graph.pipeline) else {
        say("*".into(), Err(format!("a {} sink with these settings cannot be read back", to.type_name)));
        return Ok(());
    };
    let mut reader = from.parsed.source(&graph.context(from))?;
    let mut collect =
        Collect { contents: &*contents, show: wanted.keys > 0, encoder: Encoder::new(), tables: HashMap::new(), failed: None };
    let copied = reader.copy(&from.name, wanted.tables, &mut collect).await;
    if let Some(error) = collect.failed.take() {
        return Err(error);
    }
    let Some(copied) = copied? else {
        say("*".into(), Err(format!("sources of type {} cannot be copied beside the pipeline", from.type_name)));
        return Ok(());
    };
    collect.flush()?;
    let arrivals = arrivals(graph, source, sink, &copied.tables);
    reach(from, &*contents, &copied.tables, copied.point, wanted).await?;
    for table in &copied.tables {
        let name = table.full_name();
        let reason = match arrivals.get(&name) {
            None => Some("it does not come to this sink".to_owned()),
            Some(Some(reason)) => Some(reason.clone()),
            Some(None) if table.key().is_empty() => Some("it has no key".to_owned()),
            Some(None) => None,
        };
        if let Some(reason) = reason {
            say(name, Err(reason));
            continue;
        }
        let here = collect.tables.remove(&table.id).unwrap_or_else(|| Rows::new(table, wanted.keys > 0));
        let mut there = Rows::new(table, wanted.keys > 0);
        let held = contents.held();
        let mut take = |line: &[u8]| match held {
            Held::Changes => there.change(table, line, copied.point),
            Held::Rows => there.current(table, line, copied.point),
        };
        contents.read(table, copied.point, &mut take).await?;
        say(name, Ok(here.compare(there, table, wanted.keys)));
    }
    Ok(())
}

/// Waits until everything before the point is where the sink is read.
async fn reach(
    from: &Node,
    contents: &dyn Contents,
    tables: &[Arc<TableSchema>],
    point: Lsn,
    wanted: &Wanted<'_>,
) -> Result<(), CodedError> {
    let deadline = Instant::now() + wanted.patience;
    loop {
        let confirmed = (wanted.confirmed)(&from.name);
        let mut settled = confirmed.is_none_or(|confirmed| confirmed >= point);
        for table in tables {
            settled = settled && contents.settled(table, point).await?;
        }
        // Without a process nothing comes that is not there.
        if settled || confirmed.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = wanted.patience.as_secs();
            let message = format!("the sinks of source \"{}\" did not have everything up to {point} within {seconds} s", from.name);
            return Err(CodedError::transient(NOT_REACHED, message)
                .hint("look at `etl-stream status`: a source may be paused or behind; allow more time with --timeout"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The tables that come to a sink, by their names at the source, and why their rows may not be the source's.
fn arrivals(graph: &Graph, source: usize, sink: usize, tables: &[Arc<TableSchema>]) -> BTreeMap<String, Option<String>> {
    let mut passed: HashMap<(usize, usize), Vec<(String, Passed)>> = HashMap::new();
    passed.insert((source, 0), tables.iter().map(|table| (table.full_name(), (Arc::clone(table), None))).collect());
    for at in graph.reachable(source) {
        let node = &graph.nodes[at];
        let come: Vec<(String, Passed)> = node.inputs.iter().filter_map(|i| passed.get(&(i.node, i.output))).flatten().cloned().collect();
        if at == sink {
            return come.into_iter().map(|(name, (_, reason))| (name, reason)).collect();
        }
        if node.kind != Kind::Operator {
            continue;
        }
        let leave: Vec<(String, Passed)> = match node.parsed.operator(&graph.context(node)) {
            Ok(mut operator) => come
                .into_iter()
                .map(|(name, (table, reason))| {
                    let keeps = operator.keeps(&table);
                    let made = operator.schema(&table).map_or(table, Arc::new);
                    (name, (made, reason.or_else(|| (!keeps).then(|| format!("it passes operator \"{}\"", node.name)))))
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        for output in 0..node.outputs.len().max(1) {
            passed.insert((at, output), leave.clone());
        }
    }
    BTreeMap::new()
}

/// Takes the copy, and keeps what it takes to compare it.
struct Collect<'a> {
    contents: &'a dyn Contents,
    show: bool,
    encoder: Encoder,
    tables: HashMap<u32, Rows>,
    failed: Option<CodedError>,
}

impl Collect<'_> {
    fn take(&mut self, item: RawItem) -> Result<(), CodedError> {
        let mut batches = Vec::new();
        match item {
            RawItem::Raw(raw) => self.encoder.push(&raw, &mut batches)?,
            RawItem::Ready(Item::Rows(batch)) => batches.push(batch),
            RawItem::Ready(Item::Mark(_)) => {}
        }
        batches.iter().try_for_each(|batch| self.add(batch))
    }

    fn flush(&mut self) -> Result<(), CodedError> {
        let mut batches = Vec::new();
        self.encoder.flush(&mut batches);
        batches.iter().try_for_each(|batch| self.add(batch))
    }

    fn add(&mut self, batch: &RowBatch) -> Result<(), CodedError> {
        if batch.table.key().is_empty() {
            return Ok(());
        }
        let rows = self.tables.entry(batch.table.id).or_insert_with(|| Rows::new(&batch.table, self.show));
        let mut lines = Vec::new();
        self.contents.spell(batch, &mut lines)?;
        lines.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| rows.add(&batch.table, line))
    }
}

impl ChunkSender for Collect<'_> {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        let taken = chunk.items.into_iter().try_for_each(|item| self.take(item)).and_then(|()| self.flush());
        taken.map_err(|error| {
            self.failed = Some(error);
            SourceClosed
        })
    }
}
