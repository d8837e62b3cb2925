//! A column's values as PostgreSQL's text, as `column::text` gives it with `DateStyle` ISO, time zone
//! UTC and `bytea_output` hex.
//!
//! Hot path: no allocation per value, no dyn call per value; the caller owns the buffer.

use super::array_text;
use super::temporal::{write_date, write_time, write_timestamp};
use crate::contract::{Cells, ColumnType};
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
    Bytea(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Array(&'a StringArray, &'a ColumnType),
}

impl<'a> Texts<'a> {
    /// Reads `array`, whose type is `ty`'s.
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
            Self::Float4(a) => write_f32(a.value(row), out),
            Self::Float8(a) => write_f64(a.value(row), out),
            Self::Decimal(a, scale) => write_decimal(a.value(row), *scale, out),
            Self::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
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
pub(super) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
}

fn write_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    write_hex(bytes, out);
}

/// Writes `value / 10^scale` with all its digits.
pub(super) fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = itoa::Buffer::new();
    let text = digits.format(value.unsigned_abs()).as_bytes();
    let scale = usize::from(scale);
    let whole = text.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &text[..whole] });
    if scale > 0 {
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', scale - (text.len() - whole)));
        out.extend_from_slice(&text[whole..]);
    }
}

/// Writes a `double precision` as `float8out` does with `extra_float_digits` above 0: the shortest text
/// that reads back.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_shortest(zmij::Buffer::new().format_finite(value), 15, out);
    } else {
        write_special(value, out);
    }
}

/// Writes a `real` as `float4out` does.
pub(super) fn write_f32(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_shortest(zmij::Buffer::new().format_finite(value), 6, out);
    } else {
        write_special(f64::from(value), out);
    }
}

fn write_special(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"NaN",
        v if v > 0.0 => b"Infinity",
        _ => b"-Infinity",
    });
}

/// Spells shortest digits as PostgreSQL does: an exponent below -4 and from `limit` on.
fn write_shortest(text: &str, limit: i32, out: &mut Vec<u8>) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if unsigned.len() < mantissa.len() {
        out.push(b'-');
    }
    let mut digits = [0_u8; 40];
    let mut count = 0;
    let point = unsigned.find('.').unwrap_or(unsigned.len());
    let mut lead = 0;
    for byte in unsigned.bytes().filter(|b| *b != b'.') {
        if count == 0 && byte == b'0' {
            lead += 1;
        } else if let Some(place) = digits.get_mut(count) {
            *place = byte;
            count += 1;
        }
    }
    while count > 0 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = &digits[..count];
    let Some((first, rest)) = digits.split_first() else { return out.push(b'0') };
    exponent += point as i32 - lead - 1;
    if exponent < -4 || exponent >= limit {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.unsigned_abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        out.extend_from_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        out.extend(digits.iter().copied().chain(std::iter::repeat(b'0')).take(whole));
        if let Some(fraction) = digits.get(whole..).filter(|f| !f.is_empty()) {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }
}
