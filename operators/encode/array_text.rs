//! Arrays in text form as JSON, written directly.

use super::array_binary::{MOST_DIMENSIONS, ONE_PASS};
use super::element::Element;
use super::json;
use super::read::Malformed;

// text   := [bounds '='] array
// bounds := ('[' integer ':' integer ']')+
// array  := '{' [item (delimiter item)*] '}'
// item   := array | '"' (byte | '\' byte)* '"' | NULL | byte+

/// Appends the JSON of `array_out`'s text; gives whether it says lower bounds.
pub(super) fn write(element: &Element, text: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let usual = element.is_string() && element.delimiter() == b',' && text.len() <= ONE_PASS;
    if usual && plain_strings(text, out).is_some() {
        return Ok(false);
    }
    item_by_item(element, text, scratch, out)
}

/// As [`write`], an item at a time.
fn item_by_item(element: &Element, text: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
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

/// What a byte is to [`plain_strings`]: text, text inside quotes only, or never text as it is.
const PLAIN: u8 = 0;
const QUOTED: u8 = 1;
const SPECIAL: u8 = 2;

static CLASSES: [u8; 256] = {
    let mut classes = [PLAIN; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = if json::ESCAPES[byte] { SPECIAL } else { PLAIN };
        byte += 1;
    }
    classes[b',' as usize] = QUOTED;
    classes[b'{' as usize] = QUOTED;
    classes[b'}' as usize] = QUOTED;
    classes
};

/// The usual array in one pass: strings, one dimension, nothing to escape. `None`, and `out` as it was, for any other.
fn plain_strings(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let [b'{', body @ .., b'}'] = text else { return None };
    let (mut rest, start) = (body, out.len());
    // at most: an item of one byte and its comma, which become four
    out.resize(start + 2 * text.len() + 2, b'[');
    let written = (|| {
        let json = out.get_mut(start..)?;
        let mut end = 1;
        loop {
            let first = end;
            *json.get_mut(end)? = b'"';
            end += 1;
            let (inside, most) = if let [b'"', item @ ..] = rest { (item, QUOTED) } else { (rest, PLAIN) };
            let mut length = 0;
            for (to, byte) in json.get_mut(end..)?.iter_mut().zip(inside) {
                if CLASSES[usize::from(*byte)] > most {
                    break;
                }
                *to = *byte;
                length += 1;
            }
            let (item, after) = inside.split_at_checked(length)?;
            end += length;
            *json.get_mut(end)? = b'"';
            end += 1;
            let after = match (most, after) {
                (QUOTED, [b'"', after @ ..]) => after,
                (PLAIN, _) if item == b"NULL" => {
                    json.get_mut(first..first + 4)?.copy_from_slice(b"null");
                    end = first + 4;
                    after
                }
                (PLAIN, _) if !item.is_empty() => after,
                _ => return None,
            };
            match after {
                [] => {
                    *json.get_mut(end)? = b']';
                    return Some(end + 1);
                }
                [b',', next @ ..] => {
                    *json.get_mut(end)? = b',';
                    end += 1;
                    rest = next;
                }
                _ => return None,
            }
        }
    })();
    out.truncate(start + written.unwrap_or(0));
    written.map(|_| ())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ColumnType;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_pass_says_what_items_say(text in r#"\{?[ab,"\\{}é \n]{0,12}(NULL)?[ab,"{}]{0,6}\}?"#) {
            let element = Element::new(&ColumnType::Text, b',');
            let (mut fast, mut slow) = (b"before".to_vec(), b"before".to_vec());
            let expected = item_by_item(&element, text.as_bytes(), &mut Vec::new(), &mut slow);
            if plain_strings(text.as_bytes(), &mut fast).is_some() {
                prop_assert_eq!(expected, Ok(false));
                prop_assert_eq!(fast, slow);
            } else {
                prop_assert_eq!(fast, b"before");
            }
        }

        #[test]
        fn one_pass_takes_plain_strings(items in proptest::collection::vec("[a-z]{1,9}|\"[a-z ,{}]{0,9}\"", 1..5)) {
            let text = format!("{{{}}}", items.join(","));
            let mut out = Vec::new();
            prop_assert!(plain_strings(text.as_bytes(), &mut out).is_some());
            let read: Vec<String> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, items.iter().map(|item| item.trim_matches('"').to_owned()).collect::<Vec<_>>());
        }
    }
}
