//! The rows that wait, table by table. See the stage's page for the guarantees.

use super::gather::Pieces;
use super::{Limits, SealReason};
use crate::contract::{Item, RowBatch, TableSchema};
use arrow::error::ArrowError;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// A sealed batch, or a piece of one, or a mark; and the capability of its earliest row.
#[derive(Debug)]
pub struct Sealed<C> {
    /// What is sealed.
    pub item: Item,
    /// The earliest capability among its rows.
    pub capability: C,
    /// Why; `None` for a mark, and for all pieces of a batch but the first.
    pub reason: Option<SealReason>,
}

/// Tables whose last batch's size is known; with more, all are forgotten.
const KNOWN: usize = 1_024;

struct Pending<C> {
    table: Arc<TableSchema>,
    pieces: Pieces,
    rows: usize,
    bytes: usize,
    since: Instant,
    capability: C,
}

impl<C> Pending<C> {
    fn add(&mut self, part: RowBatch) -> Result<(), ArrowError> {
        let bytes = part.bytes();
        self.rows += part.len();
        self.bytes += bytes;
        self.pieces.push(part, bytes)
    }
}

/// Gathers rows and seals batches. `C` is what keeps the frontier behind them: a timely capability.
pub struct Batcher<C> {
    limits: Limits,
    /// In the order of their oldest row, so that age is looked at from the front.
    tables: VecDeque<Pending<C>>,
    /// Rows of each table's last batch.
    before: HashMap<u64, usize>,
}

impl<C: Clone> Batcher<C> {
    /// A batcher with nothing in it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, tables: VecDeque::new(), before: HashMap::new() }
    }

    /// When the oldest row will have waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.tables.front().map(|oldest| oldest.since + self.limits.age)
    }

    /// Takes an item that came at `now` under `capability`; gives out what that seals.
    ///
    /// # Errors
    /// When rows of one schema cannot be joined: their arrays differ in type.
    pub fn push(&mut self, item: Item, capability: C, now: Instant, out: &mut Vec<Sealed<C>>) -> Result<(), ArrowError> {
        let batch = match item {
            Item::Rows(batch) => batch,
            Item::Mark(mark) => {
                let table = Arc::clone(mark.table());
                // Also of one that was dropped and made anew: what came of the old one comes first.
                self.seal_where(|p| same_table(&p.table, &table) || same_name(&p.table, &table), SealReason::Mark, out)?;
                out.push(Sealed { item: Item::Mark(mark), capability, reason: None });
                return Ok(());
            }
        };
        let mut rest = (!batch.is_empty()).then_some(batch);
        while let Some(mut part) = rest.take() {
            let waiting = self.place(&part.table, out)?;
            let room = self.limits.rows - waiting.map_or(0, |at| self.tables[at].rows);
            // At most the limit in a batch: what does not fit starts the next one.
            if part.len() > room {
                rest = Some(part.slice(room, part.len() - room));
                part = part.slice(0, room);
            }
            let at = waiting.unwrap_or_else(|| {
                let table = Arc::clone(&part.table);
                let expected = self.before.get(&table.route()).copied().unwrap_or(0);
                let pieces = Pieces::new(self.limits.piece, expected.min(self.limits.rows));
                self.tables.push_back(Pending { table, pieces, rows: 0, bytes: 0, since: now, capability: capability.clone() });
                self.tables.len() - 1
            });
            let pending = &mut self.tables[at];
            pending.add(part)?;
            if pending.rows >= self.limits.rows {
                self.seal(at, SealReason::Rows, out)?;
            } else if pending.bytes >= self.limits.bytes {
                self.seal(at, SealReason::Bytes, out)?;
            }
        }
        Ok(())
    }

    /// Where rows of a table wait; those of another schema of it are sealed first.
    fn place(&mut self, table: &Arc<TableSchema>, out: &mut Vec<Sealed<C>>) -> Result<Option<usize>, ArrowError> {
        let Some(at) = self.tables.iter().position(|p| same_table(&p.table, table)) else { return Ok(None) };
        if self.tables[at].table == *table {
            return Ok(Some(at));
        }
        self.seal(at, SealReason::Schema, out)?;
        Ok(None)
    }

    /// Seals what has waited long enough at `now`.
    ///
    /// # Errors
    /// As [`Batcher::push`].
    pub fn seal_aged(&mut self, now: Instant, out: &mut Vec<Sealed<C>>) -> Result<(), ArrowError> {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.seal(0, SealReason::Age, out)?;
        }
        Ok(())
    }

    /// Seals everything.
    ///
    /// # Errors
    /// As [`Batcher::push`].
    pub fn seal_all(&mut self, reason: SealReason, out: &mut Vec<Sealed<C>>) -> Result<(), ArrowError> {
        self.seal_where(|_| true, reason, out)
    }

    fn seal_where(&mut self, fits: impl Fn(&Pending<C>) -> bool, reason: SealReason, out: &mut Vec<Sealed<C>>) -> Result<(), ArrowError> {
        while let Some(at) = self.tables.iter().position(&fits) {
            self.seal(at, reason, out)?;
        }
        Ok(())
    }

    fn seal(&mut self, at: usize, reason: SealReason, out: &mut Vec<Sealed<C>>) -> Result<(), ArrowError> {
        let Some(pending) = self.tables.remove(at) else { return Ok(()) };
        if self.before.len() > KNOWN {
            self.before.clear();
        }
        self.before.insert(pending.table.route(), pending.rows);
        let mut pieces = pending.pieces.finish()?;
        // A limit that fell inside a transaction is moved back to its start, as long as half of the rows
        // stay: a reader of one batch then sees whole transactions.
        if matches!(reason, SealReason::Rows | SealReason::Bytes)
            && let Some(cut) = transaction_start(&pieces)
            && cut * 2 >= pending.rows
        {
            let rest = cut_off(&mut pieces, cut);
            let mut kept = Pending {
                table: pending.table,
                pieces: Pieces::new(self.limits.piece, pending.rows),
                rows: 0,
                bytes: 0,
                since: pending.since,
                // Earlier than its rows: late, never wrong.
                capability: pending.capability.clone(),
            };
            rest.into_iter().try_for_each(|piece| kept.add(piece))?;
            self.tables.insert(at, kept);
        }
        let mut reason = Some(reason);
        for batch in pieces {
            out.push(Sealed { item: Item::Rows(batch), capability: pending.capability.clone(), reason: reason.take() });
        }
        Ok(())
    }
}

