//! The stream of changes: CopyBoth, read in late, large gulps.
//!
//! ```text
//! socket ──read_buf──> [ d len payload | d len payload | d len pay ]    one buffer, grows for a long message
//!                        └──── one shared chunk, no copy ────┘ └ tail ┘  only the tail is carried over
//! ```
//! Hot path: no allocation and no copy per message; a chunk costs one list of positions.
//!
//! Guarantees: messages come whole, once, in order, and those before an error come before the error. Reading and
//! sending are independent: status goes out while reading is paused, from another task if need be. Any bytes
//! give a chunk or a typed error. The buffer holds what was asked for, or one message and its growth.

use super::error::{Stage, broken, refused};
use super::low_water::LowWater;
use super::socket::Socket;
use super::wire::{Fields, Wire, garbled, header, tag};
use super::writer::ReplicationWriter;
use crate::contract::CodedError;
use bytes::{BufMut, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, ReadHalf};

/// The longest frame: a palloc'd value of PostgreSQL is shorter than 1 GiB.
const LONGEST: usize = (1 << 30) + (64 << 10);
/// How much room a read has at least, and the buffer's usual size.
const ROOM: usize = 256 << 10;
/// Room that is used up before more is made.
const SCARCE: usize = 64 << 10;

/// A walsender's connection that streams. Split it to use it.
pub(crate) struct ReplicationStream {
    wire: Wire,
    place: Arc<str>,
}

impl ReplicationStream {
    pub(super) fn new(wire: Wire, place: Arc<str>) -> Self {
        Self { wire, place }
    }

    /// The two directions.
    pub(crate) fn split(self) -> (ReplicationReader, ReplicationWriter) {
        let low_water = self.wire.socket.low_water();
        low_water.iter().for_each(LowWater::hold_little);
        let (read, write) = tokio::io::split(self.wire.socket);
        let doing: Arc<str> = format!("streaming changes from {}", self.place).into();
        let reader = ReplicationReader {
            socket: read,
            buffer: self.wire.buffer,
            missing: 0,
            count: 0,
            held: None,
            ended: false,
            low_water,
            gulp: Gulp::new(Instant::now()),
            resting: None,
            doing: Arc::clone(&doing),
        };
        (reader, ReplicationWriter::new(write, doing))
    }
}

/// What one read gave.
#[derive(Debug, Default)]
pub(crate) struct ReadChunk {
    /// The bytes of the messages with their frames. Slices of it share one allocation.
    pub(crate) bytes: Bytes,
    /// Start and end of each message's payload in `bytes`: `w` (WAL data) or `k` (keepalive) and what follows.
    /// May be empty while a long message is on its way.
    pub(crate) messages: Vec<(u32, u32)>,
    /// The server ended the stream in good order: nothing comes after.
    pub(crate) ended: bool,
}

/// When to read late: many small reads in quick succession become few large ones.
///
/// The walsender sends every row by itself, and each that reaches a waiting reader costs both sides a wake-up. While
/// traffic is high, a reader that has emptied the socket rests, then takes all that has come meanwhile. On the loopback
/// the socket is small besides ([`LowWater::hold_little`]): once it is full, the walsender's rows are only appended to
/// its own queue, which is the cheapest thing that can be done with them, and come over in large segments when
/// there is room again. A rest that gave little ends it, so that the first byte after silence is delivered at once.
/// Unix sockets hold too little: a reader that rests stalls the walsender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gulp {
    on: bool,
    /// The last read emptied the socket.
    empty: bool,
    /// Bytes read from `since` on.
    bytes: usize,
    since: Instant,
}

impl Gulp {
    /// How long a rest is.
    const REST: Duration = Duration::from_millis(10);
    /// Bytes within the time of a rest that make it worth to rest.
    const BUSY: usize = 64 << 10;
    /// A rest that gave less was not worth it.
    const LITTLE: usize = 16 << 10;
    /// A read that had to wait and gave less has emptied the socket.
    const SHORT: usize = 32 << 10;

    fn new(now: Instant) -> Self {
        Self { on: false, empty: false, bytes: 0, since: now }
    }

    /// Whether to rest before the next read.
    fn is_due(&self) -> bool {
        self.on && self.empty
    }

    /// Takes note of a read: whether it emptied the socket, and whether the reader rested before it.
    fn note(&mut self, bytes: usize, empty: bool, rested: bool, now: Instant) {
        self.empty = empty;
        if self.on {
            self.on = !rested || bytes >= Self::LITTLE;
            (self.bytes, self.since) = (0, now);
            return;
        }
        if now.duration_since(self.since) > Self::REST {
            (self.bytes, self.since) = (0, now);
        }
        self.bytes += bytes;
        self.on = self.bytes >= Self::BUSY;
    }
}

/// The reading half. Dropping it leaves the socket open until the writing half is dropped too.
pub(crate) struct ReplicationReader {
    socket: ReadHalf<Socket>,
    buffer: BytesMut,
    /// Bytes that the message at the buffer's start still lacks.
    missing: usize,
    /// Messages in the chunk before.
    count: usize,
    /// An error behind messages that were returned first.
    held: Option<CodedError>,
    ended: bool,
    low_water: Option<LowWater>,
    gulp: Gulp,
    /// When the rest that has begun ends.
    resting: Option<tokio::time::Instant>,
    doing: Arc<str>,
}

