//! JSON strings.

/// Bytes looked at together: wide enough for vector registers, which the fixed size lets the compiler use.
const BLOCK: usize = 32;

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends `text` as a JSON string, escaped as PostgreSQL does: `"`, `\`, and control characters only.
///
/// Hot path: a text without such characters is scanned a block at a time and copied whole.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut copied = 0;
    while let Some(found) = find_escape(&bytes[copied..]) {
        let at = copied + found;
        out.extend_from_slice(&bytes[copied..at]);
        write_escape(bytes[at], out);
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// Where the first byte is that cannot stand as it is.
#[inline]
fn find_escape(bytes: &[u8]) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (at, block) in blocks.iter().enumerate() {
        // No early exit within a block: that is what lets it be one comparison of vectors.
        if block.iter().fold(false, |found, byte| found | needs_escape(*byte)) {
            return block.iter().position(|byte| needs_escape(*byte)).map(|within| at * BLOCK + within);
        }
    }
    rest.iter().position(|byte| needs_escape(*byte)).map(|within| blocks.len() * BLOCK + within)
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write_string(text, &mut out);
        String::from_utf8(out).expect("JSON of UTF-8 is UTF-8")
    }

    #[test]
    fn escapes() {
        for (text, expected) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t\u{8}\u{c}", r#""\n\r\t\b\f""#),
            ("\u{1}\u{1f}\u{7f}", "\"\\u0001\\u001f\u{7f}\""),
            ("Ä€😀\u{2028}", "\"Ä€😀\u{2028}\""),
        ] {
            assert_eq!(written(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_place_of_a_block() {
        for length in 0..100 {
            for at in 0..length {
                let text: String = (0..length).map(|i| if i == at { '"' } else { 'x' }).collect();
                assert_eq!(serde_json::from_str::<String>(&written(&text)).expect("valid JSON"), text);
            }
        }
    }
}
