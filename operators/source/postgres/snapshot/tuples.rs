//! Tuples of `COPY … (FORMAT binary)`: where each begins and ends.
//!
//! ```text
//! copy    := header tuple* trailer
//! header  := "PGCOPY\n\xff\r\n\0" flags:int32 length:int32 extension
//! tuple   := fields:int16 (length:int32 bytes | -1:int32)*
//! trailer := -1:int16
//! ```
//! (PostgreSQL manual, `COPY`, "Binary Format".) The bytes may be cut anywhere.
//!
//! Hot path: one look at each field's length; bytes are appended once and never moved again, but for the
//! beginning of a tuple that did not fit its chunk.

use bytes::{Bytes, BytesMut};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Bytes before the header's extension.
const HEADER: usize = 19;

/// The bytes are not a binary copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::source::postgres) enum TupleError {
    /// They do not begin as one.
    #[error("it does not begin as a binary copy")]
    Header,
    /// A count or length below zero, or bytes after the end.
    #[error("it does not follow the binary copy format")]
    Layout,
    /// The end came too early.
    #[error("it ended inside a row")]
    Early,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Tuples,
    End,
}

/// Finds tuples in bytes as they arrive.
pub(in crate::source::postgres) struct Tuples {
    buffer: BytesMut,
    capacity: usize,
    /// Where the tuple being read begins.
    tuple: usize,
    /// Its next field's length, and fields left; nothing when its count is next.
    inside: Option<(usize, u16)>,
    place: Place,
    rows: Vec<(u32, u32)>,
}

