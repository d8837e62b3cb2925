//! `date`: ISO text, or days from 2000-01-01. Outside the years 1 to 9999 it is exact text.

use super::fixed::Scalar;
use super::read::{Malformed, Read};
use crate::contract::calendar::{DAYS, EPOCH, days, take_date, write_date};
use arrow::datatypes::Date32Type;

/// `date`.
pub(super) struct Date;

impl Scalar for Date {
    type Arrow = Date32Type;

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<i32> {
        match take_date(bytes) {
            Some((year @ ..=9999, month, day, b"")) => Read::Is(days(year, month, day) as i32),
            Some((_, _, _, b"" | b" BC")) => Read::Beyond,
            None if matches!(bytes, b"infinity" | b"-infinity") => Read::Beyond,
            _ => Read::Malformed,
        }
    }

    #[inline]
    fn binary(&self, bytes: &[u8]) -> Read<i32> {
        let Ok(day) = bytes.try_into().map(i32::from_be_bytes) else { return Read::Malformed };
        let day = i64::from(day) + EPOCH;
        Read::or_beyond(DAYS.contains(&day).then_some(day as i32))
    }
}

/// Writes the text of `date_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match bytes.try_into().map(i32::from_be_bytes).map_err(|_| Malformed::Form)? {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        day => {
            if write_date(i64::from(day) + EPOCH, out) {
                out.extend_from_slice(b" BC");
            }
        }
    }
    Ok(())
}
