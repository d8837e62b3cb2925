//! Rows that become one batch: each part is copied behind what is there and let go at once.
//!
//! ```text
//! part ──alone, or large where the sink takes a batch in pieces──> passed on as it came
//! part, part … ──columns──> grown buffers ──> RowBatch
//! ```
//! # Guarantees
//! What waits takes the memory of its values, not that of the parts it came in. One part is not copied at all.
//!
//! Hot path: one copy of each column's bytes a part; nothing per value but the shift of a text's offsets.

use crate::contract::{Cells, RowBatch, TableSchema};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBuilder, GenericByteBuilder, PrimitiveBuilder};
use arrow::compute::concat;
use arrow::datatypes::{
    BinaryType, ByteArrayType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, Utf8Type,
};
use arrow::error::ArrowError;
use std::mem::take;
use std::sync::Arc;

/// A column that grows.
trait Grow {
    /// Appends a part of the column's own type.
    fn append(&mut self, part: &ArrayRef) -> Result<(), ArrowError>;
    /// Everything appended.
    fn finish(&mut self) -> Result<ArrayRef, ArrowError>;
}

impl<T: ArrowPrimitiveType> Grow for PrimitiveBuilder<T> {
    fn append(&mut self, part: &ArrayRef) -> Result<(), ArrowError> {
        self.append_array(part.as_primitive());
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(Self::finish(self)))
    }
}

impl Grow for BooleanBuilder {
    fn append(&mut self, part: &ArrayRef) -> Result<(), ArrowError> {
        self.append_array(part.as_boolean());
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(Self::finish(self)))
    }
}

impl<T: ByteArrayType> Grow for GenericByteBuilder<T> {
    fn append(&mut self, part: &ArrayRef) -> Result<(), ArrowError> {
        self.append_array(part.as_bytes())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(Self::finish(self)))
    }
}

/// Of a type that no column of the engine's has: kept as it comes, and joined at the end.
struct Parts(Vec<ArrayRef>);

impl Grow for Parts {
    fn append(&mut self, part: &ArrayRef) -> Result<(), ArrowError> {
        self.0.push(Arc::clone(part));
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let parts = take(&mut self.0);
        concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }
}

/// A column like this one, with room for so many rows.
fn column(like: &ArrayRef, rows: usize) -> Box<dyn Grow> {
    // a sixteenth more than these rows need, so that the last ones seldom double it
    let bytes = |whole: usize| (whole / like.len().max(1) + 1) * (rows + rows / 16);
    let ty = like.data_type();
    match ty {
        DataType::Boolean => Box::new(BooleanBuilder::with_capacity(rows)),
        DataType::Int16 => fixed::<Int16Type>(ty, rows),
        DataType::Int32 => fixed::<Int32Type>(ty, rows),
        DataType::Int64 => fixed::<Int64Type>(ty, rows),
        DataType::Float32 => fixed::<Float32Type>(ty, rows),
        DataType::Float64 => fixed::<Float64Type>(ty, rows),
        DataType::Decimal128(..) => fixed::<Decimal128Type>(ty, rows),
        DataType::Date32 => fixed::<Date32Type>(ty, rows),
        DataType::Time64(TimeUnit::Microsecond) => fixed::<Time64MicrosecondType>(ty, rows),
        DataType::Timestamp(TimeUnit::Microsecond, _) => fixed::<TimestampMicrosecondType>(ty, rows),
        DataType::Utf8 => Box::new(GenericByteBuilder::<Utf8Type>::with_capacity(rows, bytes(text_bytes::<Utf8Type>(like)))),
        DataType::Binary => Box::new(GenericByteBuilder::<BinaryType>::with_capacity(rows, bytes(text_bytes::<BinaryType>(like)))),
        _ => Box::new(Parts(Vec::new())),
    }
}

fn fixed<T: ArrowPrimitiveType>(ty: &DataType, rows: usize) -> Box<dyn Grow> {
    Box::new(PrimitiveBuilder::<T>::with_capacity(rows).with_data_type(ty.clone()))
}

fn text_bytes<T: ByteArrayType<Offset = i32>>(array: &ArrayRef) -> usize {
    let offsets = array.as_bytes::<T>().offsets();
    (offsets[offsets.len() - 1] - offsets[0]) as usize
}

/// Several parts, one behind the other.
struct Grown {
    table: Arc<TableSchema>,
    types: Vec<DataType>,
    columns: Vec<Box<dyn Grow>>,
    ops: Vec<u8>,
    commit_lsn: Vec<u64>,
    ordinal: Vec<u64>,
    commit_time: Vec<i64>,
    unchanged: Cells<()>,
    exact: Cells<Box<str>>,
}

