//! Notifiers: who is told of alerts.
//!
//! ```text
//! Notification ──> queue (bounded, the oldest goes first) ──> webhook ──POST──> receiver
//!                                                                └── again, with backoff
//! ```
//!
//! # Guarantees
//! - Telling waits for nobody: a queue that is full drops its oldest entry, and counts it.
//! - A receiver gets an entry at least once and in order, or it is counted as failed. `id` is the same every time.
//! - No URL and no secret is logged or in an error.
//! - Pipelines of one process that tell the same receiver in the same way share its queue: its bound and its order are the
//!   receiver's.

mod payload;
mod queue;
mod webhook;

use crate::alerts::Event;
use crate::config::{AlertSeverity, NotifierSettings, Reading, SubjectKind, When};
use etl_stream_operators::contract::{Code, CodedError, Exit};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use tracing::{info, warn};
use webhook::{Address, Webhook};

/// A notifier cannot be made of its settings.
pub(crate) const NOTIFIER: Code = Code::new("CFG0063", Exit::Usage);

/// Something to tell.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    /// The same for each attempt to tell it.
    pub(crate) id: String,
    pub(crate) pipeline: Arc<str>,
    pub(crate) alert: String,
    pub(crate) event: Event,
    pub(crate) severity: AlertSeverity,
    /// What the subject is.
    pub(crate) kind: SubjectKind,
    /// The source, sink or server; the slot's server.
    pub(crate) name: String,
    pub(crate) slot: Option<String>,
    pub(crate) server: Option<String>,
    /// The condition that counts.
    pub(crate) when: When,
    /// The value; `None` where the subject is gone.
    pub(crate) reading: Option<Reading>,
    /// Since when it holds, and when this was noticed, in seconds since 1970-01-01 00:00:00 UTC.
    pub(crate) since: f64,
    pub(crate) at: f64,
    /// In words.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

impl Notification {
    /// Writes it to the log.
    pub(crate) fn log(&self) {
        let (alert, event, severity) = (&self.alert, self.event.word(), self.severity.word());
        if self.event == Event::Resolved {
            info!(alert, event, severity, "{}", self.message);
        } else {
            warn!(alert, event, severity, hint = self.hint, "{}", self.message);
        }
    }
}

/// The webhooks of a process: pipelines that tell the same receiver in the same way share one, and its queue.
#[derive(Default)]
pub(crate) struct Webhooks(Mutex<Vec<Running>>);

struct Running {
    webhook: Arc<Webhook>,
    task: JoinHandle<()>,
    pipelines: usize,
}

impl Webhooks {
    fn open(&self, name: &str, settings: &NotifierSettings, folder: &Path) -> Result<Arc<Webhook>, CodedError> {
        let address = Address::read(settings, folder)?;
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = running.iter_mut().find(|there| there.webhook.address == address) {
            there.pipelines += 1;
            return Ok(Arc::clone(&there.webhook));
        }
        let webhook = Arc::new(Webhook::new(name, address)?);
        running.push(Running { webhook: Arc::clone(&webhook), task: tokio::spawn(Arc::clone(&webhook).run()), pipelines: 1 });
        Ok(webhook)
    }

    /// One pipeline less. The last one closes it, and gets its task, which ends when the queue is empty.
    fn close(&self, webhook: &Arc<Webhook>) -> Option<JoinHandle<()>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = running.iter().position(|there| Arc::ptr_eq(&there.webhook, webhook))?;
        running[at].pipelines -= 1;
        if running[at].pipelines > 0 {
            return None;
        }
        webhook.close();
        Some(running.swap_remove(at).task)
    }
}

/// The notifiers of a pipeline.
pub(crate) struct Notifiers {
    webhooks: BTreeMap<String, Arc<Webhook>>,
    all: Arc<Webhooks>,
}

impl Notifiers {
    /// Reads their secrets and starts those that are not there yet.
    ///
    /// # Errors
    /// `CFG0020` when a secret is not there, `CFG0063` when a URL is none.
    pub(crate) fn start(settings: &BTreeMap<String, NotifierSettings>, folder: &Path, all: &Arc<Webhooks>) -> Result<Self, CodedError> {
        let mut notifiers = Self { webhooks: BTreeMap::new(), all: Arc::clone(all) };
        for (name, settings) in settings {
            notifiers.webhooks.insert(name.clone(), all.open(name, settings, folder)?);
        }
        Ok(notifiers)
    }

    /// Puts a notification into a notifier's queue.
    pub(crate) fn send(&self, notifier: &str, notification: &Arc<Notification>) {
        if let Some(webhook) = self.webhooks.get(notifier) {
            webhook.send(notification);
        }
    }

    /// Waits until everything is told or given up.
    pub(crate) async fn end(mut self) {
        let webhooks = std::mem::take(&mut self.webhooks);
        let closed: Vec<_> = webhooks.values().map(|webhook| (webhook, self.all.close(webhook))).collect();
        for (webhook, task) in closed {
            match task {
                Some(task) => drop(task.await),
                None => webhook.settled().await,
            }
        }
    }
}

impl Drop for Notifiers {
    fn drop(&mut self) {
        for webhook in std::mem::take(&mut self.webhooks).values() {
            drop(self.all.close(webhook));
        }
    }
}
