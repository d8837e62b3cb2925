//! `real` and `double precision`: shortest text that reads back the same, or IEEE bytes.
//!
//! NaN and the infinities are values of the Arrow type.

use super::fixed::Scalar;
use super::json::plain_string;
use super::read::{Malformed, Read};
use crate::contract::float::{Digits, write_float};
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

/// Writes the text of `float4send`'s or `float8send`'s bytes.
pub(super) fn write_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match *bytes {
        [a, b, c, d] => write_float(f32::from_be_bytes([a, b, c, d]), out),
        [a, b, c, d, e, f, g, h] => write_float(f64::from_be_bytes([a, b, c, d, e, f, g, h]), out),
        _ => return Err(Malformed::Form),
    }
    Ok(())
}

/// Writes a float's bytes as a JSON number without an exponent, as `to_jsonb` does; NaN and the infinities as strings.
pub(super) fn write_json(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let digits = match *bytes {
        [a, b, c, d] => Digits::of(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => Digits::of(f64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => return Err(Malformed::Form),
    };
    match digits {
        Ok(digits) => digits.write_json(out),
        Err(special) => plain_string(special.as_bytes(), out),
    }
    Ok(())
}

/// Writes a float's text as [`write_json`] does its bytes.
pub(super) fn text_to_json(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        plain_string(text, out);
    } else {
        Digits::read(text).ok_or(Malformed::Form)?.write_json(out);
    }
    Ok(())
}
