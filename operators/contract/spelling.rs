//! Decimal texts: where their point goes, and which of them every JSON reader keeps as they are.

/// What positional notation fills up with.
const ZEROS: &[u8; 16] = b"0000000000000000";

/// Whether a plain decimal text (`-12.50`: no exponent) is a number that a reader through doubles gives back
/// unrounded: at most 15 significant digits, counting an integer's trailing zeros but not a fraction's.
#[must_use]
pub fn double_holds(digits: &[u8]) -> bool {
    let digits = digits.strip_prefix(b"-").unwrap_or(digits);
    if digits.len() <= 15 {
        return true;
    }
    let (mut significant, mut zeros, mut small, mut point) = (0_usize, 0_usize, 0_usize, false);
    for byte in digits {
        match byte {
            b'.' => point = true,
            b'0' if significant == 0 => small += usize::from(point),
            // zeros count once a digit other than zero, or the point, follows them
            b'0' if point => zeros += 1,
            b'0'..=b'9' => {
                significant += zeros + 1;
                zeros = 0;
            }
            _ => return false,
        }
    }
    // 15 digits after 290 zeros are still above the least normal double, 2.2e-308
    significant <= 15 && small <= 290
}

/// Writes `digits` with the point after the first `point` of them, which may lie outside.
#[inline]
pub(crate) fn place_point(digits: &[u8], point: i64, out: &mut Vec<u8>) {
    match usize::try_from(point) {
        Ok(0) | Err(_) => {
            out.extend_from_slice(b"0.");
            zeros(point.unsigned_abs(), out);
            out.extend_from_slice(digits);
        }
        Ok(point) => match digits.split_at_checked(point) {
            Some((whole, fraction)) => {
                out.extend_from_slice(whole);
                if !fraction.is_empty() {
                    out.push(b'.');
                    out.extend_from_slice(fraction);
                }
            }
            None => {
                out.extend_from_slice(digits);
                zeros((point - digits.len()) as u64, out);
            }
        },
    }
}

fn zeros(mut count: u64, out: &mut Vec<u8>) {
    while count > 0 {
        let some = count.min(ZEROS.len() as u64);
        out.extend_from_slice(ZEROS.get(..some as usize).unwrap_or(ZEROS));
        count -= some;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_digits() {
        let tiny = |zeros: usize| format!("0.{}1", "0".repeat(zeros));
        for (text, holds) in [
            ("0", true),
            ("-0.0000000000000000000000000", true),
            ("999999999999999", true),
            ("-999999999999999", true),
            ("1000000000000000", false),
            ("9007199254740993", false),
            ("99999999999999.9", true),
            ("99999999999999.99", false),
            ("1.50000000000000000000000", true),
            ("1.500000000000000000000001", false),
            ("123456789012345.0000", true),
            ("0.0000000000000000000000123456789012345", true),
            ("0.00000000000000000000001234567890123456", false),
            (&tiny(290), true),
            (&tiny(291), false),
            ("1000000000000000e0", false),
        ] {
            assert_eq!(double_holds(text.as_bytes()), holds, "{text}");
        }
    }
}
