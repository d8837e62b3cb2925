//! Sums over rows: what a sink was given against what the workload says.
//!
//! ```text
//! row batch ──> Sums <── workload
//! ```
//! # Guarantees
//! A sum depends on the rows and not on their batches or order. `content` is over operation, table and values, so that a
//! change of one bit shows; `order` is over that and the token, so that a row with another's token shows.
//!
//! Hot path: a column at a time; nothing is allocated for a row.

use crate::{Op, RowBatch, TableSchema};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use etl_stream_operators::source::synthetic::{Value, Workload};
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Rows.
    pub(super) rows: u64,
    /// Over operations, tables and values.
    pub(super) content: u64,
    /// Over tokens too.
    pub(super) order: u64,
}

const NULL: u64 = 0x6e75_6c6c;
const UNCHANGED: u64 = 0x756e_6368;

/// SplitMix64's finalizer: every bit of the input counts in every bit of the output.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn bytes(value: &[u8]) -> u64 {
    // A fixed seed: sums are compared across runs.
    FixedState::with_seed(7).hash_one(value)
}

const fn integer(value: i128) -> u64 {
    mix((value as u64).wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ mix((value >> 64) as u64)
}

/// A value in its column.
const fn cell(column: usize, value: u64) -> u64 {
    mix(value ^ mix(column as u64 + 1))
}

/// What a row starts from. The source's name and the schema are no part of it: a live table has others.
fn start(table: &TableSchema) -> u64 {
    bytes(table.name.as_bytes())
}

impl Sums {
    /// Adds a row whose table and cells sum up to `cells`.
    fn row(&mut self, cells: u64, op: u8, lsn: u64, ordinal: u64) {
        let content = mix(cells ^ mix(op.into()));
        self.rows += 1;
        self.content = self.content.wrapping_add(content);
        self.order = self.order.wrapping_add(mix(content ^ mix(lsn ^ mix(ordinal.wrapping_add(1)))));
    }

    /// Adds sums.
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.content = self.content.wrapping_add(other.content);
        self.order = self.order.wrapping_add(other.order);
    }

    /// The sums of a batch.
    pub(super) fn of(batch: &RowBatch) -> Self {
        let mut cells = vec![start(&batch.table); batch.len()];
        for (column, array) in batch.columns.iter().enumerate() {
            columns(column, array.as_ref(), &mut cells);
        }
        let mut change = |row: usize, by: u64| {
            if let Some(cells) = cells.get_mut(row) {
                *cells = cells.wrapping_add(by);
            }
        };
        for (row, column, ()) in batch.unchanged.iter() {
            change(row, cell(column, UNCHANGED).wrapping_sub(cell(column, NULL)));
        }
        for (row, column, exact) in batch.exact.iter() {
            change(row, cell(column, bytes(exact.as_bytes())));
        }
        let mut sums = Self::default();
        for (row, cells) in cells.into_iter().enumerate() {
            sums.row(cells, batch.ops[row], batch.commit_lsn[row], batch.ordinal[row]);
        }
        sums
    }
}

/// Adds an array's cells to their rows.
fn columns(column: usize, array: &dyn Array, cells: &mut [u64]) {
    fn primitive<T: ArrowPrimitiveType>(column: usize, array: &dyn Array, cells: &mut [u64], of: impl Fn(T::Native) -> i128) {
        let array = array.as_primitive::<T>();
        for (row, cells) in cells.iter_mut().enumerate() {
            let value = if array.is_null(row) { NULL } else { integer(of(array.value(row))) };
            *cells = cells.wrapping_add(cell(column, value));
        }
    }
    fn each(column: usize, array: &dyn Array, cells: &mut [u64], of: impl Fn(usize) -> u64) {
        for (row, cells) in cells.iter_mut().enumerate() {
            *cells = cells.wrapping_add(cell(column, if array.is_null(row) { NULL } else { of(row) }));
        }
    }
    match array.data_type() {
        DataType::Int16 => primitive::<Int16Type>(column, array, cells, Into::into),
        DataType::Int32 => primitive::<Int32Type>(column, array, cells, Into::into),
        DataType::Int64 => primitive::<Int64Type>(column, array, cells, Into::into),
        DataType::Date32 => primitive::<Date32Type>(column, array, cells, Into::into),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(column, array, cells, Into::into),
        DataType::Timestamp(..) => primitive::<TimestampMicrosecondType>(column, array, cells, Into::into),
        DataType::Decimal128(..) => primitive::<Decimal128Type>(column, array, cells, |value| value),
        DataType::Float32 => primitive::<Float32Type>(column, array, cells, |value| value.to_bits().into()),
        DataType::Float64 => primitive::<Float64Type>(column, array, cells, |value| value.to_bits().into()),
        DataType::Boolean => {
            let values = array.as_boolean();
            each(column, array, cells, |row| integer(values.value(row).into()));
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            each(column, array, cells, |row| bytes(values.value(row)));
        }
        // What `ColumnType::arrow` has beside these is text.
        _ => {
            let values = array.as_string::<i32>();
            each(column, array, cells, |row| bytes(values.value(row).as_bytes()));
        }
    }
}

/// What becomes of a workload's rows on the way to a sink: the rows that pass a filter, and values that are masked.
pub(super) struct Way<'a> {
    /// Whether a row of these values passes.
    pub(super) passes: &'a dyn Fn(&[Value]) -> bool,
    /// What is masked.
    pub(super) mask: Option<Masked<'a>>,
}

/// The column that is masked, and the text that stands for a value.
pub(super) type Masked<'a> = (usize, &'a dyn Fn(&str) -> String);

