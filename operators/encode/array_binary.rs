//! Arrays in binary form as JSON, written directly.

use super::element::Element;
use super::json;
use super::read::Malformed;
use crate::decode::Cursor;

// array     := Int32 dimensions, Int32 has nulls, UInt32 element type, dimension*, element*
// dimension := Int32 length, Int32 lower bound
// element   := Int32 length (-1: null), bytes

/// The longest array that is written in one pass, in bytes: all the room that it may need is touched before.
pub(super) const ONE_PASS: usize = 1 << 16;
/// PostgreSQL's own limit, `MAXDIM`.
pub(super) const MOST_DIMENSIONS: usize = 6;

/// An array's dimensions, and a cursor over its elements.
pub(super) struct Shape<'a> {
    used: usize,
    dimensions: [(i32, i32); MOST_DIMENSIONS],
    /// Elements in one slice of a dimension and those below it.
    spans: [usize; MOST_DIMENSIONS],
    count: usize,
    elements: Cursor<'a>,
}

impl<'a> Shape<'a> {
    /// Reads the head. What it says of the number of elements is checked against the bytes that follow.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let used = usize::try_from(cursor.i32()?).ok().filter(|used| *used <= MOST_DIMENSIONS).ok_or(Malformed::Form)?;
        cursor.i32()?;
        cursor.i32()?;
        let mut shape = Self { used, dimensions: [(0, 0); 6], spans: [0; 6], count: 0, elements: cursor };
        for dimension in shape.dimensions.iter_mut().take(used) {
            *dimension = (shape.elements.i32()?, shape.elements.i32()?);
        }
        let mut count = usize::from(used > 0);
        for (span, (length, _)) in shape.spans.iter_mut().zip(&shape.dimensions).take(used).rev() {
            let length = usize::try_from(*length).ok().filter(|length| *length > 0).ok_or(Malformed::Form)?;
            // an element has at least its length
            count = count.checked_mul(length).filter(|count| *count <= shape.elements.rest().len() / 4).ok_or(Malformed::Form)?;
            *span = count;
        }
        shape.count = count;
        Ok(shape)
    }

    /// How many elements.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Length and lower bound of each dimension.
    pub(super) fn dimensions(&self) -> impl Iterator<Item = (i32, i32)> {
        self.dimensions.into_iter().take(self.used)
    }

    /// Whether a lower bound is not 1.
    pub(super) fn has_bounds(&self) -> bool {
        self.dimensions().any(|(_, low)| low != 1)
    }

    /// How many dimensions begin at an element.
    pub(super) fn opening(&self, index: usize) -> usize {
        self.spans.iter().take(self.used).filter(|span| index.is_multiple_of(**span)).count()
    }

    /// How many dimensions end after an element.
    pub(super) fn closing(&self, index: usize) -> usize {
        self.opening(index + 1)
    }

    /// The next element's bytes.
    pub(super) fn element(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.elements.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Malformed::Form)?;
        Ok(Some(self.elements.bytes(length)?))
    }

    /// Checks that nothing follows the last element.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        Ok(self.elements.finish()?)
    }
}

/// Appends the JSON of `array_send`'s bytes; gives whether a lower bound is not 1.
pub(super) fn write(element: &Element, bytes: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    if element.is_text() && bytes.len() <= ONE_PASS && plain_strings(bytes, out).is_some() {
        return Ok(false);
    }
    element_by_element(element, bytes, scratch, out)
}

/// The usual array in one pass: text, one dimension from 1 on, nothing to escape. `None`, and `out` as it was, for any other.
fn plain_strings(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut elements = Cursor::new(bytes);
    let [one, _, _, count, low] = [(); 5].map(|()| elements.i32().ok());
    let (count, start) = (count.filter(|_| (one, low) == (Some(1), Some(1)))?, out.len());
    // at most: a null of four bytes, which becomes five with its comma
    out.resize(start + 2 * bytes.len(), b'[');
    let written = (|| {
        let json = out.get_mut(start..)?;
        let mut end = 1;
        for _ in 0..count {
            let length = elements.i32().ok()?;
            if length == -1 {
                json.get_mut(end..end + 5)?.copy_from_slice(b"null,");
                end += 5;
                continue;
            }
            let item = elements.bytes(usize::try_from(length).ok()?).ok()?;
            // the type "char" spells such a byte
            if matches!(item, [128..=255]) {
                return None;
            }
            *json.get_mut(end)? = b'"';
            for (to, byte) in json.get_mut(end + 1..)?.iter_mut().zip(item) {
                if json::ESCAPES[usize::from(*byte)] {
                    return None;
                }
                *to = *byte;
            }
            end += item.len() + 3;
            json.get_mut(end - 2..end)?.copy_from_slice(b"\",");
        }
        // instead of the last comma
        *json.get_mut(end - 1).filter(|_| count > 0)? = b']';
        elements.finish().ok()?;
        Some(end)
    })();
    out.truncate(start + written.unwrap_or(0));
    written.map(|_| ())
}

/// As [`write`], an element at a time.
fn element_by_element(element: &Element, bytes: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    let mut shape = Shape::read(bytes)?;
    let mut bounds = shape.has_bounds();
    if shape.count() == 0 {
        out.extend_from_slice(b"[]");
    }
    for index in 0..shape.count() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(std::iter::repeat_n(b'[', shape.opening(index)));
        match shape.element()? {
            None => out.extend_from_slice(b"null"),
            Some(value) => bounds |= element.binary(value, scratch, out)?,
        }
        out.extend(std::iter::repeat_n(b']', shape.closing(index)));
    }
    shape.finish()?;
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ColumnType;
    use proptest::prelude::*;

    /// An array with one dimension, whose length and lower bound may be wrong.
    fn array_send(count: i32, low: i32, items: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = [1, 1, 25, count, low].map(i32::to_be_bytes).concat();
        for item in items {
            bytes.extend(item.as_ref().map_or(-1, |item| item.len() as i32).to_be_bytes());
            bytes.extend(item.iter().flatten());
        }
        bytes
    }

    proptest! {
        #[test]
        fn one_pass_says_what_elements_say(
            items in proptest::collection::vec(proptest::option::of(proptest::collection::vec(prop_oneof![8 => b'a'..=b'z', 1 => 0_u8..], 0..6)), 0..6),
            more in -1..=1_i32,
            low in 0..3_i32,
            cut in 0..3_usize,
        ) {
            let mut bytes = array_send(items.len() as i32 + if cut == 0 { more } else { 0 }, if cut == 1 { low } else { 1 }, &items);
            bytes.truncate(bytes.len() - cut / 2);
            let element = Element::new(&ColumnType::Text, b',');
            let (mut fast, mut slow) = (b"before".to_vec(), b"before".to_vec());
            let expected = element_by_element(&element, &bytes, &mut Vec::new(), &mut slow);
            if plain_strings(&bytes, &mut fast).is_some() {
                prop_assert_eq!(expected, Ok(false));
                prop_assert_eq!(fast, slow);
            } else {
                prop_assert_eq!(fast, b"before");
            }
        }

        #[test]
        fn one_pass_takes_plain_strings(items in proptest::collection::vec(proptest::option::of("[a-z é]{0,9}"), 1..5)) {
            let sent: Vec<_> = items.iter().map(|item| item.as_ref().map(|text| text.clone().into_bytes())).collect();
            let mut out = Vec::new();
            prop_assert!(plain_strings(&array_send(items.len() as i32, 1, &sent), &mut out).is_some());
            prop_assert_eq!(serde_json::from_slice::<Vec<Option<String>>>(&out).unwrap(), items);
        }
    }
}
