//! An operator, on a copy and changes of every table, in the engine's own dataflow.

use super::{Breaches, Property, Subject, counted, sum};
use crate::dataflow::{RECEIVED_ROWS, SENT_ROWS};
use crate::testing::drive;
use crate::testing::flow::{Flow, Left, NODE, Seen, Step};
use crate::testing::random::Random;
use crate::testing::rows::{nulls, rows};
use crate::{
    CodedError, Item, Mark, MemoryState, Op, OperatorNode, ParsedNode, ReplicaIdentity, RowBatch, StateStore, TableSchema, Token, Ts,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The copy's LSN.
const COPY: u64 = 100;
/// Transactions after it, with rows of every table each.
const TRANSACTIONS: u64 = 6;
const SEED: u64 = 7;

/// What left of one table by one output, in order.
type Streams = BTreeMap<(usize, u32), Vec<(Token, RowBatch)>>;

/// The operator of one subject, made anew for each run.
struct Bench<'a> {
    subject: &'a Subject<'a>,
    parsed: &'a dyn ParsedNode,
    outputs: usize,
}

impl Bench<'_> {
    fn node(&self) -> OperatorNode {
        self.parsed.operator(&self.subject.context()).unwrap_or_else(|error| panic!("it has been built before: {error:?}"))
    }

    fn run(&self, flow: &Flow, steps: &[Step]) -> (Vec<Seen>, Result<(), CodedError>) {
        flow.run(self.node(), steps.to_vec())
    }

    fn flow(&self) -> Flow {
        Flow { outputs: self.outputs, patience: self.subject.patience, ..Flow::default() }
    }
}

/// Checks every property of an operator.
pub(super) fn check(subject: &Subject<'_>, parsed: &dyn ParsedNode, breaches: &mut Breaches) {
    let bench = Bench { subject, parsed, outputs: parsed.outputs().len().max(1) };
    let steps = story(&subject.tables);
    let ((seen, result), page) = counted(|| bench.run(&bench.flow(), &steps));
    if let Err(error) = result {
        breaches.add(Property::Rows, format!("rows of the tables it is tested with: {}", error.report()));
        return;
    }
    schemas(&bench, breaches);
    shape(&bench, &seen, breaches);
    order(&steps, &seen, breaches);
    let stuck = frontier(&steps, &seen, breaches);
    marks(&steps, &seen, bench.outputs, breaches);
    for (metric, expected) in [(RECEIVED_ROWS, given(&steps)), (SENT_ROWS, left(&seen))] {
        let counted = sum(&page, metric, &format!("operator=\"{NODE}\""));
        breaches.unless(counted == expected, Property::Metrics, || format!("{metric} is {counted} after {expected} rows"));
    }
    if stuck {
        // Every further run would wait in vain.
        return;
    }
    empty(&bench, breaches);
    all_null(&bench, breaches);
    unchanged(&bench, breaches);
    replay(&bench, &steps, &streams(&seen), breaches);
}

/// A copy of every table, then transactions that change them.
pub(super) fn story(tables: &[Arc<TableSchema>]) -> Vec<Step> {
    let mut random = Random::new(SEED);
    let mut items = Vec::new();
    for table in tables {
        let table = Arc::clone(table);
        items.push(Item::Mark(Mark::SnapshotBegin { table: Arc::clone(&table), lsn: COPY, replaces: None }));
        items.push(rows(&table, &[Op::Read; 12], Token::new(COPY, 0), &mut random).into());
        items.push(rows(&table, &[Op::Read; 5], Token::new(COPY, 12), &mut random).into());
        items.push(Item::Mark(Mark::SnapshotEnd { table, lsn: COPY }));
    }
    let mut steps = vec![Step { time: Ts::new(COPY, 0), items }];
    for transaction in 1..=TRANSACTIONS {
        let lsn = COPY * (transaction + 1);
        let (mut items, mut ordinal) = (Vec::new(), 0);
        for (at, table) in tables.iter().enumerate() {
            if transaction == 2 {
                items.push(Item::Mark(Mark::Schema { table: Arc::clone(table) }));
            }
            let mut ops: Vec<Op> = (0..6 + random.below(6)).map(|_| *random.pick(&[Op::Insert, Op::Update, Op::Delete])).collect();
            if transaction == TRANSACTIONS && at == 0 {
                ops.push(Op::Truncate);
            }
            items.push(rows(table, &ops, Token::new(lsn, ordinal), &mut random).into());
            ordinal += ops.len() as u64;
        }
        steps.push(Step { time: Ts::new(lsn, 0), items });
    }
    steps
}

