//! Decimal numbers as PostgreSQL's `numeric` has them: exact, of any length, with NaN and infinities.
//!
//! Hot path: viewing and comparing allocate nothing.

use std::cmp::Ordering;

/// Digits that `numeric` can hold before the point (PostgreSQL manual, "Arbitrary Precision Numbers").
const MOST_DIGITS: i64 = 131_072;
/// Digits that `numeric` can hold after the point.
const MOST_SCALE: i64 = 16_383;

/// The largest exponent that `numeric_in` looks at, either way.
const MOST_EXPONENT: u64 = i32::MAX as u64 / 2;

/// The order of PostgreSQL: infinities outside the numbers, NaN above everything and equal to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// `-Infinity`.
    Lowest,
    /// A number.
    Finite,
    /// `Infinity`.
    Highest,
    /// `NaN`.
    NaN,
}

/// A number in its digits: no leading zeros in `int`, no trailing zeros in `frac`, zero not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal<'a> {
    pub(crate) class: Class,
    pub(crate) negative: bool,
    pub(crate) int: &'a [u8],
    pub(crate) frac: &'a [u8],
}

/// The word for a special value, in any case, as `numeric_in` reads it.
fn special(text: &[u8]) -> Option<Class> {
    let (negative, word) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let infinite = word.eq_ignore_ascii_case(b"infinity") || word.eq_ignore_ascii_case(b"inf");
    match (negative, infinite) {
        (true, true) => Some(Class::Lowest),
        (false, true) => Some(Class::Highest),
        _ => text.eq_ignore_ascii_case(b"nan").then_some(Class::NaN),
    }
}

impl<'a> Decimal<'a> {
    const fn special(class: Class) -> Self {
        Self { class, negative: false, int: &[], frac: &[] }
    }

    /// Views the text of a number without exponent: what `numeric_out` prints.
    pub(crate) fn view(text: &'a [u8]) -> Option<Self> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let point = digits.iter().position(|b| *b == b'.');
        let (int, frac) = match point {
            Some(at) => (digits.get(..at)?, digits.get(at + 1..)?),
            None => (digits, &digits[..0]),
        };
        if int.len() + frac.len() == 0 || !int.iter().chain(frac).all(u8::is_ascii_digit) {
            return special(text).map(Self::special);
        }
        Some(Self::trimmed(negative, int, frac))
    }

    fn trimmed(negative: bool, int: &'a [u8], frac: &'a [u8]) -> Self {
        let lead = int.iter().take_while(|b| **b == b'0').count();
        let tail = frac.iter().rev().take_while(|b| **b == b'0').count();
        let (int, frac) = (&int[lead..], &frac[..frac.len() - tail]);
        Self { class: Class::Finite, negative: negative && !(int.is_empty() && frac.is_empty()), int, frac }
    }

    /// Compares as PostgreSQL does.
    pub(crate) fn compare(&self, other: &Decimal<'_>) -> Ordering {
        let magnitude =
            |a: &Self, b: &Decimal<'_>| a.int.len().cmp(&b.int.len()).then_with(|| a.int.cmp(b.int)).then_with(|| a.frac.cmp(b.frac));
        self.class.cmp(&other.class).then_with(|| match (self.negative, other.negative) {
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(self, other).reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        })
    }

    /// The number times `10^scale`, rounded down, and whether that is exact. Beyond 128 bits it is the
    /// nearest bound, not exact; specials are the bounds themselves, so that the order holds.
    pub(crate) fn scaled(&self, scale: u8) -> (i128, bool) {
        match self.class {
            Class::Lowest => return (i128::MIN, true),
            Class::Highest => return (i128::MAX - 1, true),
            Class::NaN => return (i128::MAX, true),
            Class::Finite => {}
        }
        let scale = usize::from(scale);
        let mut magnitude = Some(0_i128);
        let zeros = std::iter::repeat(&b'0');
        for digit in self.int.iter().chain(self.frac.iter().chain(zeros).take(scale)) {
            magnitude = magnitude.and_then(|m| m.checked_mul(10)?.checked_add(i128::from(digit - b'0')));
        }
        let exact = self.frac.len() <= scale;
        match (magnitude.filter(|m| *m < i128::MAX - 2), self.negative) {
            (Some(m), false) => (m, exact),
            (Some(m), true) => (-m - i128::from(!exact), exact),
            (None, false) => (i128::MAX - 2, false),
            (None, true) => (i128::MIN + 1, false),
        }
    }

    /// Writes it as `numeric_out` does with `scale` digits after the point, or as many as it has.
    pub(crate) fn write(&self, scale: Option<usize>, out: &mut Vec<u8>) {
        match self.class {
            Class::Lowest => return out.extend_from_slice(b"-Infinity"),
            Class::Highest => return out.extend_from_slice(b"Infinity"),
            Class::NaN => return out.extend_from_slice(b"NaN"),
            Class::Finite => {}
        }
        if self.negative {
            out.push(b'-');
        }
        out.extend_from_slice(if self.int.is_empty() { b"0" } else { self.int });
        let scale = scale.unwrap_or(self.frac.len());
        if scale > 0 {
            out.push(b'.');
            out.extend(self.frac.iter().copied().chain(std::iter::repeat(b'0')).take(scale));
        }
    }
}

/// A number that owns its digits: a literal, or a text with an exponent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Number {
    class: Option<Class>,
    negative: bool,
    int: Vec<u8>,
    frac: Vec<u8>,
}

