//! Dates and times as PostgreSQL writes them (`DateStyle` ISO, time zone UTC), read and written.
//!
//! ```text
//! date      := year '-' month '-' day [' BC']
//! timestamp := year '-' month '-' day [(' ' | 'T') time [zone]] [' BC']
//! time      := hour ':' minute [':' second ['.' fraction]]
//! zone      := 'Z' | ('+' | '-') hour [':' minute [':' second]]
//! ```
//!
//! Instants are microseconds since 1970 in 128 bits, dates are days, so that everything PostgreSQL can
//! hold has a place; `infinity` and `-infinity` are the bounds.

use crate::contract::calendar;
pub(crate) use crate::contract::calendar::DAY;

/// The place of `-infinity`.
pub(crate) const PAST: i128 = i128::MIN;
/// The place of `infinity`.
pub(crate) const FUTURE: i128 = i128::MAX;

/// What a timestamp's text says of its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Nothing.
    None,
    /// An offset, already taken off.
    Offset,
    /// The text is an infinity: a zone would say nothing.
    Any,
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A run of `least..=most` digits.
    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        if count < least || count > most {
            return None;
        }
        let (run, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(run.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    }

    /// Days since 1970 but for the era, given at the end of the text: year, month, day.
    fn ymd(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.digits(4, 7)?;
        let month = self.eat(b'-').then(|| self.digits(1, 2))??;
        let day = self.eat(b'-').then(|| self.digits(1, 2))??;
        Some((year, month, day))
    }

    /// Microseconds of the day; 24:00:00 and a 60th second are allowed, as in PostgreSQL.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(1, 2)?;
        let minute = self.eat(b':').then(|| self.digits(2, 2))??;
        let second = if self.eat(b':') { self.digits(2, 2)? } else { 0 };
        let mut micros = 0;
        if self.eat(b'.') {
            let count = self.0.len();
            // more than six digits would have to be rounded
            micros = self.digits(1, 6)?;
            micros *= 10_i64.pow(6 - (count - self.0.len()) as u32);
        }
        let total = (hour * 3600 + minute * 60 + second) * 1_000_000 + micros;
        (hour <= 24 && minute <= 59 && second <= 60 && total <= DAY).then_some(total)
    }

    fn zone(&mut self) -> Option<Option<i64>> {
        if self.eat(b'Z') || self.eat(b'z') {
            return Some(Some(0));
        }
        let negative = self.0.first() == Some(&b'-');
        if !self.eat(b'-') && !self.eat(b'+') {
            return Some(None);
        }
        let hour = self.digits(1, 2)?;
        let minute = if self.eat(b':') { self.digits(2, 2)? } else { 0 };
        let second = if self.eat(b':') { self.digits(2, 2)? } else { 0 };
        let total = (hour * 3600 + minute * 60 + second) * 1_000_000;
        (hour <= 15 && minute <= 59 && second <= 59).then_some(Some(if negative { -total } else { total }))
    }

    /// The end of the text, perhaps after an era.
    fn era(&mut self) -> Option<bool> {
        let before = self.0.eq_ignore_ascii_case(b" BC");
        (before || self.0.is_empty()).then_some(before)
    }
}

fn days((year, month, day): (i64, i64, i64), before_christ: bool) -> Option<i64> {
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    if year == 0 {
        return None;
    }
    let year = if before_christ { 1 - year } else { year };
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap(year)),
        _ => return None,
    };
    if day < 1 || day > longest {
        return None;
    }
    Some(calendar::days(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?))
}

fn infinity(text: &[u8]) -> Option<i128> {
    match text {
        t if t.eq_ignore_ascii_case(b"infinity") => Some(FUTURE),
        t if t.eq_ignore_ascii_case(b"-infinity") => Some(PAST),
        _ => None,
    }
}

/// A date's days since 1970.
pub(crate) fn date(text: &[u8]) -> Option<i128> {
    if let Some(bound) = infinity(text) {
        return Some(bound);
    }
    let mut cursor = Cursor(text);
    let ymd = cursor.ymd()?;
    let before = cursor.era()?;
    days(ymd, before).map(i128::from)
}

/// A timestamp's microseconds since 1970, and what it says of its zone.
pub(crate) fn timestamp(text: &[u8]) -> Option<(i128, Zone)> {
    if let Some(bound) = infinity(text) {
        return Some((bound, Zone::Any));
    }
    let mut cursor = Cursor(text);
    let ymd = cursor.ymd()?;
    let mut time = 0;
    let mut offset = None;
    let clock = (cursor.0.first().is_some_and(|b| matches!(b, b' ' | b'T')) && cursor.0.get(1).is_some_and(u8::is_ascii_digit))
        .then(|| &cursor.0[1..]);
    if let Some(rest) = clock {
        cursor.0 = rest;
        time = cursor.time()?;
        offset = cursor.zone()?;
    }
    let before = cursor.era()?;
    let micros = i128::from(days(ymd, before)?) * i128::from(DAY) + i128::from(time) - i128::from(offset.unwrap_or(0));
    Some((micros, if offset.is_some() { Zone::Offset } else { Zone::None }))
}

/// A time's microseconds; 24:00:00 is one more than the last of the day.
pub(crate) fn time(text: &[u8]) -> Option<i64> {
    let mut cursor = Cursor(text);
    let micros = cursor.time()?;
    cursor.0.is_empty().then_some(micros)
}

/// Writes a date of so many days since 1970.
pub(crate) fn write_date(days: i32, out: &mut Vec<u8>) {
    if calendar::write_date(i64::from(days), out) {
        out.extend_from_slice(b" BC");
    }
}

/// Writes a time of so many microseconds.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    calendar::write_time(micros.unsigned_abs(), out);
}

/// Writes a timestamp of so many microseconds since 1970, with `+00` when it has a zone.
pub(crate) fn write_timestamp(micros: i64, zone: bool, out: &mut Vec<u8>) {
    let before = calendar::write_date(micros.div_euclid(DAY), out);
    out.push(b' ');
    write_time(micros.rem_euclid(DAY), out);
    if zone {
        out.extend_from_slice(b"+00");
    }
    if before {
        out.extend_from_slice(b" BC");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in [
            "1970-01-01 00:00:00",
            "0001-01-01 00:00:00",
            "0001-12-31 23:59:59.999999 BC",
            "4713-01-01 00:00:00 BC",
            "2024-02-29 12:00:00.5",
            "294246-12-31 00:00:00",
            "1900-02-28 01:02:03.04",
        ] {
            let (micros, zone) = timestamp(text.as_bytes()).expect(text);
            let mut out = Vec::new();
            write_timestamp(i64::try_from(micros).expect(text), false, &mut out);
            assert_eq!((String::from_utf8(out).expect("ASCII"), zone), (text.to_owned(), Zone::None));
        }
        for (text, expected) in [
            ("1970-01-01 01:00:00+01", Some((0, Zone::Offset))),
            ("1970-01-01T00:00:00Z", Some((0, Zone::Offset))),
            ("1969-12-31 19:30:00-04:30", Some((0, Zone::Offset))),
            ("1970-01-01", Some((0, Zone::None))),
            ("1969-12-31 24:00:00", Some((0, Zone::None))),
            ("infinity", Some((FUTURE, Zone::Any))),
            ("1970-01-01 00:00:00.1234567", None),
            ("1970-02-30", None),
            ("1900-02-29", None),
            ("0000-01-01", None),
            ("1970-01-01 24:00:01", None),
            ("now", None),
            ("1970-01-01 x", None),
            ("", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }
}