impl Grown {
    fn new(like: &RowBatch, rows: usize) -> Self {
        Self {
            table: Arc::clone(&like.table),
            types: like.columns.iter().map(|like| like.data_type().clone()).collect(),
            columns: like.columns.iter().map(|like| column(like, rows)).collect(),
            ops: Vec::with_capacity(rows),
            commit_lsn: Vec::with_capacity(rows),
            ordinal: Vec::with_capacity(rows),
            commit_time: Vec::with_capacity(rows),
            unchanged: Cells::default(),
            exact: Cells::default(),
        }
    }

    fn append(&mut self, part: &RowBatch) -> Result<(), ArrowError> {
        let types = part.columns.iter().map(Array::data_type);
        if !types.clone().eq(&self.types) {
            let why = format!("columns of types {:?} do not follow {:?}", types.collect::<Vec<_>>(), self.types);
            return Err(ArrowError::InvalidArgumentError(why));
        }
        for (column, part) in self.columns.iter_mut().zip(&part.columns) {
            column.append(part)?;
        }
        self.unchanged.append(self.ops.len(), &part.unchanged);
        self.exact.append(self.ops.len(), &part.exact);
        self.ops.extend_from_slice(&part.ops);
        self.commit_lsn.extend_from_slice(&part.commit_lsn);
        self.ordinal.extend_from_slice(&part.ordinal);
        self.commit_time.extend_from_slice(&part.commit_time);
        Ok(())
    }

    fn finish(mut self) -> Result<RowBatch, ArrowError> {
        Ok(RowBatch {
            table: self.table,
            columns: self.columns.iter_mut().map(|column| column.finish()).collect::<Result<_, _>>()?,
            ops: self.ops.into(),
            commit_lsn: self.commit_lsn.into(),
            ordinal: self.ordinal.into(),
            commit_time: self.commit_time.into(),
            unchanged: self.unchanged,
            exact: self.exact,
        })
    }
}

/// Rows of one schema that wait to be one batch, in one piece or, where that is enough, in several.
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    /// Bytes from which a part is a piece of its own.
    large: usize,
    /// Rows that the batch is expected to have.
    expected: usize,
}

struct Piece {
    rows: Gather,
    bytes: usize,
}

impl Pieces {
    pub(super) fn new(large: usize, expected: usize) -> Self {
        Self { pieces: Vec::new(), large, expected }
    }

    /// Appends a part of so many bytes.
    ///
    /// # Errors
    /// As [`Gather::push`].
    pub(super) fn push(&mut self, part: RowBatch, bytes: usize) -> Result<(), ArrowError> {
        match self.pieces.last_mut() {
            Some(last) if last.bytes.max(bytes) < self.large => {
                last.bytes += bytes;
                last.rows.push(&part)
            }
            _ => {
                let expected = self.expected.min((self.large / bytes.max(1)).saturating_mul(part.len()));
                self.pieces.push(Piece { rows: Gather::One(part, expected), bytes });
                Ok(())
            }
        }
    }

    /// The batch, in order.
    ///
    /// # Errors
    /// As [`Gather::push`].
    pub(super) fn finish(self) -> Result<Vec<RowBatch>, ArrowError> {
        self.pieces.into_iter().map(|piece| piece.rows.finish()).collect()
    }
}

/// Rows of one schema that wait to be one piece.
enum Gather {
    /// One part, and how many rows there is room for when a second comes.
    One(RowBatch, usize),
    Several(Grown),
}

impl Gather {
    /// Appends a part.
    ///
    /// # Errors
    /// When its arrays' types are others, or a column would pass 2 GiB of text. What was gathered is of no use then.
    fn push(&mut self, part: &RowBatch) -> Result<(), ArrowError> {
        match self {
            Self::One(first, expected) => {
                let mut grown = Grown::new(first, (*expected).max(first.len() + part.len()));
                grown.append(first)?;
                grown.append(part)?;
                *self = Self::Several(grown);
                Ok(())
            }
            Self::Several(grown) => grown.append(part),
        }
    }