impl Number {
    /// Reads a number with or without exponent, as `numeric_in` does but for spaces.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut number = Self::default();
        number.read(text).then_some(number)
    }

    /// As [`Number::parse`], into buffers that are there already. False: the text is no number, or
    /// longer than `numeric` can hold.
    pub(crate) fn read(&mut self, text: &[u8]) -> bool {
        self.read_checked(text).is_some()
    }

    fn read_checked(&mut self, text: &[u8]) -> Option<()> {
        self.int.clear();
        self.frac.clear();
        let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) if text.first().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')) => {
                let exponent: i64 = std::str::from_utf8(text.get(at + 1..)?).ok()?.parse().ok()?;
                (text.get(..at)?, exponent)
            }
            _ => (text, 0),
        };
        if exponent.unsigned_abs() > MOST_EXPONENT {
            return None;
        }
        let view = Decimal::view(mantissa)?;
        self.class = Some(view.class);
        self.negative = view.negative;
        if view.int.is_empty() && view.frac.is_empty() {
            return Some(());
        }
        let point = view.int.len() as i64 + exponent;
        let digits = (view.int.len() + view.frac.len()) as i64;
        if exponent.unsigned_abs() > 1 << 20 || point > MOST_DIGITS || digits.checked_sub(point)? > MOST_SCALE {
            return None;
        }
        let all = view.int.iter().chain(view.frac).copied();
        if point <= 0 {
            self.frac.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
            self.frac.extend(all);
        } else {
            let point = point as usize;
            self.int.extend(all.clone().chain(std::iter::repeat(b'0')).take(point));
            self.frac.extend(all.skip(point));
        }
        Some(())
    }

    /// Its digits.
    pub(crate) fn view(&self) -> Decimal<'_> {
        match self.class {
            Some(Class::Finite) | None => Decimal::trimmed(self.negative, &self.int, &self.frac),
            Some(class) => Decimal::special(class),
        }
    }

    /// Turns its sign.
    pub(crate) fn negated(mut self) -> Self {
        self.negative = !self.negative;
        self
    }

    /// The nearest `f64`; `None` when it is too large or too near zero for one, as PostgreSQL refuses.
    pub(crate) fn to_f64(&self) -> Option<f64> {
        let view = self.view();
        match view.class {
            Class::Lowest => Some(f64::NEG_INFINITY),
            Class::Highest => Some(f64::INFINITY),
            Class::NaN => Some(f64::NAN),
            Class::Finite => self.text().parse().ok().filter(|f: &f64| f.is_finite() && (*f != 0.0 || self.is_zero())),
        }
    }

    /// The nearest `f32`; `None` as for [`Number::to_f64`].
    pub(crate) fn to_f32(&self) -> Option<f32> {
        match self.view().class {
            Class::Finite => self.text().parse().ok().filter(|f: &f32| f.is_finite() && (*f != 0.0 || self.is_zero())),
            _ => self.to_f64().map(|f| f as f32),
        }
    }

    fn is_zero(&self) -> bool {
        self.view().int.is_empty() && self.view().frac.is_empty()
    }

    fn text(&self) -> String {
        let mut text = Vec::new();
        self.view().write(None, &mut text);
        String::from_utf8(text).expect("digits are ASCII")
    }
}

/// Compares `a / 10^scale_a` with `b / 10^scale_b` exactly; specials are those of [`Decimal::scaled`].
pub(crate) fn compare_scaled(a: i128, scale_a: u8, b: i128, scale_b: u8) -> Ordering {
    let is_special = |key: i128| key == i128::MIN || key >= i128::MAX - 1;
    if is_special(a) || is_special(b) {
        return a.cmp(&b);
    }
    let raise = |value: i128, by: u8| 10_i128.checked_pow(u32::from(by)).and_then(|factor| value.checked_mul(factor));
    // a value that overflows when raised is farther from zero than any value of 128 bits
    if scale_a <= scale_b {
        raise(a, scale_b - scale_a).map_or_else(|| a.cmp(&0), |a| a.cmp(&b))
    } else {
        raise(b, scale_a - scale_b).map_or_else(|| 0.cmp(&b), |b| a.cmp(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_scale() {
        let order =
            ["-Infinity", "-1e30", "-100.5", "-1.01", "-1", "-0.5", "0", "0.0001", "0.5", "1", "1.01", "99", "1e40", "Infinity", "NaN"];
        let numbers: Vec<Number> = order.iter().map(|t| Number::parse(t.as_bytes()).expect(t)).collect();
        for (i, a) in numbers.iter().enumerate() {
            for (j, b) in numbers.iter().enumerate() {
                assert_eq!(a.view().compare(&b.view()), i.cmp(&j), "{} {}", order[i], order[j]);
            }
        }
        for (text, scale, expected) in [
            ("1.5", 2, (150, true)),
            ("1.555", 2, (155, false)),
            ("-1.555", 2, (-156, false)),
            ("-0.00", 0, (0, true)),
            ("12e-1", 1, (12, true)),
            ("1e39", 0, (i128::MAX - 2, false)),
            ("-1e39", 0, (i128::MIN + 1, false)),
            ("nan", 3, (i128::MAX, true)),
            (".5", 1, (5, true)),
            ("5.", 1, (50, true)),
        ] {
            assert_eq!(Number::parse(text.as_bytes()).expect(text).view().scaled(scale), expected, "{text}");
        }
        for text in [
            "",
            ".",
            "-",
            "e5",
            "1e",
            "1e99999999999999999999",
            "1e9223372036854775807",
            "1e-9223372036854775808",
            "1e200000",
            "0x1",
            "1_0",
            "1.2.3",
            "--1",
        ] {
            assert!(Number::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(compare_scaled(i128::MAX - 2, 0, 1, 30), Ordering::Greater);
        assert_eq!(compare_scaled(1, 30, i128::MIN + 1, 0), Ordering::Greater);
        assert_eq!(compare_scaled(i128::MAX - 1, 2, i128::MAX, 4), Ordering::Less);
        assert_eq!(compare_scaled(15, 1, 150, 2), Ordering::Equal);
    }
}
