//! One value of a tuple: where its bytes are and how they are written.

/// A value's place in the buffer its row came in. Eight bytes, no lifetime: lists of them are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    start: u32,
    /// The kind in two bits, then the length.
    tagged: u32,
}

const KIND_AT: u32 = 30;
const NULL: u32 = 0;
const UNCHANGED: u32 = 1;
const TEXT: u32 = 2;
const BINARY: u32 = 3;

/// A value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL null.
    Null,
    /// A TOASTed value that did not change and was not sent.
    Unchanged,
    /// The text of the type's output function.
    Text(&'a [u8]),
    /// The bytes of the type's send function.
    Binary(&'a [u8]),
}

impl Cell {
    /// SQL null.
    pub const NULL: Self = Self::new(NULL, 0, 0);

    /// A TOASTed value that was not sent.
    pub const UNCHANGED: Self = Self::new(UNCHANGED, 0, 0);

    /// The longest value: PostgreSQL allocates less than 1 GiB for one (`MaxAllocSize`, 2³⁰ − 1 bytes).
    pub const LONGEST: u32 = (1 << KIND_AT) - 1;

    const fn new(kind: u32, start: u32, length: u32) -> Self {
        Self { start, tagged: kind << KIND_AT | length & Self::LONGEST }
    }

    /// A value in text form, of at most [`Cell::LONGEST`] bytes.
    #[must_use]
    pub const fn text(start: u32, length: u32) -> Self {
        Self::new(TEXT, start, length)
    }

    /// A value in binary form, of at most [`Cell::LONGEST`] bytes.
    #[must_use]
    pub const fn binary(start: u32, length: u32) -> Self {
        Self::new(BINARY, start, length)
    }

    /// Whether the value was not sent.
    #[inline]
    #[must_use]
    pub fn is_unchanged(self) -> bool {
        self.tagged >> KIND_AT == UNCHANGED
    }

    /// Where its bytes start.
    #[inline]
    #[must_use]
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// Its bytes in `buffer`, the one it was decoded from; null in any shorter one.
    #[inline]
    #[must_use]
    pub fn field(self, buffer: &[u8]) -> Field<'_> {
        let start = self.start();
        match (self.tagged >> KIND_AT, buffer.get(start..start + (self.tagged & Self::LONGEST) as usize)) {
            (TEXT, Some(bytes)) => Field::Text(bytes),
            (BINARY, Some(bytes)) => Field::Binary(bytes),
            (UNCHANGED, _) => Field::Unchanged,
            _ => Field::Null,
        }
    }
}
