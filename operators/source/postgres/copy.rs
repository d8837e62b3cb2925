//! A copy of tables as they stand at one point of the log, beside whatever runs: for comparing, not for a sink.
//!
//! A temporary slot exports the snapshot, so that the point is exact: the copy has every transaction that committed
//! before it, and no other. The slot ends with its connection; nothing else is made.

use super::catalog::{self, Catalog};
use super::codes;
use super::connect::classify;
use super::publication;
use super::run::{PostgresSource, within};
use super::setup;
use super::side::{make_temporary, temporary_name};
use super::snapshot::{Locked, Places, Shape, Snapshot};
use super::survey::position;
use crate::contract::{
    Chunk, ChunkSender, CodedError, ConnectionSettings, Connections, Copied, Credits, Lsn, SourceClosed, SourceStatus, WantTable,
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes in flight between the workers and who takes them.
const CREDIT: usize = 32 << 20;

/// Passes chunks on, whose credit comes back at once: who takes them keeps nothing.
struct Through<'a> {
    out: &'a mut dyn ChunkSender,
    credits: Credits,
}

impl ChunkSender for Through<'_> {
    fn send(&mut self, chunk: Chunk) -> Result<(), SourceClosed> {
        self.credits.give(chunk.credit);
        self.out.send(Chunk { credit: 0, ..chunk })
    }
}

/// Copies the tables of the source that are wanted.
pub(super) async fn copy(
    source: &PostgresSource,
    node: &Arc<str>,
    want: &WantTable<'_>,
    out: &mut dyn ChunkSender,
) -> Result<Copied, CodedError> {
    let settings = &source.settings;
    let endpoint = source.connect.resolve(&source.folder)?;
    let client = endpoint.query("verify").await?;
    let server = within(settings.receive_timeout, "reading the server's settings", setup::server(&client)).await?;
    let mut catalog = Catalog::new(Arc::clone(node), settings.keys.clone());
    let published = catalog::published(&client, &settings.publication).await;
    let mut tables = published.map_err(|e| classify(&e, &format!("reading publication \"{}\"", settings.publication)))?;
    tables.retain(|table| settings.tables.matches(&table.schema, &table.name));
    let schemas = catalog.describe(&client, server.version, &tables).await?;
    let mut wanted = schemas.iter().map(|schema| want(schema));
    tables.retain(|_| wanted.next().unwrap_or(false));
    if tables.is_empty() {
        return Ok(Copied { point: Lsn(position(&client).await?.lsn), tables: Vec::new() });
    }
    publication::check_readable(&tables, &server)?;
    let shape = Shape::of(&client, &mut catalog, server.version, &tables).await?;
    let mut replication = endpoint.replicate("verify").await?;
    let slot = temporary_name(&settings.slot, "verify", replication.backend_pid());
    let (point, name) = make_temporary(&mut replication, &slot, server.version).await?;
    // A command of its own, beside the process that runs: it has a budget of its own.
    let most = u32::from(settings.snapshot.workers) + 1;
    let connections = Connections::new(ConnectionSettings { total: most, per_server: most });
    let (lock, first) = Places::take(&connections, &endpoint).await?.split();
    let locked = Locked::new(endpoint.query_within(lock, "verify").await?, &tables).await?;
    if Shape::of(locked.client(), &mut catalog, server.version, &tables).await? != shape {
        return Err(CodedError::transient(codes::COPY, "a table was altered or truncated while its copy began").hint("try again"));
    }
    let pairs: Vec<_> = tables.into_iter().zip(shape.schemas.iter().cloned()).collect();
    let credits = Credits::new(CREDIT, Arc::new(Semaphore::new(CREDIT)));
    let status = Arc::<SourceStatus>::default();
    let job = Snapshot {
        endpoint: &endpoint,
        server: &server,
        types: catalog.types(),
        tables: &pairs,
        name: &name,
        lsn: point.saturating_sub(1),
        replaces: None,
        marks: false,
        workers: settings.snapshot.workers,
        connections: &connections,
        range_bytes: source.range_bytes,
        credits: &credits,
        status: &status,
    };
    let ready = job.import(&locked, first).await?;
    // The workers hold the snapshot now.
    drop(replication);
    job.copy(ready, &mut Through { out, credits: credits.clone() }).await?;
    Ok(Copied { point: Lsn(point), tables: shape.schemas })
}
