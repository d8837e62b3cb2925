//! How long each operator of the dataflow is busy: timely's own scheduling events, summed up.
//!
//! ```text
//! worker ──schedule events──> sums by operator's name        (only when somebody watches: a benchmark)
//! ```
//! Costs two readings of the clock each time an operator runs, and nothing when nobody watches.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// Busy times, of all workers together.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    /// By operator's name.
    operators: BTreeMap<String, Duration>,
    /// Of the dataflows, which include their operators'.
    whole: Duration,
}

/// What an operator of one worker is, and since when it runs.
struct Seen {
    name: String,
    is_dataflow: bool,
    started: Option<Duration>,
}

impl Busy {
    /// Time by operator, such as `Decode shop`; `Progress` is what the dataflow spends beside its operators.
    #[must_use]
    pub fn times(&self) -> BTreeMap<String, Duration> {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = sums.operators.clone();
        times.insert("Progress".into(), sums.whole.saturating_sub(sums.operators.values().sum()));
        times
    }

    /// Watches the dataflows that this worker builds from here on.
    pub(super) fn watch(&self, worker: &Worker) {
        let sums = Arc::clone(&self.0);
        let mut operators: HashMap<usize, Seen> = HashMap::new();
        let Some(mut log) = worker.log_register() else { return };
        log.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            for (time, event) in events.iter().flatten() {
                match event {
                    TimelyEvent::Operates(made) => {
                        operators.insert(made.id, Seen { name: made.name.clone(), is_dataflow: made.addr.len() == 1, started: None });
                    }
                    TimelyEvent::Schedule(run) => {
                        let Some(seen) = operators.get_mut(&run.id) else { continue };
                        if run.start_stop == StartStop::Start {
                            seen.started = Some(*time);
                            continue;
                        }
                        let spent = seen.started.take().map_or(Duration::ZERO, |started| time.saturating_sub(started));
                        if seen.is_dataflow {
                            sums.whole += spent;
                        } else if let Some(sum) = sums.operators.get_mut(&seen.name) {
                            *sum += spent;
                        } else {
                            sums.operators.insert(seen.name.clone(), spent);
                        }
                    }
                    _ => {}
                }
            }
        });
    }
}
