//! Dates and times in the ISO 8601 form that PostgreSQL's JSON functions use.
//!
//! Years before 1 are written as PostgreSQL does, `0044-03-15 BC`; years beyond 9999 with all their digits.

use crate::contract::calendar::{self, DAY};

/// Writes a date, in quotes.
#[inline]
pub fn write_date(day: i32, out: &mut Vec<u8>) {
    out.push(b'"');
    let bc = calendar::write_date(i64::from(day), out);
    out.extend_from_slice(if bc { b" BC\"" } else { b"\"" });
}

/// Writes a time of day, in quotes; `24:00:00` is one.
#[inline]
pub fn write_time(micros: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    calendar::write_time(micros.clamp(0, DAY) as u64, out);
    out.push(b'"');
}

#[inline]
fn timestamp(micros: i64, zone: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let bc = calendar::write_date(micros.div_euclid(DAY), out);
    out.push(b'T');
    calendar::write_time(micros.rem_euclid(DAY) as u64, out);
    out.extend_from_slice(zone);
    out.extend_from_slice(if bc { b" BC\"" } else { b"\"" });
}

/// Writes microseconds since 1970 as `2024-01-31T12:34:56.789`, in quotes.
#[inline]
pub fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    timestamp(micros, b"", out);
}

/// Writes microseconds since 1970-01-01 00:00:00 UTC as `2024-01-31T12:34:56.789+00:00`, in quotes.
#[inline]
pub fn write_timestamptz(micros: i64, out: &mut Vec<u8>) {
    timestamp(micros, b"+00:00", out);
}

/// Writes PostgreSQL's text of a timestamp that no array can hold as its JSON functions spell it:
/// `0044-03-15 00:00:00+00 BC` becomes `"0044-03-15T00:00:00+00:00 BC"`; `infinity` stays.
pub(super) fn write_timestamp_text(text: &str, out: &mut Vec<u8>) {
    let Some((date, rest)) = text.split_once(' ') else { return super::write_string(text, out) };
    let (time, era) = rest.split_once(' ').map_or((rest, ""), |(time, _)| (time, " BC"));
    // The offset, if there is one, has its minutes left out when they are none.
    let minutes = match time.find(['+', '-']) {
        Some(at) if !time[at..].contains(':') => ":00",
        _ => "",
    };
    out.push(b'"');
    for part in [date, "T", time, minutes, era] {
        // PostgreSQL's text of a timestamp; escaped all the same, since it came from outside.
        let start = out.len();
        super::write_string(part, out);
        out.pop();
        out.remove(start);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::float::tests::written;

    #[test]
    fn values() {
        for (day, expected) in
            [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (2_932_896, "9999-12-31"), (2_932_897, "10000-01-01")]
        {
            assert_eq!(written(|out| write_date(day, out)), format!("\"{expected}\""));
        }
        assert_eq!(written(|out| write_date(-719_163, out)), "\"0001-12-31 BC\"");
        for (micros, expected) in [(0, "00:00:00"), (45_296_789_000, "12:34:56.789"), (1, "00:00:00.000001"), (86_400_000_000, "24:00:00")]
        {
            assert_eq!(written(|out| write_time(micros, out)), format!("\"{expected}\""));
        }
        assert_eq!(written(|out| write_timestamp(-1, out)), "\"1969-12-31T23:59:59.999999\"");
        assert_eq!(written(|out| write_timestamptz(1_706_704_496_789_000, out)), "\"2024-01-31T12:34:56.789+00:00\"");
        for extreme in [i64::MIN, i64::MAX] {
            written(|out| write_timestamp(extreme, out));
        }
        for extreme in [i32::MIN, i32::MAX] {
            written(|out| write_date(extreme, out));
        }
    }

    #[test]
    fn texts() {
        for (text, expected) in [
            ("infinity", "infinity"),
            ("0044-03-15 00:00:00 BC", "0044-03-15T00:00:00 BC"),
            ("0044-03-15 00:00:00.5+00 BC", "0044-03-15T00:00:00.5+00:00 BC"),
            ("294276-12-31 23:59:59+05:30", "294276-12-31T23:59:59+05:30"),
            ("\" \"", "\\\"T\\\""),
        ] {
            assert_eq!(written(|out| write_timestamp_text(text, out)), format!("\"{expected}\""));
        }
    }
}
