//! Timers that tick at the same moments: what a thousand quiet nodes do once a second wakes the process once, not a thousand
//! times.

use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// A moment of this process that every timer counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Ticks at the whole multiples of `every` since a moment that is the same for all, the first within `every`; what is missed
/// is skipped. For work that may wait for so long, and is done in a moment.
///
/// # Panics
/// When `every` is zero, or nothing drives timers here.
#[must_use]
pub fn together(every: Duration) -> Interval {
    let mut interval = interval_at(next_together(every), every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// The next of the moments at which [`together`] ticks.
///
/// # Panics
/// When `every` is zero.
#[must_use]
pub fn next_together(every: Duration) -> Instant {
    let passed = START.elapsed().as_nanos() / every.as_nanos();
    *START + Duration::from_nanos(((passed + 1) * every.as_nanos()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_of_one_pace_tick_at_the_same_moments() {
        let every = Duration::from_millis(20);
        let mut first = together(every);
        tokio::time::sleep(every * 7 / 10).await;
        let mut later = together(every);
        let began = later.tick().await;
        tokio::time::sleep(every * 5 / 2).await;
        for _ in 0..3 {
            let (a, b) = (first.tick().await, later.tick().await);
            for moment in [a, b] {
                assert_eq!((moment.max(began) - moment.min(began)).as_nanos() % every.as_nanos(), 0);
            }
        }
    }
}
