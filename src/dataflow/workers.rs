//! The worker threads: each builds every dataflow, then steps until all are done or the pipeline aborts.
//!
//! # Guarantees
//! A worker that panics is reported, so that its peers, which would step for ever, are stopped too.

use super::busy::Busy;
use super::cells::Place;
use super::cluster::CLUSTER_LOST;
use super::failure::{Failures, panicked};
use super::plan::Plan;
use etl_stream_operators::contract::{Code, CodedError, Exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;

/// The workers did not start.
pub(crate) const RUN_WORKERS: Code = Code::new("RUN0004", Exit::Environment);

/// Running worker threads: a pipeline's own, or its place in one that it shares.
pub(crate) enum Workers {
    /// Its own.
    Own {
        /// The threads.
        guards: WorkerGuards<()>,
        /// Has them drop every dataflow.
        abort: Arc<AtomicBool>,
    },
    /// A place beside others.
    Shared(Place),
}

/// Reports a worker thread that ends by a panic outside any node.
pub(super) struct Alarm {
    failures: Failures,
    /// Whether it is most likely another process that is gone: then timely panics in every thread of this one.
    cluster: bool,
}

impl Alarm {
    /// Of a process among several.
    pub(super) fn of_cluster(failures: Failures) -> Self {
        Self { failures, cluster: true }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = if self.cluster {
                CodedError::transient(CLUSTER_LOST, "another process of the pipeline is gone, or a worker of this one failed")
                    .hint("its log says why; nothing is lost: start all processes again, which read on from what was confirmed")
            } else {
                panicked("engine", &())
            };
            self.failures.report(&Arc::from("engine"), error);
        }
    }
}

impl Workers {
    /// Starts `count` of them with these dataflows, watched or not.
    ///
    /// # Errors
    /// `RUN0004` when threads cannot be made.
    pub(crate) fn start(count: usize, plans: Vec<Plan>, failures: Failures, busy: Option<Busy>) -> Result<Self, CodedError> {
        let abort = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&abort);
        let communication = if count > 1 { timely::CommunicationConfig::Process(count) } else { timely::CommunicationConfig::Thread };
        let failed = |why: String| CodedError::definite(RUN_WORKERS, format!("{count} worker threads were not started: {why}"));
        let (builders, others) = communication.try_build().map_err(failed)?;
        let plans = Arc::new(plans);
        let guards = timely::execute::execute_from(builders, others, WorkerConfig::default(), move |worker| {
            let _alarm = Alarm { failures: failures.clone(), cluster: false };
            if let Some(busy) = &busy {
                busy.watch(worker);
            }
            for plan in plans.iter() {
                plan.build(worker);
            }
            while worker.has_dataflows() && !stop.load(Ordering::Acquire) {
                worker.step_or_park(None);
            }
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        })
        .map_err(failed)?;
        Ok(Self::Own { guards, abort })
    }

    /// Drops every dataflow, whatever is in flight. What was not acknowledged stays so.
    pub(crate) fn abort(&self) {
        match self {
            Self::Own { guards, abort } => {
                abort.store(true, Ordering::Release);
                guards.guards().iter().for_each(|guard| guard.thread().unpark());
            }
            Self::Shared(place) => place.abort(),
        }
    }

    /// Waits for the threads to end, or for the place to be empty; [`Workers::abort`] comes before, but in a process among
    /// several, whose dataflows end by themselves.
    pub(crate) fn join(self) {
        match self {
            Self::Own { guards, .. } => {
                for result in guards.join() {
                    // A panic has been reported by its alarm.
                    drop(result);
                }
            }
            Self::Shared(place) => place.join(),
        }
    }
}
