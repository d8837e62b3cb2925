//! SIGINT and SIGTERM, listened to from before anything starts: one that comes early is neither lost nor the default end.

use super::run::RUN_RUNTIME;
use etl_stream_operators::contract::CodedError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs the handlers. From here on no such signal ends the process by itself.
    ///
    /// # Errors
    /// `RUN0005`.
    pub(super) fn listen() -> Result<Self, CodedError> {
        let listen =
            |kind| signal(kind).map_err(|e| CodedError::definite(RUN_RUNTIME, "the signal handlers were not installed").caused_by(e));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The name of the next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
