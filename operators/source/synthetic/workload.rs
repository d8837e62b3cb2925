//! The changes of a scenario, each known by its number: what the bytes are made of, and what a sink must have.
//!
//! # Guarantees
//! The settings and the seed decide every change, its token and its values. The stream is one that a database could
//! send: what is updated or deleted has been inserted, and nothing twice. Values repeat: each table's rows are its key and
//! one of [`VARIANTS`] sets of other values.

use super::scenario::{KEYS, Mix, Scenario};
use super::value::{Kind, Value};
use super::{SyntheticConfig, pgoutput};
use crate::contract::{Lsn, Op, ReplicaIdentity, TableSchema, Token};
use crate::source::postgres::Player;
use crate::testing::random::Random;
use std::sync::Arc;

/// Sets of values that rows are made of.
pub const VARIANTS: usize = 1_024;
/// Sets where a row has a value of many KiB.
const BODIES: usize = 64;

/// Where the stream begins, if nothing else is said; snapshots stand below.
pub(super) const BEGIN: u64 = 0x100_0000;
/// The first table's object id: ids below are the system's.
const FIRST_ID: u32 = 16_384;
/// Of so many updates of a toasted value one changes it.
const TOAST_EVERY: u64 = 16;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table, an index into [`Workload::tables`].
    pub table: usize,
    /// What it does.
    pub op: Op,
    /// The row's key.
    pub key: i64,
    /// The row's other values: [`Workload::values`].
    pub variant: usize,
    /// Whether the last column's value is not sent, because it did not change.
    pub unchanged: bool,
    /// Its token.
    pub token: Token,
}

/// A scenario with its settings.
#[derive(Debug)]
pub struct Workload {
    scenario: Scenario,
    seed: u64,
    rows: Option<u64>,
    begin: u64,
    transaction: u64,
    kinds: Vec<Kind>,
    tables: Vec<Arc<TableSchema>>,
    variants: Vec<Vec<Value>>,
}

impl Workload {
    /// The workload of a source with these settings.
    #[must_use]
    pub fn new(config: &SyntheticConfig, source: &str) -> Self {
        let scenario = config.scenario;
        let named = scenario.columns();
        let columns: Vec<_> = named.iter().zip(1_i16..).map(|((name, kind), number)| kind.column(name, number)).collect();
        let count = config.tables.unwrap_or(scenario.tables()).max(1);
        let table = |at: u32| TableSchema {
            source: source.into(),
            id: FIRST_ID + at,
            schema: "bench".into(),
            name: if count > 1 { format!("{}_{at:03}", scenario.word()) } else { scenario.word().to_owned() }.into(),
            columns: columns.clone(),
            identity: ReplicaIdentity::Default,
            storage: None,
        };
        let kinds: Vec<Kind> = named.into_iter().map(|(_, kind)| kind).collect();
        let mut random = Random::new(config.seed);
        let sets = if kinds.contains(&Kind::Body) { BODIES } else { VARIANTS };
        let variants = (0..sets).map(|_| kinds.iter().skip(1).map(|kind| kind.value(&mut random)).collect()).collect();
        Self {
            scenario,
            seed: config.seed,
            rows: config.rows,
            begin: config.start.as_ref().and_then(|start| start.parse::<Lsn>().ok()).map_or(BEGIN, |lsn| lsn.0),
            transaction: config.transaction.unwrap_or(scenario.transaction()).max(1).into(),
            kinds,
            tables: (0..count).map(|at| Arc::new(table(at))).collect(),
            variants,
        }
    }

    /// What it is, in words: another one gives other rows, or other tokens.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { scenario, seed, transaction, tables, .. } = self;
        let cut = |rows: &u64| self.is_copy() || !rows.is_multiple_of(*transaction);
        let rows = self.rows.filter(cut).map(|rows| format!(", {rows} rows")).unwrap_or_default();
        let (scenario, tables, begin) = (scenario.word(), tables.len(), Lsn(self.begin));
        format!("synthetic {scenario} from {begin} on with seed {seed}, {transaction} changes a transaction, tables: {tables}{rows}")
    }

    /// Whether it is a copy and no stream.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.scenario == Scenario::Snapshot
    }

    /// How many changes there are; nothing: no end.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }

    /// The kinds of the columns.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// How many sets of values there are.
    #[must_use]
    pub fn variants(&self) -> usize {
        self.variants.len()
    }

    /// The values of a set, without the key.
    #[must_use]
    pub fn values(&self, variant: usize) -> &[Value] {
        self.variants.get(variant).map(Vec::as_slice).unwrap_or_default()
    }

    /// Changes in a transaction.
    pub(super) fn transaction(&self) -> u64 {
        self.transaction
    }

    /// Bytes of log that a transaction takes.
    fn stride(&self) -> u64 {
        self.transaction * pgoutput::CHANGE_LSNS + 256
    }

    /// LSN of a transaction's first record.
    pub(super) fn begin_lsn(&self, transaction: u64) -> u64 {
        self.begin + transaction * self.stride()
    }

    /// LSN of a transaction's commit record.
    pub(super) fn commit_lsn(&self, transaction: u64) -> u64 {
        self.end_lsn(transaction) - pgoutput::COMMIT_LSNS
    }

    /// Just past a transaction.
    pub(super) fn end_lsn(&self, transaction: u64) -> u64 {
        self.begin_lsn(transaction + 1)
    }

    /// Where the stream ends.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        let rows = self.rows?;
        let transactions = if self.is_copy() { 0 } else { rows.div_ceil(self.transaction) };
        Some(transactions.checked_sub(1).map_or(self.begin, |last| self.end_lsn(last)))
    }

    /// The first change of the first transaction that commits at or after `lsn`.
    pub(super) fn first_at(&self, lsn: u64) -> u64 {
        let before = lsn.saturating_sub(self.begin) + pgoutput::COMMIT_LSNS - 1;
        before / self.stride() * self.transaction
    }

    /// Change number `n`, from 0.
    #[must_use]
    pub fn change(&self, n: u64) -> Change {
        let tables = self.tables.len() as u64;
        let (table, own) = (n % tables, n / tables);
        let random = Random::new(self.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).number();
        let variant = (random % self.variants.len().max(1) as u64) as usize;
        let within = (random >> 32) % 7;
        let (op, key) = match (self.scenario.mix(), own % 10) {
            (Mix::Inserts, _) => (Op::Insert, own),
            (Mix::Updates, _) if own < KEYS => (Op::Insert, own),
            (Mix::Updates, _) => (Op::Update, (random >> 32) % KEYS),
            (Mix::All, 0..=6) => (Op::Insert, own),
            (Mix::All, 7..=8) => (Op::Update, own / 10 * 10 + within),
            (Mix::All, _) => (Op::Delete, own / 10 * 10 + within),
        };
        let toasted = self.kinds.last() == Some(&Kind::Body);
        let token = if self.is_copy() {
            Token::new(self.begin - Player::ATTEMPTS + 1, n)
        } else {
            Token::new(self.commit_lsn(n / self.transaction), n % self.transaction * 2)
        };
        Change {
            table: table as usize,
            op: if self.is_copy() { Op::Read } else { op },
            key: key as i64 + 1,
            variant,
            unchanged: toasted && op == Op::Update && !(random >> 48).is_multiple_of(TOAST_EVERY),
            token,
        }
    }
}
