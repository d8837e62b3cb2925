//! `bytea`: text in the `hex` form, or the older `escape` form; binary as it is.

use super::read::Malformed;
use crate::contract::hex;

const fn nibbles() -> [u8; 256] {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
}

static NIBBLES: [u8; 256] = nibbles();

/// Appends the bytes that a text stands for.
pub(super) fn text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some(digits) = text.strip_prefix(b"\\x") else { return escaped(text, out) };
    let (pairs, odd) = digits.as_chunks::<2>();
    // a digit that is none sets the high bits
    let mut seen = 0;
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        seen |= high | low;
        high << 4 | low
    }));
    if odd.is_empty() && seen < 16 { Ok(()) } else { Err(Malformed::Form) }
}

fn escaped(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = text;
    loop {
        match rest {
            [b'\\', b'\\', after @ ..] => {
                out.push(b'\\');
                rest = after;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            [b'\\', ..] => return Err(Malformed::Form),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
            [] => return Ok(()),
        }
    }
}

/// Writes the `hex` form.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    hex::write(bytes, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (from, to) in [
            (&b"\\x"[..], Some(&b""[..])),
            (b"\\x00fFa5", Some(b"\x00\xff\xa5")),
            (b"\\x0", None),
            (b"\\x0g", None),
            (b"", Some(b"")),
            (b"a\\\\b\\000\\377", Some(b"a\\b\0\xff")),
            (b"\\", None),
            (b"\\40", None),
            (b"\\400", None),
        ] {
            let mut out = Vec::new();
            assert_eq!(text(from, &mut out).ok().map(|()| &out[..]), to);
        }
    }
}
