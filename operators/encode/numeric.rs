//! `numeric(precision, scale)` as a 128-bit decimal.
//!
//! From text digit by digit, from binary group by group of four digits; never through a float or a string.
//! NaN, the infinities and whatever does not fit precision and scale unrounded are [`Read::Beyond`].

use super::fixed::Scalar;
use super::read::Read;
use crate::decode::{Cursor, Fault};
use arrow::datatypes::Decimal128Type;

/// `numeric(precision, scale)`.
pub(super) struct Decimal {
    scale: u32,
    /// Ten to the precision: every value is nearer to zero.
    limit: u128,
}

impl Decimal {
    /// The precision is at most 38 (see `ColumnType::Numeric`), so the limit fits; a larger one has none.
    pub(super) fn new(precision: u8, scale: u8) -> Self {
        Self { scale: scale.into(), limit: 10_u128.checked_pow(precision.into()).unwrap_or(i128::MAX as u128) }
    }

    #[inline]
    fn signed(&self, negative: bool, magnitude: u128) -> Read<i128> {
        if magnitude >= self.limit {
            return Read::Beyond;
        }
        let value = magnitude as i128;
        Read::Is(if negative { -value } else { value })
    }

    /// Any text: long, with other scales, or not a number.
    #[cold]
    fn text_slow(&self, text: &[u8]) -> Read<i128> {
        let (negative, digits) = match text {
            b"NaN" | b"Infinity" | b"-Infinity" => return Read::Beyond,
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
        let (whole, rest) = digits.split_at(point);
        let fraction = rest.get(1..).unwrap_or_default();
        if whole.is_empty() || rest.len() == 1 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Read::Malformed;
        }
        let (kept, lost) = fraction.split_at(fraction.len().min(self.scale as usize));
        if lost.iter().any(|b| *b != b'0') {
            return Read::Beyond;
        }
        let padding = self.scale as usize - kept.len();
        let mut value = Some(0_u128);
        for digit in whole.iter().chain(kept).map(|b| b - b'0').chain(std::iter::repeat_n(0, padding)) {
            value = value.and_then(|v| v.checked_mul(10)).and_then(|v| v.checked_add(digit.into()));
        }
        value.map_or(Read::Beyond, |value| self.signed(negative, value))
    }

    /// The usual number: few groups, none of whose digits is lost.
    #[inline]
    fn few_groups(&self, number: &Binary<'_>) -> Option<u64> {
        const FEW: usize = 4;
        if number.groups.len() > 2 * FEW {
            return None;
        }
        let value = number.groups().fold(0_u64, |value, group| value * 10_000 + u64::from(group));
        // what the last group counts, in powers of ten of the column's last digit
        let last = 4 * (i64::from(number.weight) + 1 - (number.groups.len() / 2) as i64) + i64::from(self.scale);
        let unit = [1_u64, 10, 100, 1_000].get(usize::try_from(last.unsigned_abs()).ok()?)?;
        if last >= 0 { value.checked_mul(*unit) } else { value.is_multiple_of(*unit).then(|| value / unit) }
    }

    fn groups(&self, number: &Binary<'_>) -> Option<u128> {
        let mut value = 0_u128;
        // the power of ten of the group, once the value is scaled
        let mut power = 4 * i64::from(number.weight) + i64::from(self.scale);
        for group in number.groups() {
            if power >= 0 {
                value = value.checked_mul(10_000)?.checked_add(group.into())?;
            } else {
                let lost = power.unsigned_abs().min(4) as u32;
                let unit = 10_u16.pow(lost);
                if group % unit != 0 {
                    return None;
                }
                value = value.checked_mul(10_u128.pow(4 - lost))?.checked_add((group / unit).into())?;
            }
            power -= 4;
        }
        let last = power + 4;
        if last > 0 && value > 0 {
            value = value.checked_mul(10_u128.checked_pow(u32::try_from(last).ok()?)?)?;
        }
        Some(value)
    }
}

impl Scalar for Decimal {
    type Arrow = Decimal128Type;

