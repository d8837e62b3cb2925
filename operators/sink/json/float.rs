//! Floats: in positional notation as `to_jsonb` has them, or in their shortest.
//!
//! A float's shortest text reads back as the same float, so that it never needs to be a string.

use super::number::{place_point, quoted};

/// Decimal digits of a float: `0.d₁d₂d₃… × 10^point`, the last of them not a zero.
struct Digits {
    digits: [u8; 32],
    count: usize,
    point: i64,
}

impl Digits {
    /// Reads `1234.5`, `1e+20`, `1.5e-7`; no sign.
    #[inline]
    fn read(text: &[u8]) -> Self {
        let (mantissa, exponent) = match memchr::memchr(b'e', text) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let mut read = Self { digits: [0; 32], count: 0, point: exponent };
        let mut whole = true;
        for byte in mantissa {
            if *byte == b'.' {
                whole = false;
                continue;
            }
            read.point += i64::from(whole);
            if read.count == 0 && *byte == b'0' {
                read.point -= 1;
            } else if let Some(digit) = read.digits.get_mut(read.count) {
                *digit = *byte;
                read.count += 1;
            }
        }
        while read.count > 0 && read.digits[read.count - 1] == b'0' {
            read.count -= 1;
        }
        read
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    /// Whether the decimal lies exactly between `value` and a neighbour of its type.
    ///
    /// With `value = m × 2^q` the middles are `(2m ± 1) × 2^(q-1)`, and below a power of two
    /// `(4m - 1) × 2^(q-2)`; the decimal is `d × 5^e × 2^e`. Odd parts and powers of two are compared.
    fn is_between<F: Float>(&self, value: F) -> bool {
        let Ok(exponent) = u32::try_from(self.point - self.count as i64) else { return false };
        let digits = self.digits().iter().fold(0_u64, |d, digit| d.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        let twos = digits.trailing_zeros();
        let Some(odd) = 5_u64.checked_pow(exponent).and_then(|fives| (digits >> twos).checked_mul(fives)) else { return false };
        let (m, q) = value.parts();
        let power = i64::from(twos) + i64::from(exponent);
        power == q - 1 && (odd == 2 * m + 1 || odd == 2 * m - 1) || power == q - 2 && odd == 4 * m - 1 && m.is_power_of_two()
    }
}

/// Writes a float as `to_jsonb` does, which takes its shortest text for a numeric: positional notation,
/// `NaN` and infinities as strings, no negative zero.
#[inline]
pub(super) fn write_float<F: Float>(value: F, out: &mut Vec<u8>) {
    let Some(negative) = value.sign() else { return write_special(value, "Infinity", out) };
    if negative {
        out.push(b'-');
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let mut read = Digits::read(text.strip_prefix(b"-").unwrap_or(text));
    if value.has_even_neighbours() && read.is_between(value) {
        read = next_shortest(value, read.count);
    }
    if read.count == 0 {
        out.push(b'0');
    } else {
        place_point(read.digits(), read.point, out);
    }
}

/// The text PostgreSQL has for a float whose shortest text of all, of `count` digits, is the middle between
/// it and a neighbour: that one reads back only because readers round to even, and PostgreSQL does not
/// count on it.
#[cold]
fn next_shortest<F: Float>(value: F, count: usize) -> Digits {
    use std::io::Write;
    let mut longer = count;
    loop {
        let mut text = [0_u8; 64];
        let mut rest = &mut text[..];
        // A float of 17 digits and an exponent fits.
        let _ = write!(rest, "{value:.longer$e}");
        let left = rest.len();
        let text = &text[..text.len() - left];
        let read = Digits::read(text.strip_prefix(b"-").unwrap_or(text));
        if longer >= 17 || !read.is_between(value) {
            return read;
        }
        longer += 1;
    }
}

fn parse_exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = digits.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    if negative { -value } else { value }
}

/// Writes a float in its shortest notation; `NaN`, `inf` and `-inf` as strings.
#[inline]
pub(super) fn write_short_float<F: Float>(value: F, out: &mut Vec<u8>) {
    if value.sign().is_none() {
        return write_special(value, "inf", out);
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

#[cold]
fn write_special<F: Float>(value: F, infinity: &str, out: &mut Vec<u8>) {
    match value.infinite() {
        None => quoted(b"NaN", out),
        Some(negative) => {
            out.extend_from_slice(if negative { b"\"-" } else { b"\"" });
            out.extend_from_slice(infinity.as_bytes());
            out.push(b'"');
        }
    }
}

/// `real` and `double precision`.
pub(super) trait Float: zmij::Float + Copy + std::fmt::LowerExp {
    /// Whether a finite value shows a minus; none for others.
    fn sign(self) -> Option<bool>;
    /// Whether an infinity is negative; none for `NaN`.
    fn infinite(self) -> Option<bool>;
    /// Whether it is so great that neighbours are at least 2 apart: only there can the middle between two
    /// have fewer digits than either.
    fn has_even_neighbours(self) -> bool;
    /// `m` and `q` of a normal number `±m × 2^q`.
    fn parts(self) -> (u64, i64);
}

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            fn sign(self) -> Option<bool> {
                self.is_finite().then_some(self < 0.0)
            }
            fn infinite(self) -> Option<bool> {
                self.is_infinite().then_some(self < 0.0)
            }
            fn has_even_neighbours(self) -> bool {
                self.abs() >= 2.0 / <$type>::EPSILON
            }
            fn parts(self) -> (u64, i64) {
                const STORED: u32 = <$type>::MANTISSA_DIGITS - 1;
                let bits = u64::from(self.abs().to_bits());
                let exponent = (bits >> STORED) as i64 - i64::from(<$type>::MAX_EXP - 1 + STORED as i32);
                (bits & ((1 << STORED) - 1) | 1 << STORED, exponent)
            }
        }
    };
}
float!(f32);
float!(f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("numbers are ASCII")
    }

    #[test]
    fn floats() {
        for (value, expected, short) in [
            (0.0, "0", "0.0"),
            (-0.0, "0", "-0.0"),
            (1.0, "1", "1.0"),
            (-12.5, "-12.5", "-12.5"),
            (100.0, "100", "100.0"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e-7, "0.0000001", "1e-7"),
            (123_456_789.125, "123456789.125", "123456789.125"),
            (1.5e-5, "0.000015", "0.000015"),
            (f64::NAN, "\"NaN\"", "\"NaN\""),
            (f64::INFINITY, "\"Infinity\"", "\"inf\""),
            (f64::NEG_INFINITY, "\"-Infinity\"", "\"-inf\""),
        ] {
            assert_eq!(written(|out| write_float(value, out)), expected);
            let text = written(|out| write_short_float(value, out));
            assert_eq!(text, short);
        }
        assert_eq!(written(|out| write_float(0.1_f32, out)), "0.1");
        assert_eq!(written(|out| write_float(f64::MAX, out)).len(), 309);
        assert_eq!(written(|out| write_float(5e-324, out)).len(), 2 + 324);
    }

    proptest::proptest! {
        #[test]
        fn a_float_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            proptest::prop_assume!(value.is_finite());
            let text = written(|out| write_float(value, out));
            proptest::prop_assert_eq!(text.parse::<f64>().expect("a number"), value);
            proptest::prop_assert!(!text.contains('e'));
        }
    }
}
