//! Watches a running pipeline: signals, failures, `--until`, the drain and its deadline.
//!
//! # Guarantees
//! - The first failure ends the pipeline: dataflows are dropped, tasks ended, nothing more acknowledged.
//! - A run with `--until` that leaves a table behind ends with that table's error, when all else is done.
//! - A stop drains: sources end their streams, writers finish, sources confirm; then it returns.
//! - A drain that passes its deadline is a failure, and loses nothing: the next run reads on from what
//!   was confirmed.

use super::options::RunOptions;
use super::signals::Signals;
use super::source::LastUpper;
use super::together::StopAll;
use super::until::{reached, shortfall};
use super::workers::Workers;
use crate::server::Server;
use crate::telemetry::progress::Progress;
use etl_stream_operators::contract::{
    Code, CodedError, Deliveries, Durable, Exit, Phase, PipelineStatus, Source, SourceContext, Writer, together,
};
use std::future::pending;
use std::sync::{Arc, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument, error, info, warn};

/// The drain took too long.
pub(crate) const RUN_DRAIN: Code = Code::new("RUN0003", Exit::Failure);

/// A source about to run.
pub(crate) struct SourceTask {
    pub(crate) name: Arc<str>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) context: SourceContext,
    pub(crate) durable: watch::Receiver<Durable>,
}

/// A writer about to run.
pub(crate) struct WriterTask {
    pub(crate) sink: Arc<str>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) deliveries: Deliveries,
    /// Whether its source's stream has ended.
    pub(crate) last: LastUpper,
}

/// How a task ended.
struct Ended {
    node: Arc<str>,
    result: Result<(), CodedError>,
    /// A writer that returned though its source goes on, such as one whose reader went away.
    early: bool,
}

/// A running pipeline's watcher.
pub(crate) struct Supervisor {
    workers: Workers,
    failed: mpsc::UnboundedReceiver<(Arc<str>, CodedError)>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Ended>,
    caught_up: JoinSet<()>,
    server: Option<Server>,
    progress: Option<Progress>,
    status: Arc<PipelineStatus>,
    options: RunOptions,
    /// Of a process among several.
    stop_all: Option<StopAll>,
}

impl Supervisor {
    #[expect(clippy::too_many_arguments, reason = "called once, by the function that makes each part")]
    pub(crate) fn new(
        workers: Workers,
        failed: mpsc::UnboundedReceiver<(Arc<str>, CodedError)>,
        stop: watch::Sender<bool>,
        sources: Vec<SourceTask>,
        writers: Vec<WriterTask>,
        server: Option<Server>,
        status: Arc<PipelineStatus>,
        progress: Option<Progress>,
        options: RunOptions,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut caught_up = JoinSet::new();
        for SourceTask { name, source, context, durable } in sources {
            if let Some(until) = options.until {
                caught_up.spawn(reached(until, Arc::clone(&context.source_status), durable));
            }
            let status = Arc::clone(&context.source_status);
            let run = async move {
                let result = source.run(context).await;
                status.set_phase(Phase::Stopped, result.as_ref().err().map(ToString::to_string));
                Ended { node: name, result, early: false }
            };
            tasks.spawn(run.in_current_span());
        }
        for WriterTask { sink, writer, deliveries, last } in writers {
            let run = async move {
                let result = writer.run(deliveries).await;
                let early = last.lock().unwrap_or_else(PoisonError::into_inner).is_none();
                Ended { node: sink, result, early }
            };
            tasks.spawn(run.in_current_span());
        }
        Self { workers, failed, stop, tasks, caught_up, server, progress, status, options, stop_all: None }
    }

    /// Says that other processes run the pipeline too.
    pub(super) fn among(mut self, stop_all: Option<StopAll>) -> Self {
        self.stop_all = stop_all;
        self
    }

