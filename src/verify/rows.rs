//! Rows of one table, as far as it takes to compare them: a hash for each key and each column, never a value.
//!
//! ```text
//! lines ──> columns by name ──> key: 128 bits, cells: 64 bits each
//! ```
//! # Guarantees
//! Two rows are equal when all their cells are spelled alike; hashes of 64 bits differ otherwise, but for one case in 2^64.
//! Key values are kept only where they are to be shown.

use super::VERIFY_LINE;
use etl_stream_operators::contract::{CodedError, Lsn, Op, TableSchema};
use etl_stream_operators::sink::json::write_string;
use etl_stream_operators::sink::members::{Members, NoLine, names, place};
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::Hasher;

/// A cell that is null.
const NULL: u64 = 0;
/// A cell that the row does not have.
const ABSENT: u64 = 1;

/// A row's key.
type Key = u128;

/// One row.
#[derive(Clone, Debug)]
struct Row {
    /// One for each column of the table.
    cells: Box<[u64]>,
    /// Its key, as JSON, where that is to be shown.
    shown: Option<Box<str>>,
}

/// Rows by key.
#[derive(Debug)]
pub(super) struct Rows {
    /// Names as lines have them.
    columns: Vec<Vec<u8>>,
    key: Vec<usize>,
    show: bool,
    rows: HashMap<Key, Row>,
    /// The snapshot whose rows are there.
    snapshot: Option<u64>,
    /// The row that was deleted last: one whose key changed goes on with values that were not sent.
    deleted: Option<Row>,
    /// Keys of rows that changed since: they are not compared.
    touched: HashMap<Key, ()>,
    /// Whether all rows did.
    emptied: bool,
}

fn hash(seed: u8, bytes: &[u8]) -> u64 {
    // Fixed keys: checksums of two runs compare.
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(seed);
    hasher.write(bytes);
    hasher.finish()
}

fn cell(value: &[u8]) -> u64 {
    match value {
        b"null" => NULL,
        // Away from the two that mean something else.
        value => hash(0, value) | 2,
    }
}

fn unread(table: &TableSchema) -> impl Fn(NoLine) -> CodedError + '_ {
    move |cause| {
        CodedError::definite(VERIFY_LINE, format!("what the sink holds of table \"{}\" was not understood", table.full_name()))
            .caused_by(cause)
            .hint("it was changed or damaged; `etl-stream resync` writes the table's rows anew")
    }
}

impl Rows {
    /// Of a table with a key; `show` keeps key values.
    pub(super) fn new(table: &TableSchema, show: bool) -> Self {
        let name = |text: &str| {
            let mut quoted = Vec::new();
            write_string(text, &mut quoted);
            quoted.get(1..quoted.len() - 1).unwrap_or_default().to_vec()
        };
        Self {
            columns: table.columns.iter().map(|column| name(&column.name)).collect(),
            key: table.key(),
            show,
            rows: HashMap::new(),
            snapshot: None,
            deleted: None,
            touched: HashMap::new(),
            emptied: false,
        }
    }

    fn column(&self, name: &[u8]) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// A line's cells, its key, and the columns that it leaves as they were.
    fn read(&self, line: &[u8]) -> Result<(Key, Row, Vec<usize>), NoLine> {
        let mut cells = vec![ABSENT; self.columns.len()];
        let mut keys: Vec<&[u8]> = vec![&[]; self.key.len()];
        let mut carried = Vec::new();
        // Lines have the table's columns in their order, mostly.
        let mut next = 0;
        for member in Members::of(line)? {
            let (name, value) = member?;
            let at = match self.columns.get(next) {
                Some(column) if column == name => Some(next),
                _ => self.column(name),
            };
            let Some(at) = at else {
                if name == b"_unchanged" {
                    carried = names(value).filter_map(|name| self.column(name)).collect();
                }
                continue;
            };
            next = at + 1;
            if let Some(slot) = cells.get_mut(at) {
                *slot = cell(value);
            }
            if let Some(place) = self.key.iter().position(|key| *key == at)
                && let Some(slot) = keys.get_mut(place)
            {
                *slot = value;
            }
        }
        let text = keys.join(&b", "[..]);
        let key = u128::from(hash(1, &text)) << 64 | u128::from(hash(2, &text));
        let shown = self.show.then(|| String::from_utf8_lossy(&text).into());
        Ok((key, Row { cells: cells.into(), shown }, carried))
    }

    /// Adds a row of a copy.
    pub(super) fn add(&mut self, table: &TableSchema, line: &[u8]) -> Result<(), CodedError> {
        let (key, row, _) = self.read(line).map_err(unread(table))?;
        self.rows.insert(key, row);
        Ok(())
    }

