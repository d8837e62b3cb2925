//! The sending half of a stream of changes: standby status updates.
//!
//! ```text
//! status = 'd' length:i32  'r' written:u64 flushed:u64 applied:u64 clock:i64 (µs since 2000) reply:u8   (manual, 53.4)
//! ```

use super::error::{Stage, broken};
use super::socket::Socket;
use crate::contract::{CodedError, Lsn};
use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::message::frontend;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncWriteExt, WriteHalf};

/// Microseconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800_000_000;

/// The sending half.
pub(crate) struct ReplicationWriter {
    socket: WriteHalf<Socket>,
    /// Bytes not sent yet: a send that was given up goes on with the next.
    pending: BytesMut,
    doing: Arc<str>,
}

impl ReplicationWriter {
    pub(super) fn new(socket: WriteHalf<Socket>, doing: Arc<str>) -> Self {
        Self { socket, pending: BytesMut::with_capacity(64), doing }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.pending.has_remaining() {
            if self.socket.write_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.socket.flush().await
    }

    /// Tells the server how far we are. `flushed` is what it may forget (`confirmed_flush_lsn`); the server takes any
    /// value, even one it never sent, so give none that was not received. Cancel-safe.
    ///
    /// # Errors
    /// `PG0006` when the connection is lost.
    pub(crate) async fn send_status(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, reply_requested: bool) -> Result<(), CodedError> {
        let since_1970 =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        self.pending.put_u8(b'd');
        self.pending.put_i32(4 + 34);
        self.pending.put_u8(b'r');
        for lsn in [written, flushed, applied] {
            self.pending.put_u64(lsn.0);
        }
        self.pending.put_i64(since_1970.saturating_sub(EPOCH));
        self.pending.put_u8(u8::from(reply_requested));
        self.flush().await.map_err(|error| broken(&self.doing, Stage::Running, error))
    }

    /// Ends the stream (CopyDone) and the session (Terminate). The reader sees the end and may be dropped.
    ///
    /// # Errors
    /// `PG0006` when the connection is lost.
    pub(crate) async fn finish(mut self) -> Result<(), CodedError> {
        frontend::copy_done(&mut self.pending);
        frontend::terminate(&mut self.pending);
        self.flush().await.map_err(|error| broken(&self.doing, Stage::Running, error))
    }
}
