//! The monitor's life: start what is due, take what is done, send rows; until it is stopped.

use super::check::{Instance, Seen};
use super::config::OnLimit;
use super::job::{Done, Job};
use super::rows::Rows;
use super::schedule::{Next, Schedule};
use super::sequence::Sequence;
use super::watched::Watched;
use crate::contract::{Chunk, CodedError, Item, Phase, RawItem, RowBatch, Source, SourceClosed, SourceContext, Ts, WalServer, WalSlot};
use async_trait::async_trait;
use futures::FutureExt;
use metrics::{Counter, Histogram};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Settings with every default filled in.
pub(super) struct Settings {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) checks: usize,
    /// Bytes a slot may hold back, and what is done beyond.
    pub(super) limit: Option<(i64, OnLimit)>,
}

/// A monitor that is not running yet.
pub(super) struct WalMonitor {
    pub(super) settings: Settings,
    pub(super) servers: Vec<Watched>,
}

#[async_trait]
impl Source for WalMonitor {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let status = Arc::clone(&cx.source_status);
        let result = Box::pin(Run::new(*self, cx)?.live()).await;
        status.set_phase(Phase::Stopped, result.as_ref().err().map(ToString::to_string));
        result
    }
}

/// What is remembered of a server between two checks.
#[derive(Default)]
struct Memory {
    seen: Option<Instance>,
    /// Where its log ended, and when.
    position: Option<(Instant, u64)>,
    failures: u32,
    /// The way that is tried next.
    way: usize,
    /// Since when slots are not in use, where the server does not say.
    idle: BTreeMap<String, i64>,
    /// The server that it turned out to be.
    same_as: Option<usize>,
    checked: bool,
}

/// What the monitor counts.
struct Meter {
    answered: Counter,
    failed: Counter,
    skipped: Counter,
    left_out: Counter,
    late: Histogram,
    took: Histogram,
}

impl Meter {
    fn new(cx: &SourceContext) -> Self {
        let labels = [("pipeline", cx.pipeline.to_string()), ("source", cx.source.to_string())];
        let checks = |outcome: &'static str| {
            let labels = [labels[0].clone(), labels[1].clone(), ("outcome", outcome.to_owned())];
            metrics::counter!("etl_stream_monitor_checks_total", &labels)
        };
        Self {
            answered: checks("answered"),
            failed: checks("failed"),
            skipped: checks("skipped"),
            left_out: metrics::counter!("etl_stream_monitor_left_out_rows_total", &labels),
            late: metrics::histogram!("etl_stream_monitor_start_delay_seconds", &labels),
            took: metrics::histogram!("etl_stream_monitor_check_duration_seconds", &labels),
        }
    }
}

struct Run {
    settings: Settings,
    servers: Vec<Watched>,
    memory: Vec<Memory>,
    schedule: Schedule,
    running: JoinSet<Done>,
    sequence: Sequence,
    rows: Rows,
    meter: Meter,
    /// Whether the user was told that rows are left out.
    told: bool,
    cx: SourceContext,
}

fn unix_micros() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

impl Run {
    fn new(monitor: WalMonitor, cx: SourceContext) -> Result<Self, CodedError> {
        let WalMonitor { settings, servers } = monitor;
        let schedule = Schedule::new(Instant::now(), settings.interval, settings.checks, servers.iter().map(Watched::hash));
        Ok(Self {
            memory: servers.iter().map(|_| Memory::default()).collect(),
            schedule,
            running: JoinSet::new(),
            sequence: Sequence::open(Arc::clone(&cx.state), &cx.pipeline, &cx.source)?,
            rows: Rows::new(Arc::clone(&cx.source)),
            meter: Meter::new(&cx),
            told: false,
            settings,
            servers,
            cx,
        })
    }