impl Way<'_> {
    /// Nothing becomes of them.
    pub(super) const PLAIN: Way<'static> = Way { passes: &|_| true, mask: None };

    fn value(&self, column: usize, value: &Value) -> u64 {
        match (value, &self.mask) {
            (Value::Integer(value), _) => integer(*value),
            (Value::Text(text), Some((masked, mask))) if *masked == column => bytes(mask(text).as_bytes()),
            (Value::Text(text), _) => bytes(text.as_bytes()),
            (Value::Texts(texts), _) => bytes(serde_json::json!(texts).to_string().as_bytes()),
        }
    }

    /// The sums of a workload's first changes as they arrive.
    pub(super) fn expected(&self, workload: &Workload, changes: u64) -> Sums {
        let columns = workload.kinds().len();
        // The cells of each set of values, but the key, whether the last value is sent or not; and those of a delete.
        let known: Vec<(bool, u64, u64)> = (0..workload.variants())
            .map(|variant| {
                let values = workload.values(variant);
                let hashes: Vec<u64> = values.iter().zip(1..).map(|(value, column)| cell(column, self.value(column, value))).collect();
                let all = hashes.iter().fold(0_u64, |sum, hash| sum.wrapping_add(*hash));
                let last = hashes.last().copied().unwrap_or(0);
                let unchanged = all.wrapping_sub(last).wrapping_add(cell(columns - 1, UNCHANGED));
                ((self.passes)(values), all, unchanged)
            })
            .collect();
        let deleted = (1..columns).fold(0_u64, |sum, column| sum.wrapping_add(cell(column, NULL)));
        let starts: Vec<u64> = workload.tables().iter().map(|table| start(table)).collect();
        let mut sums = Sums::default();
        for change in (0..changes).map(|n| workload.change(n)) {
            let Some((passes, all, unchanged)) = known.get(change.variant) else { continue };
            // A filter lets an update that fails its condition pass as a delete: the row may have been there.
            let op = if change.op == Op::Update && !passes { Op::Delete } else { change.op };
            let rest = match op {
                Op::Delete => deleted,
                _ if !passes => continue,
                _ if change.unchanged => *unchanged,
                _ => *all,
            };
            let table = starts.get(change.table).copied().unwrap_or(0);
            let cells = table.wrapping_add(cell(0, integer(change.key.into()))).wrapping_add(rest);
            sums.row(cells, op.letter(), change.token.commit_lsn, change.token.ordinal);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cells, Column, ColumnType, PgType, ReplicaIdentity};
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn batch() -> RowBatch {
        let column = |name: &str, ty: ColumnType| Column {
            name: name.into(),
            ty,
            pg_type: PgType { oid: 0, modifier: -1, name: "x".into() },
            nullable: true,
            key: None,
            missing: None,
            number: None,
            filled: false,
        };
        let table = TableSchema {
            source: "s".into(),
            id: 1,
            schema: "p".into(),
            name: "t".into(),
            columns: vec![column("a", ColumnType::Int8), column("b", ColumnType::Text)],
            identity: ReplicaIdentity::Default,
            storage: None,
        };
        RowBatch {
            table: Arc::new(table),
            columns: vec![
                Arc::new(Int64Array::from(vec![Some(1), Some(2), None])),
                Arc::new(StringArray::from(vec![Some("x"), None, Some("y")])),
            ],
            ops: b"iud".to_vec().into(),
            commit_lsn: vec![10, 10, 20].into(),
            ordinal: vec![0, 2, 0].into(),
            commit_time: vec![0, 0, 0].into(),
            unchanged: Cells::default(),
            exact: Cells::default(),
        }
    }

    fn sum(batches: &[RowBatch]) -> Sums {
        let mut sums = Sums::default();
        batches.iter().for_each(|batch| sums.add(Sums::of(batch)));
        sums
    }

    #[test]
    fn every_difference_shows_and_cuts_do_not() {
        let (good, whole) = (sum(&[batch()]), batch());
        assert_eq!(good, sum(&[whole.slice(2, 1), whole.slice(0, 2)]));
        let changed: [fn(&mut RowBatch); 7] = [
            |b| b.ops = b"iuu".to_vec().into(),
            |b| b.columns[0] = Arc::new(Int64Array::from(vec![Some(1), Some(3), None])),
            |b| b.columns[0] = Arc::new(Int64Array::from(vec![Some(2), Some(1), None])),
            |b| b.columns[1] = Arc::new(StringArray::from(vec![Some("x"), Some(""), Some("y")])),
            |b| b.unchanged.push(1, 1, ()),
            |b| b.exact.push(0, 0, Box::from("1.0")),
            |b| b.table = Arc::new(TableSchema { name: "u".into(), ..(*b.table).clone() }),
        ];
        for (at, change) in changed.into_iter().enumerate() {
            let mut other = batch();
            change(&mut other);
            let sums = sum(&[other]);
            assert_ne!(sums.content, good.content, "change {at}");
            assert_ne!(sums.order, good.order, "change {at}");
        }
        for tokens in [([10, 10, 20], [2, 0, 0]), ([10, 10, 21], [0, 2, 0])] {
            let moved = RowBatch { commit_lsn: tokens.0.to_vec().into(), ordinal: tokens.1.to_vec().into(), ..batch() };
            let sums = sum(&[moved]);
            assert_eq!(sums.content, good.content);
            assert_ne!(sums.order, good.order);
        }
        assert_ne!(sum(&[whole.slice(0, 2)]).rows, good.rows);
    }
}