impl ReplicationReader {
    /// Bytes of an unfinished message that are held here.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Reads once from the socket, at most `max` bytes, and returns what is complete. Waits for the first byte.
    /// Cancel-safe: a read given up loses nothing.
    ///
    /// # Errors
    /// `PG0006` when the connection is lost or the server was told to end it, `PG0009` when the server reports
    /// another error, such as a publication that is gone.
    pub(crate) async fn read(&mut self, max: usize) -> Result<ReadChunk, CodedError> {
        let ready = self.complete()?;
        if !ready.messages.is_empty() || ready.ended {
            return Ok(ready);
        }
        match self.fill(max.clamp(1, LONGEST)).await {
            Ok(0) => Err(broken(&self.doing, Stage::Running, io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => self.complete(),
            Err(error) => Err(broken(&self.doing, Stage::Running, error)),
        }
    }

    /// Splits the complete messages off the buffer.
    fn complete(&mut self) -> Result<ReadChunk, CodedError> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let mut messages = Vec::with_capacity(if self.buffer.len() < 5 { 0 } else { self.count });
        let mut at = 0;
        while !self.ended && self.held.is_none() {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let (tag, length) = match header(rest) {
                Ok(Some((_, length))) if length > LONGEST => {
                    self.held =
                        Some(broken(&self.doing, Stage::Running, garbled("the server sent a message longer than any of PostgreSQL")));
                    break;
                }
                Ok(Some(header)) => header,
                Ok(None) => {
                    self.missing = 0;
                    break;
                }
                Err(error) => {
                    self.held = Some(broken(&self.doing, Stage::Running, error));
                    break;
                }
            };
            let Some(frame) = rest.get(..=length) else {
                self.missing = (length + 1).saturating_sub(rest.len());
                break;
            };
            match tag {
                tag::COPY_DATA => match (u32::try_from(at + 5), u32::try_from(at + length + 1)) {
                    (Ok(start), Ok(end)) => messages.push((start, end)),
                    _ => break,
                },
                tag::COPY_DONE => self.ended = true,
                tag::ERROR => self.held = Some(refused(&self.doing, Stage::Running, &Fields::parse(frame.get(5..).unwrap_or_default()))),
                tag::NOTICE => {
                    tracing::debug!(sqlstate = Fields::parse(frame.get(5..).unwrap_or_default()).sqlstate, "notice of the walsender")
                }
                tag::NOTIFICATION | tag::PARAMETER_STATUS => {}
                _ => {
                    self.held =
                        Some(broken(&self.doing, Stage::Running, garbled("the server sent a message that has no place in a stream")))
                }
            }
            at += length + 1;
        }
        let bytes = self.buffer.split_to(at).freeze();
        if at > 4 * ROOM && self.buffer.len() < ROOM {
            // Let go of the room that a long message took, as soon as its chunk is dropped.
            let mut fresh = BytesMut::with_capacity(ROOM);
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
        match self.held.take() {
            Some(error) if messages.is_empty() => Err(error),
            held => {
                self.held = held;
                self.count = messages.len();
                Ok(ReadChunk { bytes, messages, ended: self.ended })
            }
        }
    }

    /// Makes room and reads once.
    async fn fill(&mut self, max: usize) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < SCARCE.min(max) {
            // A length is believed only as far as bytes have come: the room at most doubles.
            self.buffer.reserve(self.missing.min(self.buffer.len()).max(ROOM.min(max)));
        }
        let room = (self.buffer.capacity() - self.buffer.len()).min(max);
        let rested = self.gulp.is_due() && self.low_water.as_mut().is_some_and(|socket| socket.raise(LowWater::HIGH));
        if rested {
            // A read that is given up while it rests goes on resting in the next, or it would never read.
            let until = *self.resting.get_or_insert_with(|| tokio::time::Instant::now() + Gulp::REST);
            tokio::time::sleep_until(until).await;
            self.resting = None;
        }
        if let Some(low_water) = self.low_water.as_mut().filter(|socket| socket.is_raised()) {
            if let Some(read) = low_water.read(&mut self.buffer, room)? {
                self.gulp.note(read, read < room, rested, Instant::now());
                return Ok(read);
            }
            low_water.lower();
        }
        let mut waited = false;
        let mut room = (&mut self.buffer).limit(room);
        let mut read = pin!(self.socket.read_buf(&mut room));
        let read = poll_fn(|cx| {
            let polled = read.as_mut().poll(cx);
            waited |= polled.is_pending();
            polled
        });
        let read = read.await?;
        self.gulp.note(read, waited && read < Gulp::SHORT, rested, Instant::now());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_begin_with_much_and_end_with_little() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gulp = Gulp::new(start);
        for millis in 0..1_000 {
            gulp.note(500, true, false, at(millis));
            assert!(!gulp.is_due(), "a thousand small reads in a second are no reason");
        }
        for _ in 0..Gulp::BUSY / 500 {
            assert!(!gulp.is_due());
            gulp.note(500, true, false, at(1_001));
        }
        gulp.note(500, true, false, at(1_001));
        assert!(gulp.is_due(), "the same within a moment are");
        gulp.note(64 << 10, false, true, at(1_011));
        assert!(!gulp.is_due(), "there is more");
        gulp.note(400, true, false, at(1_011));
        assert!(gulp.is_due(), "the socket is empty");
        gulp.note(20 << 10, true, true, at(1_021));
        assert!(gulp.is_due());
        gulp.note(400, true, true, at(1_031));
        assert!(!gulp.is_due(), "a rest for nothing ends it");
    }
}
