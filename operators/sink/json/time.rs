//! Dates and times in the ISO 8601 form that PostgreSQL's JSON functions use.
//!
//! Years before 1 are written as PostgreSQL does, `0044-03-15 BC`; years beyond 9999 with all their digits.

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Two decimal digits of a value below 100.
#[inline]
fn two(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

/// The proleptic Gregorian date of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date
/// algorithms": eras of 400 years that begin on 1 March).
#[inline]
fn civil(day: i64) -> (i64, u64, u64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u64, date as u64)
}

/// Writes `YYYY-MM-DD`; says whether ` BC` has to follow.
#[inline]
fn date(day: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, date) = civil(day);
    let bc = year <= 0;
    let year = if bc { (1 - year) as u64 } else { year as u64 };
    if year >= 10_000 {
        out.extend_from_slice(itoa::Buffer::new().format(year / 100).as_bytes());
    } else {
        two(year / 100, out);
    }
    two(year % 100, out);
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(date, out);
    bc
}

/// Writes `HH:MM:SS` and the fraction without its trailing zeros.
#[inline]
fn time(micros: u64, out: &mut Vec<u8>) {
    let seconds = micros / SECOND as u64;
    two(seconds / 3_600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    let mut fraction = micros % SECOND as u64;
    if fraction > 0 {
        out.push(b'.');
        let mut unit = 100_000;
        while fraction > 0 {
            out.push(b'0' + (fraction / unit) as u8);
            fraction %= unit;
            unit /= 10;
        }
    }
}

/// Writes a date, in quotes.
#[inline]
pub fn write_date(day: i32, out: &mut Vec<u8>) {
    out.push(b'"');
    let bc = date(i64::from(day), out);
    out.extend_from_slice(if bc { b" BC\"" } else { b"\"" });
}

/// Writes a time of day, in quotes; `24:00:00` is one.
#[inline]
pub fn write_time(micros: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    time(micros.clamp(0, DAY) as u64, out);
    out.push(b'"');
}

#[inline]
fn timestamp(micros: i64, zone: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let bc = date(micros.div_euclid(DAY), out);
    out.push(b'T');
    time(micros.rem_euclid(DAY) as u64, out);
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

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("times are ASCII")
    }

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
