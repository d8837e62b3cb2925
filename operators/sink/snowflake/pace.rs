//! When to ask what is committed: learned from how long commits took before, over all tables of a sink.
//!
//! ```text
//! accepted ───────── usual time ─────────> first question ─> gap ─> next …
//! ```
//! A table that asked at a fixed rate would cost as many requests as there are tables, all of them early and in vain.
//! The usual time follows what is seen: where the first question finds the rows committed, it is asked earlier next time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const LEAST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);
/// The most that is learned: a service that stood still must not make the questions after it late for long.
const USUAL: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    fn usual(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Rows were found committed, so long after they were accepted, by the first question about them or a later one.
    pub(super) fn seen(&self, took: Duration, first: bool) {
        let (before, took) = (self.usual(), took.min(USUAL));
        // Tables see the same thing at the same time: what they make of it must not add up.
        let usual = if first { before.min(took * 3 / 4) } else { (before * 3 + took) / 4 };
        self.0.store(if before.is_zero() { took } else { usual }.as_micros() as u64, Ordering::Relaxed);
    }

    /// When to ask about rows that were accepted at a time.
    pub(super) fn next(&self, accepted: Instant, now: Instant) -> Instant {
        let usual = self.usual();
        let waited = now.saturating_duration_since(accepted);
        let gap = if waited > usual * 2 { waited / 4 } else { usual / 8 };
        (accepted + usual - usual / 16).max(now + gap.clamp(LEAST, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often is asked about rows that take so long to commit, and how late it is noticed.
    fn asked(pace: &Pace, takes: Duration) -> (usize, Duration) {
        let accepted = Instant::now();
        let (mut now, mut questions) = (pace.next(accepted, accepted), 1);
        while now < accepted + takes {
            now = pace.next(accepted, now);
            questions += 1;
        }
        // By fifty tables.
        (0..50).for_each(|_| pace.seen(now - accepted, questions == 1));
        (questions, now - accepted - takes)
    }

    #[test]
    fn learns_how_long_commits_take() {
        for takes in [0, 30, 200, 1_000, 3_000].map(Duration::from_millis) {
            let pace = Pace::default();
            let first = asked(&pace, takes);
            assert!(first.0 < 30, "{takes:?}: {first:?}");
            let later: Vec<_> = (0..60).map(|_| asked(&pace, takes)).skip(20).collect();
            for (questions, late) in later {
                assert!(questions <= 8 && late <= takes / 4 + LEAST, "{takes:?}: {questions} {late:?}");
            }
            // A long wait is soon forgotten.
            asked(&pace, Duration::from_secs(60));
            let after: Duration = (0..10).map(|_| asked(&pace, takes).1).sum();
            assert!(after < USUAL * 4, "{takes:?}: {after:?}");
            assert!(asked(&pace, takes).1 <= takes / 2 + LEAST * 4, "{takes:?}");
        }
    }
}
