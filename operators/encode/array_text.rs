//! Arrays in text form as JSON, written directly.

use super::array_binary::MOST_DIMENSIONS;
use super::element::Element;
use super::json;
use super::read::Malformed;

// text   := [bounds '='] array
// bounds := ('[' integer ':' integer ']')+
// array  := '{' [item (delimiter item)*] '}'
// item   := array | '"' (byte | '\' byte)* '"' | NULL | byte+

/// Appends the JSON of `array_out`'s text; gives whether it says lower bounds.
pub(super) fn write(element: &Element, text: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let mut rest = text;
    let mut bounds = false;
    if text.first() == Some(&b'[') {
        bounds = true;
        let equals = text.iter().position(|b| *b == b'=').ok_or(Malformed::Form)?;
        rest = text.get(equals + 1..).ok_or(Malformed::Form)?;
    }
    let (mut depth, mut item_due) = (0_usize, true);
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'{' if item_due && depth < MOST_DIMENSIONS => {
                depth += 1;
                out.push(b'[');
                if let [b'}', after @ ..] = after {
                    out.push(b']');
                    depth -= 1;
                    item_due = false;
                    rest = after;
                } else {
                    rest = after;
                }
            }
            b'}' if !item_due && depth > 0 => {
                depth -= 1;
                out.push(b']');
                rest = after;
            }
            _ if depth == 0 => return Err(Malformed::Form),
            b'"' if item_due => {
                item_due = false;
                if element.is_string() {
                    // the common case in one pass: nothing to unescape, nothing to escape
                    let (plain, stop) = after.split_at(json::plain_length(after));
                    if let [b'"', after @ ..] = stop {
                        json::plain_string(plain, out);
                        rest = after;
                        continue;
                    }
                }
                rest = quoted(element, after, scratch, &mut bounds, out)?;
            }
            byte if *byte == element.delimiter() && !item_due => {
                item_due = true;
                out.push(b',');
                rest = after;
            }
            _ if item_due => {
                item_due = false;
                let end = rest.iter().position(|b| *b == element.delimiter() || *b == b'}').ok_or(Malformed::Form)?;
                let (item, after) = rest.split_at(end);
                if element.is_string() && item != b"NULL" && !item.is_empty() && plain_item(item) {
                    json::plain_string(item, out);
                    rest = after;
                    continue;
                }
                if item.is_empty() || item.iter().any(|b| matches!(b, b'"' | b'{' | b'\\')) {
                    return Err(Malformed::Form);
                }
                if item == b"NULL" {
                    out.extend_from_slice(b"null");
                } else {
                    bounds |= element.text(item, out)?;
                }
                rest = after;
            }
            _ => return Err(Malformed::Form),
        }
        if depth == 0 {
            return if rest.is_empty() { Ok(bounds) } else { Err(Malformed::Form) };
        }
    }
    Err(Malformed::Form)
}

/// Whether an unquoted item is as `array_out` writes one, with nothing to escape in JSON.
#[inline]
fn plain_item(item: &[u8]) -> bool {
    json::plain_length(item) == item.len() && !item.contains(&b'{')
}

/// Writes the item after an opening quote; gives what follows the closing one.
#[inline]
fn quoted<'a>(
    element: &Element,
    text: &'a [u8],
    scratch: &mut Vec<u8>,
    bounds: &mut bool,
    out: &mut Vec<u8>,
) -> Result<&'a [u8], Malformed> {
    let mut rest = text;
    scratch.clear();
    loop {
        let end = rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(Malformed::Form)?;
        let (plain, special) = rest.split_at(end);
        match special {
            [b'"', after @ ..] => {
                let item = if scratch.is_empty() {
                    plain
                } else {
                    scratch.extend_from_slice(plain);
                    scratch
                };
                *bounds |= element.text(item, out)?;
                return Ok(after);
            }
            [b'\\', escaped, after @ ..] => {
                scratch.extend_from_slice(plain);
                scratch.push(*escaped);
                rest = after;
            }
            _ => return Err(Malformed::Form),
        }
    }
}
