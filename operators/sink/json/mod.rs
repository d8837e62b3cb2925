//! Rows of a batch as the members of JSON objects, for NDJSON.
//!
//! ```text
//! TableSchema ──> RowWriter ──bind(batch)──> BoundRows ──write_columns(row)──> Vec<u8>
//!                 once a schema              once a batch                       once a row
//! ```
//!
//! Hot path: no allocation per value, no lock, no dynamic dispatch. A column's formatter is chosen by
//! [`RowWriter::new`] and its array downcast by [`RowWriter::bind`]; a value costs one `match`.
//!
//! # Guarantees
//! What is appended is valid JSON without a line break in it. No value is rounded: numbers that JSON
//! readers would round are strings (see [`Dialect`]).

mod fixed;
mod float;
mod interval;
mod number;
#[cfg(test)]
mod oracle;
mod string;
mod time;

pub(crate) use fixed::Fixed;
pub use interval::interval_iso8601;
pub use string::write_string;
pub use time::{write_date, write_time, write_timestamp, write_timestamptz};

use crate::contract::{Cells, ColumnType, RowBatch, TableSchema, hex};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use base64::Engine;

/// How values are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As PostgreSQL's `to_jsonb` spells them, except that a number which a reader of JSON would round is a
    /// string: an integer beyond ±(2^53 − 1), a numeric of more than 15 significant digits or outside the
    /// range of a double. `NaN` and infinities are strings, as they are in `to_jsonb`. Documents stand as
    /// they are in the column. A cell whose value was not sent has no member.
    Postgres,
    /// What Snowpipe Streaming's NDJSON takes for the column types of the landing table: decimals and large
    /// integers as strings, `bytea` in base64, intervals in ISO 8601. A cell whose value was not sent is
    /// null, as is one that the column cannot hold.
    Snowflake,
}

/// What a column's values are, and how they are spelled.
#[derive(Clone, Copy, Debug)]
enum Formatter {
    Bool,
    Int2,
    Int4,
    Int8,
    /// A string: `to_jsonb` has no number for an `oid`.
    OidString,
    /// Positional notation.
    Float4,
    Float8,
    /// Shortest notation.
    Float4Short,
    Float8Short,
    /// A number where a double holds it.
    Decimal(u8),
    /// Always a string.
    DecimalString(u8),
    /// A number where a double holds it.
    NumericText,
    Text,
    /// A JSON document, spliced in.
    Document,
    Hex,
    Base64,
    Interval,
    Date,
    Time,
    Timestamp,
    TimestampTz,
}

impl Formatter {
    fn of(ty: &ColumnType, dialect: Dialect) -> Self {
        let snowflake = dialect == Dialect::Snowflake;
        match ty {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int2 => Self::Int2,
            ColumnType::Int4 => Self::Int4,
            ColumnType::Oid if !snowflake => Self::OidString,
            ColumnType::Int8 | ColumnType::Oid => Self::Int8,
            ColumnType::Float4 if snowflake => Self::Float4Short,
            ColumnType::Float8 if snowflake => Self::Float8Short,
            ColumnType::Float4 => Self::Float4,
            ColumnType::Float8 => Self::Float8,
            ColumnType::Numeric { scale, .. } if snowflake => Self::DecimalString(*scale),
            ColumnType::Numeric { scale, .. } => Self::Decimal(*scale),
            ColumnType::NumericText if !snowflake => Self::NumericText,
            ColumnType::Bytea if snowflake => Self::Base64,
            ColumnType::Bytea => Self::Hex,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::TimestampTz => Self::TimestampTz,
            ColumnType::Interval if snowflake => Self::Interval,
            ColumnType::Json | ColumnType::Jsonb | ColumnType::Array(_) => Self::Document,
            ColumnType::NumericText
            | ColumnType::Text
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Other => Self::Text,
        }
    }
}

/// Writes the rows of one table's schema. Made once, used for all its batches.
#[derive(Clone, Debug)]
pub struct RowWriter {
    columns: Vec<(Key, Formatter)>,
    dialect: Dialect,
}

/// `"name":`, and the same after a comma.
#[derive(Clone, Debug)]
struct Key {
    first: Box<[u8]>,
    next: Fixed<32>,
}

impl Key {
    fn new(name: &str) -> Self {
        let mut text = vec![b','];
        write_string(name, &mut text);
        text.push(b':');
        Self { first: text[1..].into(), next: Fixed::new(&text) }
    }
}

