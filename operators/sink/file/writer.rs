//! The writer of the `file` sink: tables side by side, each in its order.
//!
//! ```text
//!                  ┌─> lane public.orders ──┐
//! deliveries ──────┼─> lane public.items  ──┼──> blocking threads, so many at once
//!                  └─> lane …             ──┘
//! ```
//!
//! Guarantees: a lane handles one delivery at a time, in order, and acknowledges it when it is on disk.
//! What may succeed later is tried again until the deadline; then `run` ends with the error.

use super::Settings;
use super::codes::FOLDER_OF_ANOTHER;
use super::encode::Encoder;
use super::folder::{TableFolder, Written};
use super::names;
use crate::contract::{CodedError, Deliveries, Delivery, TableSchema, Writer, WriterContext};
use crate::sink::tally::Tally;
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::task::JoinSet;

/// Tables that one writer writes at the same time.
const PARALLEL: usize = 4;

/// Which writer has which table's folder, by the folder's name.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, Owner>>);

/// A source and a worker.
type Owner = (Arc<str>, usize);

/// The right to write a table's folder, given up when dropped. A write that goes on while its writer is
/// dropped keeps it, so that the next writer cannot begin beside it.
struct Claim {
    folder: String,
    claims: Arc<Claims>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.folder);
    }
}

impl Claims {
    fn take(self: &Arc<Self>, table: &TableSchema, owner: &Owner) -> Result<Claim, CodedError> {
        let folder = names::folder(&table.schema, &table.name);
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.get(&folder) {
            None => {
                claims.insert(folder.clone(), owner.clone());
                Ok(Claim { folder, claims: Arc::clone(self) })
            }
            Some(other) if other == owner => {
                let message = format!("an earlier write of table \"{}\" has not ended", table.full_name());
                Err(CodedError::transient(FOLDER_OF_ANOTHER, message).hint("the pipeline goes on when it has"))
            }
            Some((source, _)) => {
                let message = format!(
                    "table \"{}\" comes from source \"{source}\" and from source \"{}\", and would be mixed in one folder",
                    table.full_name(),
                    owner.0
                );
                Err(CodedError::definite(FOLDER_OF_ANOTHER, message)
                    .hint("give each source a `file` sink with a path of its own, or rename the tables"))
            }
        }
    }
}

/// A table's folder and the right to it.
struct OpenFolder {
    folder: TableFolder,
    _claim: Claim,
}

/// A table: what it waits to do.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Delivery>,
    /// Whether it is being handled or stands in line.
    busy: bool,
    folder: Option<OpenFolder>,
}

/// A table's schema and name.
type Key = (Arc<str>, Arc<str>);

/// What the tasks of a writer share.
struct Shared {
    settings: Arc<Settings>,
    claims: Arc<Claims>,
    tally: Tally,
    pipeline: Arc<str>,
    owner: Owner,
}

pub(super) struct FileWriter {
    shared: Arc<Shared>,
}

impl FileWriter {
    pub(super) fn new(settings: Arc<Settings>, claims: Arc<Claims>, cx: WriterContext) -> Self {
        let tally = Tally::new(&cx);
        Self { shared: Arc::new(Shared { settings, claims, tally, pipeline: cx.pipeline, owner: (cx.source, cx.worker) }) }
    }
}

