//! `real` and `double precision`: shortest text that reads back the same, or IEEE bytes.
//!
//! NaN and the infinities are values of the Arrow type.

use super::fixed::Scalar;
use super::read::{Malformed, Read};
use super::shortest;
use arrow::datatypes::{Float32Type, Float64Type};

/// `real`.
pub(super) struct Float4;
/// `double precision`.
pub(super) struct Float8;

macro_rules! float {
    ($scalar:ident, $arrow:ident, $native:ty) => {
        impl Scalar for $scalar {
            type Arrow = $arrow;

            #[inline]
            fn text(&self, bytes: &[u8]) -> Read<$native> {
                // the standard library rounds correctly, and reads PostgreSQL's `Infinity` and `NaN`
                Read::or_malformed(std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()))
            }

            #[inline]
            fn binary(&self, bytes: &[u8]) -> Read<$native> {
                // NaN has many bit patterns and one text
                let canonical = |value: $native| if value.is_nan() { <$native>::NAN } else { value };
                Read::or_malformed(bytes.try_into().ok().map(<$native>::from_be_bytes).map(canonical))
            }
        }
    };
}

float!(Float4, Float32Type, f32);
float!(Float8, Float64Type, f64);

/// Shortest digits: whether negative, the digits, and the power of ten of the first.
struct Digits<'a> {
    negative: bool,
    digits: &'a [u8],
    exponent: i32,
}

/// Writes a float as `float4out` and `float8out` do.
pub(super) fn write_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // thresholds of PostgreSQL's shortest output: 6 and 15 digits before the point, four zeros after
    write(bytes, out, |digits, wide, out| {
        if (-4..if wide { 15 } else { 6 }).contains(&digits.exponent) { write_plain(digits, out) } else { write_scientific(digits, out) }
    })
}

/// Writes a float as a JSON number without an exponent, as `to_jsonb` does; NaN and the infinities as strings.
pub(super) fn write_json(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    write(bytes, out, |digits, _, out| write_plain(digits, out))?;
    if out.last().is_some_and(u8::is_ascii_alphabetic) {
        out.insert(start, b'"');
        out.push(b'"');
    }
    Ok(())
}

/// Writes a float's text as [`write_json`] does its binary form.
pub(super) fn text_to_json(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return Ok(());
    }
    let mut scratch = [0; 32];
    write_plain(&split(text, &mut scratch).ok_or(Malformed::Form)?, out);
    Ok(())
}

fn write(bytes: &[u8], out: &mut Vec<u8>, layout: impl FnOnce(&Digits<'_>, bool, &mut Vec<u8>)) -> Result<(), Malformed> {
    let start = out.len();
    let wide = match *bytes {
        [a, b, c, d] => {
            shortest::write(f32::from_be_bytes([a, b, c, d]), out);
            false
        }
        [a, b, c, d, e, f, g, h] => {
            shortest::write(f64::from_be_bytes([a, b, c, d, e, f, g, h]), out);
            true
        }
        _ => return Err(Malformed::Form),
    };
    let special: &[u8] = match out.get(start..) {
        Some(b"NaN") => b"NaN",
        Some(b"inf") => b"Infinity",
        Some(b"-inf") => b"-Infinity",
        shortest => {
            let mut scratch = [0; 32];
            let digits = split(shortest.unwrap_or_default(), &mut scratch).ok_or(Malformed::Form)?;
            out.truncate(start);
            layout(&digits, wide, out);
            return Ok(());
        }
    };
    out.truncate(start);
    out.extend_from_slice(special);
    Ok(())
}

/// Splits `-12.5e-7` into sign, digits and exponent. At most 32 digits.
fn split<'a>(text: &[u8], scratch: &'a mut [u8; 32]) -> Option<Digits<'a>> {
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        text => (false, text),
    };
    let (mantissa, mut exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => {
            let (mantissa, power) = text.split_at_checked(at)?;
            let power = power.get(1..)?;
            let power = super::integer::parse(power.strip_prefix(b"+").unwrap_or(power))?;
            // a double reaches from e-324 to e308
            (mantissa, i32::try_from(power).ok().filter(|p| p.abs() <= 400)?)
        }
        None => (text, 0),
    };
    let (mut count, mut point, mut before) = (0, false, false);
    for byte in mantissa {
        match byte {
            b'.' if !point && before => point = true,
            b'0'..=b'9' => {
                before = true;
                if count == 0 && *byte == b'0' {
                    exponent -= i32::from(point);
                } else {
                    *scratch.get_mut(count)? = *byte;
                    count += 1;
                    exponent += i32::from(!point);
                }
            }
            _ => return None,
        }
    }
    if !before {
        return None;
    }
    let digits = scratch.get(..count)?;
    let kept = digits.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1);
    if kept == 0 {
        return Some(Digits { negative, digits: b"0", exponent: 0 });
    }
    Some(Digits { negative, digits: digits.get(..kept)?, exponent: exponent - 1 })
}

fn write_plain(number: &Digits<'_>, out: &mut Vec<u8>) {
    if number.negative {
        out.push(b'-');
    }
    let Ok(before) = usize::try_from(number.exponent) else {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', number.exponent.unsigned_abs() as usize - 1));
        out.extend_from_slice(number.digits);
        return;
    };
    let before = before + 1;
    let (whole, fraction) = number.digits.split_at(before.min(number.digits.len()));
    out.extend_from_slice(whole);
    out.extend(std::iter::repeat_n(b'0', before - whole.len()));
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

fn write_scientific(number: &Digits<'_>, out: &mut Vec<u8>) {
    if number.negative {
        out.push(b'-');
    }
    let (whole, fraction) = number.digits.split_at(1);
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    let power = number.exponent.unsigned_abs();
    out.extend_from_slice(if number.exponent < 0 { b"e-" } else { b"e+" });
    if power < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(power).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        for (value, text, json) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (1.0, "1", "1"),
            (-12.5, "-12.5", "-12.5"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "0.00001"),
            (123_456_789_012_345.0, "123456789012345", "123456789012345"),
            (1e15, "1e+15", "1000000000000000"),
            (1.25e-7, "1.25e-07", "0.000000125"),
            (1.5e20, "1.5e+20", "150000000000000000000"),
            (f64::NAN, "NaN", "\"NaN\""),
            (f64::NEG_INFINITY, "-Infinity", "\"-Infinity\""),
        ] {
            let (mut as_text, mut as_json, mut from_text) = (Vec::new(), b"[".to_vec(), Vec::new());
            write_text(&value.to_be_bytes(), &mut as_text).unwrap();
            write_json(&value.to_be_bytes(), &mut as_json).unwrap();
            text_to_json(text.as_bytes(), &mut from_text).unwrap();
            assert_eq!(String::from_utf8_lossy(&as_text), text);
            assert_eq!(String::from_utf8_lossy(&as_json), format!("[{json}"));
            assert_eq!(String::from_utf8_lossy(&from_text), json);
        }
        let mut text = Vec::new();
        write_text(&1e6_f32.to_be_bytes(), &mut text).unwrap();
        assert_eq!(text, b"1e+06");
        for text in ["", "-", ".", "e5", "1e", "1e999", "1..2", ".5", "1x", "0x10", "inf", &"1".repeat(33)] {
            assert_eq!(text_to_json(text.as_bytes(), &mut Vec::new()), Err(Malformed::Form), "{text}");
        }
    }
}