impl Tuples {
    /// Chunks will be about `capacity` bytes.
    pub(in crate::source::postgres) fn new(capacity: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(capacity), capacity, tuple: 0, inside: None, place: Place::Header, rows: Vec::new() }
    }

    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes.
    pub(in crate::source::postgres) fn push(&mut self, bytes: &[u8]) -> Result<(), TupleError> {
        self.buffer.extend_from_slice(bytes);
        if self.place == Place::Header && !self.header()? {
            return Ok(());
        }
        self.walk()
    }

    fn header(&mut self) -> Result<bool, TupleError> {
        let Some(head) = self.buffer.get(..HEADER) else { return Ok(false) };
        let extension = head.last_chunk::<4>().map(|length| i32::from_be_bytes(*length));
        let extension = extension.and_then(|length| usize::try_from(length).ok()).ok_or(TupleError::Header)?;
        if !head.starts_with(SIGNATURE) {
            return Err(TupleError::Header);
        }
        let first = HEADER.checked_add(extension).ok_or(TupleError::Header)?;
        if self.buffer.len() < first {
            return Ok(false);
        }
        self.tuple = first;
        self.place = Place::Tuples;
        Ok(true)
    }

    fn walk(&mut self) -> Result<(), TupleError> {
        loop {
            let (mut at, mut left) = match self.inside {
                Some(inside) => inside,
                None => match self.buffer.get(self.tuple..).and_then(<[u8]>::first_chunk::<2>) {
                    Some([0xff, 0xff]) if self.place == Place::Tuples && self.buffer.len() == self.tuple + 2 => {
                        self.place = Place::End;
                        self.buffer.truncate(self.tuple);
                        return Ok(());
                    }
                    Some(_) if self.place == Place::End => return Err(TupleError::Layout),
                    Some(count) => {
                        let count = u16::try_from(i16::from_be_bytes(*count)).map_err(|_| TupleError::Layout)?;
                        (self.tuple + 2, count)
                    }
                    None if self.place == Place::End && self.buffer.len() > self.tuple => return Err(TupleError::Layout),
                    None => return Ok(()),
                },
            };
            while left > 0 {
                let Some(length) = self.buffer.get(at..).and_then(<[u8]>::first_chunk::<4>) else { break };
                let length = match i32::from_be_bytes(*length) {
                    -1 => 0,
                    length => usize::try_from(length).map_err(|_| TupleError::Layout)?,
                };
                let end = at.saturating_add(4).saturating_add(length);
                if end > self.buffer.len() {
                    break;
                }
                at = end;
                left -= 1;
            }
            if left > 0 {
                self.inside = Some((at, left));
                return Ok(());
            }
            let offset = |place: usize| u32::try_from(place).map_err(|_| TupleError::Layout);
            self.rows.push((offset(self.tuple)?, offset(at)?));
            self.tuple = at;
            self.inside = None;
        }
    }

    /// Takes the whole tuples out. What is left is the beginning of the next.
    pub(in crate::source::postgres) fn take(&mut self) -> (Bytes, Vec<(u32, u32)>) {
        let whole = self.buffer.split_to(self.tuple).freeze();
        let begun = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(self.capacity));
        self.buffer.extend_from_slice(&begun);
        if let Some((at, _)) = &mut self.inside {
            *at -= self.tuple;
        }
        self.tuple = 0;
        (whole, std::mem::take(&mut self.rows))
    }

    /// Says whether the copy came to its end.
    pub(in crate::source::postgres) fn end(&self) -> Result<(), TupleError> {
        if self.place == Place::End { Ok(()) } else { Err(TupleError::Early) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut out = [&SIGNATURE[..], &[0; 4], &[0, 0, 0, 2], b"xx"].concat();
        for row in rows {
            out.extend_from_slice(&(row.len() as i16).to_be_bytes());
            for field in *row {
                out.extend_from_slice(&field.map_or(-1, |f| f.len() as i32).to_be_bytes());
                out.extend_from_slice(field.unwrap_or_default());
            }
        }
        out.extend_from_slice(&[0xff, 0xff]);
        out
    }

    #[test]
    fn rows_whatever_the_cuts() {
        let rows: [&[Option<&[u8]>]; 4] = [&[Some(b"one"), None], &[], &[Some(b"")], &[None, Some(&[9; 300]), Some(b"z")]];
        let whole = copy(&rows);
        let expected: Vec<Vec<u8>> =
            rows.iter().map(|row| copy(&[row])[21..].to_vec()).map(|mut r| (r.truncate(r.len() - 2), r).1).collect();
        for piece in [1, 2, 3, 7, 19, 20, 64, whole.len()] {
            for take_every in [1, 5, usize::MAX] {
                let mut tuples = Tuples::new(16);
                let mut found = Vec::new();
                let mut take = |tuples: &mut Tuples| {
                    let (bytes, rows) = tuples.take();
                    found.extend(rows.iter().map(|(start, end)| bytes[*start as usize..*end as usize].to_vec()));
                };
                for (i, part) in whole.chunks(piece).enumerate() {
                    tuples.push(part).unwrap();
                    if i % take_every == 0 && tuples.place != Place::Header {
                        take(&mut tuples);
                    }
                }
                tuples.end().unwrap();
                take(&mut tuples);
                assert_eq!(found, expected, "pieces of {piece}, taken every {take_every}");
            }
        }
    }

    #[test]
    fn what_is_not_a_copy() {
        let good = copy(&[&[Some(b"a")]]);
        let with = |at: usize, byte: u8| (0..good.len()).map(|i| if i == at { byte } else { good[i] }).collect::<Vec<_>>();
        for (bytes, error) in [
            (with(0, b'X'), TupleError::Header),
            (with(15, 0xff), TupleError::Header),
            (with(21, 0xfe), TupleError::Layout),
            (with(23, 0xfe), TupleError::Layout),
            ([&good[..], b"x"].concat(), TupleError::Layout),
        ] {
            assert_eq!(Tuples::new(16).push(&bytes), Err(error), "{bytes:?}");
        }
        let mut cut = Tuples::new(16);
        cut.push(&good[..good.len() - 2]).unwrap();
        assert_eq!(cut.end(), Err(TupleError::Early));
        assert_eq!(cut.push(b"\xff\xff"), Ok(()));
        assert_eq!(cut.push(b"x"), Err(TupleError::Layout));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(parts: Vec<Vec<u8>>) {
            let mut tuples = Tuples::new(16);
            let good = copy(&[]);
            let _ = tuples.push(&good[..21]);
            for part in parts {
                if tuples.push(&part).is_err() {
                    break;
                }
                let _ = tuples.take();
            }
        }
    }
}