impl RowWriter {
    /// Prepares the rows of `table`; `names` are the members' keys, one for each column.
    ///
    /// # Panics
    /// When there are fewer names than columns, or more.
    #[must_use]
    pub fn new(table: &TableSchema, names: &[String], dialect: Dialect) -> Self {
        assert_eq!(table.columns.len(), names.len(), "each column has one key");
        let columns = table.columns.iter().zip(names).map(|(c, n)| (Key::new(n), Formatter::of(&c.ty, dialect))).collect();
        Self { columns, dialect }
    }

    /// Takes a batch of the schema, whose rows can then be written.
    ///
    /// # Panics
    /// When the batch's arrays are not what [`ColumnType::arrow`] says of the schema the writer was made for.
    #[must_use]
    pub fn bind<'a>(&'a self, batch: &'a RowBatch) -> BoundRows<'a> {
        assert_eq!(self.columns.len(), batch.columns.len(), "a writer serves batches of its own schema");
        let columns = self.columns.iter().zip(&batch.columns).map(|((key, formatter), array)| BoundColumn {
            key,
            nulls: array.nulls(),
            values: Values::new(*formatter, array),
        });
        BoundRows {
            columns: columns.collect(),
            unchanged: (self.dialect == Dialect::Postgres && !batch.unchanged.is_empty()).then_some(&batch.unchanged),
            exact: (self.dialect == Dialect::Postgres && !batch.exact.is_empty()).then_some(&batch.exact),
        }
    }
}

/// A column of a batch, downcast.
struct BoundColumn<'a> {
    key: &'a Key,
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

/// The rows of one batch, ready to be written.
pub struct BoundRows<'a> {
    columns: Vec<BoundColumn<'a>>,
    unchanged: Option<&'a Cells<()>>,
    exact: Option<&'a Cells<Box<str>>>,
}

impl std::fmt::Debug for BoundRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundRows({} columns)", self.columns.len())
    }
}

impl BoundRows<'_> {
    /// Appends one row's members (`"a":1,"b":null`), without braces. Says whether there were any.
    ///
    /// # Panics
    /// When the batch has no such row.
    pub fn write_columns(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let mut any = false;
        for (at, column) in self.columns.iter().enumerate() {
            let null = column.nulls.is_some_and(|nulls| nulls.is_null(row));
            if null && self.unchanged.is_some_and(|cells| cells.get(row, at).is_some()) {
                continue;
            }
            if any {
                column.key.next.write(out);
            } else {
                out.extend_from_slice(&column.key.first);
                any = true;
            }
            if !null {
                column.values.write(row, out);
            } else if let Some(text) = self.exact.and_then(|cells| cells.get(row, at)) {
                column.values.write_exact(text, out);
            } else {
                out.extend_from_slice(b"null");
            }
        }
        any
    }
}

