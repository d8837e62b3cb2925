//! An array's elements as JSON, spelled as `to_jsonb` spells them.
//!
//! Numbers and booleans bare, nested documents spliced in, nested arrays (of domains over arrays) as arrays, all else
//! strings. Numbers that a reader through doubles would round, NaN and the infinities are strings; a float is a
//! double already and stays a number.

use super::read::Malformed;
use super::{array_binary, array_text, boolean, float, integer, json, numeric_text, output, timestamp};
use crate::contract::{ColumnType, double_holds};

/// How an array's elements are read and spelled.
pub(super) struct Element {
    ty: ColumnType,
    nested: Option<Box<Element>>,
    delimiter: u8,
    string: bool,
}

impl Element {
    /// Elements of a type, which array texts put `delimiter` between.
    pub(super) fn new(ty: &ColumnType, delimiter: u8) -> Self {
        let nested = if let ColumnType::Array(inner) = ty { Some(Box::new(Self::new(inner, delimiter))) } else { None };
        let string = matches!(ty, ColumnType::Text | ColumnType::Uuid | ColumnType::Date | ColumnType::Other);
        Self { ty: ty.clone(), nested, delimiter, string }
    }

    /// What stands between two elements in text form.
    #[inline]
    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Whether text without anything to escape is the element's JSON once it has quotes.
    #[inline]
    pub(super) fn is_string(&self) -> bool {
        self.string
    }

    /// Whether its send bytes are its text.
    #[inline]
    pub(super) fn is_text(&self) -> bool {
        self.ty == ColumnType::Text
    }

    /// Writes an element's output text as JSON; gives whether the JSON says less: of an array with lower bounds, or of a
    /// document that is null.
    pub(super) fn text(&self, text: &[u8], out: &mut Vec<u8>) -> Result<bool, Malformed> {
        match &self.ty {
            ColumnType::Bool => out.extend_from_slice(truth(boolean::boolean(text, true))?),
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => {
                integer::parse(text).ok_or(Malformed::Form)?;
                // JSON has neither leading zeros nor a plus, and PostgreSQL writes none
                if matches!(text, [b'+', ..] | [b'0', _, ..] | [b'-', b'0', _, ..]) {
                    return Err(Malformed::Form);
                }
                number(text, out);
            }
            ColumnType::Float4 | ColumnType::Float8 => float::text_to_json(text, out)?,
            ColumnType::Numeric { .. } | ColumnType::NumericText => numeric_text::text_to_json(text, out)?,
            ColumnType::Json | ColumnType::Jsonb => return Ok(document(text, out)),
            ColumnType::Timestamp | ColumnType::TimestampTz => {
                out.push(b'"');
                timestamp::text_to_iso(text, self.ty == ColumnType::TimestampTz, out)?;
                out.push(b'"');
            }
            ColumnType::Array(_) => {
                let nested = self.nested.as_deref().ok_or(Malformed::Form)?;
                return array_text::write(nested, text, &mut Vec::new(), out);
            }
            ColumnType::Oid
            | ColumnType::Text
            | ColumnType::Bytea
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Other => json::string(text, out),
        }
        Ok(false)
    }

    /// Writes an element's send bytes as JSON; gives whether the JSON says less, as [`Element::text`].
    pub(super) fn binary(&self, bytes: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        match &self.ty {
            ColumnType::Bool => out.extend_from_slice(truth(boolean::boolean(bytes, false))?),
            ColumnType::Float4 | ColumnType::Float8 => float::write_json(bytes, out)?,
            ColumnType::Text if bytes.len() != 1 => json::string(bytes, out),
            ColumnType::Json => return Ok(document(bytes, out)),
            ColumnType::Timestamp | ColumnType::TimestampTz => {
                out.push(b'"');
                timestamp::write(bytes, self.ty == ColumnType::TimestampTz, true, out)?;
                out.push(b'"');
            }
            ColumnType::Array(_) => {
                let nested = self.nested.as_deref().ok_or(Malformed::Form)?;
                return array_binary::write(nested, bytes, scratch, out);
            }
            _ => {
                scratch.clear();
                output::output(&self.ty, bytes, scratch)?;
                return self.text(scratch, out);
            }
        }
        Ok(false)
    }
}

fn truth(value: Option<bool>) -> Result<&'static [u8], Malformed> {
    Ok(if value.ok_or(Malformed::Form)? { b"true" } else { b"false" })
}

fn number(digits: &[u8], out: &mut Vec<u8>) {
    if double_holds(digits) {
        out.extend_from_slice(digits);
    } else {
        out.push(b'"');
        out.extend_from_slice(digits);
        out.push(b'"');
    }
}

/// Splices a document in; gives whether it is null, as an element that is none would be.
fn document(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(bytes);
    json::to_one_line(out.get_mut(start..).unwrap_or_default());
    json::is_null(bytes)
}
