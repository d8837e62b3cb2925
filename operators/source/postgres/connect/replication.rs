//! A connection whose bytes are read here: a walsender's before it streams, for replication commands and SQL (PostgreSQL
//! manual, 53.4), and a backend's that copies rows out.

use super::authentication::Session;
use super::ending::Ending;
use super::error::{Stage, broken, refused};
use super::low_water::LowWater;
use super::stream::ReplicationStream;
use super::wire::{Fields, Wire, garbled, header, row, tag};
use crate::contract::{CodedError, Permit};
use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// The values of a row as text; `None` is null.
pub(crate) type TextRow = Vec<Option<String>>;

/// The longest message of a COPY: a row is shorter than 1 GiB.
const LONGEST_ROW: usize = (1 << 30) + (64 << 10);
/// How much of a COPY is made room for at once.
const GULP: usize = 256 << 10;
/// How much of a COPY is waited for, and how long.
///
/// A backend sends 8 KiB at a time. Woken for each, the reader spends more on waking up than on what it reads, and takes
/// the processor from the backend meanwhile.
const WORTH: u32 = 128 << 10;
const REST: Duration = Duration::from_millis(5);

/// A walsender, or a backend, of one database. Dropping it closes the connection.
pub(crate) struct Replication {
    wire: Wire,
    session: Session,
    /// `host:port/database as user`.
    place: Arc<str>,
    /// A command's answer is not read to its end: a caller gave up waiting.
    unread: bool,
    /// A place of the process's budget.
    ending: Option<Ending>,
    low_water: Option<LowWater>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replication({}, pid {})", self.place, self.session.backend_pid)
    }
}

/// The first words of a command, for messages: names of commands and slots, never a value.
fn title(sql: &str) -> String {
    let is_command = |word: &&str| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b == b';');
    let mut words = sql.split_whitespace().peekable();
    let mut title: Vec<&str> = Vec::new();
    while let Some(word) = words.next_if(is_command) {
        title.push(word);
    }
    // The word after SLOT is its name.
    if title.last().is_some_and(|word| word.ends_with("SLOT")) {
        title.extend(words.next());
    }
    if title.is_empty() { "a statement".to_owned() } else { title.join(" ") }
}

impl Replication {
    pub(super) fn new(wire: Wire, session: Session, place: Arc<str>) -> Self {
        let low_water = wire.socket.low_water();
        Self { wire, session, place, unread: false, ending: None, low_water }
    }

    /// Holds a place of the process's budget for as long as it is open.
    pub(super) fn within(self, permit: Permit) -> Self {
        let ending = Some(Ending::new(permit, self.wire.socket.second()));
        Self { ending, ..self }
    }