    async fn live(mut self) -> Result<(), CodedError> {
        let sources: usize = self.servers.iter().map(|server| server.sources.len()).sum();
        info!(source = &*self.cx.source, servers = self.servers.len(), sources, "checking replication slots");
        let (mut stop, mut paused) = (self.cx.stop.clone(), self.cx.paused.clone());
        loop {
            let next = if *paused.borrow_and_update() {
                self.cx.source_status.set_phase(Phase::Paused, None);
                None
            } else {
                self.start_due()
            };
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                stopped = stop.wait_for(|stop| *stop) => {
                    if stopped.is_err() {
                        // Without a sender nobody can ask to stop, and the pipeline is gone.
                        return Ok(());
                    }
                    break;
                }
                Some(done) = self.running.join_next() => {
                    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                    if self.finish(done)?.is_err() {
                        return Ok(());
                    }
                }
                // Whoever could tell is gone only when the pipeline is.
                Ok(()) = paused.changed() => {}
                () = sleep => {}
            }
        }
        self.running.abort_all();
        // The end of the stream: what is in flight becomes durable.
        let Self { cx, .. } = self;
        let SourceContext { out, mut durable, .. } = cx;
        drop(out);
        let _ = durable.wait_for(|durable| durable.finished).await;
        Ok(())
    }

    /// Starts the checks that are due; gives the moment of the next.
    fn start_due(&mut self) -> Option<Instant> {
        loop {
            match self.schedule.next(Instant::now()) {
                Next::Wait(at) => return Some(at),
                Next::Full => return None,
                Next::Start { server, late } => {
                    self.meter.late.record(late);
                    let job = Job {
                        server,
                        watched: self.servers[server].clone(),
                        way: self.memory[server].way,
                        timeout: self.settings.timeout,
                        limit: self.settings.limit,
                        connections: Arc::clone(&self.cx.connections),
                    };
                    self.running.spawn(job.run());
                }
            }
        }
    }

    /// Takes a check that is done. The inner error: the pipeline is going away.
    fn finish(&mut self, done: Done) -> Result<Result<(), SourceClosed>, CodedError> {
        let Done { server, asked, took, result } = done;
        self.meter.took.record(took);
        self.memory[server].checked = true;
        let seen = match result {
            Ok(seen) => {
                self.meter.answered.increment(1);
                if self.is_another(server, &seen.instance) {
                    self.schedule.retire(server);
                    self.progress();
                    return Ok(Ok(()));
                }
                Ok(seen)
            }
            Err(error) => {
                self.meter.failed.increment(1);
                Err(error)
            }
        };
        self.schedule.done(server, Instant::now(), seen.is_ok());
        self.meter.skipped.increment(self.schedule.take_skipped());
        let shown = match seen {
            Ok(seen) => self.answered(server, asked, seen),
            Err(error) => self.failed(server, &error),
        };
        let shown = Arc::new(WalServer {
            name: Arc::clone(&self.servers[server].name),
            checked_at: unix_micros(),
            check_seconds: took.as_secs_f64(),
            sources: self.servers[server].sources.clone(),
            ..shown
        });
        self.cx.status.set_server(Arc::clone(&shown));
        self.progress();
        self.send(&shown)
    }

    /// Whether a server that is checked already turned out to be this one: then its sources go there.
    fn is_another(&mut self, server: usize, instance: &Instance) -> bool {
        if self.memory[server].seen.as_ref().is_some_and(|before| before != instance) {
            // Another server, or one that was started again: what was taken for the old one is looked at anew.
            let now = Instant::now();
            let others: Vec<usize> = (0..self.servers.len()).filter(|other| self.memory[*other].same_as == Some(server)).collect();
            for other in others {
                self.memory[other].same_as = None;
                let given = self.servers[other].sources.clone();
                self.servers[server].sources.retain(|source| !given.contains(source));
                self.schedule.revive(other, now);
            }
        }
        let same = (0..self.servers.len())
            .find(|other| *other != server && self.memory[*other].same_as.is_none() && self.memory[*other].seen.as_ref() == Some(instance));
        let memory = &mut self.memory[server];
        memory.failures = 0;
        memory.seen = Some(instance.clone());
        let Some(same) = same else { return false };
        memory.same_as = Some(same);
        memory.seen = None;
        memory.position = None;
        let sources = self.servers[server].sources.clone();
        self.servers[same].sources.extend(sources);
        let (name, other) = (&self.servers[server].name, &self.servers[same].name);
        info!("{name} is the same server as {other}, and is checked as that");
        self.cx.status.remove_server(name);
        true
    }

    fn answered(&mut self, server: usize, asked: Instant, seen: Seen) -> WalServer {
        let memory = &mut self.memory[server];
        let mut shown = seen.server;
        if let Some(lsn) = shown.lsn.map(|lsn| lsn.0) {
            shown.wal_rate = memory.position.and_then(|(then, before)| {
                let seconds = asked.duration_since(then).as_secs_f64();
                (seconds > 0.0).then(|| Some(lsn.checked_sub(before)? as f64 / seconds)).flatten()
            });
            memory.position = Some((asked, lsn));
        }
        let now = unix_micros();
        let idle = std::mem::take(&mut memory.idle);
        for slot in shown.slots.iter_mut().filter(|slot| !slot.active && slot.inactive_since.is_none()) {
            let since = idle.get(&slot.name).copied().unwrap_or(now);
            slot.inactive_since = Some(since);
            memory.idle.insert(slot.name.clone(), since);
        }
        let before = self.cx.status.servers().get(&self.servers[server].name).cloned();
        for slot in shown.slots.iter().filter(|slot| slot.over_limit) {
            let was = before.as_ref().and_then(|before| before.slots.iter().find(|other| other.name == slot.name));
            if !was.is_some_and(|was| was.over_limit) {
                say_over(&self.servers[server].name, slot, self.settings.limit);
            }
        }
        shown
    }

    /// What was known before, and that nothing new is.
    fn failed(&mut self, server: usize, error: &CodedError) -> WalServer {
        let memory = &mut self.memory[server];
        memory.failures = memory.failures.saturating_add(1);
        memory.way = memory.way.wrapping_add(1);
        // A rate over a time that was not looked at would say little.
        memory.position = None;
        let name = &self.servers[server].name;
        if memory.failures == 1 {
            warn!(server = &**name, %error, "a server was not checked");
        }
        let before = self.cx.status.servers().get(name).map(|before| WalServer::clone(before)).unwrap_or_default();
        WalServer { failed_checks: memory.failures, error: Some(error.to_string()), wal_rate: None, ..before }
    }

    /// Shows how the monitor is; it is there when every server has been looked at once.
    fn progress(&self) {
        if !self.memory.iter().all(|memory| memory.checked) {
            return;
        }
        let status = &self.cx.source_status;
        let failing = self.memory.iter().filter(|memory| memory.failures > 0).count();
        let watched = self.memory.iter().filter(|memory| memory.same_as.is_none()).count();
        let all_fail = failing == watched;
        let reason = all_fail.then(|| "no server answers".to_owned());
        status.set_phase(if all_fail { Phase::Retrying } else { Phase::Streaming }, reason);
        // There is no log to read to the end of: a run that is to catch up has done so.
        status.server_lsn.store(1, Ordering::Relaxed);
        status.confirmed_lsn.store(1, Ordering::Relaxed);
        status.received_lsn.store(u64::MAX, Ordering::Relaxed);
    }

    /// Sends the rows of a check, if there is credit for them.
    fn send(&mut self, shown: &WalServer) -> Result<Result<(), SourceClosed>, CodedError> {
        let check = self.sequence.next()?;
        let batches = self.rows.batches(check, shown);
        let rows: usize = batches.iter().map(RowBatch::len).sum();
        let bytes = u32::try_from(batches.iter().map(RowBatch::bytes).sum::<usize>()).unwrap_or(u32::MAX);
        if self.cx.credits.left() < bytes as usize || self.cx.credits.take(bytes).now_or_never().is_none() {
            self.meter.left_out.increment(rows as u64);
            if !std::mem::replace(&mut self.told, true) {
                warn!(source = &*self.cx.source, "a sink is behind: rows of checks are left out, and counted, until it is not");
            }
            return Ok(Ok(()));
        }
        self.told = false;
        self.cx.source_status.changes.fetch_add(rows as u64, Ordering::Relaxed);
        self.cx.source_status.bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
        let items = batches.into_iter().map(|batch| RawItem::Ready(Item::Rows(batch))).collect();
        Ok(self.cx.out.send(Chunk { items, upper: Ts::after(check), credit: bytes }))
    }
}

fn say_over(server: &str, slot: &WalSlot, limit: Option<(i64, OnLimit)>) {
    warn!(
        server,
        slot = slot.name,
        retained_bytes = slot.retained_bytes,
        limit_bytes = limit.map(|(bytes, _)| bytes),
        "a replication slot retains more log than `retained_wal_limit`"
    );
}
