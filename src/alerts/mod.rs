//! Alerts: conditions of the pipeline file, looked at every second, and what is told of them.
//!
//! ```text
//! status ──reading──> rules ──life──> Notification ──notify──> webhook
//!                              └──> /api/v1/alerts, metrics
//! ```
//! A look reads what nodes have written into the status; it waits for nobody, and nobody waits for it.

mod hint;
mod life;
mod reading;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use life::Event;

use crate::Kind;
use crate::graph::Graph;
use crate::notify::{Notifiers, Webhooks};
use etl_stream_operators::contract::{CodedError, PipelineStatus, StateStore};
use rules::Alerts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::error;

/// How often alerts are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of a run waits for what is still to be told.
const FAREWELL: Duration = Duration::from_secs(5);

/// Alerts that are looked at; nothing where a file has none.
pub(crate) struct Watching {
    task: Option<(JoinHandle<()>, watch::Sender<bool>)>,
}

impl Watching {
    /// Starts to look at a pipeline's alerts.
    ///
    /// # Errors
    /// When a notifier's secret or the state is not readable.
    pub(crate) fn start(
        graph: &Graph,
        status: &Arc<PipelineStatus>,
        state: &Arc<dyn StateStore>,
        webhooks: &Arc<Webhooks>,
    ) -> Result<Self, CodedError> {
        if graph.alerts.is_empty() {
            return Ok(Self { task: None });
        }
        let notifiers = Notifiers::start(&graph.notifiers, &graph.folder, webhooks)?;
        let alerts = Alerts::new(&graph.pipeline, &graph.alerts, reach(graph), Arc::clone(state))?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(look(alerts, notifiers, Arc::clone(status), stopped));
        Ok(Self { task: Some((task, stop)) })
    }

    /// Looks a last time, waits a moment for what is to be told, and ends.
    pub(crate) async fn end(self) {
        if let Some((task, stop)) = self.task {
            stop.send_replace(true);
            let abort = task.abort_handle();
            if tokio::time::timeout(FAREWELL, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// The sources that reach each sink.
type Reach = BTreeMap<String, Vec<String>>;

fn reach(graph: &Graph) -> Reach {
    let mut reach = Reach::new();
    for source in graph.sources() {
        for node in graph.reachable(source).into_iter().filter_map(|at| graph.nodes.get(at)).filter(|node| node.kind == Kind::Sink) {
            let name = graph.nodes.get(source).map(|node| node.name.to_string());
            reach.entry(node.name.to_string()).or_default().extend(name);
        }
    }
    reach
}

async fn look(mut alerts: Alerts, notifiers: Notifiers, status: Arc<PipelineStatus>, mut stopped: watch::Receiver<bool>) {
    // The clock is asked once: one that is set does not move what has begun.
    let began = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(), Instant::now());
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let last = tokio::select! {
            _ = tick.tick() => false,
            _ = stopped.wait_for(|stop| *stop) => true,
        };
        match alerts.look(&status, began.0 + began.1.elapsed().as_secs_f64()) {
            Ok(told) => {
                failing = false;
                for told in told {
                    let notification = Arc::new(told.notification);
                    notification.log();
                    told.notify.iter().for_each(|notifier| notifiers.send(notifier, &notification));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    error!(%error, "the state of alerts was not written");
                }
            }
        }
        if last {
            break;
        }
    }
    notifiers.end().await;
}
