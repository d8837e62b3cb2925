//! Texts that are written again and again: the keys of members, and what stands between values.
//!
//! Hot path: copied by the room that they have, not by their length. A copy whose size the compiler knows is a few moves;
//! one of any size is a call, which costs more than such a text.

/// A text that is best not longer than `ROOM`.
#[derive(Clone, Debug)]
pub(crate) struct Fixed<const ROOM: usize> {
    room: [u8; ROOM],
    /// How much of the room is text.
    len: usize,
    /// What the room does not hold.
    rest: Box<[u8]>,
}

impl<const ROOM: usize> Fixed<ROOM> {
    /// Of a text.
    pub(crate) fn new(text: &[u8]) -> Self {
        let (start, rest) = text.split_at_checked(ROOM).unwrap_or((text, &[]));
        let mut room = [0; ROOM];
        for (to, from) in room.iter_mut().zip(start) {
            *to = *from;
        }
        Self { room, len: start.len(), rest: rest.into() }
    }

    /// Appends it.
    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        out.extend_from_slice(&self.room);
        out.truncate(end);
        if !self.rest.is_empty() {
            out.extend_from_slice(&self.rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length() {
        for length in 0..40 {
            let text: Vec<u8> = (0..length).collect();
            let mut out = b"before".to_vec();
            Fixed::<16>::new(&text).write(&mut out);
            out.extend_from_slice(b"after");
            assert_eq!(out, [b"before", text.as_slice(), b"after"].concat());
        }
    }
}
