//! Many pipelines in one process: every file of a folder is one, and the folder may change while they run.
//!
//! ```text
//! folder ──look, every second──> file written ──load──> Version ──claims──> member ──> start, drain, start …
//!                                file gone ─────────────────────────────────> member drains and ends
//! ```
//! Members share what `dataflow::Shared` has (`docs/adr/0005-many-pipelines-share-cells.md`); each starts, fails, waits and
//! restarts by itself (`member`).
//!
//! # Guarantees
//! - A file that cannot be run is reported, and what ran before goes on.
//! - No two pipelines have the same name, state or replication slot: the file that came later is refused, and taken when the
//!   other has gone.
//! - A folder that cannot be read changes nothing.

mod claims;
mod folder;
mod member;
mod version;

use crate::config::ServerSettings;
use crate::dataflow::{RunOptions, Shared, Signals, runtime};
use crate::exit::Failure;
use crate::server::directory::{Member as Shown, Stage};
use crate::server::{Server, listen_to_metrics};
use crate::{Exit, Registry};
use claims::Claims;
use etl_stream_operators::contract::{Code, CodedError};
use folder::{Change, Folder};
use member::{Ended, Member, Wish};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{Instrument, error, info, info_span, warn};
use version::Version;

/// The folder of pipelines is not readable.
pub(crate) const FOLDER: Code = Code::new("RUN0040", Exit::Environment);
/// Two files claim the same name, state or slot.
pub(crate) const CLAIMED: Code = Code::new("RUN0041", Exit::Usage);

/// The file of a folder that is no pipeline: what the process is to be like.
pub(crate) const PROCESS_FILE: &str = "etl-stream.yaml";

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is said how many pipelines are what.
const SAY: Duration = Duration::from_secs(60);
/// How much longer than its pipelines the process takes to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// How a folder is run.
pub(crate) struct FleetOptions {
    pub(crate) run: RunOptions,
    /// Threads that pipelines share, instead of the process file's.
    pub(crate) workers: Option<usize>,
    /// Where the server listens, instead of where the process file says.
    pub(crate) listen: Option<Option<std::net::SocketAddr>>,
}

/// A pipeline that runs.
struct Running {
    pipeline: Arc<str>,
    version: Arc<Version>,
    /// Which version it is to be at, and which it is at.
    generation: u64,
    at: watch::Receiver<u64>,
    /// Whether what an earlier version has is still claimed.
    claims_more: bool,
    wish: Arc<watch::Sender<Wish>>,
}

/// A file of the folder.
#[derive(Default)]
struct File {
    running: Option<Running>,
    /// What is to run as soon as nothing stands against it.
    waiting: Option<Arc<Version>>,
    /// What was last said against it.
    problem: Option<String>,
}

/// The pipelines of a folder.
struct Fleet {
    registry: Registry,
    shared: Arc<Shared>,
    options: RunOptions,
    files: BTreeMap<PathBuf, File>,
    claims: Claims,
    members: JoinSet<Ended>,
    generations: u64,
    /// The first failure of a pipeline that does not try again.
    failed: Option<Failure>,
}

/// Runs a folder until a signal, or until every pipeline has reached its `until`.
///
/// # Errors
/// `RUN0040`; what the process file, the server and, with `until`, the first pipeline that failed have to say.
pub(crate) fn run(path: &Path, registry: &Registry, options: FleetOptions) -> Result<(), Failure> {
    let process = version::process(&path.join(PROCESS_FILE))?;
    let mut engine = process.engine;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    engine.workers = options.workers.unwrap_or_else(|| if process.workers_given { engine.workers } else { cores() });
    let server = match options.listen {
        Some(address) => address.map(|listen| ServerSettings { listen, ..process.server.unwrap_or_default() }),
        None => process.server,
    };
    let mut folder = Folder::new(path);
    let first = folder.look().map_err(|error| unreadable(path, &error))?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let signals = Signals::listen()?;
        listen_to_metrics();
        let shared = Arc::new(Shared::many(&engine));
        let server = Server::start(server, Arc::clone(&shared.directory)).await?;
        let mut fleet = Fleet {
            registry: registry.clone(),
            shared: Arc::clone(&shared),
            options: options.run,
            files: BTreeMap::new(),
            claims: Claims::default(),
            members: JoinSet::new(),
            generations: 0,
            failed: None,
        };
        info!(folder = %path.display(), files = first.len(), "running a folder of pipelines");
        fleet.take(first);
        let result = Box::pin(fleet.live(folder, signals)).await;
        if let Some(server) = server {
            server.stop();
        }
        tokio::task::spawn_blocking(move || shared.end()).await.map_err(|_| Failure::Reported(Exit::Failure))?;
        result
    });
    runtime.shutdown_background();
    result
}

fn unreadable(path: &Path, error: &std::io::Error) -> CodedError {
    CodedError::transient(FOLDER, format!("folder \"{}\" was not read: {error}", path.display()))
        .hint("name a folder of pipeline files that this user may read")
}