pub(super) fn batches<'i>(items: impl Iterator<Item = &'i Item>) -> impl Iterator<Item = &'i RowBatch> {
    items.filter_map(|item| if let Item::Rows(batch) = item { Some(batch) } else { None })
}

fn left_batches(seen: &[Seen]) -> impl Iterator<Item = (&Left, &RowBatch)> {
    seen.iter().flat_map(|seen| &seen.left).filter_map(|left| if let Item::Rows(batch) = &left.item { Some((left, batch)) } else { None })
}

fn given(steps: &[Step]) -> u64 {
    batches(steps.iter().flat_map(|step| &step.items)).map(|batch| batch.len() as u64).sum()
}

fn left(seen: &[Seen]) -> u64 {
    left_batches(seen).map(|(_, batch)| batch.len() as u64).sum()
}

fn streams(seen: &[Seen]) -> Streams {
    let mut streams = Streams::new();
    for (left, batch) in left_batches(seen) {
        let stream = streams.entry((left.output, batch.table.id)).or_default();
        stream.extend((0..batch.len()).map(|row| (batch.token(row), batch.slice(row, 1))));
    }
    streams
}

/// What it says of a table, and that it says it again.
fn schemas(bench: &Bench<'_>, breaches: &mut Breaches) {
    let (mut one, mut other) = (bench.node(), bench.node());
    for table in &bench.subject.tables {
        let name = table.full_name();
        let said: Vec<_> = [one.schema(table), one.schema(table), other.schema(table)].into_iter().collect();
        let Some(Ok(first)) = said.first() else { continue };
        let same = said.iter().all(|schema| schema.as_ref().is_ok_and(|schema| schema == first));
        breaches.unless(same, Property::Schema, || format!("table \"{name}\" has another schema when it is asked again"));
        let back = serde_json::to_string(first).ok().and_then(|text| serde_json::from_str::<TableSchema>(&text).ok());
        breaches.unless(back.as_ref() == Some(first), Property::Schema, || format!("the schema of table \"{name}\" is lost in JSON"));
        let keeps = one.keeps(table);
        breaches.unless(!keeps || *first == **table, Property::Schema, || format!("table \"{name}\" is said to be kept, and is changed"));
    }
}

/// Whether what left is well formed, and under the schema that was said.
fn shape(bench: &Bench<'_>, seen: &[Seen], breaches: &mut Breaches) {
    let mut node = bench.node();
    let said: Vec<TableSchema> = bench.subject.tables.iter().filter_map(|table| node.schema(table).ok()).collect();
    for (_, batch) in left_batches(seen) {
        let name = batch.table.full_name();
        if let Some(what) = drive::wrong_form(batch) {
            let property = if what.contains("token order") { Property::Order } else { Property::Schema };
            breaches.add(property, format!("a batch of table \"{name}\": {what}"));
            return;
        }
        if !said.contains(&batch.table) {
            breaches.add(Property::Schema, format!("a batch of table \"{name}\" has a schema that was not said"));
            return;
        }
    }
}

/// Whether rows that left are rows that came, each once by an output, in order.
fn order(steps: &[Step], seen: &[Seen], breaches: &mut Breaches) {
    let mut came: BTreeSet<(u32, Token)> = BTreeSet::new();
    for batch in batches(steps.iter().flat_map(|step| &step.items)) {
        came.extend((0..batch.len()).map(|row| (batch.table.id, batch.token(row))));
    }
    for ((output, table), stream) in streams(seen) {
        if let Some((token, _)) = stream.iter().find(|(token, _)| !came.contains(&(table, *token))) {
            breaches.add(Property::Order, format!("a row with token {token} left by output {output}, and none came"));
        }
        if let Some([(before, _), (after, _)]) = stream.array_windows().find(|[(before, _), (after, _)]| before >= after) {
            breaches.add(Property::Order, format!("a row with token {after} left by output {output} after one with {before}"));
        }
    }
}

