//! The writer of one source on one worker: hands each delivery to its table, which works by itself.
//!
//! An upper is not a delivery of any table; it is one value that all tables look at when they merge. It is
//! published after every delivery it speaks of is in its table's inbox.

use super::context::Shared;
use super::errors::SF_STREAMING;
use super::opening::Identity;
use super::table::Table;
use crate::contract::{CodedError, Deliveries, Delivery, ReplicaIdentity, TableSchema, Ts, Writer, WriterContext};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

/// A table's inbox, and how many deliveries went into it.
struct Inbox {
    sender: mpsc::UnboundedSender<Delivery>,
    enqueued: Arc<AtomicU64>,
}

/// See the module.
pub(super) struct SnowflakeWriter {
    shared: Arc<Shared>,
    cx: WriterContext,
    uppers: watch::Sender<Ts>,
    inboxes: HashMap<(Arc<str>, Arc<str>), Inbox>,
    tables: JoinSet<Result<(), CodedError>>,
}

fn ended(result: Result<Result<(), CodedError>, JoinError>) -> Result<(), CodedError> {
    result.map_err(|e| CodedError::definite(SF_STREAMING, "a table's task ended unexpectedly").caused_by(e))?
}

impl SnowflakeWriter {
    /// For one source on one worker.
    pub(super) fn new(shared: Arc<Shared>, cx: WriterContext) -> Self {
        let (uppers, _) = watch::channel(Ts::default());
        Self { shared, cx, uppers, inboxes: HashMap::new(), tables: JoinSet::new() }
    }

    /// Makes a table's inbox and its worker.
    fn table(&mut self, schema: &Arc<str>, name: &Arc<str>) -> (Table, Inbox) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let enqueued = Arc::new(AtomicU64::new(0));
        let identity = Identity::new(Arc::clone(&self.shared), &self.cx.pipeline, &self.cx.source, schema, name);
        let state = Arc::clone(&self.cx.state);
        let table = Table::new(identity, state, inbox, self.uppers.subscribe(), Arc::clone(&enqueued));
        (table, Inbox { sender, enqueued })
    }

    /// Takes up tables that are stopped, and those of which an earlier process landed changes and did not merge them:
    /// no new change may ever come that would.
    async fn resume(&mut self) -> Result<(), CodedError> {
        let name = self.shared.naming.progress();
        let rows = self.shared.progress(&name).of_source(&self.cx.pipeline, &self.cx.source).await?;
        for (key, progress) in rows {
            let (schema, table): (Arc<str>, Arc<str>) = (key.schema.into(), key.table.into());
            let known = TableSchema {
                source: Arc::clone(&self.cx.source),
                id: 0,
                schema: Arc::clone(&schema),
                name: Arc::clone(&table),
                columns: Vec::new(),
                identity: ReplicaIdentity::Default,
                storage: None,
            };
            let left = progress.stopped.is_some() || self.shared.options.merge && !progress.key.is_empty();
            if known.route() % self.cx.workers.max(1) as u64 != self.cx.worker as u64 || !left {
                continue;
            }
            let (mut worker, inbox) = self.table(&schema, &table);
            self.inboxes.insert((schema, table), inbox);
            self.tables.spawn(async move {
                worker.resume(&progress).await?;
                worker.run().await
            });
        }
        Ok(())
    }

    fn deliver(&mut self, delivery: Delivery) {
        let table = match &delivery {
            Delivery::Rows { batch, .. } => Arc::clone(&batch.table),
            Delivery::Mark { mark, .. } => Arc::clone(mark.table()),
            Delivery::Upper(upper) => {
                self.uppers.send_replace(*upper);
                return;
            }
        };
        let key = (Arc::clone(&table.schema), Arc::clone(&table.name));
        if !self.inboxes.contains_key(&key) {
            let (worker, inbox) = self.table(&table.schema, &table.name);
            self.tables.spawn(worker.run());
            self.inboxes.insert(key.clone(), inbox);
        }
        if let Some(inbox) = self.inboxes.get(&key) {
            inbox.enqueued.fetch_add(1, Ordering::Release);
            // A table that ended by an error is met at the next turn of `run`.
            let _ = inbox.sender.send(delivery);
        }
    }
}

#[async_trait]
impl Writer for SnowflakeWriter {
    async fn run(mut self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        self.resume().await?;
        loop {
            tokio::select! {
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => self.deliver(delivery),
                    None => break,
                },
                Some(result) = self.tables.join_next() => ended(result)?,
            }
        }
        self.inboxes.clear();
        while let Some(result) = self.tables.join_next().await {
            ended(result)?;
        }
        Ok(())
    }
}
