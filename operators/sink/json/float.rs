//! Floats: in positional notation as `to_jsonb` has them, or in their shortest.
//!
//! A float's shortest text reads back as the same float, so that it never needs to be a string.

use super::number::quoted;
use crate::contract::float::{Digits, Float};

/// Writes a float as `to_jsonb` does, which takes its shortest text for a numeric: positional notation,
/// `NaN` and infinities as strings. Unlike there a negative zero keeps its sign: `-0.0`.
#[inline]
pub(super) fn write_float<F: Float>(value: F, out: &mut Vec<u8>) {
    match Digits::of(value) {
        Ok(digits) => digits.write_json(out),
        Err(special) => quoted(special.as_bytes(), out),
    }
}

/// Writes a float in its shortest notation; `NaN`, `inf` and `-inf` as strings.
#[inline]
pub(super) fn write_short_float<F: Float>(value: F, out: &mut Vec<u8>) {
    match value.special() {
        None => out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes()),
        Some("NaN") => quoted(b"NaN", out),
        Some("Infinity") => quoted(b"inf", out),
        Some(_) => quoted(b"-inf", out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::float::tests::written;

    #[test]
    fn floats() {
        for (value, expected, short) in [
            (0.0, "0", "0.0"),
            (-0.0, "-0.0", "-0.0"),
            (-12.5, "-12.5", "-12.5"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e-7, "0.0000001", "1e-7"),
            (f64::NAN, "\"NaN\"", "\"NaN\""),
            (f64::INFINITY, "\"Infinity\"", "\"inf\""),
            (f64::NEG_INFINITY, "\"-Infinity\"", "\"-inf\""),
        ] {
            assert_eq!(written(|out| write_float(value, out)), expected);
            assert_eq!(written(|out| write_short_float(value, out)), short);
        }
        assert_eq!(written(|out| write_float(0.1_f32, out)), "0.1");
    }
}
