//! The text of an array that came in binary, as `array_out` writes it. Needed only beside arrays whose lower
//! bounds the JSON does not show.

use super::array_binary::Shape;
use super::output::output;
use super::read::Malformed;
use crate::contract::ColumnType;

/// Writes the text of `array_send`'s bytes. Allocates: it is for the rare arrays with bounds.
pub(super) fn write(element: &ColumnType, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut shape = Shape::read(bytes)?;
    if shape.has_bounds() {
        for (length, low) in shape.dimensions() {
            let high = i64::from(low) + i64::from(length) - 1;
            out.extend_from_slice(format!("[{low}:{high}]").as_bytes());
        }
        out.push(b'=');
    }
    if shape.count() == 0 {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    let mut text = Vec::new();
    for index in 0..shape.count() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(std::iter::repeat_n(b'{', shape.opening(index)));
        match shape.element()? {
            None => out.extend_from_slice(b"NULL"),
            Some(value) => {
                text.clear();
                output(element, value, &mut text)?;
                write_element(&text, out);
            }
        }
        out.extend(std::iter::repeat_n(b'}', shape.closing(index)));
    }
    shape.finish()
}

fn write_element(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 11 | 12);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"NULL") && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