/// A column's array under its formatter.
enum Values<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a [i16]),
    Int4(&'a [i32]),
    Int8(&'a [i64]),
    OidString(&'a [i64]),
    Float4(&'a [f32]),
    Float8(&'a [f64]),
    Float4Short(&'a [f32]),
    Float8Short(&'a [f64]),
    Decimal(&'a [i128], u8),
    DecimalString(&'a [i128], u8),
    NumericText(&'a StringArray),
    Text(&'a StringArray),
    Document(&'a StringArray),
    Hex(&'a BinaryArray),
    Base64(&'a BinaryArray),
    Interval(&'a StringArray),
    Date(&'a [i32]),
    Time(&'a [i64]),
    Timestamp(&'a [i64]),
    TimestampTz(&'a [i64]),
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> &[T::Native] {
    array.as_primitive::<T>().values()
}

impl<'a> Values<'a> {
    fn new(formatter: Formatter, array: &'a ArrayRef) -> Self {
        match formatter {
            Formatter::Bool => Self::Bool(array.as_boolean()),
            Formatter::Int2 => Self::Int2(numbers::<Int16Type>(array)),
            Formatter::Int4 => Self::Int4(numbers::<Int32Type>(array)),
            Formatter::Int8 => Self::Int8(numbers::<Int64Type>(array)),
            Formatter::OidString => Self::OidString(numbers::<Int64Type>(array)),
            Formatter::Float4 => Self::Float4(numbers::<Float32Type>(array)),
            Formatter::Float8 => Self::Float8(numbers::<Float64Type>(array)),
            Formatter::Float4Short => Self::Float4Short(numbers::<Float32Type>(array)),
            Formatter::Float8Short => Self::Float8Short(numbers::<Float64Type>(array)),
            Formatter::Decimal(scale) => Self::Decimal(numbers::<Decimal128Type>(array), scale),
            Formatter::DecimalString(scale) => Self::DecimalString(numbers::<Decimal128Type>(array), scale),
            Formatter::NumericText => Self::NumericText(array.as_string()),
            Formatter::Text => Self::Text(array.as_string()),
            Formatter::Document => Self::Document(array.as_string()),
            Formatter::Hex => Self::Hex(array.as_binary()),
            Formatter::Base64 => Self::Base64(array.as_binary()),
            Formatter::Interval => Self::Interval(array.as_string()),
            Formatter::Date => Self::Date(numbers::<Date32Type>(array)),
            Formatter::Time => Self::Time(numbers::<Time64MicrosecondType>(array)),
            Formatter::Timestamp => Self::Timestamp(numbers::<TimestampMicrosecondType>(array)),
            Formatter::TimestampTz => Self::TimestampTz(numbers::<TimestampMicrosecondType>(array)),
        }
    }

    /// Writes a value that is there.
    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Bool(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Self::Int2(values) => number::write_integer(i64::from(values[row]), out),
            Self::Int4(values) => number::write_integer(i64::from(values[row]), out),
            Self::Int8(values) => number::write_integer(values[row], out),
            Self::OidString(values) => number::write_quoted_integer(values[row], out),
            Self::Float4(values) => float::write_float(values[row], out),
            Self::Float8(values) => float::write_float(values[row], out),
            Self::Float4Short(values) => float::write_short_float(values[row], out),
            Self::Float8Short(values) => float::write_short_float(values[row], out),
            Self::Decimal(values, scale) => number::write_decimal(values[row], *scale, out),
            Self::DecimalString(values, scale) => {
                out.push(b'"');
                number::write_digits(values[row], *scale, out);
                out.push(b'"');
            }
            Self::NumericText(values) => number::write_numeric_text(values.value(row), out),
            Self::Text(values) => write_string(values.value(row), out),
            Self::Document(values) => write_document(values.value(row), out),
            Self::Hex(values) => write_hex(values.value(row), out),
            Self::Base64(values) => write_base64(values.value(row), out),
            Self::Interval(values) => {
                let start = out.len();
                out.push(b'"');
                if interval_iso8601(values.value(row), out) {
                    out.push(b'"');
                } else {
                    // Not in the `postgres` style (`infinity`): the text as it is.
                    out.truncate(start);
                    write_string(values.value(row), out);
                }
            }
            Self::Date(values) => time::write_date(values[row], out),
            Self::Time(values) => time::write_time(values[row], out),
            Self::Timestamp(values) => time::write_timestamp(values[row], out),
            Self::TimestampTz(values) => write_timestamptz(values[row], out),
        }
    }

    /// Writes PostgreSQL's text of a value that the array cannot hold, as `to_jsonb` spells it.
    #[cold]
    fn write_exact(&self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Int2(_)
            | Self::Int4(_)
            | Self::Int8(_)
            | Self::Float4(_)
            | Self::Float8(_)
            | Self::Float4Short(_)
            | Self::Float8Short(_)
            | Self::Decimal(..)
            | Self::DecimalString(..)
            | Self::NumericText(_) => number::write_numeric_text(text, out),
            Self::Timestamp(_) | Self::TimestampTz(_) => time::write_timestamp_text(text, out),
            Self::Bool(_)
            | Self::OidString(_)
            | Self::Text(_)
            | Self::Document(_)
            | Self::Hex(_)
            | Self::Base64(_)
            | Self::Interval(_)
            | Self::Date(_)
            | Self::Time(_) => write_string(text, out),
        }
    }
}

/// Splices a document in. A line break can stand only between its tokens, where a blank says the same.
fn write_document(document: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(document.as_bytes());
    if memchr::memchr2(b'\n', b'\r', document.as_bytes()).is_some() {
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// `bytea` in PostgreSQL's hexadecimal format; its backslash is escaped in JSON.
fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2 + 5);
    out.extend_from_slice(b"\"\\\\x");
    hex::write(bytes, out);
    out.push(b'"');
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room was measured");
    out.push(b'"');
}
