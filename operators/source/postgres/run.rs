//! The source's life: check, snapshot, stream; and again after a lost connection.
//!
//! ```text
//! Starting ──> Snapshot ──> Streaming ──stop──> drained ──> confirmed ──> Stopped
//!     ^           │             │
//!     └─ Retrying ┴─────────────┘   transient errors: backoff with jitter, to a deadline
//! ```

use super::assemble::Assembler;
use super::catalog::{Catalog, Published};
use super::codes;
use super::config::{PostgresConfig, Settings, SnapshotMode};
use super::confirm::Confirm;
use super::connect::{ConnectSettings, Endpoint, Replication, sqlstate};
use super::quote::identifier;
use super::setup::{self, Identity, Server, Slot};
use super::snapshot::{self, Locked, Snapshot};
use super::state::{Documents, Progress, Stage, TableProgress};
use super::stream::Prepared;
use crate::contract::{
    BuildContext, ChunkSender, CodedError, Credits, Durable, Lsn, Phase, Source, SourceConfig, SourceContext, SourceStatus, StateStore,
    TableSchema, Ts,
};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::{info, warn};

/// The first version with `CREATE_REPLICATION_SLOT`'s options in parentheses.
const SLOT_OPTIONS: u32 = 150_000;
/// The first version with failover slots.
const FAILOVER_SLOTS: u32 = 170_000;

impl SourceConfig for PostgresConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(self.source(cx)?))
    }
}

impl PostgresConfig {
    /// Makes the source; reads secrets and files.
    pub(super) fn source(&self, cx: &BuildContext) -> Result<PostgresSource, CodedError> {
        let secret = |secret: &Option<crate::contract::Secret>| secret.as_ref().map(|s| cx.secret(s)).transpose();
        let connect = ConnectSettings {
            url: secret(&self.url)?,
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: secret(&self.password)?,
            tls: self.tls.clone(),
            ..ConnectSettings::default()
        };
        connect.resolve(&cx.folder)?;
        let settings = Settings::new(self, &cx.pipeline, &cx.node);
        Ok(PostgresSource { settings, connect, folder: Arc::clone(&cx.folder), range_bytes: snapshot::RANGE_BYTES })
    }
}

/// A source that is not running yet.
pub(super) struct PostgresSource {
    pub settings: Settings,
    pub connect: ConnectSettings,
    pub folder: Arc<Path>,
    pub range_bytes: u64,
}

#[async_trait]
impl Source for PostgresSource {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let status = Arc::clone(&cx.source_status);
        let result = Box::pin(Run::new(*self, cx).to_the_end()).await;
        let why = result.as_ref().err().map(ToString::to_string);
        status.set_phase(Phase::Stopped, why);
        result
    }
}

/// Waits until the source is to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender nobody can ask to stop.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A snapshot that has been sent and is not durable yet.
struct Sent {
    upper: Ts,
    progress: Progress,
    tables: BTreeMap<String, TableProgress>,
}

/// A source that runs.
pub(super) struct Run {
    pub settings: Settings,
    connect: ConnectSettings,
    folder: Arc<Path>,
    range_bytes: u64,
    pipeline: Arc<str>,
    source: Arc<str>,
    pub out: Option<Box<dyn ChunkSender>>,
    pub durable: watch::Receiver<Durable>,
    pub credits: Credits,
    store: Arc<dyn StateStore>,
    pub status: Arc<SourceStatus>,
    pub stop: watch::Receiver<bool>,
    pub catalog: Catalog,
    pub assembler: Assembler,
    pub confirm: Arc<Mutex<Confirm>>,
    sent: Option<Sent>,
    /// Whether something has been read since the last failure.
    pub advanced: bool,
}

impl Run {
    fn new(source: PostgresSource, cx: SourceContext) -> Self {
        Self {
            catalog: Catalog::new(Arc::clone(&cx.source), source.settings.keys.clone()),
            settings: source.settings,
            connect: source.connect,
            folder: source.folder,
            range_bytes: source.range_bytes,
            pipeline: cx.pipeline,
            source: cx.source,
            out: Some(cx.out),
            durable: cx.durable,
            credits: cx.credits,
            store: cx.state,
            status: cx.source_status,
            stop: cx.stop,
            assembler: Assembler::new(),
            confirm: Arc::default(),
            sent: None,
            advanced: false,
        }
    }

