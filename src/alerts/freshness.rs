//! How old the oldest change is that a sink does not have.
//!
//! ```text
//! server's position ──noted with the time──> marks ──confirmed past them──> gone
//!                                              └── the first one left: since then something is missing
//! ```
//! A quiet source is fresh: there is nothing that its sinks do not have. A snapshot counts as not there until it is
//! durable. A sink is as fresh as the least fresh source whose rows reach it: PostgreSQL is told of a position when every
//! sink has it.

use etl_stream_operators::contract::SourceStatus;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Marks of one source; beyond them every other one is forgotten.
const MARKS: usize = 512;

/// The marks of a source: when which position of the server was first seen.
#[derive(Debug, Default)]
struct Marks(VecDeque<(f64, u64)>);

impl Marks {
    fn look(&mut self, server: u64, confirmed: u64, now: f64) {
        while self.0.front().is_some_and(|(_, position)| *position <= confirmed) {
            self.0.pop_front();
        }
        if server > confirmed && self.0.back().is_none_or(|(_, position)| *position < server) {
            self.0.push_back((now, server));
        }
        if self.0.len() > MARKS {
            let mut even = false;
            self.0.retain(|_| {
                even = !even;
                even
            });
        }
    }
}

/// How fresh sources and sinks are.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    marks: BTreeMap<String, Marks>,
    /// The sources that reach each sink.
    reach: BTreeMap<String, Vec<String>>,
}

impl Freshness {
    /// For these sinks and the sources that reach them.
    pub(super) fn new(reach: BTreeMap<String, Vec<String>>) -> Self {
        Self { marks: BTreeMap::new(), reach }
    }

    /// Looks at every source.
    pub(super) fn look(&mut self, sources: &BTreeMap<String, Arc<SourceStatus>>, now: f64) {
        for (name, source) in sources {
            let (server, confirmed) = (source.server_lsn.load(Ordering::Relaxed), source.confirmed_lsn.load(Ordering::Relaxed));
            if let Some(marks) = self.marks.get_mut(name) {
                marks.look(server, confirmed, now);
            } else {
                self.marks.entry(name.clone()).or_default().look(server, confirmed, now);
            }
        }
    }

    /// Seconds.
    pub(super) fn of_source(&self, name: &str, now: f64) -> f64 {
        self.marks.get(name).and_then(|marks| marks.0.front()).map_or(0.0, |(since, _)| (now - since).max(0.0))
    }

    /// Seconds.
    pub(super) fn of_sink(&self, name: &str, now: f64) -> f64 {
        let sources = self.reach.get(name).map(Vec::as_slice).unwrap_or_default();
        sources.iter().map(|source| self.of_source(source, now)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_of_what_is_missing() {
        let mut marks = Marks::default();
        for (second, server, confirmed, age) in [
            (0, 0, 0, 0),
            (1, 10, 0, 0),
            (5, 10, 0, 4),
            (6, 30, 0, 5),
            (7, 30, 10, 1),
            (8, 30, 29, 2),
            (9, 30, 30, 0),
            (90, 30, 30, 0),
            (91, 31, 30, 0),
            (93, 31, 30, 2),
            (94, 31, 40, 0),
        ] {
            marks.look(server, confirmed, f64::from(second));
            let got = marks.0.front().map_or(0.0, |(since, _)| f64::from(second) - since);
            assert!((got - f64::from(age)).abs() < 1e-9, "second {second}: {got}");
        }
        // However long it lasts, the oldest mark is kept and the number of marks is bounded.
        for second in 0..100_000_u32 {
            marks.look(100 + u64::from(second), 50, f64::from(second));
        }
        assert!(marks.0.len() <= MARKS && marks.0.front().is_some_and(|(since, _)| since.abs() < 1e-9));
    }

    #[test]
    fn a_sink_is_as_fresh_as_its_least_fresh_source() {
        let source = |server: u64, confirmed: u64| {
            let status = SourceStatus::default();
            status.server_lsn.store(server, Ordering::Relaxed);
            status.confirmed_lsn.store(confirmed, Ordering::Relaxed);
            Arc::new(status)
        };
        let mut freshness =
            Freshness::new(BTreeMap::from([("both".into(), vec!["a".into(), "b".into()]), ("one".into(), vec!["b".into()])]));
        let sources = BTreeMap::from([("a".to_owned(), source(9, 1)), ("b".to_owned(), source(5, 5))]);
        freshness.look(&sources, 100.0);
        freshness.look(&sources, 130.0);
        let got: Vec<f64> = ["both", "one", "none"].iter().map(|sink| freshness.of_sink(sink, 130.0)).collect();
        assert_eq!(got, [30.0, 0.0, 0.0]);
    }
}
