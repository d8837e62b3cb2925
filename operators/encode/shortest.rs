//! The digits that PostgreSQL prints of a float: the fewest that lie strictly between the midpoints to the float's
//! neighbours, and of those the nearest.
//!
//! Elsewhere the midpoint itself counts when reading would round it back (`4.917029e+07` for the `real` 49170288).
//! Such a case is found by exact arithmetic, and digits are added until they lie inside.

/// A finite float's parts: the integer `mantissa` times two to the `exponent`.
pub(super) trait Binary: zmij::Float + std::fmt::LowerExp + std::str::FromStr + PartialEq + Copy {
    /// Mantissa, exponent, and whether the float below is only half as far as the one above.
    fn parts(self) -> (u64, i32, bool);
}

macro_rules! binary {
    ($float:ty, $fraction:literal, $bias:literal) => {
        impl Binary for $float {
            fn parts(self) -> (u64, i32, bool) {
                let bits = u64::from(self.to_bits());
                let (fraction, power) = (bits & ((1 << $fraction) - 1), (bits >> $fraction & $bias * 2 + 1) as i32);
                match power {
                    0 => (fraction, 1 - $bias - $fraction, false),
                    _ => (fraction | 1 << $fraction, power - $bias - $fraction, fraction == 0 && power > 1),
                }
            }
        }
    };
}

binary!(f32, 23, 127);
binary!(f64, 52, 1023);

/// Whether `digits * 10^power` is a midpoint between `value` and a neighbour.
fn is_midpoint<F: Binary>(value: F, digits: u64, power: i32) -> bool {
    let (mantissa, exponent, near) = value.parts();
    let above = (2 * mantissa + 1, exponent - 1);
    let below = if near { (4 * mantissa - 1, exponent - 2) } else { ((2 * mantissa).saturating_sub(1), exponent - 1) };
    if digits == 0 {
        return false;
    }
    let twos = digits.trailing_zeros();
    let odd = u128::from(digits >> twos);
    // beyond 5^27 one side passes the other's 64 bits
    let Some(fives) = 5_u128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 27) else { return false };
    [above, below].into_iter().any(|(midpoint, scale)| {
        let midpoint = u128::from(midpoint);
        scale == power + twos as i32 && if power >= 0 { odd * fives == midpoint } else { odd == midpoint * fives }
    })
}

/// A decimal text's digits without trailing zeros, the power of ten of the last, and how many they are. None: not
/// finite.
fn split(text: &str) -> Option<(u64, i32, usize)> {
    let (mut digits, mut power, mut point, mut count) = (0_u64, 0_i32, false, 0_usize);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    for byte in mantissa.bytes() {
        match byte {
            b'.' => point = true,
            b'0'..=b'9' => {
                digits = digits.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
                power -= i32::from(point);
                count += usize::from(digits > 0);
            }
            b'-' => {}
            _ => return None,
        }
    }
    while digits > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        power += 1;
        count -= 1;
    }
    Some((digits, power + exponent.parse::<i32>().unwrap_or_default(), count))
}

/// Writes the digits as `-1.25`, `1.25e-7` or the like, or `NaN`, `inf`, `-inf`.
pub(super) fn write<F: Binary>(value: F, out: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    match split(text) {
        Some((digits, power, count)) if is_midpoint(value, digits, power) => out.extend_from_slice(inside(value, count).as_bytes()),
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

/// The nearest decimal of the fewest digits above `count` that reads back and is no midpoint. Rare, so allocating
/// is fine.
#[cold]
fn inside<F: Binary>(value: F, count: usize) -> String {
    let mut text = String::new();
    for after_point in count..20 {
        text = format!("{value:.after_point$e}");
        let inside = split(&text).is_some_and(|(digits, power, _)| !is_midpoint(value, digits, power));
        if inside && text.parse().ok() == Some(value) {
            break;
        }
    }
    text
}
