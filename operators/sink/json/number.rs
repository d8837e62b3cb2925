//! Numbers: as JSON numbers where a double holds them, else as strings.
//!
//! A reader of JSON may take every number for a double. A double holds integers up to 2^53 − 1 and any
//! decimal of 15 significant digits within its normal range; what lies beyond is written as a string.

use crate::contract::place_point;

/// The greatest integer that every reader takes exactly.
const EXACT_INTEGER: u64 = (1 << 53) - 1;

/// Significant digits that a double keeps.
const EXACT_DIGITS: usize = 15;

/// Powers of ten of a decimal's first digit within a double's normal range.
const EXACT_RANGE: std::ops::RangeInclusive<i64> = -307..=307;

/// Writes an integer.
#[inline]
pub(super) fn write_integer(value: i64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    if value.unsigned_abs() <= EXACT_INTEGER {
        out.extend_from_slice(digits);
    } else {
        quoted(digits, out);
    }
}

/// Writes an integer as a string.
#[inline]
pub(super) fn write_quoted_integer(value: i64, out: &mut Vec<u8>) {
    quoted(itoa::Buffer::new().format(value).as_bytes(), out);
}

/// Writes `value / 10^scale`, all of its scale kept: a string where a double would round it.
#[inline]
pub(super) fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    let start = out.len();
    if fits_double(value.unsigned_abs()) {
        write_digits(value, scale, out);
    } else {
        out.push(b'"');
        write_digits(value, scale, out);
        out.push(b'"');
    }
    debug_assert!(out.len() > start);
}

/// Whether there are no more significant digits than a double keeps. The scale cannot matter: it and the
/// precision of a `Decimal128` keep the value far within a double's range.
#[inline]
fn fits_double(mut digits: u128) -> bool {
    const LIMIT: u128 = 10_u128.pow(EXACT_DIGITS as u32);
    if digits < LIMIT {
        return true;
    }
    while digits.is_multiple_of(10) {
        digits /= 10;
    }
    digits < LIMIT
}

/// Writes the digits of `value / 10^scale`, without quotes.
#[inline]
pub(super) fn write_digits(value: i128, scale: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut short = itoa::Buffer::new();
    let mut long = itoa::Buffer::new();
    let digits = value.unsigned_abs();
    // Most decimals fit 64 bits, where a division costs a tenth.
    let digits = match u64::try_from(digits) {
        Ok(digits) => short.format(digits).as_bytes(),
        Err(_) => long.format(digits).as_bytes(),
    };
    place_point(digits, digits.len() as i64 - i64::from(scale), out);
}

/// Writes a numeric's exact text: a number where a double holds it, else a string. `NaN` and infinities are
/// strings.
pub(super) fn write_numeric_text(text: &str, out: &mut Vec<u8>) {
    if is_exact_number(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        super::write_string(text, out);
    }
}

/// Whether a text is `-?digits(.digits)?`, as JSON has it, and a double holds its value.
fn is_exact_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let fraction = match &text[whole..] {
        [] => &[],
        [b'.', fraction @ ..] if !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit) => fraction,
        _ => return false,
    };
    let whole = &text[..whole];
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return false;
    }
    // The places of the first and the last digit that are not zero, as powers of ten.
    let top = whole.len() as i64 - 1;
    let mut digits = whole.iter().chain(fraction);
    let Some(first) = digits.position(|b| *b != b'0') else { return true };
    let mut digits = whole.iter().chain(fraction).rev();
    let last = digits.position(|b| *b != b'0').map_or(first, |from_end| whole.len() + fraction.len() - 1 - from_end);
    last - first < EXACT_DIGITS && EXACT_RANGE.contains(&(top - first as i64))
}

pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::float::tests::written;

    #[test]
    fn integers() {
        for (value, expected) in [
            (0, "0"),
            (-7, "-7"),
            (9_007_199_254_740_991, "9007199254740991"),
            (9_007_199_254_740_992, "\"9007199254740992\""),
            (-9_007_199_254_740_991, "-9007199254740991"),
            (i64::MIN, "\"-9223372036854775808\""),
            (i64::MAX, "\"9223372036854775807\""),
        ] {
            assert_eq!(written(|out| write_integer(value, out)), expected);
        }
    }

    #[test]
    fn decimals() {
        for (value, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (1250, 2, "12.50"),
            (-5, 3, "-0.005"),
            (5, 1, "0.5"),
            (999_999_999_999_999, 2, "9999999999999.99"),
            (1_000_000_000_000_001, 2, "\"10000000000000.01\""),
            (1_000_000_000_000_000_000, 2, "10000000000000000.00"),
            (i128::MAX, 37, "\"17.0141183460469231731687303715884105727\""),
            (i128::MIN, 0, "\"-170141183460469231731687303715884105728\""),
        ] {
            assert_eq!(written(|out| write_decimal(value, scale, out)), expected);
        }
    }

    #[test]
    fn numeric_texts() {
        let zeros = "0".repeat(400);
        for (text, number) in [
            ("0", true),
            ("0.000", true),
            ("-12.50", true),
            ("123456789012345", true),
            ("1234567890123456", false),
            ("0.1234567890123456", false),
            ("1.0000000000000000000", true),
            ("100000000000000000000", true),
            (&format!("1{}", &zeros[..307]), true),
            (&format!("1{}", &zeros[..308]), false),
            (&format!("0.{}1", &zeros[..306]), true),
            (&format!("0.{}1", &zeros[..307]), false),
            (&format!("0.{zeros}"), true),
            ("NaN", false),
            ("-Infinity", false),
            ("", false),
            ("-", false),
            ("1.", false),
            (".5", false),
            ("01", false),
            ("1e5", false),
        ] {
            let expected = if number { text.to_owned() } else { format!("\"{text}\"") };
            assert_eq!(written(|out| write_numeric_text(text, out)), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_number_is_what_a_double_keeps(value: i64, scale in 0..18_u8) {
            let text = written(|out| write_decimal(i128::from(value), scale, out));
            if !text.starts_with('"') {
                let double: f64 = text.parse().expect("a number");
                proptest::prop_assert_eq!(format!("{double:.*}", usize::from(scale)), text);
            }
        }
    }
}
