//! Lower-case hexadecimal digits, as PostgreSQL spells `bytea` and `uuid` and an offset token its halves.
//!
//! Hot path: eight digits at a time in one word, no table, no allocation per value.

/// Every byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The digits of four bytes.
#[inline]
const fn of_four(bytes: [u8; 4]) -> [u8; 8] {
    // one half of a byte to each of the word's bytes, in order
    let word = u32::from_be_bytes(bytes) as u64;
    let word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    let word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (word + 6 * EACH) >> 4 & EACH;
    (word + b'0' as u64 * EACH + letters * (b'a' - b'9' - 1) as u64).to_be_bytes()
}

/// The digits of a byte.
#[inline]
#[must_use]
pub(crate) const fn of_byte(byte: u8) -> [u8; 2] {
    let [.., high, low] = of_four([0, 0, 0, byte]);
    [high, low]
}

/// The digits of a number, from the highest on.
#[inline]
#[must_use]
pub(crate) fn of_number(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    write_to(&number.to_be_bytes(), &mut digits);
    digits
}

/// Writes two digits a byte, as far as there is room.
#[inline]
pub(crate) fn write_to(bytes: &[u8], digits: &mut [u8]) {
    let (fours, rest) = bytes.as_chunks::<4>();
    let (eights, last) = digits.as_chunks_mut::<8>();
    eights.iter_mut().zip(fours).for_each(|(eight, four)| *eight = of_four(*four));
    last.as_chunks_mut::<2>().0.iter_mut().zip(rest).for_each(|(two, byte)| *two = of_byte(*byte));
}

/// Appends two digits a byte.
#[inline]
pub(crate) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), b'0');
    write_to(bytes, out.get_mut(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_library_has_them() {
        for byte in 0..=255 {
            assert_eq!(of_byte(byte), *format!("{byte:02x}").as_bytes());
        }
        for number in [0, 1, 0x9a9a_0f0f_f0f0_a9a9, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(of_number(number), *format!("{number:016x}").as_bytes());
        }
        for length in 0..20_u8 {
            let (mut out, bytes): (_, Vec<u8>) = (b"before".to_vec(), (0..length).map(|at| at.wrapping_mul(37)).collect());
            write(&bytes, &mut out);
            let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(out, format!("before{expected}").into_bytes());
        }
    }
}
