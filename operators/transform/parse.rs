//! PostgreSQL's text into an Arrow column: exactly, or said to be impossible.
//!
//! Hot path: no allocation per value; buffers are reused.

use super::decimal::{Class, Number};
use super::temporal::{self, DAY, FUTURE, PAST, Zone};
use crate::contract::ColumnType;
use crate::contract::float::write_float;
use arrow::array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::array::{ArrayRef, Decimal128Array};
use serde::de::IgnoredAny;
use std::cmp::Ordering;
use std::sync::Arc;

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The column holds the value.
    Held,
    /// The type has the value and the Arrow column has not: null was added, and this is its exact
    /// text, or the text given where there is none.
    Exact(Option<&'static str>),
    /// The type has no such value. Nothing was added.
    Refused,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

/// Days of 4714-11-24 BC, before which PostgreSQL has no dates.
const FIRST_DAY: i128 = -2_440_588;
/// Days of 5874898-06-03 (`DATE_END_JULIAN`), from which on it has none.
const END_OF_DATES: i128 = 2_145_042_906;
/// Days of 294277-01-01, from which on it has no timestamps.
const END_OF_TIMESTAMPS: i128 = 106_762_940;

/// Builds one column from texts.
pub(super) struct ColumnBuilder {
    ty: ColumnType,
    values: Values,
    /// A timestamp without zone is one in UTC.
    assume_utc: bool,
    number: Number,
    other: Number,
    scratch: Vec<u8>,
}

impl ColumnBuilder {
    /// A column of `ty` for about `rows` values.
    pub(super) fn new(ty: &ColumnType, rows: usize, assume_utc: bool) -> Self {
        let values = match ty {
            ColumnType::Bool => Values::Bool(BooleanBuilder::with_capacity(rows)),
            ColumnType::Int2 => Values::Int2(Int16Builder::with_capacity(rows)),
            ColumnType::Int4 => Values::Int4(Int32Builder::with_capacity(rows)),
            ColumnType::Int8 | ColumnType::Oid => Values::Int8(Int64Builder::with_capacity(rows)),
            ColumnType::Float4 => Values::Float4(Float32Builder::with_capacity(rows)),
            ColumnType::Float8 => Values::Float8(Float64Builder::with_capacity(rows)),
            ColumnType::Numeric { precision, scale } => Values::Decimal(Decimal128Builder::with_capacity(rows), *precision, *scale),
            ColumnType::Bytea => Values::Bytea(BinaryBuilder::with_capacity(rows, 0)),
            ColumnType::Date => Values::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Time => Values::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            ColumnType::Timestamp | ColumnType::TimestampTz => Values::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
            ColumnType::NumericText
            | ColumnType::Text
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Array(_)
            | ColumnType::Other => Values::Text(StringBuilder::with_capacity(rows, 0)),
        };
        Self { ty: ty.clone(), values, assume_utc, number: Number::default(), other: Number::default(), scratch: Vec::new() }
    }

    /// Adds a null.
    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(b) => b.append_null(),
            Values::Int2(b) => b.append_null(),
            Values::Int4(b) => b.append_null(),
            Values::Int8(b) => b.append_null(),
            Values::Float4(b) => b.append_null(),
            Values::Float8(b) => b.append_null(),
            Values::Decimal(b, ..) => b.append_null(),
            Values::Text(b) => b.append_null(),
            Values::Bytea(b) => b.append_null(),
            Values::Date(b) => b.append_null(),
            Values::Time(b) => b.append_null(),
            Values::Timestamp(b) => b.append_null(),
        }
    }

    /// Adds the value that `text` spells.
    pub(super) fn push(&mut self, text: &[u8]) -> Fit {
        let fit = self.try_push(text).unwrap_or(Fit::Refused);
        if let Fit::Exact(_) = fit {
            self.push_null();
        }
        fit
    }

    fn try_push(&mut self, text: &[u8]) -> Option<Fit> {
        let is_text = matches!(self.ty, ColumnType::Text | ColumnType::Array(_) | ColumnType::Other | ColumnType::Interval);
        let text = if is_text { text } else { text.trim_ascii() };
        match &mut self.values {
            Values::Bool(b) => b.append_value(boolean(text)?),
            Values::Int2(b) => b.append_value(i16::try_from(whole(&mut self.number, text)?).ok()?),
            Values::Int4(b) => b.append_value(i32::try_from(whole(&mut self.number, text)?).ok()?),
            Values::Int8(b) => b.append_value(i64::try_from(whole(&mut self.number, text)?).ok()?),
            Values::Float4(b) => {
                let value: f32 = std::str::from_utf8(text).ok()?.parse().ok()?;
                self.scratch.clear();
                write_float(value, &mut self.scratch);
                same_number(&mut self.number, text, &mut self.other, &self.scratch)?;
                b.append_value(value);
            }
            Values::Float8(b) => {
                let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
                self.scratch.clear();
                write_float(value, &mut self.scratch);
                same_number(&mut self.number, text, &mut self.other, &self.scratch)?;
                b.append_value(value);
            }
            Values::Decimal(b, precision, scale) => {
                let (value, exact) = self.number.read(text).then(|| self.number.view())?.scaled(*scale);
                match self.number.view().class {
                    Class::NaN => return Some(Fit::Exact(Some("NaN"))),
                    Class::Finite if exact && value.unsigned_abs() < 10_u128.checked_pow(u32::from(*precision))? => b.append_value(value),
                    _ => return None,
                }
            }
            Values::Bytea(b) => {
                self.scratch.clear();
                hex(text.strip_prefix(b"\\x")?, &mut self.scratch)?;
                b.append_value(&self.scratch);
            }
            Values::Date(b) => {
                let days = match temporal::date(text) {
                    Some(days) => days,
                    None => {
                        let (micros, zone) = temporal::timestamp(text)?;
                        let fits = micros % i128::from(DAY) == 0 && (zone == Zone::None || self.assume_utc);
                        fits.then_some(micros / i128::from(DAY))?
                    }
                };
                match days {
                    PAST => return Some(Fit::Exact(Some("-infinity"))),
                    FUTURE => return Some(Fit::Exact(Some("infinity"))),
                    _ if (FIRST_DAY..END_OF_DATES).contains(&days) => b.append_value(i32::try_from(days).ok()?),
                    _ => return None,
                }
            }
            Values::Time(b) => match temporal::time(text)? {
                DAY => return Some(Fit::Exact(Some("24:00:00"))),
                micros => b.append_value(micros),
            },
            Values::Timestamp(b) => {
                let (micros, zone) = temporal::timestamp(text)?;
                let wants = if self.ty == ColumnType::TimestampTz { Zone::Offset } else { Zone::None };
                if zone != Zone::Any && zone != wants && !self.assume_utc {
                    return None;
                }
                let range = FIRST_DAY * i128::from(DAY)..END_OF_TIMESTAMPS * i128::from(DAY);
                match micros {
                    PAST => return Some(Fit::Exact(Some("-infinity"))),
                    FUTURE => return Some(Fit::Exact(Some("infinity"))),
                    _ if !range.contains(&micros) => return None,
                    _ => match i64::try_from(micros) {
                        Ok(micros) => b.append_value(micros),
                        Err(_) => return Some(Fit::Exact(None)),
                    },
                }
            }
            Values::Text(b) => {
                let text = std::str::from_utf8(text).ok()?;
                match self.ty {
                    ColumnType::Json | ColumnType::Jsonb => {
                        serde_json::from_str::<IgnoredAny>(text).ok()?;
                        b.append_value(text);
                    }
                    ColumnType::Uuid if text.starts_with("urn") => return None,
                    ColumnType::Uuid => b.append_value(uuid::Uuid::try_parse(text).ok()?.hyphenated().encode_lower(&mut [0; 36])),
                    ColumnType::NumericText => {
                        self.number.read(text.as_bytes()).then_some(())?;
                        self.scratch.clear();
                        self.number.view().write(Some(scale_of(text)?), &mut self.scratch);
                        b.append_value(std::str::from_utf8(&self.scratch).ok()?);
                    }
                    _ => b.append_value(text),
                }
            }
        }
        Some(Fit::Held)
    }

    /// The column.
    pub(super) fn finish(self) -> ArrayRef {
        match self.values {
            Values::Bool(mut b) => Arc::new(b.finish()),
            Values::Int2(mut b) => Arc::new(b.finish()),
            Values::Int4(mut b) => Arc::new(b.finish()),
            Values::Int8(mut b) => Arc::new(b.finish()),
            Values::Float4(mut b) => Arc::new(b.finish()),
            Values::Float8(mut b) => Arc::new(b.finish()),
            Values::Decimal(mut b, precision, scale) => {
                let array: Decimal128Array = b.finish();
                Arc::new(array.with_precision_and_scale(precision, scale as i8).expect("the settings' precision and scale were checked"))
            }
            Values::Text(mut b) => Arc::new(b.finish()),
            Values::Bytea(mut b) => Arc::new(b.finish()),
            Values::Date(mut b) => Arc::new(b.finish()),
            Values::Time(mut b) => Arc::new(b.finish()),
            Values::Timestamp(mut b) => {
                let array = b.finish();
                if self.ty == ColumnType::TimestampTz { Arc::new(array.with_timezone("UTC")) } else { Arc::new(array) }
            }
        }
    }
}

