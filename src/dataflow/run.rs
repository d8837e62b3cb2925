//! Starts a pipeline: state, sinks, dataflows, sources, in that order.

use super::bridge::bridge;
use super::busy::Busy;
use super::cluster::{self, Cluster};
use super::failure::{Failures, panicked};
use super::limit;
use super::options::RunOptions;
use super::pause::Pauses;
use super::plan::{OperatorPlan, Plan, SinkPlan, instances};
use super::shared::Shared;
use super::signals::Signals;
use super::sink::deliveries;
use super::source::SourceEnd;
use super::supervise::{SourceTask, Supervisor, WriterTask};
use super::tap::Taps;
use super::together::StopAll;
use super::workers::Workers;
use crate::Kind;
use crate::alerts::Watching;
use crate::graph::{Graph, Node};
use crate::server::directory::Stage;
use crate::server::{self, Served, Server};
use crate::telemetry::progress::Progress;
use etl_stream_operators::batch::Limits;
use etl_stream_operators::contract::{
    Code, CodedError, Credits, Durable, Exit, PipelineStatus, RenderContext, Sink, SourceContext, StateStore, Ts, WriterContext,
};
use futures::future::try_join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

/// The runtime was not started.
pub(crate) const RUN_RUNTIME: Code = Code::new("RUN0005", Exit::Environment);

/// Runs a pipeline until a signal, its `until`, or a failure. Returns when everything is drained.
///
/// # Errors
/// The first failure of any node; what is not durable will be read again by the next run.
pub fn run(graph: Graph, options: RunOptions) -> Result<(), CodedError> {
    run_among(None, graph, options)
}

/// Runs a pipeline as one of several processes, or alone.
///
/// # Errors
/// As [`run`]; `RUN0050` to `RUN0053` of a process among several, whose end ends the others.
pub fn run_among(cluster: Option<Cluster>, graph: Graph, options: RunOptions) -> Result<(), CodedError> {
    if let Some(cluster) = &cluster {
        cluster.fits(&graph)?;
    }
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let started = tokio::select! {
            signal = signals.next() => {
                info!(signal, "stopped before anything was read");
                return Ok(());
            }
            started = Box::pin(start_among(cluster, graph, options, None)) => started?,
        };
        Box::pin(started.end(signals)).await
    });
    // Tasks of a failed pipeline may hang on a socket: they are not waited for.
    runtime.shutdown_background();
    result
}

/// The threads of input and output.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CodedError> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("etl-stream-io")
        .enable_all()
        .build()
        .map_err(|e| CodedError::definite(RUN_RUNTIME, "the input and output threads were not started").caused_by(e))
}

/// A pipeline that is running.
pub struct Started {
    supervisor: Supervisor,
    status: Arc<PipelineStatus>,
    pauses: Arc<Pauses>,
    stop: watch::Sender<bool>,
    /// Until the end: a sink may hold what no other process is to have, such as its folder's lock.
    _sinks: Vec<Arc<dyn Sink>>,
    alerts: Watching,
    limits: JoinHandle<()>,
}

impl Started {
    /// What the pipeline says of itself.
    #[must_use]
    pub fn status(&self) -> Arc<PipelineStatus> {
        Arc::clone(&self.status)
    }

    /// Pauses and resumes its sources.
    #[must_use]
    pub fn pauses(&self) -> Arc<Pauses> {
        Arc::clone(&self.pauses)
    }