impl Fleet {
    async fn live(mut self, mut folder: Folder, mut signals: Signals) -> Result<(), Failure> {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut say = tokio::time::interval_at(Instant::now() + SAY, SAY);
        let mut lost = false;
        loop {
            if self.options.until.is_some() && self.members.is_empty() {
                return self.failed.map_or(Ok(()), Err);
            }
            tokio::select! {
                name = signals.next() => {
                    info!(signal = name, "draining every pipeline");
                    return self.drain(signals).await;
                }
                Some(ended) = self.members.join_next() => self.ended(ended),
                _ = say.tick() => self.say(),
                _ = tick.tick(), if self.options.until.is_none() => {
                    let (back, looked) = tokio::task::spawn_blocking(move || {
                        let looked = folder.look();
                        (folder, looked)
                    })
                    .await
                    .map_err(|_| Failure::Reported(Exit::Failure))?;
                    folder = back;
                    match looked {
                        Ok(changes) => {
                            lost = false;
                            self.take(changes);
                        }
                        Err(error) => if !std::mem::replace(&mut lost, true) {
                            error!(error = %unreadable(folder.path(), &error), "the folder was not looked at; what runs goes on");
                        }
                    }
                    self.retry_waiting();
                }
            }
        }
    }

    /// Takes what has changed: files that are gone first, so that what they had is free as soon as it can be.
    fn take(&mut self, changes: Vec<Change>) {
        let (gone, written): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| matches!(change, Change::Gone(_)));
        for change in gone.into_iter().chain(written) {
            match change {
                Change::Gone(path) => self.gone(&path),
                Change::Written(path) if path.file_name().is_some_and(|name| name == PROCESS_FILE) => {
                    if !self.files.is_empty() {
                        warn!(file = %path.display(), "the process's settings are read when it starts: restart it to have them followed");
                    }
                }
                Change::Written(path) => match version::load(&path, &self.registry) {
                    Ok(version) => {
                        self.files.entry(path.clone()).or_default().waiting = Some(Arc::new(version));
                        self.adopt(&path);
                    }
                    Err(problem) => {
                        self.files.entry(path.clone()).or_default().waiting = None;
                        self.problem(&path, Some(problem.text));
                        self.failed.get_or_insert(problem.failure);
                    }
                },
            }
        }
    }

    /// Says how the pipelines are; the metrics page says it of each.
    fn say(&self) {
        let members = self.shared.directory.members();
        let count = |stage: Stage| members.values().filter(|member| member.stage == stage).count();
        let (running, retrying, refused) = (count(Stage::Running), count(Stage::Retrying), count(Stage::Refused));
        info!(pipelines = members.len(), running, retrying, refused, "the folder of pipelines");
    }

    fn gone(&mut self, path: &Path) {
        let Some(file) = self.files.get_mut(path) else { return };
        file.waiting = None;
        match &file.running {
            Some(running) => {
                info!(pipeline = &*running.pipeline, file = %path.display(), "the pipeline's file is gone: it drains and ends");
                running.wish.send_modify(|wish| wish.version = None);
            }
            None => {
                self.shared.directory.remove(&shown_as(path));
                self.files.remove(path);
            }
        }
    }

    /// Says what stands against a file, or that nothing does; each once.
    fn problem(&mut self, path: &Path, problem: Option<String>) {
        let Some(file) = self.files.get_mut(path) else { return };
        if file.problem == problem {
            return;
        }
        if let Some(problem) = &problem {
            let goes_on = if file.running.is_some() { "; the version before it goes on" } else { "" };
            error!(file = %path.display(), "the file is not run{goes_on}: {problem}");
        }
        file.problem.clone_from(&problem);
        let refused = shown_as(path);
        match &file.running {
            Some(running) => self.shared.directory.change(&running.pipeline, |member| member.file_problem = problem),
            None => match problem {
                Some(problem) => self.shared.directory.change(&refused.into(), |member| {
                    *member = Shown { file: Some(path.to_owned()), stage: Stage::Refused, file_problem: Some(problem), ..Shown::default() };
                }),
                None => self.shared.directory.remove(&refused),
            },
        }
    }

    /// Runs what waits in a file, if nothing stands against it.
    fn adopt(&mut self, path: &Path) {
        let Some(file) = self.files.get_mut(path) else { return };
        let Some(version) = file.waiting.clone() else { return };
        if let Some(conflict) = self.claims.conflict(path, &version.claims) {
            return self.problem(path, Some(format!("{} [{}]", conflict, CLAIMED.id)));
        }
        match &mut file.running {
            Some(running) if running.pipeline == version.graph.pipeline => {
                self.generations += 1;
                running.generation = self.generations;
                running.version = Arc::clone(&version);
                running.claims_more = true;
                // What the version before has is not free until it has ended.
                self.claims.add(path, &version.claims);
                info!(pipeline = &*running.pipeline, file = %path.display(), "the pipeline's file has changed: it drains and starts anew");
                let generation = self.generations;
                running.wish.send_modify(|wish| (wish.version, wish.generation) = (Some(Arc::clone(&version)), generation));
            }
            Some(running) => {
                info!(pipeline = &*running.pipeline, file = %path.display(), "the pipeline's file has another name for it: it drains and ends");
                running.wish.send_modify(|wish| wish.version = None);
                return;
            }
            None => {
                self.claims.add(path, &version.claims);
                self.start(path, &version);
            }
        }
        if let Some(file) = self.files.get_mut(path) {
            file.waiting = None;
        }
        self.problem(path, None);
    }

    fn start(&mut self, path: &Path, version: &Arc<Version>) {
        self.generations += 1;
        let pipeline = Arc::clone(&version.graph.pipeline);
        let (wish, wished) = watch::channel(Wish { version: Some(Arc::clone(version)), generation: self.generations, round: 0 });
        let (reached, at) = watch::channel(0);
        let wish = Arc::new(wish);
        let asks = Arc::clone(&wish);
        self.shared.directory.remove(&shown_as(path));
        self.shared.directory.change(&pipeline, |member| {
            *member = Shown {
                file: Some(path.to_owned()),
                restart: Some(Arc::new(move || asks.send_modify(|wish| wish.round += 1))),
                ..Shown::default()
            };
        });
        let member = Member {
            path: path.to_owned(),
            pipeline: Arc::clone(&pipeline),
            shared: Arc::clone(&self.shared),
            options: self.options,
            wish: wished,
            at: reached,
        };
        let span = info_span!("pipeline", pipeline = &*pipeline);
        self.members.spawn(member.live().instrument(span));
        if let Some(file) = self.files.get_mut(path) {
            file.problem = None;
            file.running =
                Some(Running { pipeline, version: Arc::clone(version), generation: self.generations, at, claims_more: false, wish });
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ended { path, result } = match ended {
            Ok(ended) => ended,
            // A member catches its own: this is a defect, and its claims stay.
            Err(error) => return error!(%error, "a pipeline's task ended by a panic"),
        };
        if let Err(error) = result {
            self.failed.get_or_insert(Failure::Error(error));
        }
        self.claims.release(&path);
        let Some(file) = self.files.get_mut(&path) else { return };
        if let Some(running) = file.running.take()
            && self.options.until.is_none()
        {
            self.shared.directory.remove(&running.pipeline);
            info!(pipeline = &*running.pipeline, "the pipeline has ended");
        }
        if file.waiting.is_some() {
            self.adopt(&path);
        } else if self.options.until.is_none() {
            self.files.remove(&path);
        }
    }

    /// What was refused may be taken now; what is not used any more is free.
    fn retry_waiting(&mut self) {
        for (path, file) in &mut self.files {
            if let Some(running) = file.running.as_mut().filter(|running| running.claims_more)
                && *running.at.borrow() == running.generation
            {
                running.claims_more = false;
                self.claims.only(path, &running.version.claims);
            }
        }
        let waiting = self.files.iter().filter(|(_, file)| file.waiting.is_some() && file.running.is_none());
        for path in waiting.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.adopt(&path);
        }
        let renamed = self.files.iter().filter(|(_, file)| file.waiting.is_some() && file.running.is_some());
        for path in renamed.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.adopt_same(&path);
        }
    }

    /// As [`Fleet::adopt`] for a pipeline that goes on: one that is on its way out is left alone.
    fn adopt_same(&mut self, path: &Path) {
        let same = self.files.get(path).is_some_and(|file| {
            file.running.as_ref().zip(file.waiting.as_ref()).is_some_and(|(running, version)| running.pipeline == version.graph.pipeline)
        });
        if same {
            self.adopt(path);
        }
    }

    /// Ends every pipeline, and waits for them.
    async fn drain(mut self, mut signals: Signals) -> Result<(), Failure> {
        // Failures so far are what pipelines wait to get over; only the end's own count.
        self.failed = None;
        for file in self.files.values_mut() {
            file.waiting = None;
            if let Some(running) = &file.running {
                running.wish.send_modify(|wish| wish.version = None);
            }
        }
        let deadline = Instant::now() + self.options.shutdown_timeout + FAREWELL;
        loop {
            tokio::select! {
                ended = self.members.join_next() => match ended {
                    Some(ended) => self.ended(ended),
                    None => return self.failed.map_or(Ok(()), Err),
                },
                name = signals.next() => {
                    warn!(signal = name, "second signal: stopping without draining");
                    return Err(Failure::Reported(Exit::Failure));
                }
                () = tokio::time::sleep_until(deadline) => {
                    error!(left = self.members.len(), "pipelines did not end in time; nothing is lost: the next run reads on from what was confirmed");
                    return Err(Failure::Reported(Exit::Failure));
                }
            }
        }
    }
}

/// How a file that runs nothing is shown: no pipeline can have such a name.
fn shown_as(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
