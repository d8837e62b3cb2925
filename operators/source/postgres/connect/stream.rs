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
use std::io;
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
            marked: false,
            gulp: Gulp::default(),
            last: Instant::now(),
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

/// When to read late: many small reads in quick succession become one large one.
///
/// The walsender flushes every few hundred bytes while it is busy, and each wake-up costs both sides system calls.
/// After [`Gulp::STREAK`] small reads without a pause, a read waits until `low_water` bytes are there or `wait` has
/// passed. A pause or a small gulp ends that, so that the first byte after silence is delivered at once.
/// Unix sockets have no such mark and need none: they hold little, and a reader that waits stalls the walsender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gulp {
    low_water: u32,
    wait: Duration,
    streak: u32,
}

impl Default for Gulp {
    fn default() -> Self {
        Self { low_water: 64 << 10, wait: Duration::from_micros(200), streak: 0 }
    }
}

impl Gulp {
    /// Small reads in a row that count as high traffic.
    const STREAK: u32 = 16;
    /// A gap that ends high traffic.
    const PAUSE: Duration = Duration::from_millis(5);
    /// A gulp below this was not worth its wait.
    const TRICKLE: usize = 2 << 10;

    fn is_on(&self) -> bool {
        self.low_water > 1 && self.streak >= Self::STREAK
    }

    /// Takes note of a read and of the time since the one before.
    fn note(&mut self, bytes: usize, since: Duration) {
        if since > Self::PAUSE || (self.is_on() && bytes < Self::TRICKLE) {
            self.streak = 0;
        } else if bytes < self.low_water as usize {
            self.streak = self.streak.saturating_add(1);
        }
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
    /// The socket's low-water mark is raised.
    marked: bool,
    gulp: Gulp,
    last: Instant,
    doing: Arc<str>,
}

impl ReplicationReader {
    /// Sets when to read late: at most `wait` for at least `low_water` bytes while traffic is high. Default 64 KiB
    /// and 200 µs; timers of the runtime are as fine as 1 ms, so a gulp of less may take that. `low_water` 0
    /// delivers everything as it comes, as unix sockets always do.
    pub(crate) fn set_gulp(&mut self, low_water: u32, wait: Duration) {
        self.gulp = Gulp { low_water, wait, streak: 0 };
    }

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
        let (gulping, wait) = (self.gulp.is_on(), self.gulp.wait);
        self.mark(gulping);
        let read = if self.marked {
            let timed = tokio::time::timeout(wait, self.socket.read_buf(&mut (&mut self.buffer).limit(room))).await;
            match timed {
                Ok(read) => read?,
                Err(_) => {
                    self.mark(false);
                    self.socket.read_buf(&mut (&mut self.buffer).limit(room)).await?
                }
            }
        } else {
            self.socket.read_buf(&mut (&mut self.buffer).limit(room)).await?
        };
        let now = Instant::now();
        self.gulp.note(read, now.duration_since(self.last));
        self.last = now;
        Ok(read)
    }

    /// Raises or lowers the socket's low-water mark.
    fn mark(&mut self, raise: bool) {
        if let Some(low_water) = self.low_water.as_ref().filter(|_| self.marked != raise) {
            let set = low_water.set(if raise { self.gulp.low_water } else { 1 });
            self.marked = raise && set.is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gulps_start_with_a_streak_and_end_with_a_pause() {
        let quick = Duration::from_micros(50);
        let mut gulp = Gulp::default();
        for _ in 0..Gulp::STREAK {
            assert!(!gulp.is_on());
            gulp.note(400, quick);
        }
        assert!(gulp.is_on());
        gulp.note(100 << 10, quick);
        gulp.note(8 << 10, quick);
        assert!(gulp.is_on(), "large gulps keep it");
        let mut trickle = gulp;
        trickle.note(400, quick);
        assert!(!trickle.is_on(), "a small gulp ends it");
        gulp.note(100 << 10, Duration::from_millis(6));
        assert!(!gulp.is_on(), "a pause ends it");
        let mut off = Gulp { low_water: 0, ..Gulp::default() };
        (0..100).for_each(|_| off.note(1, quick));
        assert!(!off.is_on());
    }
}
