//! `uuid`: its text, from binary 16 bytes.

use super::read::Malformed;

/// Writes the text of `uuid_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed::Form)?;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&hex(*byte));
    }
    Ok(())
}

/// Two lower-case digits.
pub(super) fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|half| if half < 10 { b'0' + half } else { b'a' + half - 10 })
}
