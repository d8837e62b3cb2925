//! The source's life: check, snapshot, stream; and again after a lost connection.
//!
//! ```text
//! Starting ──> Snapshot ──> Streaming ──stop──> drained ──> confirmed ──> Stopped
//!     ^           │             │
//!     └─ Retrying ┴─────────────┘   transient errors: backoff with jitter, to a deadline
//! ```

use super::assemble::Assembler;
use super::begin::Reach;
use super::catalog::Catalog;
use super::check::Preflight;
use super::codes;
use super::config::{PostgresConfig, Settings, SnapshotMode};
use super::confirm::Confirm;
use super::connect::{ConnectSettings, PG_LOST, Replication};
use super::control::Control;
use super::copy;
use super::join::{Clock, Handed};
use super::publication;
use super::setup::{self, Identity, Server, Slot};
use super::slots::Slots;
use super::snapshot;
use super::state::{Documents, Note, Progress, Stage, TableProgress};
use super::stream::Prepared;
use crate::contract::{
    BuildContext, CheckContext, Checks, ChunkSender, Class, CodedError, Connections, Copied, Credits, Dropped, Durable, Phase, Replicating,
    SlotFacts, Source, SourceConfig, SourceContext, SourceStatus, StateStore, TableSchema, Ts, WantTable,
};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::{info, warn};

impl SourceConfig for PostgresConfig {
    fn claims(&self, cx: &BuildContext) -> Result<Vec<String>, CodedError> {
        let server = self.connect_settings(cx)?.resolve(&cx.folder)?.host_label();
        Ok(vec![format!("replication slot \"{}\" of {server}", self.slot_name(&cx.pipeline, &cx.node))])
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(self.source(cx)?))
    }
}

impl PostgresConfig {
    /// How its server is reached; reads secrets.
    pub(crate) fn connect_settings(&self, cx: &BuildContext) -> Result<ConnectSettings, CodedError> {
        let secret = |secret: &Option<crate::contract::Secret>| secret.as_ref().map(|s| cx.secret(s)).transpose();
        Ok(ConnectSettings {
            url: secret(&self.url)?,
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: secret(&self.password)?,
            tls: self.tls.clone(),
            ..ConnectSettings::default()
        })
    }

    /// Makes the source; reads secrets and files.
    pub(super) fn source(&self, cx: &BuildContext) -> Result<PostgresSource, CodedError> {
        let connect = self.connect_settings(cx)?;
        connect.resolve(&cx.folder)?;
        let mut settings = Settings::new(self, &cx.pipeline, &cx.node);
        settings.spill.folder = cx.path(&settings.spill.folder);
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
        let result = Box::pin(Run::new(*self, cx).live()).await;
        let why = result.as_ref().err().map(ToString::to_string);
        status.set_phase(Phase::Stopped, why);
        result
    }

    async fn check(&mut self, cx: &CheckContext, checks: &mut Checks) -> Vec<Arc<TableSchema>> {
        Box::pin(Preflight { source: self, cx, checks }.tables()).await
    }

    async fn copy(&mut self, node: &Arc<str>, want: &WantTable<'_>, out: &mut dyn ChunkSender) -> Result<Option<Copied>, CodedError> {
        Box::pin(copy::copy(self, node, want, out)).await.map(Some)
    }

    async fn slots(&mut self) -> Result<Vec<SlotFacts>, CodedError> {
        Slots { settings: &self.settings, endpoint: self.connect.resolve(&self.folder)? }.list().await
    }

    async fn drop_slot(&mut self, slot: &str, publication: bool) -> Result<Dropped, CodedError> {
        Slots { settings: &self.settings, endpoint: self.connect.resolve(&self.folder)? }.drop(slot, publication).await
    }
}

/// Waits until the source is to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender nobody can ask to stop.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the source may read again.
pub(super) async fn resumed(paused: &mut watch::Receiver<bool>) {
    // Without a sender nobody can let it go on.
    if paused.wait_for(|paused| !*paused).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for an answer, and no longer than a server that is there would take for it.
pub(super) async fn within<T>(
    patience: Duration,
    doing: &str,
    answer: impl Future<Output = Result<T, CodedError>>,
) -> Result<T, CodedError> {
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
        Err(CodedError::transient(PG_LOST, format!("{doing}: the server has been silent for {} s", patience.as_secs()))
            .hint("the network between may have forgotten the connection; `receive_timeout` sets how long an answer may take"))
    })
}

