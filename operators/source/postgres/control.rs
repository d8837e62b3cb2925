//! A source's connections for statements: from the process's budget, for as long as a question takes.
//!
//! ```text
//! open ──kept one, or a permit and a new one──> Statements ──keep──> kept until it is needed again, or its place is
//! ```
//! # Guarantees
//! - A source that only streams has its replication connection and no other that it insists on: thousands of them share what
//!   `engine.connections` allows, and those that connect alike share the connections themselves.
//! - What failed or was given up is closed, and never used again.
//! - Nobody who has one waits for another: look-ups that need a snapshot's places give theirs back before. Nor does anybody
//!   have one, or wait for one, in a future that may be left unpolled: it would keep a place from those who run.

use super::connect::Endpoint;
use crate::contract::{CodedError, Connections};
use std::ops::Deref;
use std::sync::Arc;
use tokio_postgres::Client;

/// The way to a source's server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Control(Arc<Way>);

struct Way {
    endpoint: Endpoint,
    budget: Arc<Connections>,
    /// The server, as the budget counts it.
    server: String,
    /// Whose kept connections these are: everybody's whose sessions are set up alike.
    key: String,
}

/// A connection for statements, closed when dropped.
pub(super) struct Statements {
    client: Client,
    way: Arc<Way>,
}

impl Deref for Statements {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Statements {
    /// Keeps it for the next question, if its place is not wanted: every answer has come.
    pub(super) fn keep(self) {
        if !self.client.is_closed() {
            self.way.budget.keep(&self.way.server, &self.way.key, Box::new(self.client));
        }
    }
}

impl Control {
    /// To a source's server.
    pub(super) fn new(endpoint: Endpoint, budget: &Arc<Connections>) -> Self {
        let (server, key) = (endpoint.host_label(), format!("source {:032x}", endpoint.identity()));
        Self(Arc::new(Way { endpoint, budget: Arc::clone(budget), server, key }))
    }

    /// Closes those that are kept: after a failure the address may lead to another server than it did.
    pub(super) fn forget(&self) {
        self.0.budget.forget(&self.0.key);
    }

    /// The server, as the budget counts it.
    pub(super) fn server(&self) -> &str {
        &self.0.server
    }

    /// The budget.
    pub(super) fn budget(&self) -> &Connections {
        &self.0.budget
    }

    /// A connection: the kept one, or a new one as soon as the budget has a place.
    ///
    /// # Errors
    /// As [`Endpoint::query`].
    pub(super) async fn open(&self) -> Result<Statements, CodedError> {
        let way = &self.0;
        while let Some(client) = way.budget.take::<Client>(&way.key) {
            if !client.is_closed() {
                return Ok(Statements { client, way: Arc::clone(way) });
            }
        }
        let permit = way.budget.permits(&way.server, 1).await.remove(0);
        Ok(Statements { client: way.endpoint.query_within(permit, "source").await?, way: Arc::clone(way) })
    }
}