fn same_table(a: &Arc<TableSchema>, b: &Arc<TableSchema>) -> bool {
    Arc::ptr_eq(a, b) || (a.id == b.id && same_name(a, b))
}

fn same_name(a: &TableSchema, b: &TableSchema) -> bool {
    a.name == b.name && a.schema == b.schema && a.source == b.source
}

/// Where the last row's transaction starts in the batch, if not at its start.
fn transaction_start(pieces: &[RowBatch]) -> Option<usize> {
    let last = *pieces.last()?.commit_lsn.last()?;
    let start = pieces.iter().map(|piece| piece.commit_lsn.partition_point(|lsn| *lsn < last)).sum();
    (start > 0).then_some(start)
}

/// Takes away what follows the first `rows` rows.
fn cut_off(pieces: &mut Vec<RowBatch>, rows: usize) -> Vec<RowBatch> {
    let (mut kept, mut at) = (rows, 0);
    while let Some(piece) = pieces.get(at).filter(|piece| piece.len() <= kept) {
        kept -= piece.len();
        at += 1;
    }
    let mut rest = pieces.split_off(at);
    if let Some(first) = rest.first_mut().filter(|_| kept > 0) {
        pieces.push(first.slice(0, kept));
        *first = first.slice(kept, first.len() - kept);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Column, ColumnType, Mark, PgType, ReplicaIdentity};
    use arrow::array::{Array, Int32Array};
    use proptest::prelude::*;
    use std::time::Duration;

    fn table(name: &str, column: &str) -> Arc<TableSchema> {
        let pg_type = PgType { oid: 23, modifier: -1, name: "integer".into() };
        let column = Column {
            name: column.into(),
            ty: ColumnType::Int4,
            pg_type,
            nullable: true,
            key: Some(0),
            missing: None,
            number: None,
            filled: false,
        };
        Arc::new(TableSchema {
            source: "s".into(),
            id: name.len() as u32,
            schema: "public".into(),
            name: name.into(),
            columns: vec![column],
            identity: ReplicaIdentity::Default,
            storage: None,
        })
    }

    /// One row for each commit LSN.
    fn rows(table: &Arc<TableSchema>, commits: &[u64]) -> Item {
        Item::Rows(RowBatch {
            columns: vec![Arc::new(Int32Array::from_iter_values(0..commits.len() as i32))],
            ops: commits.iter().map(|_| b'i').collect(),
            commit_lsn: commits.to_vec().into(),
            ordinal: (0..commits.len() as u64).collect(),
            commit_time: commits.iter().map(|_| 0).collect(),
            ..RowBatch::empty(Arc::clone(table))
        })
    }

    fn shape(sealed: &[Sealed<u32>]) -> Vec<(String, Vec<u64>, u32, Option<SealReason>)> {
        let commits = |item: &Item| if let Item::Rows(batch) = item { batch.commit_lsn.to_vec() } else { Vec::new() };
        sealed.iter().map(|s| (s.item.table().name.to_string(), commits(&s.item), s.capability, s.reason)).collect()
    }

    #[test]
    fn seals_by_each_reason() {
        let (a, b) = (table("a", "x"), table("bb", "x"));
        let start = Instant::now();
        let mut batcher = Batcher::new(Limits { rows: 4, bytes: 1 << 20, age: Duration::from_secs(1), piece: usize::MAX });
        let mut out = Vec::new();
        batcher.push(rows(&a, &[1, 1]), 10, start, &mut out).unwrap();
        batcher.push(rows(&b, &[1]), 10, start, &mut out).unwrap();
        batcher.push(rows(&a, &[2, 3, 3]), 20, start, &mut out).unwrap();
        // Four rows of `a` fill a batch: cut before the last transaction, the rest keeps the earliest capability.
        assert_eq!(shape(&out), [("a".into(), vec![1, 1, 2], 10, Some(SealReason::Rows))]);
        out.clear();
        batcher.seal_aged(start + Duration::from_millis(999), &mut out).unwrap();
        assert!(out.is_empty());
        batcher.push(Item::Mark(Mark::Schema { table: Arc::clone(&a) }), 30, start, &mut out).unwrap();
        assert_eq!(shape(&out), [("a".into(), vec![3, 3], 10, Some(SealReason::Mark)), ("a".into(), vec![], 30, None)]);
        out.clear();
        batcher.push(rows(&table("a", "renamed"), &[4]), 40, start + Duration::from_secs(1), &mut out).unwrap();
        batcher.seal_aged(start + Duration::from_secs(1), &mut out).unwrap();
        assert_eq!(shape(&out), [("bb".into(), vec![1], 10, Some(SealReason::Age))]);
        out.clear();
        batcher.push(rows(&a, &[5]), 50, start, &mut out).unwrap();
        assert_eq!(shape(&out), [("a".into(), vec![4], 40, Some(SealReason::Schema))]);
        out.clear();
        let anew = Arc::new(TableSchema { id: 99, ..(*a).clone() });
        batcher.push(Item::Mark(Mark::Schema { table: anew }), 55, start, &mut out).unwrap();
        assert_eq!(shape(&out), [("a".into(), vec![5], 50, Some(SealReason::Mark)), ("a".into(), vec![], 55, None)]);
        out.clear();
        batcher.push(rows(&a, &[5]), 50, start, &mut out).unwrap();
        batcher.seal_all(SealReason::End, &mut out).unwrap();
        assert_eq!(shape(&out), [("a".into(), vec![5], 50, Some(SealReason::End))]);
        assert_eq!(batcher.deadline(), None);
    }

    proptest! {
        #[test]
        fn pieces_are_the_batch_there_would_be(
            parts in prop::collection::vec(prop::collection::vec(0_u64..2, 1..9), 1..12),
            rows_limit in 2_usize..20,
            bytes in 60_usize..600,
            piece in 29_usize..200,
        ) {
            let a = table("a", "x");
            let batches = |piece| {
                let limits = Limits { rows: rows_limit, bytes, age: Duration::from_secs(1), piece };
                let (mut batcher, mut out, mut lsn) = (Batcher::new(limits), Vec::new(), 1);
                for steps in &parts {
                    let commits: Vec<u64> = steps.iter().map(|step| { lsn += step; lsn }).collect();
                    batcher.push(rows(&a, &commits), 0_u32, Instant::now(), &mut out).unwrap();
                }
                batcher.seal_all(SealReason::End, &mut out).unwrap();
                out
            };
            let (whole, pieces) = (shape(&batches(usize::MAX)), shape(&batches(piece)));
            let mut joined: Vec<(String, Vec<u64>, u32, Option<SealReason>)> = Vec::new();
            for piece in pieces {
                match (joined.last_mut(), piece.3) {
                    (Some(last), None) => last.1.extend(piece.1),
                    _ => joined.push(piece),
                }
            }
            prop_assert_eq!(joined, whole);
        }
    }

    #[test]
    fn a_large_part_is_passed_on_as_it_came() {
        let (a, now) = (table("a", "x"), Instant::now());
        let mut batcher = Batcher::new(Limits { rows: 100, bytes: 1 << 20, age: Duration::from_secs(1), piece: 29 * 4 });
        let mut out = Vec::new();
        let columns =
            |item: &Item| if let Item::Rows(batch) = item { batch.columns[0].to_data().buffers()[0].as_ptr() } else { unreachable!() };
        let parts = [rows(&a, &[1]), rows(&a, &[2]), rows(&a, &[3; 4]), rows(&a, &[4; 5]), rows(&a, &[5])];
        let places: Vec<_> = parts.iter().map(columns).collect();
        parts.into_iter().for_each(|part| batcher.push(part, 0, now, &mut out).unwrap());
        batcher.seal_all(SealReason::End, &mut out).unwrap();
        assert_eq!(shape(&out).into_iter().map(|sealed| sealed.1).collect::<Vec<_>>(), [vec![1, 2], vec![3; 4], vec![4; 5], vec![5]]);
        assert_eq!(out.iter().map(|sealed| columns(&sealed.item)).collect::<Vec<_>>()[1..], places[2..]);
    }

    #[test]
    fn a_transaction_larger_than_the_limit_is_cut_anywhere() {
        let a = table("a", "x");
        let mut batcher = Batcher::new(Limits { rows: 4, bytes: 1 << 20, age: Duration::from_secs(1), piece: usize::MAX });
        let mut out = Vec::new();
        batcher.push(rows(&a, &[1, 2, 2, 2, 2]), 1, Instant::now(), &mut out).unwrap();
        assert_eq!(shape(&out), [("a".into(), vec![1, 2, 2, 2], 1, Some(SealReason::Rows))]);
        batcher.seal_all(SealReason::End, &mut out).unwrap();
        assert_eq!(shape(&out)[1..], [("a".into(), vec![2], 1, Some(SealReason::End))]);
    }
}
