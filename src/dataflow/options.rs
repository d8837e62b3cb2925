//! What `run` is told beside the graph.

use crate::Lsn;
use std::str::FromStr;
use std::time::Duration;

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When everything up to each source's position at the start is durable in every sink.
    CaughtUp,
    /// When everything up to this position is.
    Lsn(Lsn),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "caught-up" => Ok(Self::CaughtUp),
            text => text.parse().map(Self::Lsn).map_err(|_| "write caught-up, or a log sequence number such as 16/B374D848".into()),
        }
    }
}

/// What a run is told beside the graph.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// When it ends by itself; `None`: never.
    pub until: Option<Until>,
    /// How long a shutdown may take to seal, commit and confirm.
    pub shutdown_timeout: Duration,
}

impl Default for RunOptions {
    /// Until it is stopped, with 30 s to drain then.
    fn default() -> Self {
        Self { until: None, shutdown_timeout: Duration::from_secs(30) }
    }
}
