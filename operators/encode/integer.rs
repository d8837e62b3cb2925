//! `smallint`, `integer`, `bigint` and `oid`: text of decimal digits, binary big-endian.

use super::fixed::Scalar;
use super::read::Read;
use arrow::datatypes::{Int16Type, Int32Type, Int64Type};

/// `smallint`.
pub(super) struct Int2;
/// `integer`.
pub(super) struct Int4;
/// `bigint`.
pub(super) struct Int8;
/// `oid`: unsigned, so one size up.
pub(super) struct Oid;

/// Reads an integer's text.
#[inline]
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 19 digits fit 64 bits without a sign
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let (mut value, mut other) = (0_u64, false);
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        other |= digit > 9;
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if other {
        None
    } else if negative {
        0_i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

macro_rules! integer {
    ($scalar:ident, $arrow:ident, $native:ty, $wire:ty) => {
        impl Scalar for $scalar {
            type Arrow = $arrow;

            #[inline]
            fn text(&self, bytes: &[u8]) -> Read<$native> {
                Read::or_malformed(parse(bytes).and_then(|value| <$wire>::try_from(value).ok()).map(<$native>::from))
            }

            #[inline]
            fn binary(&self, bytes: &[u8]) -> Read<$native> {
                Read::or_malformed(bytes.try_into().ok().map(<$wire>::from_be_bytes).map(<$native>::from))
            }
        }
    };
}

integer!(Int2, Int16Type, i16, i16);
integer!(Int4, Int32Type, i32, i32);
integer!(Int8, Int64Type, i64, i64);
integer!(Oid, Int64Type, i64, u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("9999999999999999999", None),
            ("10000000000000000000", None),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1a", None),
            ("1 ", None),
        ] {
            assert_eq!(parse(text.as_bytes()), value, "{text}");
        }
        assert_eq!(Int2.text(b"-32768"), Read::Is(-32768));
        assert_eq!(Int2.text(b"32768"), Read::Malformed);
        assert_eq!(Oid.text(b"4294967295"), Read::Is(4_294_967_295));
        assert_eq!(Oid.text(b"-1"), Read::Malformed);
        assert_eq!(Oid.binary(&[255; 4]), Read::Is(4_294_967_295));
        assert_eq!(Int8.binary(&[255; 8]), Read::Is(-1));
        assert_eq!(Int8.binary(&[255; 7]), Read::Malformed);
    }
}