    /// Watches until the end.
    ///
    /// # Errors
    /// The first failure, or `RUN0003`; with `--until`, what is left behind.
    pub(super) async fn run(mut self, mut signals: Signals) -> Result<(), CodedError> {
        let mut result = self.watch(&mut signals).await;
        if let Some(stop_all) = self.stop_all.take() {
            return self.leave(result, &stop_all, signals).await;
        }
        if let (Ok(()), Some(progress)) = (&result, &self.progress) {
            progress.end();
        }
        if result.is_ok() && self.options.until.is_some() {
            result = shortfall(&self.status).map_or(Ok(()), Err);
        }
        self.workers.abort();
        self.tasks.abort_all();
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.join()).await;
        while self.tasks.join_next().await.is_some() {}
        if let Some(server) = self.server {
            server.stop();
        }
        result
    }

    /// The end of a process among several. In good order it comes when every dataflow has ended in every process. After a
    /// failure nothing is taken down here: connections that close without a farewell, as the process ends, tell the others.
    async fn leave(mut self, result: Result<(), CodedError>, stop_all: &StopAll, mut signals: Signals) -> Result<(), CodedError> {
        if let Err(error) = result {
            std::mem::forget(self.workers);
            return Err(error);
        }
        let workers = self.workers;
        let mut joined = tokio::task::spawn_blocking(move || {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| workers.join()))
                .map_err(|panic| super::failure::panicked("engine", &panic))
        });
        loop {
            tokio::select! {
                ended = &mut joined => {
                    ended.map_err(|panic| super::failure::panicked("engine", &panic))??;
                    break;
                }
                Some((_, error)) = self.failed.recv() => return Err(error),
                name = signals.next() => {
                    info!(signal = name, "draining in every process");
                    stop_all.ask();
                }
            }
        }
        // What a worker reported as it ended.
        if let Ok((_, error)) = self.failed.try_recv() {
            return Err(error);
        }
        if let Some(server) = self.server {
            server.stop();
        }
        if let Some(progress) = &self.progress {
            progress.end();
        }
        if self.options.until.is_some() { shortfall(&self.status).map_or(Ok(()), Err) } else { Ok(()) }
    }

    async fn watch(&mut self, signals: &mut Signals) -> Result<(), CodedError> {
        let mut asked = self.stop.subscribe();
        let (mut draining, mut signalled) = (false, false);
        // Only a drain that somebody asked for has one: `--until` waits for the work it was given.
        let mut deadline: Option<Instant> = None;
        let waits_for_end = !self.caught_up.is_empty();
        let mut tick = together(Progress::INTERVAL);
        loop {
            tokio::select! {
                Some((node, error)) = self.failed.recv() => {
                    error!(node = &*node, error = %error, "node failed");
                    return Err(error);
                }
                ended = self.tasks.join_next() => match ended {
                    None => return Ok(()),
                    Some(Err(join)) => return Err(super::failure::panicked("task", &join)),
                    Some(Ok(Ended { node, result: Err(error), .. })) => {
                        error!(node = &*node, error = %error, "node failed");
                        return Err(error);
                    }
                    Some(Ok(Ended { node, early: true, .. })) if !draining => {
                        info!(node = &*node, "sink closed; stopping");
                        return Ok(());
                    }
                    Some(Ok(_)) => {}
                },
                () = async { while self.caught_up.join_next().await.is_some() {} }, if waits_for_end && !draining => {
                    info!("caught up; draining");
                    self.stop.send_replace(true);
                    asked.mark_unchanged();
                    draining = true;
                }
                name = signals.next() => {
                    (draining, deadline) = (true, Some(self.on_signal(signalled, deadline, name)?));
                    signalled = true;
                }
                Ok(()) = asked.changed(), if deadline.is_none() => {
                    if *asked.borrow_and_update() {
                        (draining, deadline) = (true, Some(Instant::now() + self.options.shutdown_timeout));
                    }
                }
                () = async { match deadline { Some(at) => tokio::time::sleep_until(at).await, None => pending().await } } => {
                    let seconds = self.options.shutdown_timeout.as_secs();
                    return Err(CodedError::transient(RUN_DRAIN, format!("the pipeline did not drain within {seconds} s"))
                        .hint("nothing is lost: the next run reads on from what was confirmed; allow more time with --shutdown-timeout"));
                }
                _ = tick.tick() => if let Some(progress) = &mut self.progress { progress.show() },
            }
        }
    }

    /// The first signal drains, the second gives up. A stop that came another way, as from another process, is none.
    fn on_signal(&self, signalled: bool, deadline: Option<Instant>, name: &str) -> Result<Instant, CodedError> {
        if signalled {
            warn!(signal = name, "second signal: stopping without draining");
            return Err(CodedError::transient(RUN_DRAIN, "stopped by a second signal before the drain was complete")
                .hint("nothing is lost: the next run reads on from what was confirmed"));
        }
        info!(signal = name, "draining");
        match &self.stop_all {
            Some(all) => all.ask(),
            None => _ = self.stop.send_replace(true),
        }
        Ok(deadline.unwrap_or_else(|| Instant::now() + self.options.shutdown_timeout))
    }
}
