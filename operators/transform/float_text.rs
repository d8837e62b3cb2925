//! Floats as PostgreSQL writes them with `extra_float_digits` above 0: the shortest text that reads back.
//!
//! PostgreSQL takes no text that lies exactly halfway to a neighbouring float, though rounding to even
//! would read it back; it writes more digits then. Such texts are found by exact arithmetic.
//!
//! Hot path: no allocation but for those few.

/// Writes a `double precision` as `float8out` does.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    if !value.is_finite() {
        return write_special(value, out);
    }
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let parts = Parts::new(biased, fraction, 52, 1075);
    let mut digits = Digits::read(zmij::Buffer::new().format_finite(value));
    let mut places = digits.count;
    while parts.is_bound(&digits) && places < 17 {
        digits = Digits::read(&format!("{value:.places$e}"));
        places += 1;
    }
    digits.write(value.is_sign_negative(), 15, out);
}

/// Writes a `real` as `float4out` does.
pub(super) fn write_f32(value: f32, out: &mut Vec<u8>) {
    if !value.is_finite() {
        return write_special(f64::from(value), out);
    }
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 23 & 0xff) as i32, u64::from(bits & ((1 << 23) - 1)));
    let parts = Parts::new(biased, fraction, 23, 150);
    let mut digits = Digits::read(zmij::Buffer::new().format_finite(value));
    let mut places = digits.count;
    while parts.is_bound(&digits) && places < 9 {
        digits = Digits::read(&format!("{value:.places$e}"));
        places += 1;
    }
    digits.write(value.is_sign_negative(), 6, out);
}

fn write_special(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"NaN",
        v if v > 0.0 => b"Infinity",
        _ => b"-Infinity",
    });
}

/// A float as `mantissa * 2^exponent`, and the two numbers halfway to its neighbours.
struct Parts {
    bounds: [(u128, i32); 2],
}

impl Parts {
    fn new(biased: i32, fraction: u64, width: u32, bias: i32) -> Self {
        let (mantissa, exponent) = if biased == 0 { (fraction, 1 - bias) } else { (fraction | 1 << width, biased - bias) };
        let mantissa = u128::from(mantissa);
        // below a power of two the neighbour is half as far
        let below = if fraction == 0 && biased > 1 {
            ((4 * mantissa).saturating_sub(1), exponent - 2)
        } else {
            ((2 * mantissa).saturating_sub(1), exponent - 1)
        };
        Self { bounds: [below, (2 * mantissa + 1, exponent - 1)] }
    }

    /// Whether the digits stand for a number exactly halfway to a neighbour.
    fn is_bound(&self, digits: &Digits) -> bool {
        let number = digits.bytes[..digits.count].iter().fold(0_u128, |n, d| n * 10 + u128::from(d - b'0'));
        let tens = digits.exponent + 1 - digits.count as i32;
        // number * 10^tens = odd * 2^twos, when it is a whole number of some power of two
        let Some(fives) = 5_u128.checked_pow(tens.unsigned_abs()) else { return false };
        let whole = if tens >= 0 { number.checked_mul(fives) } else { (number % fives == 0).then_some(number / fives) };
        let Some(whole) = whole.filter(|w| *w != 0) else { return false };
        let (odd, twos) = (whole >> whole.trailing_zeros(), tens + whole.trailing_zeros() as i32);
        self.bounds.contains(&(odd, twos))
    }
}

/// Decimal digits without zeros at either end: `d.ddd * 10^exponent`.
struct Digits {
    bytes: [u8; 24],
    count: usize,
    exponent: i32,
}

impl Digits {
    /// Reads the text of a finite float in any notation.
    fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let point = mantissa.find('.').unwrap_or(mantissa.len());
        let (mut bytes, mut count, mut lead) = ([0; 24], 0, 0);
        for byte in mantissa.bytes().filter(|b| *b != b'.') {
            if count == 0 && byte == b'0' {
                lead += 1;
            } else if let Some(place) = bytes.get_mut(count) {
                *place = byte;
                count += 1;
            }
        }
        while count > 0 && bytes[count - 1] == b'0' {
            count -= 1;
        }
        Self { bytes, count, exponent: exponent.parse().unwrap_or(0) + point as i32 - lead - 1 }
    }

    /// Spells them as PostgreSQL does: with an exponent below -4 and from `limit` on.
    fn write(&self, negative: bool, limit: i32, out: &mut Vec<u8>) {
        if negative {
            out.push(b'-');
        }
        let digits = &self.bytes[..self.count];
        let exponent = self.exponent;
        let Some((first, rest)) = digits.split_first() else { return out.push(b'0') };
        if exponent < -4 || exponent >= limit {
            out.push(*first);
            if !rest.is_empty() {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.unsigned_abs() < 10 {
                out.push(b'0');
            }
            out.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
        } else if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
            out.extend_from_slice(digits);
        } else {
            let whole = exponent as usize + 1;
            out.extend(digits.iter().copied().chain(std::iter::repeat(b'0')).take(whole));
            if let Some(fraction) = digits.get(whole..).filter(|f| !f.is_empty()) {
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
        }
    }
}
