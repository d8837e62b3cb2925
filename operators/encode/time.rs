//! `time`: text, or microseconds of the day; `24:00:00` is exact text. And `time with time zone`, which is text:
//! from binary, microseconds and the zone's seconds west.

use super::fixed::Scalar;
use super::read::{Malformed, Read};
use crate::contract::calendar::{DAY, take_time, write_offset, write_time};
use crate::decode::Cursor;
use arrow::datatypes::Time64MicrosecondType;

/// `time`.
pub(super) struct Time;

impl Scalar for Time {
    type Arrow = Time64MicrosecondType;

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<i64> {
        match take_time(bytes) {
            Some((micros @ ..DAY, b"")) => Read::Is(micros),
            Some((DAY, b"")) => Read::Beyond,
            _ => Read::Malformed,
        }
    }

    #[inline]
    fn binary(&self, bytes: &[u8]) -> Read<i64> {
        match bytes.try_into().map(i64::from_be_bytes) {
            Ok(micros @ 0..DAY) => Read::Is(micros),
            Ok(DAY) => Read::Beyond,
            _ => Read::Malformed,
        }
    }
}

/// Writes the text of `time_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    write_micros(bytes.try_into().map(i64::from_be_bytes).map_err(|_| Malformed::Form)?, out)
}

/// Writes the text of `timetz_send`'s bytes.
pub(super) fn write_with_zone(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let (micros, west) = (cursor.i64()?, cursor.i32()?);
    cursor.finish()?;
    write_micros(micros, out)?;
    write_offset(-i64::from(west), out);
    Ok(())
}

fn write_micros(micros: i64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    write_time(u64::try_from(micros).ok().filter(|m| *m <= DAY as u64).ok_or(Malformed::Form)?, out);
    Ok(())
}
