//! The digits that PostgreSQL prints of a float: the fewest that lie strictly between the midpoints to the float's
//! neighbours, and of those the nearest (`extra_float_digits` above 0).
//!
//! Elsewhere the midpoint itself counts when reading would round it back (`4.917029e+07` for the `real` 49170288).
//! Such a case is found by exact arithmetic, and digits are added until they lie inside.
//!
//! Hot path: no allocation.

use super::spelling::place_point;
use std::io::Write;

/// `real` and `double precision`.
pub(crate) trait Float: zmij::Float + Copy + std::fmt::LowerExp {
    /// Its output function writes no exponent for so many digits before the point.
    const PLAIN: i64;
    /// `NaN`, `Infinity`, `-Infinity`; none of a finite value.
    fn special(self) -> Option<&'static str>;
    /// Whether it is so great that neighbours are at least 2 apart: only there can the middle between two
    /// have fewer digits than either.
    fn has_even_neighbours(self) -> bool;
    /// `m` and `q` of a normal number `±m × 2^q`.
    fn parts(self) -> (u64, i64);
}

macro_rules! float {
    ($type:ty, $plain:literal) => {
        impl Float for $type {
            const PLAIN: i64 = $plain;
            fn special(self) -> Option<&'static str> {
                match self {
                    value if value.is_finite() => None,
                    value if value.is_nan() => Some("NaN"),
                    value => Some(if value > 0.0 { "Infinity" } else { "-Infinity" }),
                }
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
float!(f32, 6);
float!(f64, 15);

/// A finite float's decimal digits: `±0.d₁d₂d₃… × 10^point`, the last of them not a zero. Zero has none.
pub(crate) struct Digits {
    negative: bool,
    digits: [u8; 32],
    count: usize,
    point: i64,
}

impl Digits {
    /// Reads `1234.5`, `-1e+20`, `1.5e-7`. None: the text is not so, or has more than 32 digits.
    #[inline]
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
        let (mantissa, point) = match memchr::memchr2(b'e', b'E', text) {
            Some(at) => (text.get(..at)?, exponent(text.get(at + 1..)?)?),
            None => (text, 0),
        };
        let mut read = Self { negative, digits: [0; 32], count: 0, point };
        let (mut whole, mut any) = (true, false);
        for byte in mantissa {
            match byte {
                b'.' if whole && any => whole = false,
                b'0'..=b'9' => {
                    any = true;
                    read.point += i64::from(whole);
                    if read.count == 0 && *byte == b'0' {
                        read.point -= 1;
                    } else {
                        *read.digits.get_mut(read.count)? = *byte;
                        read.count += 1;
                    }
                }
                _ => return None,
            }
        }
        read.count = read.digits().iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        any.then_some(read)
    }

    /// The digits of a float; what it is instead when it is not finite.
    #[inline]
    pub(crate) fn of<F: Float>(value: F) -> Result<Self, &'static str> {
        if let Some(special) = value.special() {
            return Err(special);
        }
        let mut buffer = zmij::Buffer::new();
        let digits = Self::read(buffer.format_finite(value).as_bytes()).ok_or("NaN")?;
        Ok(if value.has_even_neighbours() && digits.is_between(value) { digits.next_shortest(value) } else { digits })
    }

    /// The digits themselves.
    fn digits(&self) -> &[u8] {
        self.digits.get(..self.count).unwrap_or_default()
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

    /// The nearest decimal of the fewest digits above these that is no midpoint.
    #[cold]
    fn next_shortest<F: Float>(self, value: F) -> Self {
        for longer in self.count..17 {
            let mut text = [0_u8; 64];
            let mut rest = &mut text[..];
            // A float of 17 digits and an exponent fits.
            let _ = write!(rest, "{value:.longer$e}");
            let left = rest.len();
            match Self::read(text.get(..text.len() - left).unwrap_or_default()) {
                Some(digits) if !digits.is_between(value) => return digits,
                _ => {}
            }
        }
        self
    }

    /// Writes positional notation: `-0.00015`, and `0` for zero.
    #[inline]
    pub(crate) fn write_plain(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        if self.count == 0 {
            out.push(b'0');
        } else {
            place_point(self.digits(), self.point, out);
        }
    }

    /// Writes a JSON number in positional notation. A zero below zero is `-0.0`: readers take `-0` for an integer,
    /// which has no such zero.
    #[inline]
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        self.write_plain(out);
        if self.negative && self.count == 0 {
            out.extend_from_slice(b".0");
        }
    }

    /// Writes what the type's output function does: with an exponent below 0.0001 and from `plain` digits before
    /// the point on.
    fn write_output(&self, plain: i64, out: &mut Vec<u8>) {
        let (Some((first, rest)), false) = (self.digits().split_first(), (-3..=plain).contains(&self.point)) else {
            return self.write_plain(out);
        };
        if self.negative {
            out.push(b'-');
        }
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let power = self.point - 1;
        out.extend_from_slice(if power < 0 { b"e-" } else { b"e+" });
        if power.unsigned_abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(power.unsigned_abs()).as_bytes());
    }
}

/// The digits after an `e`: a double reaches from e-324 to e308.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let value = digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some(if negative { -value } else { value })
}

/// Writes a float as `float4out` and `float8out` do.
pub(crate) fn write_float<F: Float>(value: F, out: &mut Vec<u8>) {
    match Digits::of(value) {
        Ok(digits) => digits.write_output(F::PLAIN, out),
        Err(special) => out.extend_from_slice(special.as_bytes()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The text that a function writes.
    pub(crate) fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("it writes UTF-8")
    }

    #[test]
    fn layouts() {
        for (value, text, json) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0.0"),
            (1.0, "1", "1"),
            (-12.5, "-12.5", "-12.5"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "0.00001"),
            (123_456_789_012_345.0, "123456789012345", "123456789012345"),
            (1e15, "1e+15", "1000000000000000"),
            (1.25e-7, "1.25e-07", "0.000000125"),
            (1.5e20, "1.5e+20", "150000000000000000000"),
        ] {
            assert_eq!(written(|out| write_float(value, out)), text);
            assert_eq!(written(|out| Digits::of(value).unwrap().write_json(out)), json);
            assert_eq!(written(|out| Digits::read(text.as_bytes()).unwrap().write_json(out)), json);
        }
        assert_eq!(written(|out| write_float(f64::NEG_INFINITY, out)), "-Infinity");
        assert_eq!(written(|out| write_float(f32::NAN, out)), "NaN");
        assert_eq!(written(|out| write_float(1e6_f32, out)), "1e+06");
        assert_eq!(written(|out| write_float(49_170_288_f32, out)), "4.9170288e+07");
        assert_eq!(written(|out| Digits::of(f64::MAX).unwrap().write_plain(out)).len(), 309);
        assert_eq!(written(|out| Digits::of(5e-324).unwrap().write_plain(out)).len(), 2 + 324);
        for text in ["", "-", ".", "e5", "1e", "1e9999", "1..2", ".5", "1x", "0x10", "inf", "NaN", &"1".repeat(33)] {
            assert!(Digits::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_float_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            proptest::prop_assume!(value.is_finite());
            for text in [written(|out| write_float(value, out)), written(|out| Digits::of(value).unwrap().write_json(out))] {
                proptest::prop_assert_eq!(text.parse::<f64>().expect("a number").to_bits(), bits);
            }
        }
    }
}
