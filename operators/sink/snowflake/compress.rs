//! A request's body as it is compressed, or as it is; the compressor's tables serve the next request again.
//!
//! Guarantees: a compressed body is one zstd frame. Compressors that were given up half-way are not used again.

use bytes::Bytes;
use std::io::{Result, Write};
use std::sync::{Mutex, PoisonError};
use zstd::stream::raw::{CParameter, Encoder, Operation};
use zstd::stream::zio::Writer;

const LEVEL: i32 = 1;
/// Rows repeat what the rows just before them say. A window that stays in the cache of a core is a fifth faster than
/// the level's own, and leaves no more bytes.
const WINDOW: u32 = 17;
/// Compressors that are kept, half a megabyte each: as many as requests are usually made at once.
const KEPT: usize = 8;

static FREE: Mutex<Vec<Encoder<'static>>> = Mutex::new(Vec::new());

/// A body that grows.
pub(super) struct Compressor(Body);

enum Body {
    Zstd(Writer<Vec<u8>, Encoder<'static>>),
    Plain(Vec<u8>),
}

impl Compressor {
    /// An empty body.
    pub(super) fn new() -> Result<Self> {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let encoder = match free {
            Some(encoder) => encoder,
            None => {
                let mut encoder = Encoder::new(LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
                encoder
            }
        };
        Ok(Self(Body::Zstd(Writer::new(Vec::with_capacity(64 << 10), encoder))))
    }

    /// An empty body that stays as it is.
    pub(super) fn none() -> Self {
        Self(Body::Plain(Vec::with_capacity(1 << 20)))
    }

    /// Compressed bytes that are known of; [`Self::flush`] makes them all known.
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Body::Zstd(body) => body.writer().len(),
            Body::Plain(body) => body.len(),
        }
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, plain: &[u8]) -> Result<()> {
        match &mut self.0 {
            Body::Zstd(body) => body.write_all(plain),
            Body::Plain(body) => body.write_all(plain),
        }
    }

    /// Compresses what was added so far.
    pub(super) fn flush(&mut self) -> Result<()> {
        match &mut self.0 {
            Body::Zstd(body) => body.flush(),
            Body::Plain(_) => Ok(()),
        }
    }

    /// The body.
    pub(super) fn finish(self) -> Result<Bytes> {
        let mut writer = match self.0 {
            Body::Zstd(writer) => writer,
            Body::Plain(body) => return Ok(body.into()),
        };
        writer.finish()?;
        let (body, mut encoder) = writer.into_inner();
        encoder.reinit()?;
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(encoder);
        }
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_do_not_know_of_each_other() {
        for round in 0..20_u8 {
            let text = vec![round; 1000 * usize::from(round)];
            let mut given_up = Compressor::new().unwrap();
            given_up.write(b"never sent").unwrap();
            let mut body = Compressor::new().unwrap();
            for part in text.chunks(700) {
                body.write(part).unwrap();
            }
            body.flush().unwrap();
            assert!(text.is_empty() || body.len() > 0);
            drop(given_up);
            assert_eq!(zstd::decode_all(&body.finish().unwrap()[..]).unwrap(), text, "{round}");
        }
    }
}
