//! What the pipelines of one process share: a budget of connections, credit, worker threads, webhooks, and the server's list of
//! them.

use super::cells::Cells;
use super::cluster::Cluster;
use crate::config::{EngineSettings, ServerSettings};
use crate::notify::Webhooks;
use crate::server::directory::Directory;
use etl_stream_operators::contract::Connections;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The share of a process.
pub(crate) struct Shared {
    pub(crate) connections: Arc<Connections>,
    /// Bytes of all sources that may be in flight.
    pub(crate) credit: Arc<Semaphore>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) webhooks: Arc<Webhooks>,
    /// Where pipelines of one worker go; `None`: each has its own.
    pub(super) cells: Option<Cells>,
    /// The pipeline's own server; `None` where the process has one for all, or none.
    pub(super) server: Option<ServerSettings>,
    /// The process's place among those that run the pipeline.
    pub(super) cluster: Option<Cluster>,
    /// Whether every source says now and then how far it is.
    pub(super) progress: bool,
}

impl Shared {
    fn of(engine: &EngineSettings, directory: Arc<Directory>) -> Self {
        let connections = Connections::new(engine.connections);
        directory.set_connections(&connections);
        Self {
            connections,
            credit: Arc::new(Semaphore::new(engine.credit.0 as usize)),
            directory,
            webhooks: Arc::default(),
            cells: None,
            server: None,
            cluster: None,
            progress: true,
        }
    }

    /// For one pipeline.
    pub(super) fn alone(engine: &EngineSettings, server: Option<ServerSettings>) -> Self {
        Self { server, ..Self::of(engine, Arc::default()) }
    }

    /// For one pipeline that several processes run.
    pub(super) fn among(cluster: Option<Cluster>, engine: &EngineSettings, server: Option<ServerSettings>) -> Self {
        Self { cluster, ..Self::alone(engine, server) }
    }

    /// For many, in so many threads.
    pub(crate) fn many(engine: &EngineSettings) -> Self {
        let directory = Arc::<Directory>::default().for_many();
        Self { cells: Some(Cells::new(engine.workers)), progress: false, ..Self::of(engine, directory) }
    }

    /// Ends the threads. Every pipeline has ended before.
    pub(crate) fn end(&self) {
        if let Some(cells) = &self.cells {
            cells.end();
        }
    }
}
