//! PostgreSQL's text of a value that came in binary: what the type's output function prints in the ISO date
//! style, the `postgres` interval style and UTC.

use super::read::Malformed;
use super::{array_output, boolean, bytea, date, float, interval, numeric_text, time, timestamp, uuid};
use crate::contract::ColumnType;

/// Writes the text of the send function's bytes.
pub(super) fn output(ty: &ColumnType, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match ty {
        ColumnType::Bool => out.push(if boolean::boolean(bytes, false).ok_or(Malformed::Form)? { b't' } else { b'f' }),
        ColumnType::Int2 => integer(bytes.try_into().map(i16::from_be_bytes), out)?,
        ColumnType::Int4 => integer(bytes.try_into().map(i32::from_be_bytes), out)?,
        ColumnType::Int8 => integer(bytes.try_into().map(i64::from_be_bytes), out)?,
        ColumnType::Oid => integer(bytes.try_into().map(u32::from_be_bytes), out)?,
        ColumnType::Float4 | ColumnType::Float8 => float::write_text(bytes, out)?,
        ColumnType::Numeric { .. } | ColumnType::NumericText => numeric_text::write(bytes, out)?,
        ColumnType::Bytea => bytea::write(bytes, out),
        ColumnType::Date => date::write(bytes, out)?,
        ColumnType::Time => time::write(bytes, out)?,
        ColumnType::TimeTz => time::write_with_zone(bytes, out)?,
        ColumnType::Timestamp => timestamp::write(bytes, false, false, out)?,
        ColumnType::TimestampTz => timestamp::write(bytes, true, false, out)?,
        ColumnType::Interval => interval::write(bytes, out)?,
        ColumnType::Uuid => uuid::write(bytes, out)?,
        ColumnType::Text => text(bytes, out),
        ColumnType::Json => out.extend_from_slice(bytes),
        // a version, 1, and the document
        ColumnType::Jsonb => out.extend_from_slice(bytes.strip_prefix(&[1]).ok_or(Malformed::Form)?),
        ColumnType::Array(element) => array_output::write(element, bytes, out)?,
        ColumnType::Other => return Err(Malformed::NoBinaryForm),
    }
    Ok(())
}

fn integer<I: itoa::Integer, E>(value: Result<I, E>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.extend_from_slice(itoa::Buffer::new().format(value.map_err(|_| Malformed::Form)?).as_bytes());
    Ok(())
}

/// Text kinds have their text as binary form. Only the type `"char"`, one byte of any value, spells a zero byte as
/// nothing and a byte above 127, which alone is not UTF-8, in octal.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes {
        [0] => {}
        [byte @ 128..=255] => out.extend([b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
        _ => out.extend_from_slice(bytes),
    }
}
