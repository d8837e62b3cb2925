//! Arrays in binary form as JSON, written directly.

use super::element::Element;
use super::read::Malformed;
use crate::decode::Cursor;

// array     := Int32 dimensions, Int32 has nulls, UInt32 element type, dimension*, element*
// dimension := Int32 length, Int32 lower bound
// element   := Int32 length (-1: null), bytes

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
