//! When the changes of a stream that is made or played are due.
//!
//! Open loop: change `n` is due `n / rate` after the start, however late those before it were; its transaction's commit
//! time is the moment it was due, so that latency counts from what was intended. Closed loop, without a rate: it is due
//! when it is taken.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A pace that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Changes a second.
    rate: Option<u32>,
    /// The first change of this run.
    first: u64,
    start: Instant,
    /// Microseconds since 1970 at the start. The clock is read once: what steps it later moves no time.
    clock: i64,
}

impl Pace {
    /// Begins now, with change number `first`.
    pub(crate) fn start(rate: Option<u32>, first: u64) -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_micros()).ok());
        Self { rate, first, start: Instant::now(), clock: clock.unwrap_or(0) }
    }

    /// When a change is due; nothing: at once.
    pub(crate) fn due(&self, change: u64) -> Option<Instant> {
        self.rate.map(|rate| self.start + Duration::from_secs_f64(change.saturating_sub(self.first) as f64 / f64::from(rate.max(1))))
    }

    /// The commit time of a transaction whose first change this is; nothing: it is not due yet.
    pub(crate) fn commit_time(&self, change: u64) -> Option<i64> {
        let now = Instant::now();
        let moment = self.due(change).unwrap_or(now);
        (moment <= now).then(|| self.clock + i64::try_from(moment.duration_since(self.start).as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_depend_on_what_came_before() {
        let pace = Pace { rate: Some(1_000), first: 500, start: Instant::now() - Duration::from_secs(1), clock: 7_000_000 };
        for (change, time) in [(500, Some(7_000_000)), (501, Some(7_001_000)), (1_400, Some(7_900_000)), (10_000_000, None)] {
            assert_eq!(pace.commit_time(change), time, "{change}");
        }
        let closed = Pace { rate: None, ..pace };
        assert_eq!(closed.due(9), None);
        assert!(closed.commit_time(10_000_000).is_some_and(|time| time >= 8_000_000));
    }
}
