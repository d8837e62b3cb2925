//! Frames between the engine and a worker process.
//!
//! ```text
//! frame := "ETLS" header_length:u32 body_length:u64 header(JSON) body          (little-endian)
//! ```
//! A length is believed only as far as bytes have come.

use bytes::Bytes;
use serde_json::Value;
use std::io::{self, IoSlice, Read, Write};

const MAGIC: [u8; 4] = *b"ETLS";
const HEAD: usize = 16;
/// A header is settings, names or a traceback.
const HEADER_LIMIT: u32 = 16 << 20;
/// Memory that is taken before its bytes have come.
const AHEAD: u64 = 64 << 20;

/// A header and a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    /// What it is about; an answer with `error` is a failure.
    pub(crate) header: Value,
    /// Arrow, rows, or nothing.
    pub(crate) body: Bytes,
}

impl Frame {
    /// A frame without a body.
    pub(crate) fn of(header: Value) -> Self {
        Self { header, body: Bytes::new() }
    }

    /// Writes it.
    ///
    /// # Errors
    /// As the writer.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let header = self.header.to_string();
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes());
        head[8..].copy_from_slice(&(self.body.len() as u64).to_le_bytes());
        let mut parts = [IoSlice::new(&head), IoSlice::new(header.as_bytes()), IoSlice::new(&self.body)];
        let mut left = &mut parts[..];
        while !left.is_empty() {
            match to.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads one; nothing when the other end has closed between frames.
    ///
    /// # Errors
    /// As the reader, and when the bytes are no frame.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = Vec::with_capacity(HEAD);
        from.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(None);
        }
        let (Some(magic), Some(header), Some(body)) =
            (head.first_chunk::<4>(), head.get(4..).and_then(|h| h.first_chunk()), head.get(8..).and_then(|h| h.first_chunk()))
        else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (header, body) = (u32::from_le_bytes(*header), u64::from_le_bytes(*body));
        if *magic != MAGIC || header > HEADER_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the bytes are no frame"));
        }
        let header = part(from, u64::from(header))?;
        let header = serde_json::from_slice(&header).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the header is no JSON"))?;
        Ok(Some(Self { header, body: part(from, body)?.into() }))
    }
}

fn part(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(AHEAD) as usize);
    from.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_come_as_they_went_and_what_is_none_is_refused() {
        let frame = Frame { header: json!({ "call": "batch", "schema": 3 }), body: Bytes::from_static(b"abc") };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        Frame::of(json!({})).write(&mut bytes).unwrap();
        let mut from = &bytes[..];
        assert_eq!(Frame::read(&mut from).unwrap(), Some(frame));
        assert_eq!(Frame::read(&mut from).unwrap(), Some(Frame::of(json!({}))));
        assert_eq!(Frame::read(&mut from).unwrap(), None);
        for cut in 1..bytes.len() - 18 {
            assert!(Frame::read(&mut &bytes[..cut]).is_err(), "{cut}");
        }
        for wrong in
            [&b"hello, this is a print of something"[..], b"ETLS\xff\xff\xff\xff\0\0\0\0\0\0\0\0", b"ETLS\x01\0\0\0\0\0\0\0\0\0\0\0{"]
        {
            assert!(Frame::read(&mut &wrong[..]).is_err());
        }
    }
}
