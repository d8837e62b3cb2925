//! What goes to the server beside the reading: status updates and the heartbeat.
//!
//! Guarantee: status goes out on its own timer, whatever the reader waits for; `wal_sender_timeout` never
//! strikes a source whose sinks are slow.

use super::confirm::Confirm;
use super::connect::{PG_LOST, ReplicationWriter, classify};
use super::control::Control;
use super::state::Note;
use super::survey::{Position, position};
use crate::contract::{CodedError, Durable, Known, Lsn, SourceStatus, together};
use crate::failpoint;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

/// How often the server is told, at least.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A source that had no change for this long is quiet: a process may have thousands of those. It asks and tells no more often
/// than this.
const QUIET: Duration = Duration::from_secs(10);

/// How often a quiet source notes a position that only time has moved: each costs a write, and of many sources a disk's whole
/// attention.
const QUIET_NOTE: Duration = Duration::from_secs(30);

/// Unless the server can remove a file of its log for it (`wal_segment_size`, most often 16 MiB): then with the next telling.
const SEGMENT: u64 = 16 << 20;

/// How often the server's position is asked for.
pub(super) const POSITION_EVERY: Duration = Duration::from_secs(5);

/// The pace of status updates for a server's `wal_sender_timeout`.
pub(super) fn pace(sender_timeout: Option<Duration>) -> Duration {
    sender_timeout.map_or(STATUS_EVERY, |timeout| STATUS_EVERY.min(timeout / 2)).max(Duration::from_millis(10))
}

/// The pace of a quiet source's, which must not look like a server that is gone either.
pub(super) fn quiet_pace(sender_timeout: Option<Duration>, receive_timeout: Duration) -> Duration {
    pace(sender_timeout).max(QUIET.min(sender_timeout.map_or(QUIET, |timeout| timeout / 2)).min(receive_timeout / 3))
}

/// What was noted, and whether it is time to note again.
pub(super) struct Notes {
    /// The last that was noted.
    lsn: u64,
    at: Instant,
    changes: u64,
    changed: Instant,
}

impl Notes {
    /// `lsn` is the last that was noted.
    pub(super) fn new(lsn: u64) -> Self {
        let now = Instant::now();
        Self { lsn, at: now, changes: 0, changed: now }
    }

    /// Whether there was no change for long, after so many.
    fn are_quiet(&mut self, changes: u64, now: Instant) -> bool {
        if changes != self.changes {
            (self.changes, self.changed) = (changes, now);
        }
        now.duration_since(self.changed) >= QUIET
    }

    /// Whether `lsn` is to be noted now, after so many changes: at once where it is wanted. A server that shuts down asks until
    /// all that it sent is confirmed, and waits for that.
    fn is_due(&mut self, lsn: u64, changes: u64, now: Instant, wanted: bool) -> bool {
        let quiet = self.are_quiet(changes, now);
        lsn > self.lsn && (wanted || !quiet || now.duration_since(self.at) >= QUIET_NOTE || lsn - self.lsn >= SEGMENT)
    }
}

/// Tells the server what is durable.
pub(super) struct Reporter {
    pub writer: ReplicationWriter,
    pub confirm: Arc<Mutex<Confirm>>,
    pub durable: watch::Receiver<Durable>,
    pub status: Arc<SourceStatus>,
    pub every: Duration,
    /// The pace while there is nothing to tell.
    pub quiet: Duration,
    /// Where a position is noted before the server is told; nowhere for a slot that ends with its connection.
    pub note: Option<Note>,
    pub notes: Notes,
    /// Rung when the server wants an answer at once.
    pub bell: Arc<Notify>,
}

impl Reporter {
    /// Runs until `finish`: then tells the last position and ends the stream.
    pub(super) async fn run(mut self, mut finish: oneshot::Receiver<()>) -> Result<(), CodedError> {
        let mut timer = together(self.every);
        let mut told = Instant::now();
        self.send(true).await?;
        loop {
            let timed = tokio::select! {
                biased;
                finished = &mut finish => {
                    if finished.is_ok() {
                        self.send(false).await?;
                        return self.writer.finish().await;
                    }
                    return Ok(());
                }
                now = timer.tick() => {
                    // A table that joins waits for the stream to have passed a position.
                    let waited_for = self.status.joining.load(Ordering::Relaxed) > 0;
                    let changes = self.status.changes.load(Ordering::Relaxed);
                    if !waited_for && self.notes.are_quiet(changes, now) && now.duration_since(told) < self.quiet {
                        continue;
                    }
                    told = now;
                    true
                }
                () = self.bell.notified() => false,
            };
            // Keepalives carry the server's position: they are what moves time on a quiet database.
            self.send(timed).await?;
        }
    }

