//! `uuid`: its text, from binary 16 bytes.

use super::read::Malformed;

/// Where each byte's two digits stand.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// Writes the text of `uuid_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed::Form)?;
    let mut text = [b'-'; 36];
    for (place, byte) in PLACES.iter().zip(bytes) {
        [text[*place], text[*place + 1]] = hex(*byte);
    }
    out.extend_from_slice(&text);
    Ok(())
}

/// Two lower-case digits.
#[inline]
pub(super) fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|half| if half < 10 { b'0' + half } else { b'a' + half - 10 })
}