/// Looks whether no frontier passes a row, and whether every frontier follows the input's: if not, it is stuck.
fn frontier(steps: &[Step], seen: &[Seen], breaches: &mut Breaches) -> bool {
    let copied: BTreeSet<Token> = steps
        .first()
        .map(|step| batches(step.items.iter()).flat_map(|batch| (0..batch.len()).map(|row| batch.token(row)).collect::<Vec<_>>()).collect())
        .unwrap_or_default();
    let mut before: BTreeMap<usize, Option<Ts>> = BTreeMap::new();
    for look in seen {
        for Left { output, time, item } in &look.left {
            let passed = before.get(output).is_some_and(|frontier| frontier.is_none_or(|frontier| *time < frontier));
            breaches.unless(!passed, Property::Frontier, || format!("output {output} sent something at {time:?}, which had passed"));
            let Item::Rows(batch) = item else { continue };
            let late = (0..batch.len()).map(|row| batch.token(row)).find(|token| Ts::from(*token) < *time && !copied.contains(token));
            if let Some(token) = late {
                breaches
                    .add(Property::Frontier, format!("the row with token {token} left at {time:?}, later than it is; hold its capability"));
            }
        }
        for (output, frontier) in look.frontiers.iter().enumerate() {
            let ahead = look.input.is_some_and(|input| frontier.is_none_or(|frontier| frontier > input));
            breaches.unless(!ahead, Property::Frontier, || {
                format!("output {output} is at {frontier:?} while the input is at {:?}: what is still to come would be lost", look.input)
            });
            before.insert(output, *frontier);
        }
    }
    let mut stuck = false;
    // At its last time, and when it has ended, the input has passed everything.
    for look in seen.iter().rev().take(2) {
        for (output, frontier) in look.frontiers.iter().enumerate() {
            let behind = frontier.is_some_and(|frontier| look.input.is_none_or(|input| frontier < input));
            stuck |= behind;
            breaches.unless(!behind, Property::Frontier, || {
                format!("output {output} stays at {frontier:?} when the input has come to {:?}: nothing is ever acknowledged", look.input)
            });
        }
    }
    stuck
}

/// What a table's stream is but for its rows' values: marks, and rows between them.
fn outline<'i>(items: impl Iterator<Item = &'i Item>) -> BTreeMap<u32, Vec<(String, Option<Token>)>> {
    let mut outlines: BTreeMap<u32, Vec<(String, Option<Token>)>> = BTreeMap::new();
    for item in items {
        let entries = outlines.entry(item.table().id).or_default();
        match item {
            Item::Rows(batch) => entries.extend((0..batch.len()).map(|row| (String::new(), Some(batch.token(row))))),
            Item::Mark(Mark::SnapshotBegin { lsn, .. }) => entries.push((format!("SnapshotBegin at {lsn}"), None)),
            Item::Mark(Mark::SnapshotEnd { lsn, .. }) => entries.push((format!("SnapshotEnd at {lsn}"), None)),
            Item::Mark(Mark::Schema { .. }) => entries.push(("Schema".into(), None)),
        }
    }
    outlines
}

/// Whether every mark left by every output in its place.
fn marks(steps: &[Step], seen: &[Seen], outputs: usize, breaches: &mut Breaches) {
    let came = outline(steps.iter().flat_map(|step| &step.items));
    for output in 0..outputs {
        let went = outline(seen.iter().flat_map(|seen| &seen.left).filter(|left| left.output == output).map(|left| &left.item));
        for (table, came) in &came {
            let went = went.get(table).map_or(&[][..], Vec::as_slice);
            let kept: BTreeSet<Token> = went.iter().filter_map(|(_, token)| *token).collect();
            let expected: Vec<_> = came.iter().filter(|(_, token)| token.is_none_or(|token| kept.contains(&token))).collect();
            let only_marks = |entries: &mut dyn Iterator<Item = &(String, Option<Token>)>| {
                entries.filter(|(_, token)| token.is_none()).map(|(mark, _)| mark.clone()).collect::<Vec<_>>()
            };
            let (had, has) = (only_marks(&mut came.iter()), only_marks(&mut went.iter()));
            if had != has {
                breaches.add(Property::Marks, format!("output {output} gave the marks {has:?} of a table that had {had:?}"));
            } else if expected.len() == went.len() {
                let moved = expected.iter().zip(went).find(|(expected, went)| expected.1.is_none() != went.1.is_none());
                breaches.unless(moved.is_none(), Property::Marks, || {
                    format!("output {output} gave a mark in another place between the rows: {:?}", moved.map(|(expected, _)| expected))
                });
            }
        }
    }
}

fn empty(bench: &Bench<'_>, breaches: &mut Breaches) {
    let items = bench.subject.tables.iter().map(|table| RowBatch::empty(Arc::clone(table)).into()).collect();
    let (seen, result) = bench.run(&bench.flow(), &[Step { time: Ts::new(COPY, 0), items }]);
    match result {
        Err(error) => breaches.add(Property::Empty, error.report()),
        Ok(()) => breaches.unless(left(&seen) == 0, Property::Empty, || "rows left, and none came".into()),
    }
}

