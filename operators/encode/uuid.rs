//! `uuid`: its text, from binary 16 bytes.

use super::read::Malformed;

/// Writes the text of `uuid_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed::Form)?;
    // All digits first, which takes a few wide instructions.
    let digits = bytes.map(hex);
    let (mut text, digits) = ([b'-'; 36], digits.as_flattened());
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    out.extend_from_slice(&text);
    Ok(())
}

/// Two lower-case digits.
#[inline]
pub(super) fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|half| half + if half < 10 { b'0' } else { b'a' - 10 })
}
