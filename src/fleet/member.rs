//! One pipeline's life in a process of many.
//!
//! ```text
//! Starting ──> Running ──file changed, restart──> Stopping ──> Starting …
//!    ^            │  └── file gone, process stops ──> Stopping ──> gone
//!    └─ Retrying <┘ fails: waits longer each time, with jitter, and tells nobody else
//! ```

use super::version::Version;
use crate::dataflow::{RunOptions, Shared, Started, start_in};
use crate::server::directory::{Stage, unix_now};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use etl_stream_operators::contract::{CodedError, PipelineStatus};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{error, info};

/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// A pipeline that has run for so long has got over what failed before.
const STEADY: Duration = Duration::from_secs(120);

/// What is wanted of a pipeline.
#[derive(Clone)]
pub(super) struct Wish {
    /// What is to run; `None`: nothing, for good.
    pub(super) version: Option<Arc<Version>>,
    /// Which version that is.
    pub(super) generation: u64,
    /// How often a restart was asked for.
    pub(super) round: u64,
}

/// How a member ended.
pub(super) struct Ended {
    pub(super) path: PathBuf,
    pub(super) result: Result<(), CodedError>,
}

/// A pipeline of a folder.
pub(super) struct Member {
    pub(super) path: PathBuf,
    pub(super) pipeline: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) options: RunOptions,
    pub(super) wish: watch::Receiver<Wish>,
    /// Told which version runs, when nothing of another does.
    pub(super) at: watch::Sender<u64>,
}

/// How one run of it ended.
enum Outcome {
    /// As it was asked to; a drain that failed has lost nothing.
    Asked(Result<(), CodedError>),
    /// By itself.
    Done,
    Failed(CodedError),
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1).with_jitter().without_max_times().build()
}

impl Member {
    /// Runs until nothing is wanted any more, or until its `until`.
    pub(super) async fn live(mut self) -> Ended {
        let mut status = Arc::<PipelineStatus>::default();
        let mut delays = pauses();
        let result = loop {
            let wish = self.wish.borrow_and_update().clone();
            let Some(version) = wish.version else { break Ok(()) };
            self.at.send_replace(wish.generation);
            let began = Instant::now();
            let outcome = Box::pin(self.run(&version, Arc::clone(&status))).await;
            status = Arc::new(status.renewed());
            self.show(|member| member.served = None);
            if began.elapsed() >= STEADY {
                delays = pauses();
            }
            match outcome {
                Outcome::Asked(result) => {
                    if let Err(error) = &result {
                        error!(%error, "the pipeline did not drain; what is not confirmed is read again");
                    }
                    if self.wish.borrow().version.is_none() {
                        break result;
                    }
                    delays = pauses();
                }
                Outcome::Done if self.options.until.is_some() => {
                    self.show(|member| member.stage = Stage::Ended);
                    break Ok(());
                }
                Outcome::Done => {
                    info!("the pipeline's sources have come to their ends");
                    self.show(|member| (member.stage, member.reason) = (Stage::Ended, None));
                    let _ = self.wish.changed().await;
                }
                Outcome::Failed(error) if self.options.until.is_some() => {
                    error!(%error, "the pipeline failed");
                    self.failed(&error, None);
                    break Err(error);
                }
                Outcome::Failed(error) => {
                    let delay = delays.next().unwrap_or(PAUSES.1);
                    error!(%error, "the pipeline failed and starts again in {} ms", delay.as_millis());
                    self.failed(&error, Some(delay));
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        // A changed file, a restart or the end: at once.
                        _ = self.wish.changed() => delays = pauses(),
                    }
                }
            }
        };
        Ended { path: self.path, result }
    }

    fn show(&self, change: impl FnOnce(&mut crate::server::directory::Member)) {
        self.shared.directory.change(&self.pipeline, change);
    }

    fn failed(&self, error: &CodedError, delay: Option<Duration>) {
        self.show(|member| {
            member.stage = Stage::Retrying;
            member.reason = Some(error.to_string());
            member.failures += 1;
            member.tries_again_at = delay.map(|delay| unix_now() + delay.as_secs_f64());
        });
    }

    /// Runs one version until it ends or something else is wanted.
    async fn run(&mut self, version: &Version, status: Arc<PipelineStatus>) -> Outcome {
        self.show(|member| (member.stage, member.tries_again_at) = (Stage::Starting, None));
        let mut wish = self.wish.clone();
        let started = tokio::select! {
            biased;
            _ = wish.changed() => return Outcome::Asked(Ok(())),
            started = Box::pin(start_in(&self.shared, version.graph.clone(), self.options, status, None)) => started,
        };
        let started: Started = match started {
            Ok(started) => started,
            Err(error) => return Outcome::Failed(error),
        };
        self.show(|member| (member.stage, member.reason) = (Stage::Running, None));
        let stop = started.stopper();
        let mut ends = Box::pin(started.ends());
        tokio::select! {
            result = &mut ends => return result.map_or_else(Outcome::Failed, |()| Outcome::Done),
            _ = wish.changed() => {}
        }
        self.show(|member| member.stage = Stage::Stopping);
        stop.send_replace(true);
        Outcome::Asked(ends.await)
    }
}