fn all_null(bench: &Bench<'_>, breaches: &mut Breaches) {
    let tables = bench.subject.tables.iter().map(|table| {
        let mut table = TableSchema { identity: ReplicaIdentity::Full, ..(**table).clone() };
        table.columns.iter_mut().for_each(|column| (column.key, column.nullable) = (None, true));
        Arc::new(table)
    });
    // One that takes no table without a key says so when it is asked for the schema.
    let mut node = bench.node();
    let items =
        tables.filter(|table| node.schema(table).is_ok()).map(|table| nulls(&table, Op::Insert, 3, Token::new(COPY, 0)).into()).collect();
    let (seen, result) = bench.run(&bench.flow(), &[Step { time: Ts::new(COPY, 0), items }]);
    if let Err(error) = result {
        breaches.add(Property::Nulls, error.report());
    }
    for (_, batch) in left_batches(&seen) {
        if let Some(what) = drive::wrong_form(batch) {
            breaches.add(Property::Nulls, format!("what left is no batch: {what}"));
        }
    }
}

/// Updates without the value of one column, column by column.
fn unchanged(bench: &Bench<'_>, breaches: &mut Breaches) {
    let mut random = Random::new(SEED);
    for table in &bench.subject.tables {
        for (at, column) in table.columns.iter().enumerate().filter(|(_, column)| column.key.is_none()) {
            let full = rows(table, &[Op::Update; 4], Token::new(COPY, 0), &mut random);
            let mut batch = full.clone();
            batch.columns[at] = nulls(table, Op::Update, 4, Token::new(COPY, 0)).columns.swap_remove(at);
            (0..4).for_each(|row| batch.unchanged.push(row, at, ()));
            let (seen, result) = bench.run(&bench.flow(), &[Step { time: Ts::new(COPY, 0), items: vec![batch.into()] }]);
            if let Err(error) = result {
                let refused = error.code.id != "RUN0001";
                breaches.unless(refused, Property::Unchanged, || format!("updates without column \"{}\": {error}", column.name));
                continue;
            }
            for (_, batch) in left_batches(&seen) {
                let there = |row: usize| !matches!(batch.op(row), Op::Delete | Op::Truncate);
                let Some(after) = batch.table.columns.iter().position(|after| after.number == column.number) else { continue };
                let filled = (0..batch.len())
                    .any(|row| there(row) && (batch.unchanged.get(row, after).is_none() || !batch.columns[after].is_null(row)));
                breaches.unless(!filled, Property::Unchanged, || {
                    format!("column \"{}\" of table \"{}\" was not sent, and has a value behind it", column.name, table.full_name())
                });
            }
        }
    }
}

/// The same items, each batch cut in two.
pub(super) fn cut(steps: &[Step]) -> Vec<Step> {
    let halves = |item: &Item| match item {
        Item::Rows(batch) if batch.len() > 1 => {
            let middle = batch.len() / 2;
            vec![batch.slice(0, middle).into(), batch.slice(middle, batch.len() - middle).into()]
        }
        other => vec![other.clone()],
    };
    steps.iter().map(|step| Step { time: step.time, items: step.items.iter().flat_map(halves).collect() }).collect()
}

/// Runs from every step on, as after a crash there: with nothing durable, and with everything before the step durable.
fn replay(bench: &Bench<'_>, steps: &[Step], whole: &Streams, breaches: &mut Breaches) {
    for from in 0..steps.len() {
        for durable in [false, true] {
            let state: Arc<dyn StateStore> = Arc::new(MemoryState::default());
            let crash = Flow { outputs: bench.outputs, state: Arc::clone(&state), durable, ends: false, patience: bench.subject.patience };
            let until = if durable { &steps[..from] } else { steps };
            let _ = bench.run(&crash, until);
            let again = Flow { state, ..bench.flow() };
            let (seen, result) = bench.run(&again, &cut(&steps[from..]));
            if let Err(error) = result {
                breaches.add(Property::Replay, format!("from step {from}: {}", error.report()));
                return;
            }
            let first = Token::new(steps[from].time.lsn, 0);
            let (again, mut expected) = (streams(&seen), whole.clone());
            expected.values_mut().for_each(|rows| rows.retain(|(token, _)| *token >= first));
            expected.retain(|_, rows| !rows.is_empty());
            if again != expected {
                let (mut had, mut has) = (expected.values().flatten(), again.values().flatten());
                let differs = std::iter::from_fn(|| match (had.next(), has.next()) {
                    (None, None) => None,
                    pair => Some(pair),
                });
                let token = differs.filter(|(had, has)| had != has).find_map(|(had, has)| had.or(has)).map(|(token, _)| *token);
                let token = token.map_or_else(String::new, |token| format!(": the row with token {token}"));
                breaches.add(
                    Property::Replay,
                    format!("from the transaction at {} other rows come than the first time{token}", first.commit_lsn),
                );
                return;
            }
        }
    }
}
