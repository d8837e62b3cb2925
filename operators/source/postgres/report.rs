//! What goes to the server beside the reading: status updates and the heartbeat.
//!
//! Guarantee: status goes out on its own timer, whatever the reader waits for; `wal_sender_timeout` never
//! strikes a source whose sinks are slow.

use super::confirm::Confirm;
use super::connect::{PG_LOST, ReplicationWriter};
use super::state::Note;
use crate::contract::{CodedError, Durable, Lsn, SourceStatus};
use crate::failpoint;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;
use tracing::warn;

/// How often the server is told, at least.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often the server's position is asked for.
const POSITION_EVERY: Duration = Duration::from_secs(5);

/// The pace of status updates for a server's `wal_sender_timeout`.
pub(super) fn pace(sender_timeout: Option<Duration>) -> Duration {
    sender_timeout.map_or(STATUS_EVERY, |timeout| STATUS_EVERY.min(timeout / 2)).max(Duration::from_millis(10))
}

/// Tells the server what is durable.
pub(super) struct Reporter {
    pub writer: ReplicationWriter,
    pub confirm: Arc<Mutex<Confirm>>,
    pub durable: watch::Receiver<Durable>,
    pub status: Arc<SourceStatus>,
    pub every: Duration,
    /// Where a position is noted before the server is told; nowhere for a slot that ends with its connection.
    pub note: Option<Note>,
    /// The last that was noted.
    pub noted: u64,
    /// Rung when the server wants an answer at once.
    pub bell: Arc<Notify>,
}

impl Reporter {
    /// Runs until `finish`: then tells the last position and ends the stream.
    pub(super) async fn run(mut self, mut finish: oneshot::Receiver<()>) -> Result<(), CodedError> {
        let mut timer = tokio::time::interval(self.every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                _ = timer.tick() => true,
                () = self.bell.notified() => false,
            };
            // Keepalives carry the server's position: they are what moves time on a quiet database.
            self.send(timed).await?;
        }
    }

    async fn send(&mut self, ask: bool) -> Result<(), CodedError> {
        let (received, confirmed, ask) = {
            let durable = self.durable.borrow().upper;
            if durable.lsn < u64::MAX {
                self.status.durable_lsn.fetch_max(durable.lsn, Ordering::Relaxed);
            }
            let mut confirm = self.confirm.lock().unwrap_or_else(PoisonError::into_inner);
            confirm.durable(durable);
            let ask = ask && !confirm.asked;
            confirm.asked |= ask;
            (Lsn(confirm.read_to()), Lsn(confirm.confirmed()), ask)
        };
        if let Some(note) = self.note.clone().filter(|_| confirmed.0 > self.noted) {
            let done = tokio::task::spawn_blocking(move || note.confirmed(confirmed.0)).await;
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            self.noted = confirmed.0;
        }
        self.status.confirmed_lsn.store(confirmed.0, Ordering::Relaxed);
        failpoint::reach("confirm.send");
        self.writer.send_status(received, confirmed, confirmed, ask).await?;
        failpoint::reach("confirm.sent");
        Ok(())
    }
}

/// Asks the server where its log ends, and writes to it now and then: a slot on a quiet database else
/// holds back the log of its busy neighbours.
///
/// # Errors
/// When the connection it uses is lost.
pub(super) async fn heartbeat(
    client: Arc<Client>,
    every: Duration,
    standby: bool,
    status: Arc<SourceStatus>,
    silence: Duration,
) -> Result<(), CodedError> {
    let position = if standby { "SELECT pg_last_wal_replay_lsn()::text" } else { "SELECT pg_current_wal_lsn()::text" };
    let mut last = Instant::now();
    let mut warned = false;
    while !client.is_closed() {
        let Ok(answer) = tokio::time::timeout(silence, client.query_one(position, &[])).await else { break };
        if let Ok(row) = answer
            && let Some(lsn) = row.try_get::<_, Option<String>>(0).ok().flatten().and_then(|text| text.parse::<Lsn>().ok())
        {
            status.heard(lsn.0);
        }
        tokio::time::sleep(POSITION_EVERY.min(every)).await;
        if !standby && last.elapsed() >= every {
            last = Instant::now();
            let beat = client.execute("SELECT pg_logical_emit_message(false, 'etl_stream', '')", &[]);
            let Ok(beat) = tokio::time::timeout(silence, beat).await else { break };
            if let Err(error) = beat
                && !warned
            {
                warned = true;
                warn!(%error, "the heartbeat was not written; on a quiet database the slot may hold back log");
            }
        }
    }
    Err(CodedError::transient(PG_LOST, "the connection beside the replication stream was lost"))
}
