//! SIGINT and SIGTERM, listened to from before anything starts: one that comes early is neither lost nor the default end.

use super::run::RUN_RUNTIME;
use etl_stream_operators::contract::CodedError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end.
pub(crate) struct Signals(Option<(Signal, Signal)>);

impl Signals {
    /// Installs the handlers. From here on no such signal ends the process by itself.
    ///
    /// # Errors
    /// `RUN0005`.
    pub(crate) fn listen() -> Result<Self, CodedError> {
        let listen =
            |kind| signal(kind).map_err(|e| CodedError::definite(RUN_RUNTIME, "the signal handlers were not installed").caused_by(e));
        Ok(Self(Some((listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))))
    }

    /// None: somebody else listens.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The name of the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        let Some((interrupt, terminate)) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    }
}
