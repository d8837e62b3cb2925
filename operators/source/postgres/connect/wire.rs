//! Frames of the PostgreSQL protocol 3.0, before the stream of changes begins.
//!
//! ```text
//! frame   = tag:u8  length:i32 (itself and the body)  body
//! 'E' 'N' = { field:u8  text\0 } \0        S severity  C SQLSTATE  M message  D detail …
//! 'D'     = count:i16 { length:i32 (-1: null)  bytes }
//! 'S'     = name\0 value\0                 'K' = pid:i32 key:i32
//! ```
//! Guarantees: a frame of any content is a value or an `InvalidData` error; a length is believed only as
//! far as bytes have come.

use super::socket::Socket;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest frame outside a stream of changes.
const LONGEST: usize = 64 << 20;
/// How much is made ready for a read at once.
const STEP: usize = 16 << 10;

/// Tags of the frames a server sends.
pub(super) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY: u8 = b'K';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_IN: u8 = b'G';
    pub(crate) const COPY_OUT: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY: u8 = b'I';
    pub(crate) const ERROR: u8 = b'E';
    pub(crate) const NEGOTIATE_VERSION: u8 = b'v';
    pub(crate) const NOTICE: u8 = b'N';
    pub(crate) const NOTIFICATION: u8 = b'A';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const READY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// Bytes that PostgreSQL does not send.
pub(super) fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What an error frame says, as far as it may be passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) sqlstate: String,
    pub(super) message: String,
}

impl Fields {
    /// Reads the body of an error or a notice.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut fields = Self::default();
        for field in body.split(|byte| *byte == 0) {
            match field.split_first() {
                Some((b'C', text)) => fields.sqlstate = String::from_utf8_lossy(text).into_owned(),
                Some((b'M', text)) => fields.message = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
        fields
    }
}

/// Splits the text before the next zero byte off.
pub(super) fn text(body: &mut Bytes) -> io::Result<String> {
    let end = memchr::memchr(0, body).ok_or_else(|| garbled("a text without its end in a message of the server"))?;
    let text = body.split_to(end);
    body.advance(1);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads the body of a data row.
pub(super) fn row(mut body: Bytes) -> io::Result<Vec<Option<String>>> {
    let short = || garbled("a row of the server is shorter than it says");
    let count = usize::from(body.try_get_u16().map_err(|_| short())?);
    let mut cells = Vec::with_capacity(count.min(body.len() / 4));
    for _ in 0..count {
        let length = body.try_get_i32().map_err(|_| short())?;
        cells.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length <= body.len() => Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()),
            Ok(_) => return Err(short()),
        });
    }
    Ok(cells)
}

/// A socket with the bytes that were read ahead.
pub(super) struct Wire {
    pub(super) socket: Socket,
    pub(super) buffer: BytesMut,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(STEP) }
    }

    /// Sends all.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Reads the next frame.
    pub(super) async fn next(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some((tag, length)) = header(&self.buffer)? {
                if length > LONGEST {
                    return Err(garbled("a message of the server is longer than any PostgreSQL sends here"));
                }
                if let Some(mut frame) = (self.buffer.len() > length).then(|| self.buffer.split_to(length + 1).freeze()) {
                    frame.advance(5);
                    return Ok((tag, frame));
                }
            }
            self.buffer.reserve(STEP);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The tag and the length (which leaves the tag out) at the start of a buffer.
///
/// Hot path: called for each message of a stream of changes; no allocation.
pub(super) fn header(buffer: &[u8]) -> io::Result<Option<(u8, usize)>> {
    let Some((&tag, rest)) = buffer.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length >= 4 => Ok(Some((tag, length))),
        _ => Err(garbled("a message of the server has a length that cannot be")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (bytes, expected) in [
            (&b""[..], Some(None)),
            (b"d\0\0\0", Some(None)),
            (b"d\0\0\0\x04", Some(Some((b'd', 4)))),
            (b"d\x40\0\0\0rest", Some(Some((b'd', 1 << 30)))),
            (b"d\0\0\0\x03", None),
            (b"d\xff\xff\xff\xff", None),
        ] {
            assert_eq!(header(bytes).ok(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn rows_and_fields() {
        let cells = |bytes: &'static [u8]| row(Bytes::from_static(bytes)).ok();
        assert_eq!(cells(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"), Some(vec![Some("a".into()), None]));
        assert_eq!(cells(b"\0\0"), Some(vec![]));
        for short in [&b""[..], b"\0", b"\0\x01", b"\0\x01\0\0\0\x02a", b"\xff\xff", b"\0\x01\x7f\xff\xff\xff"] {
            assert!(row(Bytes::copy_from_slice(short)).is_err(), "{short:?}");
        }
        let fields = Fields::parse(b"SFATAL\0C28P01\0Mno\0Dsecret\0\0");
        assert_eq!(fields, Fields { sqlstate: "28P01".into(), message: "no".into() });
        assert_eq!(Fields::parse(b"\xff\xffC"), Fields::default());
        assert!(text(&mut Bytes::from_static(b"abc")).is_err());
    }
}
