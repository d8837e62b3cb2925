//! `timestamp` and `timestamp with time zone`: ISO text, or microseconds from 2000-01-01.
//!
//! With a time zone the value is UTC whatever offset the text has. Outside the years 1 to 9999, and for the
//! infinities, it is exact text.

use super::fixed::Scalar;
use super::read::{Malformed, Read};
use crate::contract::calendar::{DAY, DAYS, EPOCH, days, take_date, take_offset, take_time, write_date, write_time};
use arrow::datatypes::TimestampMicrosecondType;

/// `timestamp`.
pub(super) struct Timestamp;
/// `timestamp with time zone`.
pub(super) struct TimestampTz;

#[inline]
fn within(micros: i64) -> Read<i64> {
    Read::or_beyond((DAYS.start * DAY..DAYS.end * DAY).contains(&micros).then_some(micros))
}

#[inline]
fn text(bytes: &[u8], zone: bool) -> Read<i64> {
    match micros(bytes, zone) {
        Some(micros) => within(micros),
        None if matches!(bytes, b"infinity" | b"-infinity") => Read::Beyond,
        None => Read::Malformed,
    }
}

#[inline]
fn micros(bytes: &[u8], zone: bool) -> Option<i64> {
    let (year, month, day, rest) = take_date(bytes)?;
    let [b' ', rest @ ..] = rest else { return None };
    let (time, rest) = take_time(rest)?;
    let (offset, rest) = if zone { take_offset(rest)? } else { (0, rest) };
    let year = match rest {
        b"" => year,
        b" BC" => 1 - year,
        _ => return None,
    };
    // PostgreSQL's last years pass 64 bits when counted from 1970: they stay out of range
    Some(days(year, month, day).saturating_mul(DAY).saturating_add(time).saturating_sub(offset * 1_000_000))
}

#[inline]
fn binary(bytes: &[u8]) -> Read<i64> {
    let Ok(micros) = bytes.try_into().map(i64::from_be_bytes) else { return Read::Malformed };
    // the infinities are the ends of the range, beyond as all others outside it
    micros.checked_add(EPOCH * DAY).map_or(Read::Beyond, within)
}

impl Scalar for Timestamp {
    type Arrow = TimestampMicrosecondType;

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<i64> {
        text(bytes, false)
    }

    #[inline]
    fn binary(&self, bytes: &[u8]) -> Read<i64> {
        binary(bytes)
    }
}

impl Scalar for TimestampTz {
    type Arrow = TimestampMicrosecondType;

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<i64> {
        text(bytes, true)
    }

    #[inline]
    fn binary(&self, bytes: &[u8]) -> Read<i64> {
        binary(bytes)
    }
}

/// Writes the text of `timestamp_send`'s bytes, or with `zone` of `timestamptz_send`'s in UTC. `iso` spells it as
/// `to_jsonb` does: `T` between date and time, and minutes in the offset.
pub(super) fn write(bytes: &[u8], zone: bool, iso: bool, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let micros = match bytes.try_into().map(i64::from_be_bytes).map_err(|_| Malformed::Form)? {
        i64::MAX => {
            out.extend_from_slice(b"infinity");
            return Ok(());
        }
        i64::MIN => {
            out.extend_from_slice(b"-infinity");
            return Ok(());
        }
        micros => micros,
    };
    let bc = write_date(micros.div_euclid(DAY) + EPOCH, out);
    out.push(if iso { b'T' } else { b' ' });
    write_time(micros.rem_euclid(DAY).unsigned_abs(), out);
    if zone {
        out.extend_from_slice(if iso { b"+00:00" } else { b"+00" });
    }
    if bc {
        out.extend_from_slice(b" BC");
    }
    Ok(())
}

/// Writes a timestamp's text as `to_jsonb` spells it, without quotes.
pub(super) fn text_to_iso(text: &[u8], zone: bool, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if matches!(text, b"infinity" | b"-infinity") {
        out.extend_from_slice(text);
        return Ok(());
    }
    micros(text, zone).ok_or(Malformed::Form)?;
    let (date, rest) = text.iter().position(|b| *b == b' ').and_then(|at| text.split_at_checked(at)).ok_or(Malformed::Form)?;
    let rest = rest.get(1..).ok_or(Malformed::Form)?;
    let (clock, era) = rest.strip_suffix(b" BC").map_or((rest, b"".as_slice()), |clock| (clock, b" BC"));
    out.extend_from_slice(date);
    out.push(b'T');
    out.extend_from_slice(clock);
    // `+00` has two digits after the sign, `+00:00` a colon
    if zone && clock.iter().rev().position(|b| matches!(b, b'+' | b'-')) == Some(2) {
        out.extend_from_slice(b":00");
    }
    out.extend_from_slice(era);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, value) in [
            ("1970-01-01 00:00:00+00", Read::Is(0)),
            ("1970-01-01 00:00:00.000001+00", Read::Is(1)),
            ("1969-12-31 23:59:59.999999+00", Read::Is(-1)),
            ("1970-01-01 05:30:00+05:30", Read::Is(0)),
            ("1970-01-01 00:19:32.5+00:19:32", Read::Is(500_000)),
            ("1969-12-31 20:29:00-03:31", Read::Is(0)),
            ("0001-01-01 00:00:00+00", Read::Is(-62_135_596_800_000_000)),
            ("0001-01-01 00:00:00+01", Read::Beyond),
            ("0001-12-31 23:00:00-01 BC", Read::Is(-62_135_596_800_000_000)),
            ("10000-01-01 00:00:00+01", Read::Is(253_402_297_200_000_000)),
            ("9999-12-31 23:59:59.999999+00", Read::Is(253_402_300_799_999_999)),
            ("10000-01-01 00:00:00+00", Read::Beyond),
            ("294276-12-31 23:59:59.999999+00", Read::Beyond),
            ("4714-11-24 00:00:00+00 BC", Read::Beyond),
            ("infinity", Read::Beyond),
            ("-infinity", Read::Beyond),
            ("1970-01-01 00:00:00", Read::Malformed),
            ("1970-01-01T00:00:00+00", Read::Malformed),
            ("1970-01-01 00:00:00+00 AD", Read::Malformed),
            ("", Read::Malformed),
        ] {
            assert_eq!(TimestampTz.text(text.as_bytes()), value, "{text}");
        }
        assert_eq!(Timestamp.text(b"1970-01-01 00:00:00"), Read::Is(0));
        assert_eq!(Timestamp.text(b"1970-01-01 00:00:00+00"), Read::Malformed);
    }

    #[test]
    fn iso() {
        for (text, zone, expected) in [
            ("2026-11-23 10:00:00.5", false, "2026-11-23T10:00:00.5"),
            ("2026-11-23 10:00:00+00", true, "2026-11-23T10:00:00+00:00"),
            ("2026-11-23 10:00:00+05:30", true, "2026-11-23T10:00:00+05:30"),
            ("0044-03-15 00:00:00+00 BC", true, "0044-03-15T00:00:00+00:00 BC"),
            ("infinity", true, "infinity"),
        ] {
            let mut out = Vec::new();
            text_to_iso(text.as_bytes(), zone, &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