#[async_trait]
impl Writer for FileWriter {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        let mut lanes: HashMap<Key, Lane> = HashMap::new();
        let mut ready: VecDeque<Key> = VecDeque::new();
        let mut running: JoinSet<(Key, Result<OpenFolder, CodedError>)> = JoinSet::new();
        let mut open = true;
        while open || !running.is_empty() {
            tokio::select! {
                delivery = deliveries.recv(), if open => match delivery {
                    None => open = false,
                    Some(Delivery::Upper(_)) => {}
                    Some(delivery) => {
                        let Some(key) = key(&delivery) else { continue };
                        let lane = lanes.entry(key.clone()).or_default();
                        lane.waiting.push_back(delivery);
                        if !std::mem::replace(&mut lane.busy, true) {
                            ready.push_back(key);
                        }
                    }
                },
                Some(done) = running.join_next() => {
                    let (key, folder) = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                    if let Some(lane) = lanes.get_mut(&key) {
                        lane.folder = Some(folder?);
                        lane.busy = !lane.waiting.is_empty();
                        if lane.busy {
                            ready.push_back(key);
                        }
                    }
                }
            }
            while running.len() < PARALLEL
                && let Some(key) = ready.pop_front()
            {
                let Some(lane) = lanes.get_mut(&key) else { continue };
                if let Some(delivery) = lane.waiting.pop_front() {
                    let (shared, folder) = (Arc::clone(&self.shared), lane.folder.take());
                    running.spawn(async move { (key, shared.handle(folder, delivery).await) });
                }
            }
        }
        Ok(())
    }
}

fn table(delivery: &Delivery) -> Option<&Arc<TableSchema>> {
    match delivery {
        Delivery::Rows { batch, .. } => Some(&batch.table),
        Delivery::Mark { mark, .. } => Some(mark.table()),
        Delivery::Upper(_) => None,
    }
}

fn key(delivery: &Delivery) -> Option<Key> {
    table(delivery).map(|table| (Arc::clone(&table.schema), Arc::clone(&table.name)))
}

impl Shared {
    /// Handles one delivery of a lane, however many attempts it takes, and acknowledges it.
    async fn handle(self: Arc<Self>, mut folder: Option<OpenFolder>, mut delivery: Delivery) -> Result<OpenFolder, CodedError> {
        let retry = self.settings.retry;
        let deadline = Instant::now() + retry.give_up_after.0;
        let pauses = ExponentialBuilder::default().with_min_delay(retry.initial.0).with_max_delay(retry.max.0);
        let mut pauses = pauses.with_jitter().without_max_times().build();
        loop {
            let shared = Arc::clone(&self);
            let attempt = tokio::task::spawn_blocking(move || {
                let outcome = shared.attempt(&mut folder, &delivery);
                (folder, delivery, outcome)
            });
            let outcome;
            (folder, delivery, outcome) = attempt.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            match (outcome, folder) {
                (Ok(written), Some(folder)) => {
                    self.tally.committed(written.rows, written.bytes);
                    self.tally.exact(written.exact);
                    if let Delivery::Rows { ack, .. } | Delivery::Mark { ack, .. } = delivery {
                        ack.durable();
                    }
                    return Ok(folder);
                }
                (Ok(_), None) => unreachable!("an attempt that succeeds has a folder"),
                (Err(error), kept) => {
                    let pause = pauses.next().unwrap_or(retry.max.0);
                    if !error.is_transient() || Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    tracing::warn!(error = %error, cause = error.cause.as_ref().map(tracing::field::display), "trying again");
                    self.tally.retried();
                    tokio::time::sleep(pause).await;
                    folder = kept;
                }
            }
        }
    }

    /// Does what a delivery asks, once. Blocks.
    fn attempt(self: &Arc<Self>, folder: &mut Option<OpenFolder>, delivery: &Delivery) -> Result<Written, CodedError> {
        let Some(table) = table(delivery) else { return Ok(Written::default()) };
        if folder.is_none() {
            let claim = self.claims.take(table, &self.owner)?;
            let encoder = Encoder::new(self.settings.format, self.settings.level);
            let owner = format!("{}/{}", self.pipeline, self.owner.0);
            *folder = Some(OpenFolder { folder: TableFolder::open(&self.settings.root, table, &owner, encoder)?, _claim: claim });
        }
        let Some(OpenFolder { folder, .. }) = folder else { unreachable!("opened just above") };
        match delivery {
            Delivery::Rows { batch, .. } => folder.write(batch),
            Delivery::Mark { mark, .. } => folder.mark(mark).map(|()| Written::default()),
            Delivery::Upper(_) => Ok(Written::default()),
        }
    }
}
