//! One check of one server: a connection out of the budget, the statement, and what is done about slots beyond the limit.
//!
//! ```text
//! kept connection ──┐
//! permit ──connect──┴──> ask ──> Seen ──> limit ──> Done
//! ```
//! A connection that was kept and turns out to be dead is replaced within the same check.

use super::check::{self, Seen};
use super::config::OnLimit;
use super::limit;
use super::watched::Watched;
use crate::contract::{Code, CodedError, Connections, Exit};
use crate::source::postgres::connect::{Endpoint, PG_LOST, classify};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tracing::warn;

/// A check took too long.
pub(super) const CHECK_TIMEOUT: Code = Code::new("PG0041", Exit::Environment);
/// No connection of the budget was free.
pub(super) const NO_CONNECTION: Code = Code::new("PG0042", Exit::Environment);

/// What its connections are for, in `application_name`.
const PURPOSE: &str = "wal monitor";

/// A check to be done.
pub(super) struct Job {
    /// The server's index.
    pub(super) server: usize,
    pub(super) watched: Watched,
    /// Which of its ways is tried.
    pub(super) way: usize,
    pub(super) timeout: Duration,
    /// Bytes a slot may hold back, and what is done beyond.
    pub(super) limit: Option<(i64, OnLimit)>,
    pub(super) connections: Arc<Connections>,
}

/// A check that was done.
pub(super) struct Done {
    pub(super) server: usize,
    /// When it was asked.
    pub(super) asked: Instant,
    pub(super) took: Duration,
    pub(super) result: Result<Seen, CodedError>,
}

impl Job {
    /// Does it. Never longer than its timeout.
    pub(super) async fn run(self) -> Done {
        let started = Instant::now();
        let result = tokio::time::timeout(self.timeout, Box::pin(self.check())).await;
        let result = result.unwrap_or_else(|_| {
            let message = format!("checking {}: no answer within {} ms", self.watched.name, self.timeout.as_millis());
            Err(CodedError::transient(CHECK_TIMEOUT, message)
                .hint("look at the server and the network between; `timeout` of the wal_monitor sets how long a check may take"))
        });
        Done { server: self.server, asked: started, took: started.elapsed(), result }
    }

    fn key(&self) -> String {
        format!("{PURPOSE} {}", self.watched.name)
    }

    async fn check(&self) -> Result<Seen, CodedError> {
        let mut kept = self.connections.take::<Client>(&self.key()).filter(|client| !client.is_closed());
        loop {
            let (client, was_kept) = match kept.take() {
                Some(client) => (client, true),
                None => (self.connect().await?, false),
            };
            match check::ask(&client, &self.watched.name).await {
                Ok(mut seen) => {
                    self.limits(&client, &mut seen).await;
                    self.connections.keep(&self.watched.address, &self.key(), Box::new(client));
                    return Ok(seen);
                }
                Err(error) if was_kept && error.code == PG_LOST => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(&self) -> Result<Client, CodedError> {
        // Leaves time to say so.
        let patience = self.timeout.mul_f64(0.8);
        let permits = tokio::time::timeout(patience, self.connections.permits(&self.watched.address, 1)).await;
        let permit = permits.ok().and_then(|mut permits| permits.pop()).ok_or_else(|| {
            let limits = self.connections.limits();
            let message = format!(
                "checking {}: no connection was free: `engine.connections` allows {} in all and {} to a server",
                self.watched.name, limits.total, limits.per_server
            );
            CodedError::transient(NO_CONNECTION, message).hint("raise `engine.connections`, or copy with fewer `snapshot.workers`")
        })?;
        let client = self.endpoint()?.query_within(permit, PURPOSE).await?;
        let millis = self.timeout.as_millis();
        let sql = format!("SET statement_timeout = {millis}; SET lock_timeout = {millis}");
        client.batch_execute(&sql).await.map_err(|e| classify(&e, &format!("checking {}", self.watched.name)))?;
        Ok(client)
    }

    fn endpoint(&self) -> Result<Endpoint, CodedError> {
        let ways = &self.watched.ways;
        let way = ways.get(self.way % ways.len().max(1)).expect("a server has a way to it");
        way.resolve(&self.watched.folder)
    }

    /// Says whose each slot is, marks those beyond the limit, and drops those that are to be.
    async fn limits(&self, client: &Client, seen: &mut Seen) {
        let readers: BTreeMap<&str, &Arc<str>> = self.watched.sources.iter().map(|(source, slot)| (slot.as_str(), source)).collect();
        for slot in &mut seen.server.slots {
            slot.source = readers.get(slot.name.as_str()).map(|source| Arc::clone(source));
        }
        let Some((bytes, action)) = self.limit else { return };
        for slot in &mut seen.server.slots {
            slot.over_limit = slot.retained_bytes.is_some_and(|retained| retained > bytes);
            slot.pause = slot.over_limit && action == OnLimit::Pause && slot.source.is_some();
            if slot.over_limit && action == OnLimit::DropSlot && slot.source.is_some() {
                // What was seen is seen all the same; the next check tries again.
                if let Err(error) = limit::drop_slot(client, &self.watched.name, slot, bytes).await {
                    warn!(server = &*self.watched.name, slot = slot.name, %error, "a slot beyond `retained_wal_limit` was not dropped");
                }
            }
        }
    }
}