/// A boolean as `boolin` reads it, but for other prefixes of the words.
pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w.as_bytes()));
    if is(&["t", "true", "y", "yes", "on", "1"]) { Some(true) } else { is(&["f", "false", "n", "no", "off", "0"]).then_some(false) }
}

fn whole(number: &mut Number, text: &[u8]) -> Option<i128> {
    number.read(text).then_some(())?;
    let (value, exact) = number.view().scaled(0);
    (exact && number.view().class == Class::Finite).then_some(value)
}

fn same_number(a: &mut Number, text: &[u8], b: &mut Number, other: &[u8]) -> Option<()> {
    (a.read(text) && b.read(other) && a.view().compare(&b.view()) == Ordering::Equal).then_some(())
}

/// Digits after the point that `numeric_in` keeps: those written, moved by the exponent.
fn scale_of(text: &str) -> Option<usize> {
    let (mantissa, exponent) =
        text.split_once(['e', 'E']).filter(|(m, _)| m.ends_with(|c: char| c.is_ascii_digit() || c == '.')).unwrap_or((text, "0"));
    let written = mantissa.split_once('.').map_or(0, |(_, frac)| frac.len() as i64);
    usize::try_from((written - exponent.parse::<i64>().ok()?).max(0)).ok().filter(|scale| *scale <= 16_383)
}

/// Bytes of hexadecimal digits in pairs.
pub(super) fn hex(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    for pair in pairs {
        out.push((value(pair[0])? << 4 | value(pair[1])?) as u8);
    }
    Some(())
}
