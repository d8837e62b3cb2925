//! The proleptic Gregorian calendar and the ISO spellings of its dates and times of day, as PostgreSQL has them.
//!
//! Days and microseconds count from 1970-01-01. Years are astronomical: 0 is 1 BC. Nothing is allocated.

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;
/// Days from 1970-01-01, where Arrow counts from, to 2000-01-01, where PostgreSQL's binary forms do.
pub(crate) const EPOCH: i64 = 10_957;
/// The days of years 1 to 9999: what every reader of a date takes.
pub(crate) const DAYS: std::ops::Range<i64> = days(1, 1, 1)..days(10_000, 1, 1);

/// The day's number.
#[inline]
pub(crate) const fn days(year: i64, month: u32, day: u32) -> i64 {
    // years from March, so that the leap day is the last; 400-year eras of 146,097 days
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = (month as i64 + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day as i64 - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The year, month and day of a day's number.
pub(crate) const fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + (month <= 2) as i64, month as u32, day as u32)
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// The numbers of two digits that start at each byte of `text`, which must be as `shape`: a digit where that has `0`, else
/// the same. What starts at or before a separator is of no use. One word: no loop and no branch a digit.
#[inline]
const fn pairs(text: [u8; 8], shape: [u8; 8]) -> Option<[u8; 8]> {
    // Added to a value, it reaches the highest bit when a digit is above nine, or a separator not zero.
    let mut room = [0x76; 8];
    let mut byte = 0;
    while byte < 8 {
        if shape[byte] != b'0' {
            room[byte] = 0x7f;
        }
        byte += 1;
    }
    let values = u64::from_le_bytes(text) ^ u64::from_le_bytes(shape);
    // A carry out of a byte needs its highest bit, which is refused as well.
    if (values | values.wrapping_add(u64::from_le_bytes(room))) & (0x80 * ONES) != 0 {
        return None;
    }
    Some((values * 10 + (values >> 8)).to_le_bytes())
}

/// A date's year as written, month and day, and what follows: `2026-11-23…`.
#[inline]
pub(crate) fn take_date(text: &[u8]) -> Option<(i64, u32, u32, &[u8])> {
    let usual = text.split_first_chunk::<8>().and_then(|(date, rest)| Some((pairs(*date, *b"0000-00-")?, rest)));
    let (year, month, day, rest) = match usual {
        Some(([century, _, year, _, _, month, ..], [g, h, rest @ ..])) => {
            (i64::from(century) * 100 + i64::from(year), month.into(), two(*g, *h)?, rest)
        }
        _ => {
            let dash = text.iter().position(|b| *b == b'-').filter(|at| (5..=7).contains(at))?;
            let (year, rest) = text.split_at_checked(dash)?;
            let [b'-', e, f, b'-', g, h, rest @ ..] = rest else { return None };
            (number(year)?, two(*e, *f)?, two(*g, *h)?, rest)
        }
    };
    // PostgreSQL's calendar has no year 0
    (year > 0 && (1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day, rest))
}

/// A time of day in microseconds, and what follows: `13:04:05.25…`.
#[inline]
pub(crate) fn take_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = text.split_first_chunk::<8>()?;
    let [hour, _, _, minute, _, _, second, _] = pairs(*time, *b"00:00:00")?.map(u32::from);
    if hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let (mut micros, mut rest) = (0, rest);
    // most have all six digits
    if let [b'.', g, h, i, j, k, l, after @ ..] = rest
        && let (Some(tens), Some(cents), Some(units)) = (two(*g, *h), two(*i, *j), two(*k, *l))
        && !matches!(after, [b'0'..=b'9', ..])
    {
        micros = tens * 10_000 + cents * 100 + units;
        rest = after;
    } else if let [b'.', fraction @ ..] = rest {
        let mut unit = 100_000;
        rest = fraction;
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            if unit == 0 {
                return None;
            }
            micros += u32::from(digit - b'0') * unit;
            unit /= 10;
            rest = after;
        }
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    Some((seconds * 1_000_000 + i64::from(micros), rest))
}

