//! JSON text: documents copied and never parsed, and strings escaped as `to_jsonb` does.

use crate::contract::hex;

/// Puts a document on one line. PostgreSQL refuses raw control characters inside a document's strings, so a line
/// break or tab is always white space between tokens.
pub(super) fn to_one_line(document: &mut [u8]) {
    for byte in document {
        *byte = if matches!(*byte, b'\n' | b'\r' | b'\t') { b' ' } else { *byte };
    }
}

/// Whether a document is JSON's null.
#[inline]
pub(super) fn is_null(document: &[u8]) -> bool {
    document.trim_ascii() == b"null"
}

const fn escapes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 32 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
}

/// Which bytes of a string need an escape.
pub(super) static ESCAPES: [bool; 256] = escapes();

/// Appends a string that needs no escape, with its quotes.
#[inline]
pub(super) fn plain_string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Appends a string with its quotes.
#[inline]
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| ESCAPES[usize::from(*b)]) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex::of_byte(*other));
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for text in ["", "plain", "a\"b\\c\n\r\t\u{8}\u{c}\u{1}\u{7f}é😀", "\"", "\\\\"] {
            let mut out = Vec::new();
            string(text.as_bytes(), &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            assert!(!out.iter().any(|b| *b < 32));
        }
    }
}