    /// Asks for a drain: read no more, make everything durable, confirm, end.
    #[must_use]
    pub fn stopper(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Waits for the end, which SIGINT and SIGTERM ask for from here on.
    ///
    /// # Errors
    /// The first failure of any node; with `until`, the error of a table that is left behind.
    pub async fn supervise(self) -> Result<(), CodedError> {
        self.end(Signals::listen()?).await
    }

    /// Waits for the end, which its stopper alone asks for.
    ///
    /// # Errors
    /// As [`Started::supervise`].
    pub(crate) async fn ends(self) -> Result<(), CodedError> {
        self.end(Signals::none()).await
    }

    async fn end(self, signals: Signals) -> Result<(), CodedError> {
        let result = self.supervisor.run(signals).await;
        self.limits.abort();
        // It has the state, which the next run may want to open.
        let _ = self.limits.await;
        self.alerts.end().await;
        result
    }
}

/// Starts a pipeline on the current tokio runtime.
///
/// # Errors
/// When the state, a secret, a sink or the workers do not come up. Nothing has been read then.
pub async fn start(graph: Graph, options: RunOptions) -> Result<Started, CodedError> {
    start_watched(graph, options, None).await
}

/// Starts a pipeline whose operators' times are summed up.
///
/// # Errors
/// As [`start`].
pub async fn start_watched(graph: Graph, options: RunOptions, busy: Option<Busy>) -> Result<Started, CodedError> {
    Box::pin(start_among(None, graph, options, busy)).await
}

async fn start_among(cluster: Option<Cluster>, graph: Graph, options: RunOptions, busy: Option<Busy>) -> Result<Started, CodedError> {
    let shared = Shared::among(cluster, &graph.engine, graph.server);
    Box::pin(start_in(&shared, graph, options, Arc::default(), busy)).await
}

/// Starts a pipeline in a process, and shows what it says of itself in `status`.
///
/// # Errors
/// As [`start`].
pub(crate) async fn start_in(
    shared: &Shared,
    graph: Graph,
    options: RunOptions,
    status: Arc<PipelineStatus>,
    busy: Option<Busy>,
) -> Result<Started, CodedError> {
    // Before any node is made: what counts where nobody listens is lost.
    server::listen_to_metrics();
    let workers = graph.engine.workers.max(1);
    let (process, processes) = shared.cluster.as_ref().map_or((0, 1), |cluster| (cluster.process, cluster.processes()));
    let (first, everywhere) = (process * workers, processes * workers);
    let (at, pipeline) = (graph.state.clone(), Arc::clone(&graph.pipeline));
    // The lock of a process before this one may have to be waited for.
    let opened = tokio::task::spawn_blocking(move || at.open(&pipeline, process)).await;
    let state: Arc<dyn StateStore> = opened.map_err(|panic| panicked("state", &panic))??;
    let (failures, failed) = Failures::new();
    let (stop, stopped) = watch::channel(false);
    let connections = Arc::clone(&shared.connections);
    status.set_connections(Arc::clone(&connections));

    let writer_context = |sink: &Node, source: &Node, worker: usize| WriterContext {
        pipeline: Arc::clone(&graph.pipeline),
        sink: Arc::clone(&sink.name),
        source: Arc::clone(&source.name),
        worker: first + worker,
        workers: everywhere,
        process,
        processes,
        state: Arc::clone(&state),
        status: Arc::clone(&status),
    };

    let mut sinks: BTreeMap<usize, Arc<dyn Sink>> = BTreeMap::new();
    for index in graph.sinks() {
        let node = &graph.nodes[index];
        sinks.insert(index, node.parsed.sink(&graph.context(node))?);
    }
    let sources: Vec<usize> = graph.sources().collect();
    // Over several processes by name: every one must come to the same.
    let home = |order: usize, node: &Node| {
        if processes > 1 { (cluster::hash(&node.name) % everywhere as u64) as usize } else { order % workers }
    };
    let homes: Vec<usize> = sources.iter().enumerate().map(|(order, source)| home(order, &graph.nodes[*source])).collect();
    let own = |home: usize| (first..first + workers).contains(&home);
    let mut built = Vec::new();
    for (source, home) in sources.iter().zip(&homes) {
        let node = &graph.nodes[*source];
        built.push(if own(*home) { Some(node.parsed.source(&graph.context(node))?) } else { None });
    }

    let names = sources.iter().zip(&homes).map(|(source, home)| (&*graph.nodes[*source].name, own(*home)));
    let pauses = Arc::new(Pauses::load(&graph.pipeline, Arc::clone(&state), Arc::clone(&status), names)?);
    let taps = Arc::new(Taps::of(&graph));

    let mut plans = Vec::new();
    let mut writers = Vec::new();
    let mut tasks = Vec::new();
    for ((source_index, source), home) in sources.iter().copied().zip(built).zip(homes) {
        let node = &graph.nodes[source_index];
        let (sender, receiver) = bridge();
        let credits = Credits::new(graph.engine.source_credit.0 as usize, Arc::clone(&shared.credit));
        let (durable, durable_now) = watch::channel(Durable { upper: Ts::default(), finished: false });
        let last = Arc::default();
        let mut plan = Plan {
            pipeline: Arc::clone(&graph.pipeline),
            name: Arc::clone(&node.name),
            node: source_index,
            home,
            first,
            several: processes > 1,
            end: Mutex::new(Some(SourceEnd { bridge: receiver, credits: credits.clone(), durable, last: Arc::clone(&last) })),
            last: Arc::clone(&last),
            pressure: Arc::clone(credits.pressure()),
            tap: taps.node(&node.name, &[]).swap_remove(0),
            operators: BTreeMap::new(),
            sinks: BTreeMap::new(),
            failures: failures.clone(),
        };
        for index in graph.reachable(source_index) {
            let reached = &graph.nodes[index];
            let inputs = reached.inputs.iter().map(|input| (input.node, input.output)).collect();
            if reached.kind == Kind::Operator {
                let instances = instances(workers, || reached.parsed.operator(&graph.context(reached)))?;
                let taps = taps.node(&reached.name, &reached.outputs);
                let (failures, failed) = (failures.clone(), Arc::clone(&reached.name));
                let context = RenderContext {
                    pipeline: Arc::clone(&graph.pipeline),
                    node: Arc::clone(&reached.name),
                    source: Arc::clone(&node.name),
                    state: Arc::clone(&state),
                    durable: durable_now.clone(),
                    fail: Arc::new(move |error| failures.report(&failed, error)),
                };
                plan.operators.insert(index, OperatorPlan { context, inputs, taps, instances });
            } else if let Some(sink) = sinks.get(&index) {
                let mut senders = Vec::new();
                for worker in 0..workers {
                    let (sender, deliveries) = deliveries(status.sink(&reached.name).writer());
                    senders.push(Some(sender));
                    let writer = sink.writer(writer_context(reached, node, worker));
                    writers.push(WriterTask { sink: Arc::clone(&reached.name), writer, deliveries, last: Arc::clone(&last) });
                }
                let limits = Limits::new(sink.batch(), sink.in_pieces());
                plan.sinks.insert(index, SinkPlan { name: Arc::clone(&reached.name), inputs, limits, writers: Mutex::new(senders) });
            }
        }
        plans.push(plan);
        let Some(source) = source else { continue };
        let context = SourceContext {
            pipeline: Arc::clone(&graph.pipeline),
            source: Arc::clone(&node.name),
            out: Box::new(sender),
            durable: durable_now.clone(),
            credits,
            connections: Arc::clone(&connections),
            state: Arc::clone(&state),
            status: Arc::clone(&status),
            source_status: status.source(&node.name),
            stop: stopped.clone(),
            paused: pauses.receiver(&node.name),
        };
        tasks.push(SourceTask { name: Arc::clone(&node.name), source, context, durable: durable_now });
    }

    let served = Served::new(&graph, Arc::clone(&status), Arc::clone(&state), Arc::clone(&pauses), taps);
    shared.directory.change(&graph.pipeline, |member| (member.stage, member.served) = (Stage::Running, Some(served)));
    let server = Server::start(shared.server, Arc::clone(&shared.directory)).await?;
    let first_source = &graph.nodes[*sources.first().expect("a checked graph has a source")];
    try_join_all(sinks.iter().map(|(index, sink)| {
        let context = writer_context(&graph.nodes[*index], first_source, 0);
        async move { sink.prepare(&context).await }
    }))
    .await?;
    let alerts = Watching::start(&graph, &status, &state, &shared.webhooks)?;
    let follow = graph.state.is_shared().then(|| Arc::clone(&pauses));
    let limits = limit::watch(Arc::clone(&graph.pipeline), Arc::clone(&status), Arc::clone(&pauses));
    let mut stop_all = None;
    let workers = match (&shared.cells, &shared.cluster) {
        (_, Some(cluster)) => {
            let (cluster, all) = (cluster.clone(), StopAll::new(stop.clone()));
            stop_all = Some(all.clone());
            let joined = tokio::task::spawn_blocking(move || cluster.start(&graph, plans, failures, all)).await;
            joined.map_err(|panic| panicked("engine", &panic))??
        }
        (Some(cells), None) if workers == 1 => cells.place(plans, failures)?,
        _ => Workers::start(workers, plans, failures, busy)?,
    };
    let progress = shared.progress.then(|| Progress::new(Arc::clone(&status)));
    let supervisor = Supervisor::new(workers, failed, stop.clone(), tasks, writers, server, Arc::clone(&status), progress, options);
    let supervisor = supervisor.among(stop_all);
    let limits = tokio::spawn(async move {
        match follow {
            Some(pauses) => drop(futures::future::join(limits, pauses.follow()).await),
            None => limits.await,
        }
    });
    Ok(Started { supervisor, status, pauses, stop, alerts, limits, _sinks: sinks.into_values().collect() })
}