/// A snapshot that has been sent and is not durable yet.
pub(super) struct Sent {
    pub upper: Ts,
    pub progress: Progress,
    pub tables: BTreeMap<String, TableProgress>,
}

/// A source that runs.
pub(super) struct Run {
    pub settings: Settings,
    pub connect: ConnectSettings,
    pub folder: Arc<Path>,
    pub range_bytes: u64,
    pipeline: Arc<str>,
    pub source: Arc<str>,
    pub out: Option<Box<dyn ChunkSender>>,
    pub durable: watch::Receiver<Durable>,
    pub credits: Credits,
    pub connections: Arc<Connections>,
    /// Counts the replication connection.
    replicating: Option<Replicating>,
    store: Arc<dyn StateStore>,
    pub status: Arc<SourceStatus>,
    pub stop: watch::Receiver<bool>,
    pub paused: watch::Receiver<bool>,
    pub catalog: Catalog,
    pub assembler: Assembler,
    pub confirm: Arc<Mutex<Confirm>>,
    pub sent: Option<Sent>,
    /// How far chunks have reached, those beside the stream counted.
    pub clock: Clock,
    /// Tables that the stream has taken over and whose copy is not noted as durable yet.
    pub handed: Vec<Handed>,
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
            connections: cx.connections,
            replicating: None,
            store: cx.state,
            status: cx.source_status,
            stop: cx.stop,
            paused: cx.paused,
            assembler: Assembler::new(),
            confirm: Arc::default(),
            sent: None,
            clock: Clock::default(),
            handed: Vec::new(),
            advanced: false,
        }
    }

    /// Tries until stopped or until an error is definite.
    async fn live(mut self) -> Result<(), CodedError> {
        let retry = self.settings.retry;
        let backoff =
            ExponentialBuilder::default().with_min_delay(retry.initial.0).with_max_delay(retry.max.0).with_jitter().without_max_times();
        let mut delays = backoff.build();
        let mut failing: Option<Instant> = None;
        loop {
            self.advanced = false;
            let Err(error) = self.attempt().await else { return Ok(()) };
            self.replicating = None;
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
            if let Ok(control) = self.control() {
                control.forget();
            }
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

    pub(super) fn documents(&self) -> Documents<'_> {
        Documents { store: &*self.store, pipeline: &self.pipeline, source: &self.source }
    }

    /// Where positions are noted before the server is told them.
    pub(super) fn note(&self) -> Note {
        Documents::note(&self.store, &self.pipeline, &self.source)
    }

    /// A source that is paused before its first copy is complete does not begin one: that would hold a transaction
    /// open. One that streams connects, so that its slot is in use, and reads nothing.
    async fn hold_back(&mut self) -> Result<(), CodedError> {
        let streams = self.documents().load()?.is_some_and(|progress| progress.stage == Stage::Streaming);
        if !streams && self.sent.is_none() && *self.paused.borrow() {
            self.status.set_phase(Phase::Paused, None);
            resumed(&mut self.paused).await;
            self.status.set_phase(Phase::Starting, None);
        }
        Ok(())
    }

    /// Everything before the stream.
    async fn prepare(&mut self) -> Result<Prepared, CodedError> {
        self.hold_back().await?;
        let endpoint = self.connect.resolve(&self.folder)?;
        let control = self.control()?;
        let client = control.open().await?;
        let patience = self.settings.receive_timeout;
        let server = within(patience, "reading the server's settings", setup::server(&client)).await?;
        let mut replication = endpoint.replicate("source").await?;
        self.replicating = Some(self.connections.replicating(&endpoint.host_label()));
        let identity = within(patience, "identifying the server", replication.simple_query("IDENTIFY_SYSTEM")).await?;
        let identity = Identity::of(&identity)?;
        self.status.heard(identity.lsn);
        if let Some(upper) = self.sent.as_ref().map(|sent| sent.upper) {
            self.wait_durable(upper).await?;
            self.complete()?;
        }
        let progress = self.documents().load()?;
        let slot = setup::free_slot(&client, &self.settings.slot, self.settings.slot_patience);
        let slot = within(patience + self.settings.slot_patience, "looking for the replication slot", slot).await;
        let slot = slot.map_err(|error| self.was_ours(error))?;
        if let Some(progress) = &progress {
            identity.check(progress, &server.database, slot.as_ref())?;
        }
        match (progress, slot) {
            (Some(progress), Some(slot)) if progress.stage == Stage::Streaming => {
                setup::check_start(&self.settings, Some(&progress), Some(&slot))?;
                setup::check_slot(&self.settings.slot, &slot, &server.database)?;
                within(patience, "reading the publication", self.resume(&client, &server, &identity, progress)).await?;
                let start = self.start_from(&slot)?;
                client.keep();
                self.prepared(server, control, replication, start)
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
                let reach = Reach { endpoint: &endpoint, client, server: &server, identity, replication };
                let start = Box::pin(self.begin(reach, progress)).await?;
                let replication = endpoint.replicate("source").await?;
                self.prepared(server, control, replication, start)
            }
        }
    }

    fn prepared(&self, server: Server, control: Control, replication: Replication, start: u64) -> Result<Prepared, CodedError> {
        self.set_aside()?;
        let known = self.windows()?;
        Ok(Prepared { server, control, replication, start, known })
    }

    /// The way to connections for statements.
    fn control(&self) -> Result<Control, CodedError> {
        Ok(Control::new(self.connect.resolve(&self.folder)?, &self.connections))
    }

    /// Tables that are to be copied anew give no change until they are: one of theirs may be what a sink refused.
    fn set_aside(&self) -> Result<(), CodedError> {
        let (tables, asked) = (self.documents().tables()?, self.documents().requests()?);
        let aside = tables.into_iter().filter(|(name, table)| table.stage == Stage::Streaming && asked.contains(name));
        let aside: BTreeMap<_, _> = aside.map(|(name, table)| (name, TableProgress { stage: Stage::Copying, ..table })).collect();
        if aside.is_empty() { Ok(()) } else { self.documents().change(&aside, &[]) }
    }

    /// A slot in use after a lost connection is most likely in use by that connection: the server has yet to
    /// notice, which takes its `wal_sender_timeout`.
    fn was_ours(&self, error: CodedError) -> CodedError {
        let streamed = self.confirm.lock().unwrap_or_else(PoisonError::into_inner).confirmed() > 0;
        if streamed && error.code == codes::SLOT_IN_USE { CodedError { class: Class::Transient, ..error } } else { error }
    }

    /// Where to go on: what is confirmed, unless somebody else has moved the slot past it, in this process's
    /// time or before.
    fn start_from(&self, slot: &Slot) -> Result<u64, CodedError> {
        let mut confirm = self.confirm.lock().unwrap_or_else(PoisonError::into_inner);
        confirm.durable(self.durable.borrow().upper);
        let (ours, slots) = (confirm.confirmed(), slot.confirmed.unwrap_or(0));
        let told = self.documents().confirmed()?.map_or(ours, |told| told.max(ours));
        if told > 0 && slots > told {
            return Err(setup::moved(&self.settings.slot, slots, told));
        }
        Ok(ours.max(slots))
    }

    /// Goes on with a slot whose snapshot is complete.
    async fn resume(&mut self, client: &Client, server: &Server, identity: &Identity, mut progress: Progress) -> Result<(), CodedError> {
        let tables = publication::settle(client, &self.settings, server, false).await?;
        let mut documents = self.documents().tables()?;
        let mut changed = identity.timeline != progress.timeline;
        if changed {
            info!(timeline = identity.timeline, "the server was promoted, and the slot came along");
            progress.timeline = identity.timeline;
        }
        // Where rows are copied, the survey finds the tables that are new.
        for table in tables.iter().filter(|_| self.settings.snapshot.mode == SnapshotMode::Never) {
            documents.entry(table.full_name()).or_insert_with(|| {
                changed = true;
                TableProgress::streaming(table.id, Some(table.membership), None)
            });
        }
        if changed {
            self.documents().store(&progress, &documents)?;
        }
        Ok(())
    }

    pub(super) async fn wait_durable(&mut self, upper: Ts) -> Result<(), CodedError> {
        let reached = self.durable.wait_for(|durable| durable.upper >= upper || durable.finished).await;
        reached.map(|_| ()).map_err(|_| snapshot::closed(crate::contract::SourceClosed))
    }

    /// Stores that the snapshot is complete.
    pub(super) fn complete(&mut self) -> Result<(), CodedError> {
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

    /// Ends the stream of chunks and waits until all of them are durable. False: the pipeline is gone.
    pub(super) async fn drained(&mut self) -> bool {
        self.out = None;
        self.durable.wait_for(|durable| durable.finished).await.is_ok()
    }

    /// Stops without a connection to confirm on: the slot stays where it is, and sinks know what they have.
    async fn end_unconnected(&mut self) -> Result<(), CodedError> {
        if self.drained().await { self.complete().and_then(|()| self.joined(Ts::new(u64::MAX, u64::MAX))) } else { Ok(()) }
    }
}
