//! One value of a tuple: where its bytes are and how they are written.

/// A value's place in the buffer its row came in. Twelve bytes, no lifetime: lists of them are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    kind: Kind,
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Unchanged,
    Text,
    Binary,
}

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
    pub const NULL: Self = Self { kind: Kind::Null, start: 0, len: 0 };

    /// A TOASTed value that was not sent.
    pub const UNCHANGED: Self = Self { kind: Kind::Unchanged, start: 0, len: 0 };

    /// A value in text form.
    #[must_use]
    pub const fn text(start: u32, len: u32) -> Self {
        Self { kind: Kind::Text, start, len }
    }

    /// A value in binary form.
    #[must_use]
    pub const fn binary(start: u32, len: u32) -> Self {
        Self { kind: Kind::Binary, start, len }
    }

    /// Whether the value was not sent.
    #[inline]
    #[must_use]
    pub fn is_unchanged(self) -> bool {
        self.kind == Kind::Unchanged
    }

    /// Its bytes in `buffer`, the one it was decoded from; null in any shorter one.
    #[inline]
    #[must_use]
    pub fn field(self, buffer: &[u8]) -> Field<'_> {
        let start = self.start as usize;
        match (self.kind, buffer.get(start..start + self.len as usize)) {
            (Kind::Text, Some(bytes)) => Field::Text(bytes),
            (Kind::Binary, Some(bytes)) => Field::Binary(bytes),
            (Kind::Unchanged, _) => Field::Unchanged,
            _ => Field::Null,
        }
    }
}
