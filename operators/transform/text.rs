//! A column's values as PostgreSQL's text, as `column::text` gives it with `DateStyle` ISO, time zone
//! UTC and `bytea_output` hex.
//!
//! Hot path: no allocation per value, no dyn call per value; the caller owns the buffer.

use super::array_text;
use super::temporal::{write_date, write_time, write_timestamp};
use crate::contract::float::write_float;
use crate::contract::{Cells, Column, ColumnType, hex, place_point};
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};

/// One column of a batch, read as text.
pub(super) enum Texts<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a Int16Array),
    Int4(&'a Int32Array),
    Int8(&'a Int64Array),
    Float4(&'a Float32Array),
    Float8(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    /// `character(n)`, whose cast to text drops the spaces at its end.
    Padded(&'a StringArray),
    Bytea(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Array(&'a StringArray, &'a ColumnType),
}

impl<'a> Texts<'a> {
    /// Reads a column as `column::text` spells it.
    pub(super) fn of(column: &'a Column, array: &'a ArrayRef) -> Self {
        const BPCHAR: u32 = 1042;
        match column.ty {
            ColumnType::Text if column.pg_type.oid == BPCHAR => Self::Padded(array.as_string()),
            _ => Self::new(&column.ty, array),
        }
    }

    /// Reads `array`, whose type is `ty`'s, as its type's output function spells it, but for booleans.
    pub(super) fn new(ty: &'a ColumnType, array: &'a ArrayRef) -> Self {
        match ty {
            ColumnType::Bool => Self::Bool(array.as_boolean()),
            ColumnType::Int2 => Self::Int2(array.as_primitive::<Int16Type>()),
            ColumnType::Int4 => Self::Int4(array.as_primitive::<Int32Type>()),
            ColumnType::Int8 | ColumnType::Oid => Self::Int8(array.as_primitive::<Int64Type>()),
            ColumnType::Float4 => Self::Float4(array.as_primitive::<Float32Type>()),
            ColumnType::Float8 => Self::Float8(array.as_primitive::<Float64Type>()),
            ColumnType::Numeric { scale, .. } => Self::Decimal(array.as_primitive::<Decimal128Type>(), *scale),
            ColumnType::Bytea => Self::Bytea(array.as_binary()),
            ColumnType::Date => Self::Date(array.as_primitive::<Date32Type>()),
            ColumnType::Time => Self::Time(array.as_primitive::<Time64MicrosecondType>()),
            ColumnType::Timestamp => Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>(), false),
            ColumnType::TimestampTz => Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>(), true),
            ColumnType::Array(element) => Self::Array(array.as_string(), element),
            ColumnType::NumericText
            | ColumnType::Text
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Other => Self::Text(array.as_string()),
        }
    }

    /// Appends the text of a value that is not null.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Bool(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Self::Int2(a) => out.extend_from_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Int4(a) => out.extend_from_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Int8(a) => out.extend_from_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Float4(a) => write_float(a.value(row), out),
            Self::Float8(a) => write_float(a.value(row), out),
            Self::Decimal(a, scale) => write_decimal(a.value(row), *scale, out),
            Self::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Self::Padded(a) => out.extend_from_slice(a.value(row).trim_end_matches(' ').as_bytes()),
            Self::Bytea(a) => write_bytea(a.value(row), out),
            Self::Date(a) => write_date(a.value(row), out),
            Self::Time(a) => write_time(a.value(row), out),
            Self::Timestamp(a, zone) => write_timestamp(a.value(row), *zone, out),
            Self::Array(a, element) => {
                let start = out.len();
                if array_text::write(a.value(row).as_bytes(), element, out).is_none() {
                    // not the JSON of an array: the text as it stands is the value
                    out.truncate(start);
                    out.extend_from_slice(a.value(row).as_bytes());
                }
            }
        }
    }
}

impl Texts<'_> {
    /// The text of a value that is not null, copied into `scratch` only where it is not there already.
    pub(super) fn read<'s>(&'s self, row: usize, scratch: &'s mut Vec<u8>) -> &'s [u8] {
        if let Self::Text(array) = self {
            return array.value(row).as_bytes();
        }
        scratch.clear();
        self.write(row, scratch);
        scratch
    }
}

/// The exact texts of one column, walked along with its rows.
pub(super) struct ExactColumn<'a> {
    entries: Box<dyn Iterator<Item = (usize, &'a str)> + 'a>,
    next: Option<(usize, &'a str)>,
}

impl<'a> ExactColumn<'a> {
    /// The entries of `column`.
    pub(super) fn new(cells: &'a Cells<Box<str>>, column: usize) -> Self {
        let mut entries: Box<dyn Iterator<Item = _>> = if cells.is_empty() {
            Box::new(std::iter::empty())
        } else {
            Box::new(cells.iter().filter(move |(_, c, _)| *c == column).map(|(row, _, text)| (row, &**text)))
        };
        let next = entries.next();
        Self { entries, next }
    }

    /// The exact text of `row`, asked for in ascending order. The dyn call is made per entry, not per row.
    pub(super) fn at(&mut self, row: usize) -> Option<&'a str> {
        match self.next {
            Some((at, text)) if at == row => {
                self.next = self.entries.next();
                Some(text)
            }
            _ => None,
        }
    }
}

/// Writes `\x` and two lower-case digits a byte.
fn write_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    hex::write(bytes, out);
}

/// Writes `value / 10^scale` with all its digits.
pub(super) fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = itoa::Buffer::new();
    let text = digits.format(value.unsigned_abs()).as_bytes();
    place_point(text, text.len() as i64 - i64::from(scale), out);
}
