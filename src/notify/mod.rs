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

mod payload;
mod queue;
mod webhook;

use crate::alerts::Event;
use crate::config::{AlertSeverity, NotifierSettings, Reading, SubjectKind, When};
use etl_stream_operators::contract::{Code, CodedError, Exit};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use webhook::Webhook;

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

/// The notifiers of a pipeline.
pub(crate) struct Notifiers {
    webhooks: BTreeMap<String, (Arc<Webhook>, JoinHandle<()>)>,
}

impl Notifiers {
    /// Reads their secrets and starts them.
    ///
    /// # Errors
    /// `CFG0020` when a secret is not there, `CFG0063` when a URL is none.
    pub(crate) fn start(pipeline: &Arc<str>, settings: &BTreeMap<String, NotifierSettings>, folder: &Path) -> Result<Self, CodedError> {
        let mut webhooks = BTreeMap::new();
        for (name, settings) in settings {
            let webhook = Arc::new(Webhook::new(pipeline, name, settings, folder)?);
            let task = tokio::spawn(Arc::clone(&webhook).run());
            webhooks.insert(name.clone(), (webhook, task));
        }
        Ok(Self { webhooks })
    }

    /// Puts a notification into a notifier's queue.
    pub(crate) fn send(&self, notifier: &str, notification: &Arc<Notification>) {
        if let Some((webhook, _)) = self.webhooks.get(notifier) {
            webhook.send(notification);
        }
    }

    /// Waits until everything is told or given up.
    pub(crate) async fn end(self) {
        for (webhook, _) in self.webhooks.values() {
            webhook.close();
        }
        for (_, (_, task)) in self.webhooks {
            let _ = task.await;
        }
    }
}
