//! One column's encoder, chosen from the catalog's type.
//!
//! An enum, matched once a run: each kind's loop over the run's rows is its own code.

use super::array::ArrayColumn;
use super::boolean::BooleanColumn;
use super::date::Date;
use super::fixed::FixedColumn;
use super::float::{Float4, Float8};
use super::integer::{Int2, Int4, Int8, Oid};
use super::numeric::Decimal;
use super::read::Malformed;
use super::run::{ExactTexts, Run};
use super::text::{ByteaColumn, TextColumn};
use super::time::Time;
use super::timestamp::{Timestamp, TimestampTz};
use crate::contract::{Column, ColumnType};
use arrow::array::ArrayRef;

/// Appends runs, then gives the Arrow array.
pub(super) enum ColumnEncoder {
    Bool(BooleanColumn),
    Int2(FixedColumn<Int2>),
    Int4(FixedColumn<Int4>),
    Int8(FixedColumn<Int8>),
    Oid(FixedColumn<Oid>),
    Float4(FixedColumn<Float4>),
    Float8(FixedColumn<Float8>),
    Numeric(FixedColumn<Decimal>),
    Date(FixedColumn<Date>),
    Time(FixedColumn<Time>),
    Timestamp(FixedColumn<Timestamp>),
    TimestampTz(FixedColumn<TimestampTz>),
    Bytea(ByteaColumn),
    Text(TextColumn),
    Array(ArrayColumn),
}

impl ColumnEncoder {
    /// Chooses the encoder.
    pub(super) fn new(column: &Column) -> Self {
        let ty = &column.ty;
        match ty {
            ColumnType::Bool => Self::Bool(BooleanColumn::new()),
            ColumnType::Int2 => Self::Int2(FixedColumn::new(Int2, ty)),
            ColumnType::Int4 => Self::Int4(FixedColumn::new(Int4, ty)),
            ColumnType::Int8 => Self::Int8(FixedColumn::new(Int8, ty)),
            ColumnType::Oid => Self::Oid(FixedColumn::new(Oid, ty)),
            ColumnType::Float4 => Self::Float4(FixedColumn::new(Float4, ty)),
            ColumnType::Float8 => Self::Float8(FixedColumn::new(Float8, ty)),
            ColumnType::Numeric { precision, scale } => Self::Numeric(FixedColumn::new(Decimal::new(*precision, *scale), ty)),
            ColumnType::Date => Self::Date(FixedColumn::new(Date, ty)),
            ColumnType::Time => Self::Time(FixedColumn::new(Time, ty)),
            ColumnType::Timestamp => Self::Timestamp(FixedColumn::new(Timestamp, ty)),
            ColumnType::TimestampTz => Self::TimestampTz(FixedColumn::new(TimestampTz, ty)),
            ColumnType::Bytea => Self::Bytea(ByteaColumn::new()),
            ColumnType::Array(element) => Self::Array(ArrayColumn::new(column, element)),
            ColumnType::NumericText
            | ColumnType::Text
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Other => Self::Text(TextColumn::new(ty)),
        }
    }

    /// Makes room for more rows like those there are, of at most `most` bytes.
    pub(super) fn reserve(&mut self, rows: usize, most: usize) {
        match self {
            Self::Bool(c) => c.reserve(rows),
            Self::Int2(c) => c.reserve(rows),
            Self::Int4(c) => c.reserve(rows),
            Self::Int8(c) => c.reserve(rows),
            Self::Oid(c) => c.reserve(rows),
            Self::Float4(c) => c.reserve(rows),
            Self::Float8(c) => c.reserve(rows),
            Self::Numeric(c) => c.reserve(rows),
            Self::Date(c) => c.reserve(rows),
            Self::Time(c) => c.reserve(rows),
            Self::Timestamp(c) => c.reserve(rows),
            Self::TimestampTz(c) => c.reserve(rows),
            Self::Bytea(c) => c.reserve(rows, most),
            Self::Text(c) => c.reserve(rows, most),
            Self::Array(c) => c.reserve(rows, most),
        }
    }

    /// Appends one column of a run. After an error the column is of no use.
    pub(super) fn append(&mut self, run: &Run<'_>, column: usize, exact: &mut ExactTexts) -> Result<(), Malformed> {
        match self {
            Self::Bool(c) => c.append(run, column),
            Self::Int2(c) => c.append(run, column, exact),
            Self::Int4(c) => c.append(run, column, exact),
            Self::Int8(c) => c.append(run, column, exact),
            Self::Oid(c) => c.append(run, column, exact),
            Self::Float4(c) => c.append(run, column, exact),
            Self::Float8(c) => c.append(run, column, exact),
            Self::Numeric(c) => c.append(run, column, exact),
            Self::Date(c) => c.append(run, column, exact),
            Self::Time(c) => c.append(run, column, exact),
            Self::Timestamp(c) => c.append(run, column, exact),
            Self::TimestampTz(c) => c.append(run, column, exact),
            Self::Bytea(c) => c.append(run, column),
            Self::Text(c) => c.append(run, column, exact),
            Self::Array(c) => c.append(run, column, exact),
        }
    }

    /// The array of everything appended; the encoder is empty again.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(c) => c.finish(),
            Self::Int2(c) => c.finish(),
            Self::Int4(c) => c.finish(),
            Self::Int8(c) => c.finish(),
            Self::Oid(c) => c.finish(),
            Self::Float4(c) => c.finish(),
            Self::Float8(c) => c.finish(),
            Self::Numeric(c) => c.finish(),
            Self::Date(c) => c.finish(),
            Self::Time(c) => c.finish(),
            Self::Timestamp(c) => c.finish(),
            Self::TimestampTz(c) => c.finish(),
            Self::Bytea(c) => c.finish(),
            Self::Text(c) => c.finish(),
            Self::Array(c) => c.finish(),
        }
    }
}