    /// Takes a change of the history, which ends at the point.
    pub(super) fn change(&mut self, table: &TableSchema, line: &[u8], point: Lsn) -> Result<(), CodedError> {
        let unread = unread(table);
        let at = place(line).map_err(&unread)?;
        if at.token.commit_lsn >= point.0 {
            return Ok(());
        }
        if at.op == Op::Read && self.snapshot != Some(at.token.commit_lsn) {
            self.snapshot = Some(at.token.commit_lsn);
            self.rows.clear();
        }
        if at.op == Op::Truncate {
            self.rows.clear();
            return Ok(());
        }
        let (key, mut row, carried) = self.read(line).map_err(unread)?;
        if at.op == Op::Delete {
            self.deleted = self.rows.remove(&key);
            return Ok(());
        }
        let before = match self.rows.entry(key) {
            Entry::Occupied(entry) => Some(entry.remove()),
            Entry::Vacant(_) if at.op == Op::Insert => self.deleted.take(),
            Entry::Vacant(_) => None,
        };
        for column in carried {
            let kept = before.as_ref().and_then(|before| before.cells.get(column)).copied();
            if let (Some(slot), Some(kept)) = (row.cells.get_mut(column), kept) {
                *slot = kept;
            }
        }
        self.rows.insert(key, row);
        Ok(())
    }

    /// Takes a current row, or a change since the point.
    pub(super) fn current(&mut self, table: &TableSchema, line: &[u8], point: Lsn) -> Result<(), CodedError> {
        let at = place(line).map_err(unread(table))?;
        if at.op == Op::Truncate {
            self.emptied = true;
            return Ok(());
        }
        let (key, row, _) = self.read(line).map_err(unread(table))?;
        if at.op != Op::Read || at.token.commit_lsn >= point.0 {
            self.touched.insert(key, ());
        }
        if at.op == Op::Read {
            self.rows.insert(key, row);
        }
        Ok(())
    }

    /// What the source's rows and the sink's have not in common. Empties both.
    pub(super) fn compare(mut self, mut sink: Self, table: &TableSchema, most: usize) -> Compared {
        let mut found = Compared::default();
        for key in sink.touched.keys() {
            let here = self.rows.remove(key).is_some();
            found.touched += u64::from(sink.rows.remove(key).is_some() | here);
        }
        if sink.emptied {
            found.touched += self.rows.len() as u64;
            self.rows.clear();
            sink.rows.clear();
        }
        found.source = self.side();
        found.sink = sink.side();
        let names: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
        // Rows from before a column was added read as its default then, which no line says.
        let given: Vec<bool> = table.columns.iter().map(|column| column.missing.is_some()).collect();
        let differ = |at: usize, here: u64, there: u64| match there {
            ABSENT => here != NULL && !given.get(at).copied().unwrap_or(false),
            there => here != there,
        };
        for (key, row) in self.rows.drain() {
            let Some(other) = sink.rows.remove(&key) else {
                found.missing += 1;
                found.note(key, row.shown, "missing", most);
                continue;
            };
            let columns: Vec<usize> = (0..names.len()).filter(|at| differ(*at, cell_of(&row, *at), cell_of(&other, *at))).collect();
            if !columns.is_empty() {
                found.differing += 1;
                for at in columns {
                    *found.columns.entry(names.get(at).copied().unwrap_or_default().to_owned()).or_default() += 1;
                }
                found.note(key, row.shown, "differs", most);
            }
        }
        for (key, row) in sink.rows.drain() {
            found.extra += 1;
            found.note(key, row.shown, "extra", most);
        }
        found.keys.sort();
        found
    }

    /// How many rows there are, and their checksum: the sum of their hashes, in whatever order.
    fn side(&self) -> Side {
        let sum = self.rows.iter().fold(0_u64, |sum, (key, row)| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u128(*key);
            row.cells.iter().for_each(|cell| hasher.write_u64(if *cell == ABSENT { NULL } else { *cell }));
            sum.wrapping_add(hasher.finish())
        });
        Side { rows: self.rows.len() as u64, checksum: format!("{sum:016x}") }
    }
}

fn cell_of(row: &Row, at: usize) -> u64 {
    row.cells.get(at).copied().unwrap_or(ABSENT)
}

/// What one side has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Rows that were compared.
    pub rows: u64,
    /// Over keys and cells; equal where all of them are.
    pub checksum: String,
}

/// How the sides of a table differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The source's.
    pub source: Side,
    /// The sink's.
    pub sink: Side,
    /// Rows of the source that the sink lacks.
    pub missing: u64,
    /// Rows of the sink that the source has not.
    pub extra: u64,
    /// Rows that both have, with different values.
    pub differing: u64,
    /// Rows that differ in each column.
    pub columns: std::collections::BTreeMap<String, u64>,
    /// Rows that changed since the point, and were not compared.
    pub touched: u64,
    /// Differing keys by the first byte of their hash: many in few of them are neighbours of nobody, so that a fault of
    /// some keys is told from one of all.
    pub buckets: std::collections::BTreeMap<u8, u64>,
    /// The first differing keys and how they do, where keys are shown.
    pub keys: Vec<String>,
}

impl Compared {
    fn note(&mut self, key: Key, shown: Option<Box<str>>, how: &str, most: usize) {
        *self.buckets.entry((key >> 120) as u8).or_default() += 1;
        if let Some(shown) = shown.filter(|_| self.keys.len() < most) {
            self.keys.push(format!("{shown}: {how}"));
        }
    }

    /// Whether there is no difference.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.missing + self.extra + self.differing == 0
    }
}
