//! `uuid`: its text, from binary 16 bytes.

use super::read::Malformed;
use crate::contract::hex;

/// Writes the text of `uuid_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed::Form)?;
    let (mut text, mut digits) = ([b'-'; 36], [0; 32]);
    hex::write_to(bytes, &mut digits);
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    out.extend_from_slice(&text);
    Ok(())
}