    /// A parameter the server reported, such as `server_version`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters.get(name).map(String::as_str)
    }

    /// The server's major version, such as 15; 0 when it did not say.
    pub(crate) fn server_major(&self) -> u32 {
        super::session::major(self.parameter("server_version").unwrap_or(""))
    }

    /// The process id of the walsender, as in `pg_stat_replication`.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.session.backend_pid
    }

    fn doing(&self, sql: &str) -> String {
        format!("{} at {}", title(sql), self.place)
    }

    async fn send(&mut self, sql: &str) -> io::Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        while self.unread {
            let (tag, _) = self.wire.next().await?;
            self.unread = tag != tag::READY;
        }
        self.unread = true;
        self.wire.send(&out).await
    }

    /// Runs a replication command (`IDENTIFY_SYSTEM`, `CREATE_REPLICATION_SLOT …`) or SQL; returns the rows of all
    /// its statements. After an error of the server the connection can be used again. Not cancel-safe: what was
    /// sent is done, and a partly sent command breaks the connection.
    ///
    /// # Errors
    /// `PG0009` when the server refuses ([`sqlstate`](super::sqlstate) tells why), `PG0006` when the connection is lost.
    pub(crate) async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, CodedError> {
        let doing = self.doing(sql);
        let lost = |error| broken(&doing, Stage::Running, error);
        self.send(sql).await.map_err(lost)?;
        let (mut rows, mut refusal) = (Vec::new(), None);
        loop {
            let (tag, body) = self.wire.next().await.map_err(lost)?;
            match tag {
                tag::READY => {
                    self.unread = false;
                    return refusal.map_or(Ok(rows), Err);
                }
                tag::DATA_ROW => rows.push(row(body).map_err(lost)?),
                tag::ERROR => {
                    let error = refused(&doing, Stage::Running, &Fields::parse(&body));
                    // A walsender that is told to end sends no more.
                    if error.code == super::PG_LOST {
                        return Err(error);
                    }
                    refusal = Some(error);
                }
                tag::ROW_DESCRIPTION
                | tag::COMMAND_COMPLETE
                | tag::EMPTY_QUERY
                | tag::NOTICE
                | tag::NOTIFICATION
                | tag::PARAMETER_STATUS => {}
                tag::COPY_BOTH | tag::COPY_IN | tag::COPY_OUT => return Err(lost(garbled("the command started a COPY"))),
                _ => return Err(lost(garbled("the server sent a message that has no place here"))),
            }
        }
    }

    /// Starts `COPY … TO STDOUT`; [`Replication::copied`] gives its data.
    ///
    /// # Errors
    /// As [`Replication::simple_query`].
    pub(crate) async fn copy_out(&mut self, sql: &str, doing: &str) -> Result<(), CodedError> {
        let lost = |error| broken(doing, Stage::Running, error);
        self.send(sql).await.map_err(lost)?;
        loop {
            let (tag, body) = self.wire.next().await.map_err(lost)?;
            match tag {
                tag::COPY_OUT => return Ok(()),
                tag::ERROR => return Err(refused(doing, Stage::Running, &Fields::parse(&body))),
                tag::NOTICE | tag::NOTIFICATION | tag::PARAMETER_STATUS => {}
                _ => return Err(lost(garbled("the command did not start a COPY"))),
            }
        }
    }

    /// Hands `take` what one read gave of the COPY's data, message by message. False: that was all of it.
    ///
    /// Hot path: a message is looked at where it was read; nothing is allocated for it.
    ///
    /// # Errors
    /// As [`Replication::simple_query`], and `take`'s; the COPY is over then.
    pub(crate) async fn copied(&mut self, doing: &str, mut take: impl FnMut(&[u8]) -> Result<(), CodedError>) -> Result<bool, CodedError> {
        let lost = |error| broken(doing, Stage::Running, error);
        loop {
            let mut at = 0;
            let mut complete = false;
            let mut refusal = None;
            let buffer = &mut self.wire.buffer;
            while !complete && refusal.is_none() {
                let rest = buffer.get(at..).unwrap_or_default();
                let Some((tag, length)) = header(rest).map_err(lost)? else { break };
                if length > LONGEST_ROW {
                    return Err(lost(garbled("the server sent a message longer than any of PostgreSQL")));
                }
                let Some(body) = rest.get(5..=length) else { break };
                match tag {
                    tag::COPY_DATA => take(body)?,
                    tag::READY => complete = true,
                    tag::ERROR => refusal = Some(refused(doing, Stage::Running, &Fields::parse(body))),
                    tag::COPY_DONE | tag::COMMAND_COMPLETE | tag::NOTICE | tag::NOTIFICATION | tag::PARAMETER_STATUS => {}
                    _ => return Err(lost(garbled("the server sent a message that has no place in a COPY"))),
                }
                at += length + 1;
            }
            buffer.advance(at);
            if complete || refusal.is_some() {
                // Answers that come next are short.
                self.low_water.as_mut().into_iter().for_each(LowWater::lower);
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            if complete {
                self.unread = false;
                return Ok(false);
            }
            if at > 0 {
                return Ok(true);
            }
            if self.gulp().await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, late: much of a COPY, or what has come after a rest. 0 is the end.
    async fn gulp(&mut self) -> io::Result<usize> {
        let buffer = &mut self.wire.buffer;
        // A length is believed only as far as bytes have come: the room at most doubles.
        buffer.reserve(GULP.max(buffer.len()));
        if let Some(low_water) = &mut self.low_water
            && low_water.raise(WORTH)
        {
            if let Ok(read) = timeout(REST, self.wire.socket.read_buf(buffer)).await {
                return read;
            }
            let room = buffer.capacity() - buffer.len();
            if let Some(read) = low_water.read(buffer, room)? {
                return Ok(read);
            }
            low_water.lower();
        }
        self.wire.socket.read_buf(buffer).await
    }

    /// Ends the session in good order. A server that is gone already has ended it too.
    pub(crate) async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self.wire.send(&out).await;
    }

    /// Sends `START_REPLICATION SLOT … LOGICAL …` and turns into the stream of changes.
    ///
    /// # Errors
    /// As [`Replication::simple_query`]; the connection is closed then.
    pub(crate) async fn start(mut self, command: &str) -> Result<ReplicationStream, CodedError> {
        let doing = self.doing(command);
        let lost = |error| broken(&doing, Stage::Running, error);
        self.send(command).await.map_err(lost)?;
        loop {
            let (tag, body) = self.wire.next().await.map_err(lost)?;
            match tag {
                tag::COPY_BOTH => return Ok(ReplicationStream::new(self.wire, self.place)),
                tag::ERROR => return Err(refused(&doing, Stage::Running, &Fields::parse(&body))),
                tag::NOTICE | tag::NOTIFICATION | tag::PARAMETER_STATUS => {}
                _ => return Err(lost(garbled("the server did not start to stream"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::title;

    #[test]
    fn titles_have_no_values() {
        for (sql, expected) in [
            ("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM"),
            ("CREATE_REPLICATION_SLOT \"shop\" LOGICAL pgoutput", "CREATE_REPLICATION_SLOT \"shop\""),
            ("START_REPLICATION SLOT \"shop\" LOGICAL 0/0 (proto_version '1')", "START_REPLICATION SLOT \"shop\""),
            ("SELECT 'secret'", "SELECT"),
            ("select 1", "a statement"),
            ("", "a statement"),
        ] {
            assert_eq!(title(sql), expected);
        }
    }
}