    #[inline]
    fn text(&self, bytes: &[u8]) -> Read<i128> {
        let (negative, digits) = match bytes {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        // the common case: at most 18 digits and a point, all of the column's own scale
        if digits.len() > 19 {
            return self.text_slow(bytes);
        }
        let (mut value, mut count, mut point) = (0_u64, 0_usize, None);
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
                count += 1;
            } else if *byte == b'.' && point.is_none() && count > 0 {
                point = Some(count);
            } else {
                return self.text_slow(bytes);
            }
        }
        let scale = point.map_or(0, |whole| count - whole);
        if scale != self.scale as usize || count == 0 || count > 18 {
            return self.text_slow(bytes);
        }
        self.signed(negative, value.into())
    }

    #[inline]
    fn binary(&self, bytes: &[u8]) -> Read<i128> {
        match Binary::read(bytes) {
            Ok(number) if number.sign == Sign::Special => Read::Beyond,
            Ok(number) => {
                let value = self.few_groups(&number).map(u128::from).or_else(|| self.groups(&number));
                value.map_or(Read::Beyond, |value| self.signed(number.sign == Sign::Minus, value))
            }
            Err(_) => Read::Malformed,
        }
    }
}

/// What stands before the digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Zero or above.
    Plus,
    /// Below zero.
    Minus,
    /// NaN or an infinity.
    Special,
}

// numeric := Int16 groups, Int16 weight, UInt16 sign, UInt16 display scale, UInt16 group*
// sign    := 0x0000 | 0x4000 minus | 0xC000 NaN | 0xD000 Infinity | 0xF000 -Infinity
// value   := sum of group * 10000^(weight - index)

/// The parts of `numeric_send`'s bytes.
pub(super) struct Binary<'a> {
    /// The first group's power of 10,000.
    pub(super) weight: i16,
    /// The sign.
    pub(super) sign: Sign,
    /// What a special value is called.
    pub(super) special: &'static str,
    /// Digits after the point in the text.
    pub(super) scale: u16,
    groups: &'a [u8],
}

impl<'a> Binary<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(bytes);
        let count = usize::try_from(cursor.i16()?).map_err(|_| Fault::Shape)?;
        let weight = cursor.i16()?;
        let (sign, special) = match cursor.i16()?.cast_unsigned() {
            0x0000 => (Sign::Plus, ""),
            0x4000 => (Sign::Minus, ""),
            0xC000 => (Sign::Special, "NaN"),
            0xD000 => (Sign::Special, "Infinity"),
            0xF000 => (Sign::Special, "-Infinity"),
            _ => return Err(Fault::Shape),
        };
        // PostgreSQL keeps 14 bits of it
        let scale = cursor.i16()?.cast_unsigned() & 0x3FFF;
        let groups = cursor.bytes(count * 2)?;
        cursor.finish()?;
        let number = Self { weight, sign, special, scale, groups };
        if number.groups().any(|group| group > 9999) || !number.shows_every_digit() { Err(Fault::Shape) } else { Ok(number) }
    }

    /// Whether the digits after those of the scale, which the text does not have, are zeros.
    fn shows_every_digit(&self) -> bool {
        let groups = self.groups.as_chunks::<2>().0;
        let after_point = (groups.len() as i32 - 1 - i32::from(self.weight)) * 4;
        let mut hidden = after_point - i32::from(self.scale);
        for group in groups.iter().rev() {
            if hidden <= 0 {
                break;
            }
            let unit = [1, 10, 100, 1000].get(hidden as usize).copied().unwrap_or(10_000);
            if u16::from_be_bytes(*group) % unit != 0 {
                return false;
            }
            hidden -= 4;
        }
        true
    }

    /// The groups of four decimal digits.
    pub(super) fn groups(&self) -> impl Iterator<Item = u16> {
        self.groups.as_chunks::<2>().0.iter().map(|group| u16::from_be_bytes(*group))
    }

    /// The group that counts 10,000 to the `power`; zero outside those that were sent.
    pub(super) fn group(&self, power: i32) -> u16 {
        let at = usize::try_from(i32::from(self.weight) - power);
        at.ok().and_then(|at| self.groups.as_chunks::<2>().0.get(at)).map_or(0, |group| u16::from_be_bytes(*group))
    }
}
