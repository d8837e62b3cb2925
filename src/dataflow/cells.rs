//! Worker threads that pipelines share: each is a timely instance of its own, whose dataflows come and go.
//!
//! ```text
//! place(dataflows) ──> the cell with the fewest ──build──> stepped with the others ──abort──> dropped
//! ```
//!
//! One worker a cell: progress is not broadcast to anybody, so that an idle dataflow costs its memory and nothing else
//! (`docs/adr/0005-many-pipelines-share-cells.md`).
//!
//! # Guarantees
//! - A pipeline's dataflows are all in one cell, and dropping them touches no other's.
//! - A cell whose thread panics, which no node's code can make it do, fails the pipelines that are in it; the next
//!   pipeline that would go there gets a new one.

use super::failure::{Failures, panicked};
use super::plan::Plan;
use super::workers::{RUN_WORKERS, Workers};
use crossbeam_channel::{Receiver, Sender, unbounded};
use etl_stream_operators::contract::CodedError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::worker::Worker;

/// Threads shared by pipelines with one worker each.
pub(crate) struct Cells {
    cells: Mutex<Vec<Option<Cell>>>,
    places: AtomicUsize,
}

/// One thread.
struct Cell {
    commands: Sender<Command>,
    thread: Thread,
    alive: Arc<AtomicBool>,
    /// How many dataflows it has.
    load: Arc<AtomicUsize>,
    guards: WorkerGuards<()>,
}

enum Command {
    Build(usize, Vec<Plan>, Tenant),
    Drop(usize),
    End,
}

/// A pipeline in a cell. One that ends without having been asked to has lost its cell.
struct Tenant {
    failures: Failures,
    asked: bool,
    dataflows: Range<usize>,
    load: Arc<AtomicUsize>,
    /// Nothing is ever sent: whoever waits sees it go.
    _gone: Sender<()>,
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.load.fetch_sub(self.dataflows.len().max(1), Ordering::Relaxed);
        if !self.asked {
            self.failures.report(&Arc::from("engine"), panicked("engine", &()));
        }
    }
}

/// A pipeline's place in a cell.
pub(crate) struct Place {
    id: usize,
    commands: Sender<Command>,
    thread: Thread,
    gone: Receiver<()>,
}

impl Place {
    /// Drops its dataflows, whatever is in flight.
    pub(super) fn abort(&self) {
        // A cell that is gone has dropped them.
        let _ = self.commands.send(Command::Drop(self.id));
        self.thread.unpark();
    }

    /// Waits until they are dropped.
    pub(super) fn join(self) {
        let _ = self.gone.recv();
    }
}

impl Cells {
    /// So many threads, each started when it is first needed.
    pub(crate) fn new(count: usize) -> Self {
        Self { cells: Mutex::new((0..count.max(1)).map(|_| None).collect()), places: AtomicUsize::new(0) }
    }

    /// Builds dataflows in the cell that has the fewest.
    ///
    /// # Errors
    /// `RUN0004` when a thread cannot be made.
    pub(crate) fn place(&self, plans: Vec<Plan>, failures: Failures) -> Result<Workers, CodedError> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in cells.iter_mut() {
            if let Some(dead) = cell.take_if(|cell| !cell.alive.load(Ordering::Acquire)) {
                // Its panic has been reported to those whom it hit.
                drop(dead.guards.join());
            }
        }
        let load = |cell: &Option<Cell>| cell.as_ref().map_or(0, |cell| cell.load.load(Ordering::Relaxed));
        let least = cells.iter_mut().min_by_key(|cell| load(cell)).expect("there is one at least");
        if least.is_none() {
            *least = Some(Cell::start()?);
        }
        let cell = least.as_ref().expect("it was made just above");
        let id = self.places.fetch_add(1, Ordering::Relaxed);
        let (keep, gone) = unbounded();
        let count = plans.len().max(1);
        cell.load.fetch_add(count, Ordering::Relaxed);
        let tenant = Tenant { failures, asked: false, dataflows: 0..count, load: Arc::clone(&cell.load), _gone: keep };
        // Sent to a cell that has just died, it says so as it is dropped.
        let _ = cell.commands.send(Command::Build(id, plans, tenant));
        cell.thread.unpark();
        Ok(Workers::Shared(Place { id, commands: cell.commands.clone(), thread: cell.thread.clone(), gone }))
    }

    /// Ends the threads, and what is left in them.
    pub(crate) fn end(&self) {
        for cell in self.cells.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().filter_map(Option::take) {
            let _ = cell.commands.send(Command::End);
            cell.thread.unpark();
            drop(cell.guards.join());
        }
    }
}

/// Says that a cell is not there any more, however it ended.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Cell {
    fn start() -> Result<Self, CodedError> {
        let failed = |why: String| CodedError::definite(RUN_WORKERS, format!("a worker thread was not started: {why}"));
        let (builders, others) = timely::CommunicationConfig::Thread.try_build().map_err(failed)?;
        let (commands, to_do) = unbounded();
        let alive = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&alive);
        let guards = timely::execute::execute_from(builders, others, WorkerConfig::default(), move |worker| {
            let _alive = Alive(Arc::clone(&still));
            live(worker, &to_do);
        })
        .map_err(failed)?;
        let thread = guards.guards().first().map(|guard| guard.thread().clone());
        let thread = thread.ok_or_else(|| failed("there is none".into()))?;
        Ok(Self { commands, thread, alive, load: Arc::default(), guards })
    }
}

/// A cell's life: does what it is told, and steps what it has.
fn live(worker: &mut Worker, to_do: &Receiver<Command>) {
    let mut tenants: BTreeMap<usize, Tenant> = BTreeMap::new();
    loop {
        while let Ok(command) = to_do.try_recv() {
            match command {
                Command::Build(id, plans, mut tenant) => {
                    let first = worker.next_dataflow_index();
                    plans.iter().for_each(|plan| plan.build(worker));
                    tenant.dataflows = first..worker.next_dataflow_index();
                    tenants.insert(id, tenant);
                }
                Command::Drop(id) => {
                    if let Some(mut tenant) = tenants.remove(&id) {
                        tenant.dataflows.clone().for_each(|dataflow| worker.drop_dataflow(dataflow));
                        tenant.asked = true;
                    }
                }
                Command::End => {
                    tenants.values_mut().for_each(|tenant| tenant.asked = true);
                    worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
                    return;
                }
            }
        }
        worker.step_or_park(None);
    }
}
