//! How a pipeline is run.

use etl_stream_operators::contract::Lsn;
use std::time::Duration;

/// Where a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When everything up to each source's position at start is durable in every sink.
    CaughtUp,
    /// When everything up to this position is.
    Lsn(Lsn),
}

/// Options of `etl-stream run`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where to end; `None`: on a signal.
    pub until: Option<Until>,
    /// Workers; `None`: the pipeline file's.
    pub workers: Option<usize>,
    /// How long a drain may take.
    pub shutdown_timeout: Duration,
    /// Where to serve health and metrics; `None`: the pipeline file's.
    pub listen: Option<String>,
    /// Show a progress display on the terminal.
    pub progress: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { until: None, workers: None, shutdown_timeout: Duration::from_secs(30), listen: None, progress: false }
    }
}
