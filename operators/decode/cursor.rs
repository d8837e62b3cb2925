//! Reads big-endian fields off the front of outside bytes. Never panics: what is not there is [`Fault::Cut`].

use super::{Cell, Fault};

/// A place in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at a buffer's first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, end: bytes.len() }
    }

    /// Reads `start..end` of a buffer; [`Cursor::at`] counts from the buffer's first byte.
    ///
    /// # Errors
    /// When the buffer ends before `end`, or the range is not one.
    #[inline]
    pub fn within(buffer: &'a [u8], start: u32, end: u32) -> Result<Self, Fault> {
        let rest = buffer.get(start as usize..end as usize).ok_or(Fault::Cut)?;
        Ok(Self { rest, end: end as usize })
    }

    /// Where the next byte is.
    #[inline]
    #[must_use]
    pub const fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Cut)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// When nothing is left.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// `Int16`.
    ///
    /// # Errors
    /// When less is left.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    /// `Int32`.
    ///
    /// # Errors
    /// When less is left.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    /// `Int64`.
    ///
    /// # Errors
    /// When less is left.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_be_bytes)
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// When less is left.
    #[inline]
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Fault::Cut)?;
        self.rest = rest;
        Ok(head)
    }

    /// The start and length of the value that an `Int32` length announces.
    #[inline]
    pub(super) fn value(&mut self, length: i32) -> Result<(u32, u32), Fault> {
        let length = length.cast_unsigned();
        if length > Cell::LONGEST {
            return Err(Fault::Shape);
        }
        // a cursor over a row ends at a u32
        let start = self.at() as u32;
        self.bytes(length as usize)?;
        Ok((start, length))
    }

    /// An `Int32` length, and the start and length of the value that it announces.
    #[inline]
    pub(super) fn value_of_length(&mut self) -> Result<(u32, u32), Fault> {
        let length = self.i32()?;
        self.value(length)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    #[inline]
    pub const fn finish(self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(Fault::Long) }
    }
}