    /// Tries until stopped or until an error is definite.
    async fn to_the_end(mut self) -> Result<(), CodedError> {
        let retry = self.settings.retry;
        let backoff =
            ExponentialBuilder::default().with_min_delay(retry.initial.0).with_max_delay(retry.max.0).with_jitter().without_max_times();
        let mut delays = backoff.build();
        let mut failing: Option<Instant> = None;
        loop {
            self.advanced = false;
            let Err(error) = self.attempt().await else { return Ok(()) };
            if self.advanced {
                (delays, failing) = (backoff.build(), None);
            }
            let since = *failing.get_or_insert_with(Instant::now);
            if !error.is_transient() || since.elapsed() >= retry.give_up_after.0 {
                return Err(error);
            }
            let delay = delays.next().unwrap_or(retry.max.0);
            warn!(source = &*self.source, %error, "the source failed and tries again in {} ms", delay.as_millis());
            self.status.set_phase(Phase::Retrying, Some(error.to_string()));
            let mut stop = self.stop.clone();
            tokio::select! {
                () = stopped(&mut stop) => return self.end_unconnected().await,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Checks, copies if need be, streams. Returns when stopped.
    async fn attempt(&mut self) -> Result<(), CodedError> {
        let mut stop = self.stop.clone();
        let prepared = tokio::select! {
            biased;
            () = stopped(&mut stop) => None,
            prepared = Box::pin(self.prepare()) => Some(prepared?),
        };
        match prepared {
            Some(prepared) => Box::pin(self.stream(prepared)).await,
            None => self.end_unconnected().await,
        }
    }

    fn documents(&self) -> Documents<'_> {
        Documents { store: &*self.store, pipeline: &self.pipeline, source: &self.source }
    }

    /// Everything before the stream.
    async fn prepare(&mut self) -> Result<Prepared, CodedError> {
        let endpoint = self.connect.resolve(&self.folder)?;
        let client = endpoint.query("source").await?;
        let server = setup::server(&client).await?;
        let mut replication = endpoint.replicate("source").await?;
        let identity = Identity::of(&replication.simple_query("IDENTIFY_SYSTEM").await?)?;
        self.status.server_lsn.fetch_max(identity.lsn, Ordering::Relaxed);
        if let Some(upper) = self.sent.as_ref().map(|sent| sent.upper) {
            self.wait_durable(upper).await?;
            self.complete()?;
        }
        let progress = self.documents().load()?;
        let slot = setup::free_slot(&client, &self.settings.slot, self.settings.slot_patience).await?;
        if let Some(progress) = &progress {
            identity.check(progress, &server.database, slot.as_ref())?;
        }
        match (progress, slot) {
            (Some(progress), Some(slot)) if progress.stage == Stage::Streaming => {
                setup::check_start(&self.settings, Some(&progress), Some(&slot))?;
                setup::check_slot(&self.settings.slot, &slot, &server.database)?;
                self.resume(&client, &server, &identity, progress).await?;
                let start = self.start_from(&slot)?;
                self.prepared(server, client, replication, start)
            }
            (progress, slot) => {
                if let (None, Some(slot)) = (&progress, &slot) {
                    setup::check_slot(&self.settings.slot, slot, &server.database)?;
                }
                setup::check_start(&self.settings, progress.as_ref(), slot.as_ref())?;
                if slot.is_some() {
                    info!(slot = self.settings.slot, "dropping the slot of a snapshot that was not finished");
                    setup::drop_slot(&client, &self.settings.slot).await?;
                }
                let start = Box::pin(self.begin(&endpoint, &client, &server, identity, replication, progress)).await?;
                let replication = endpoint.replicate("source").await?;
                self.prepared(server, client, replication, start)
            }
        }
    }

    fn prepared(&self, server: Server, client: Client, replication: Replication, start: u64) -> Result<Prepared, CodedError> {
        let known = self.documents().tables()?.into_keys().collect();
        Ok(Prepared { server, client: Arc::new(client), replication, start, known })
    }

    /// Where to go on: what is confirmed, unless somebody else has moved the slot past it.
    fn start_from(&self, slot: &Slot) -> Result<u64, CodedError> {
        let mut confirm = self.confirm.lock().unwrap_or_else(PoisonError::into_inner);
        confirm.durable(self.durable.borrow().upper);
        let (ours, slots) = (confirm.confirmed(), slot.confirmed.unwrap_or(0));
        if ours > 0 && slots > ours {
            return Err(CodedError::definite(
                codes::SLOT_MOVED,
                format!(
                    "replication slot \"{}\" stands at {}, past {} which this source confirmed",
                    self.settings.slot,
                    Lsn(slots),
                    Lsn(ours)
                ),
            )
            .hint("something else reads or advances the slot: find it, then start this source anew with a new snapshot"));
        }
        Ok(ours.max(slots))
    }

    /// Goes on with a slot whose snapshot is complete.
    async fn resume(&mut self, client: &Client, server: &Server, identity: &Identity, mut progress: Progress) -> Result<(), CodedError> {
        let tables = setup::publication(client, &self.settings, server, false).await?;
        let mut documents = self.documents().tables()?;
        let mut changed = identity.timeline != progress.timeline;
        if changed {
            info!(timeline = identity.timeline, "the server was promoted, and the slot came along");
            progress.timeline = identity.timeline;
        }
        for table in tables {
            let document = TableProgress { stage: Stage::Streaming, snapshot_lsn: None, relation: table.id };
            documents.entry(format!("{}.{}", table.schema, table.name)).or_insert_with(|| {
                changed = true;
                document
            });
        }
        if changed {
            self.documents().store(&progress, &documents)?;
        }
        Ok(())
    }

    /// Makes publication and slot, and copies the rows that exist. Returns where the stream starts.
    async fn begin(
        &mut self,
        endpoint: &Endpoint,
        client: &Client,
        server: &Server,
        identity: Identity,
        mut replication: Replication,
        before: Option<Progress>,
    ) -> Result<u64, CodedError> {
        let initial = self.settings.snapshot.mode == SnapshotMode::Initial;
        setup::check_room(client).await?;
        let tables = setup::publication(client, &self.settings, server, true).await?;
        let mut locked = None;
        if initial {
            setup::check_readable(&tables, server)?;
            locked = Some(Locked::new(endpoint.query("snapshot").await?, &tables).await?);
        }
        let schemas = self.catalog.describe(locked.as_ref().map_or(client, Locked::client), server.version, &tables).await?;
        let mut progress = Progress {
            system_identifier: identity.system,
            timeline: identity.timeline,
            database: server.database.clone(),
            slot: self.settings.slot.clone(),
            publication: self.settings.publication.clone(),
            stage: Stage::Creating,
            consistent_lsn: None,
            snapshot_lsn: before.as_ref().and_then(|p| p.snapshot_lsn),
        };
        self.documents().store(&progress, &BTreeMap::new())?;
        let made = self.make_slot(&mut replication, server, initial).await?;
        // One below: a commit record may start at the consistent point itself.
        let lsn = made.consistent.saturating_sub(1);
        if progress.snapshot_lsn.is_some_and(|before| before >= lsn) {
            return Err(CodedError::transient(codes::COPY, "the new snapshot is not later than the one before it"));
        }
        progress.consistent_lsn = Some(made.consistent);
        progress.snapshot_lsn = Some(lsn);
        progress.stage = Stage::Snapshot;
        info!(slot = self.settings.slot, lsn = %Lsn(made.consistent), tables = tables.len(), "created the replication slot");
        self.documents().store(&progress, &BTreeMap::new())?;
        let tables: Vec<(Published, Arc<TableSchema>)> = tables.into_iter().zip(schemas).collect();
        if let (Some(locked), Some(name)) = (&locked, &made.snapshot) {
            self.status.set_phase(Phase::Snapshot, None);
            let job = Snapshot {
                endpoint,
                server,
                types: self.catalog.types(),
                tables: &tables,
                name,
                lsn,
                workers: self.settings.snapshot.workers,
                range_bytes: self.range_bytes,
                credits: &self.credits,
                status: &self.status,
            };
            let ready = job.import(locked).await?;
            self.advanced = true;
            drop(replication);
            let Some(out) = &mut self.out else { return Err(snapshot::closed(crate::contract::SourceClosed)) };
            job.copy(ready, &mut **out).await?;
            tables.iter().for_each(|(_, schema)| self.assembler.sent_as(schema));
        }
        drop(locked);
        let documents = tables.iter().map(|(table, schema)| {
            let snapshot_lsn = initial.then_some(lsn);
            (schema.full_name(), TableProgress { stage: Stage::Streaming, snapshot_lsn, relation: table.id })
        });
        progress.stage = Stage::Streaming;
        let upper = if initial { Ts::after(lsn) } else { Ts::default() };
        self.assembler.reached(upper);
        self.sent = Some(Sent { upper, progress, tables: documents.collect() });
        self.wait_durable(upper).await?;
        self.complete()?;
        Ok(made.consistent)
    }

    async fn wait_durable(&mut self, upper: Ts) -> Result<(), CodedError> {
        let reached = self.durable.wait_for(|durable| durable.upper >= upper || durable.finished).await;
        reached.map(|_| ()).map_err(|_| snapshot::closed(crate::contract::SourceClosed))
    }

    /// Stores that the snapshot is complete.
    fn complete(&mut self) -> Result<(), CodedError> {
        if let Some(sent) = self.sent.take() {
            let stored = self.documents().store(&sent.progress, &sent.tables);
            if let Err(error) = stored {
                self.sent = Some(sent);
                return Err(error);
            }
            info!(tables = sent.tables.len(), "the snapshot is complete and durable");
        }
        Ok(())
    }

    async fn make_slot(&mut self, replication: &mut Replication, server: &Server, export: bool) -> Result<Made, CodedError> {
        let sql = create_slot(&self.settings, server, export);
        let rows = match replication.simple_query(&sql).await {
            Ok(rows) => rows,
            Err(error) => {
                return Err(match sqlstate(&error) {
                    // Somebody made it since we looked: it is not ours.
                    Some("42710") => {
                        self.documents().clear()?;
                        CodedError::definite(codes::SLOT_WITHOUT_STATE, error.message).hint("give this source another `slot`")
                    }
                    Some("53400") => CodedError::definite(codes::NO_SLOT_LEFT, error.message)
                        .hint("raise max_replication_slots and restart the server, or drop slots that nobody reads"),
                    _ => error,
                });
            }
        };
        let field = |index: usize| rows.first().and_then(|row| row.get(index)).cloned().flatten();
        let consistent = field(1).and_then(|text| text.parse::<Lsn>().ok());
        let consistent = consistent
            .ok_or_else(|| CodedError::definite(codes::STREAM, "the server's answer to CREATE_REPLICATION_SLOT was not understood"))?;
        Ok(Made { consistent: consistent.0, snapshot: field(2) })
    }

    /// Ends the stream of chunks and waits until all of them are durable. False: the pipeline is gone.
    pub(super) async fn drained(&mut self) -> bool {
        self.out = None;
        self.durable.wait_for(|durable| durable.finished).await.is_ok()
    }

    /// Stops without a connection to confirm on: the slot stays where it is, and sinks know what they have.
    async fn end_unconnected(&mut self) -> Result<(), CodedError> {
        if self.drained().await { self.complete() } else { Ok(()) }
    }
}

/// A new slot.
struct Made {
    consistent: u64,
    snapshot: Option<String>,
}

fn create_slot(settings: &Settings, server: &Server, export: bool) -> String {
    let slot = identifier(&settings.slot);
    if server.version < SLOT_OPTIONS {
        let snapshot = if export { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        return format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {snapshot}");
    }
    let snapshot = if export { "export" } else { "nothing" };
    let can = server.version >= FAILOVER_SLOTS && !server.standby;
    let failover = if can && settings.failover.unwrap_or(true) { ", FAILOVER" } else { "" };
    format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT '{snapshot}'{failover})")
}