/// An offset from UTC in seconds east, and what follows: `+02`, `-03:30`, `+00:19:32`.
#[inline]
pub(crate) fn take_offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let [sign @ (b'+' | b'-'), a, b, rest @ ..] = text else { return None };
    let (mut seconds, mut rest) = (i64::from(two(*a, *b)?) * 3600, rest);
    for unit in [60, 1] {
        if let [b':', c, d, after @ ..] = rest {
            seconds += i64::from(two(*c, *d)?) * unit;
            rest = after;
        }
    }
    Some((if *sign == b'-' { -seconds } else { seconds }, rest))
}

const fn digits(value: u64) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

/// Two digits or more.
#[inline]
fn write_two(value: u64, out: &mut Vec<u8>) {
    if value < 100 {
        out.extend_from_slice(&digits(value));
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Writes a date without its era; gives whether ` BC` must end the text.
#[inline]
pub(crate) fn write_date(day: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil(day);
    let bc = year <= 0;
    let year = if bc { 1 - year } else { year }.unsigned_abs();
    write_two(year / 100, out);
    let ([y, z], [m, n], [d, e]) = (digits(year % 100), digits(month.into()), digits(day.into()));
    out.extend_from_slice(&[y, z, b'-', m, n, b'-', d, e]);
    bc
}

/// Writes `HH:MM:SS` and the microseconds that are not zero, without trailing zeros. Hours may be any number.
#[inline]
pub(crate) fn write_time(micros: u64, out: &mut Vec<u8>) {
    write_two(micros / 3_600_000_000, out);
    let ([m, n], [s, t]) = (digits(micros / 60_000_000 % 60), digits(micros / 1_000_000 % 60));
    out.extend_from_slice(&[b':', m, n, b':', s, t]);
    let fraction = micros % 1_000_000;
    if fraction > 0 {
        let ([a, b], [c, d], [e, f]) = (digits(fraction / 10_000), digits(fraction / 100 % 100), digits(fraction % 100));
        let text = [b'.', a, b, c, d, e, f];
        let zeros = text.iter().rev().take_while(|digit| **digit == b'0').count();
        out.extend_from_slice(&text[..text.len() - zeros]);
    }
}

/// Writes an offset from UTC as PostgreSQL does: minutes and seconds when they are not zero.
pub(crate) fn write_offset(east: i64, out: &mut Vec<u8>) {
    out.push(if east < 0 { b'-' } else { b'+' });
    let seconds = east.unsigned_abs();
    write_two(seconds / 3600, out);
    if !seconds.is_multiple_of(3600) {
        out.push(b':');
        write_two(seconds / 60 % 60, out);
        if !seconds.is_multiple_of(60) {
            out.push(b':');
            write_two(seconds % 60, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_back() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 1, 1), EPOCH);
        assert_eq!(DAYS, -719_162..2_932_897);
        for day in (-2_500_000..110_000_000).step_by(997) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }

    #[test]
    fn pairs_of_a_shape() {
        for at in 0..8 {
            for byte in 0..=255_u8 {
                let mut text = *b"23:59:07";
                text[at] = byte;
                let fits = if matches!(at, 2 | 5) { byte == b':' } else { byte.is_ascii_digit() };
                let read = pairs(text, *b"00:00:00");
                assert_eq!(read.is_some(), fits, "{text:?}");
                let expected = fits.then(|| [0, 3, 6].map(|at| two(text[at], text[at + 1]).unwrap()));
                assert_eq!(read.map(|read| [0, 3, 6].map(|at| u32::from(read[at]))), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn forms_that_are_not() {
        for text in ["", "2026-1-1", "2026-13-01", "2026-00-01", "2026-01-32", "0000-01-01", "23/11/2026", "99999999-01-01", "2026-11-2x"] {
            assert_eq!(take_date(text.as_bytes()), None, "{text}");
        }
        for text in ["", "1:00:00", "25:00:00", "10:60:00", "10:00:61", "10:00:00.1234567", "10-00-00"] {
            assert_eq!(take_time(text.as_bytes()), None, "{text}");
        }
        for text in ["", "00", "+1", "+x0"] {
            assert_eq!(take_offset(text.as_bytes()), None, "{text}");
        }
    }
}