    /// Tells what is durable, asking for a keepalive; or answers, with the last there is.
    async fn send(&mut self, ask: bool) -> Result<(), CodedError> {
        let (received, confirmed, asks) = {
            let durable = self.durable.borrow().upper;
            if durable.lsn < u64::MAX {
                self.status.durable_lsn.fetch_max(durable.lsn, Ordering::Relaxed);
            }
            let mut confirm = self.confirm.lock().unwrap_or_else(PoisonError::into_inner);
            confirm.durable(durable);
            let asks = ask && !confirm.asked;
            confirm.asked |= asks;
            (Lsn(confirm.read_to()), Lsn(confirm.confirmed()), asks)
        };
        let confirmed = match self.note.clone() {
            Some(note) if self.notes.is_due(confirmed.0, self.status.changes.load(Ordering::Relaxed), Instant::now(), !ask) => {
                let done = tokio::task::spawn_blocking(move || note.confirmed(confirmed.0)).await;
                done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
                (self.notes.lsn, self.notes.at) = (confirmed.0, Instant::now());
                confirmed
            }
            Some(_) => confirmed.min(Lsn(self.notes.lsn)),
            None => confirmed,
        };
        self.status.confirmed_lsn.store(confirmed.0, Ordering::Relaxed);
        failpoint::reach("confirm.send");
        self.writer.send_status(received, confirmed, confirmed, asks).await?;
        failpoint::reach("confirm.sent");
        Ok(())
    }
}

/// Asks the server where its log ends, and writes to it now and then: a slot on a quiet database else
/// holds back the log of its busy neighbours. One source of a server asks, and writes, for all; what it cannot do now it does
/// later, since the stream goes on without.
///
/// # Errors
/// Never: it ends with the session.
pub(super) async fn heartbeat(
    control: Control,
    every: Duration,
    standby: bool,
    status: Arc<SourceStatus>,
    silence: Duration,
) -> Result<(), CodedError> {
    let mut warned = false;
    let mut turn = together(POSITION_EVERY.min(every));
    loop {
        let beats = !standby && control.budget().log_ends().beats(control.server(), every);
        match control.budget().log_ends().known(control.server(), standby, POSITION_EVERY) {
            Known::Said(lsn) if !beats => status.heard(lsn),
            known => {
                let asked = tokio::time::timeout(silence, ask(&control, beats)).await;
                let asked = asked.unwrap_or_else(|_| Err(CodedError::transient(PG_LOST, "the heartbeat was not answered in time")));
                match asked {
                    Ok(Position { lsn, visible }) => {
                        warned = false;
                        control.budget().log_ends().said(control.server(), standby, lsn, &visible);
                        status.heard(lsn);
                    }
                    Err(error) => {
                        if let Known::Said(lsn) = known {
                            status.heard(lsn);
                        }
                        if !std::mem::replace(&mut warned, true) {
                            warn!(%error, "the server's position was not asked for, or the heartbeat was not written; on a quiet database the slot may hold back log");
                        }
                    }
                }
            }
        }
        turn.tick().await;
    }
}

async fn ask(control: &Control, beats: bool) -> Result<Position, CodedError> {
    let client = control.open().await?;
    if beats {
        let beat = client.execute("SELECT pg_logical_emit_message(false, 'etl_stream', '')", &[]).await;
        beat.map_err(|e| classify(&e, "writing the heartbeat"))?;
    }
    let position = position(&client).await?;
    client.keep();
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_source_notes_seldom() {
        let mut notes = Notes::new(0);
        let start = notes.at;
        let mut noted = Vec::new();
        for second in 1..=72 {
            let now = start + Duration::from_secs(second);
            // A change in the 31st second; then time alone moves the position, and from the 70th on it moves fast.
            let (lsn, changes) = (second * 100 + second.saturating_sub(69) * SEGMENT, u64::from(second >= 31));
            assert_eq!(notes.is_due(lsn, changes, now, true), lsn > notes.lsn, "a server that wants an answer gets the last");
            if notes.is_due(lsn, changes, now, false) {
                (notes.lsn, notes.at) = (lsn, now);
                noted.push(second);
            }
            assert!(!notes.is_due(notes.lsn, changes, now, true), "nothing to note");
        }
        let expected: Vec<u64> = (1..10).chain(31..41).chain(70..=72).collect();
        assert_eq!(noted, expected);
    }
}