    /// The batch of all parts.
    ///
    /// # Errors
    /// As [`Gather::push`].
    fn finish(self) -> Result<RowBatch, ArrowError> {
        match self {
            Self::One(batch, _) => Ok(batch),
            Self::Several(grown) => grown.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Column, ColumnType, PgType, ReplicaIdentity};
    use arrow::array::{BinaryArray, BooleanArray, Int64Array, PrimitiveArray, StringArray};
    use proptest::prelude::*;

    fn table() -> Arc<TableSchema> {
        let types = [
            ColumnType::Int8,
            ColumnType::Bool,
            ColumnType::Text,
            ColumnType::Bytea,
            ColumnType::Numeric { precision: 18, scale: 4 },
            ColumnType::TimestampTz,
            ColumnType::Float8,
        ];
        let column = |(at, ty): (usize, ColumnType)| Column {
            name: format!("c{at}").into(),
            ty,
            pg_type: PgType { oid: 0, modifier: -1, name: "".into() },
            nullable: true,
            key: None,
            missing: None,
            number: None,
            filled: false,
        };
        let columns = types.into_iter().enumerate().map(column).collect();
        let (source, schema, name) = ("s".into(), "public".into(), "t".into());
        Arc::new(TableSchema { source, id: 1, schema, name, columns, identity: ReplicaIdentity::Default, storage: None })
    }

    /// Rows from a number on, each column null where a bit of `nulls` says so.
    fn rows(table: &Arc<TableSchema>, from: u64, nulls: &[u8]) -> RowBatch {
        let value = |column: u32| nulls.iter().zip(from..).map(move |(null, n)| (null >> column & 1 == 0).then_some(n));
        let ty = |column: usize| table.columns[column].ty.arrow();
        let texts: StringArray = value(2).map(|n| n.map(|n| "é".repeat(n as usize % 7))).collect();
        let bytes: BinaryArray = value(3).map(|n| n.map(|n| vec![n as u8; n as usize % 5])).collect();
        let decimals: PrimitiveArray<Decimal128Type> = value(4).map(|n| n.map(i128::from)).collect();
        let times: PrimitiveArray<TimestampMicrosecondType> = value(5).map(|n| n.map(|n| n as i64)).collect();
        let mut batch = RowBatch {
            columns: vec![
                Arc::new(value(0).map(|n| n.map(|n| n as i64)).collect::<Int64Array>()),
                Arc::new(value(1).map(|n| n.map(|n| n % 3 == 0)).collect::<BooleanArray>()),
                Arc::new(texts),
                Arc::new(bytes),
                Arc::new(decimals.with_data_type(ty(4))),
                Arc::new(times.with_data_type(ty(5))),
                Arc::new(value(6).map(|n| n.map(|n| n as f64)).collect::<PrimitiveArray<Float64Type>>()),
            ],
            ops: nulls.iter().map(|_| b'u').collect(),
            commit_lsn: nulls.iter().map(|_| 7).collect(),
            ordinal: (from..).take(nulls.len()).collect(),
            commit_time: nulls.iter().map(|_| 9).collect(),
            ..RowBatch::empty(Arc::clone(table))
        };
        for (row, null) in nulls.iter().enumerate() {
            if null & 0x81 == 0x81 {
                batch.unchanged.push(row, 0, ());
            }
            if null & 0x90 == 0x90 {
                batch.exact.push(row, 4, "NaN".into());
            }
        }
        batch
    }

    proptest! {
        #[test]
        fn parts_are_joined_as_arrow_joins_them(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 0_usize..8, any::<bool>()), 1..6),
            expected in 0_usize..100,
        ) {
            let table = table();
            let (mut from, mut batches) = (0, Vec::new());
            for (nulls, skip, full) in parts {
                let nulls: Vec<u8> = if full { vec![0; nulls.len()] } else { nulls };
                let skip = skip.min(nulls.len() - 1);
                // Slices too, as a limit cuts them.
                batches.push(rows(&table, from, &nulls).slice(skip, nulls.len() - skip));
                from += nulls.len() as u64;
            }
            let mut gather = Gather::One(batches[0].clone(), expected);
            batches.iter().skip(1).for_each(|part| gather.push(part).unwrap());
            let (gathered, joined) = (gather.finish().unwrap(), RowBatch::concat(batches).unwrap());
            prop_assert_eq!(&gathered.columns, &joined.columns);
            prop_assert_eq!(gathered.ops, joined.ops);
            prop_assert_eq!(gathered.commit_lsn, joined.commit_lsn);
            prop_assert_eq!(gathered.ordinal, joined.ordinal);
            prop_assert_eq!(gathered.commit_time, joined.commit_time);
            prop_assert!(gathered.unchanged.iter().eq(joined.unchanged.iter()));
            prop_assert!(gathered.exact.iter().eq(joined.exact.iter()));
        }
    }

    #[test]
    fn parts_of_other_types_are_refused() {
        let table = table();
        let (first, mut other) = (rows(&table, 0, &[0, 0]), rows(&table, 2, &[0]));
        other.columns[0] = Arc::clone(&other.columns[6]);
        let mut gather = Gather::One(first, 0);
        let error = gather.push(&other).unwrap_err().to_string();
        assert!(error.contains("Float64"), "{error}");
    }
}
