//! When each server is checked: due times in a heap. It reads no clock, so that a test can be one.
//!
//! ```text
//!        due ──start──> running ──done──> due again, a period later; later still while it fails
//!         ^                │
//!         └────────────────┘
//! ```
//!
//! # Guarantees
//! - No server is checked twice at once, and no more than `most` servers at once.
//! - Servers are due at different moments of the period, by a hash of their names, and keep their moments. Ticks that
//!   were missed are skipped.
//! - A server that fails is checked less and less often, down to once every [`BACKOFF`] periods (or [`LONGEST`], if that
//!   is more often; never more often than once a period). All that fail together use at most half of `most` at once, so
//!   that others are not kept waiting by servers that do not answer.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// Periods between two checks of a server that keeps failing.
const BACKOFF: u32 = 32;
/// The longest time between them, if a period is not longer.
const LONGEST: Duration = Duration::from_secs(300);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Check this server; it was due so long ago.
    Start { server: usize, late: Duration },
    /// Nothing before this moment.
    Wait(Instant),
    /// Nothing before a check is done.
    Full,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    due: Instant,
    failures: u32,
    running: bool,
}

/// The due times.
#[derive(Debug)]
pub(super) struct Schedule {
    period: Duration,
    most: usize,
    places: Vec<Place>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Those that are due and failed the last time, in order, while their share is taken.
    held: VecDeque<usize>,
    running: usize,
    /// Of those running, those that failed the last time.
    doubtful: usize,
    /// Ticks that were missed.
    skipped: u64,
}

impl Schedule {
    /// A schedule for servers of these hashes; the first checks are due within a period from `now`.
    pub(super) fn new(now: Instant, period: Duration, most: usize, servers: impl IntoIterator<Item = u64>) -> Self {
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        let places: Vec<Place> =
            servers.into_iter().map(|hash| Place { due: now + Duration::from_nanos(hash % nanos), failures: 0, running: false }).collect();
        let due = places.iter().enumerate().map(|(server, place)| Reverse((place.due, server))).collect();
        Self {
            period: Duration::from_nanos(nanos),
            most: most.max(1),
            places,
            due,
            held: VecDeque::new(),
            running: 0,
            doubtful: 0,
            skipped: 0,
        }
    }

    /// What servers that fail may use at once.
    fn share(&self) -> usize {
        (self.most / 2).max(1)
    }

    /// What to do at `now`. Whoever starts a check says so by [`Schedule::done`] when it has ended.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.running >= self.most {
            return Next::Full;
        }
        if self.doubtful < self.share()
            && let Some(server) = self.held.pop_front()
        {
            return self.start(server, now);
        }
        while let Some(Reverse((due, server))) = self.due.peek().copied() {
            if due > now {
                return Next::Wait(due);
            }
            self.due.pop();
            if self.places[server].failures > 0 && self.doubtful >= self.share() {
                self.held.push_back(server);
            } else {
                return self.start(server, now);
            }
        }
        Next::Full
    }

    fn start(&mut self, server: usize, now: Instant) -> Next {
        let place = &mut self.places[server];
        debug_assert!(!place.running, "a server is in the heap or running");
        place.running = true;
        self.running += 1;
        self.doubtful += usize::from(place.failures > 0);
        Next::Start { server, late: now.saturating_duration_since(place.due) }
    }

    /// Says that a check has ended, and whether the server answered.
    pub(super) fn done(&mut self, server: usize, now: Instant, answered: bool) {
        let place = &mut self.places[server];
        debug_assert!(place.running, "only what runs ends");
        place.running = false;
        self.running -= 1;
        self.doubtful -= usize::from(place.failures > 0);
        place.failures = if answered { 0 } else { place.failures.saturating_add(1) };
        // The first failure may be a lost connection: the next check is as usual.
        let periods = 1_u32.checked_shl(place.failures.saturating_sub(1)).unwrap_or(BACKOFF).min(BACKOFF);
        let pause = (self.period * periods).min(LONGEST.max(self.period));
        let periods = (pause.as_nanos() / self.period.as_nanos()).max(1);
        let passed = now.saturating_duration_since(place.due).as_nanos().div_ceil(self.period.as_nanos());
        self.skipped += u64::try_from(passed.saturating_sub(1)).unwrap_or(u64::MAX);
        let steps = u32::try_from(passed.saturating_sub(1) + periods).unwrap_or(u32::MAX);
        place.due += self.period * steps;
        self.due.push(Reverse((place.due, server)));
    }

    /// As [`Schedule::done`], and the server is not due again before it is revived.
    pub(super) fn retire(&mut self, server: usize) {
        let place = &mut self.places[server];
        place.running = false;
        self.running -= 1;
        self.doubtful -= usize::from(place.failures > 0);
        place.failures = 0;
    }

    /// A server that was retired is due at `now`.
    pub(super) fn revive(&mut self, server: usize, now: Instant) {
        self.places[server].due = now;
        self.due.push(Reverse((now, server)));
    }

    /// Ticks missed since this was last asked.
    pub(super) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random::Random;
    use std::collections::BTreeMap;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn due_times_keep_their_place_in_the_period() {
        let now = Instant::now();
        for (took, answers, gap, skipped) in [
            (0.1, vec![true], 1, 0),
            (2.5, vec![true], 3, 2),
            (0.1, vec![false], 1, 0),
            (0.1, vec![false, false], 2, 0),
            (0.1, vec![false, false, false], 4, 0),
            (0.1, vec![false; 12], 32, 0),
            (2.5, vec![false, false], 4, 2),
            (0.1, vec![false, false, false, true], 1, 0),
        ] {
            let mut schedule = Schedule::new(now, SECOND, 1, [250_000_000]);
            let mut due = now + Duration::from_millis(250);
            for (at, answered) in answers.iter().enumerate() {
                assert_eq!(schedule.next(due - Duration::from_nanos(1)), Next::Wait(due), "{answers:?}");
                assert_eq!(schedule.next(due), Next::Start { server: 0, late: Duration::ZERO });
                let last = at + 1 == answers.len();
                schedule.done(0, due + Duration::from_secs_f64(if last { took } else { 0.1 }), *answered);
                let Next::Wait(next) = schedule.next(due) else { panic!("nothing is due") };
                if last {
                    assert_eq!(next - due, SECOND * gap, "{took} {answers:?}");
                    assert_eq!(schedule.take_skipped(), skipped, "{took} {answers:?}");
                }
                due = next;
            }
        }
        let mut slow = Schedule::new(now, SECOND * 600, 1, [0]);
        for _ in 0..9 {
            let Next::Start { .. } = slow.next(slow.places[0].due) else { panic!("it is due") };
            let at = slow.places[0].due;
            slow.done(0, at, false);
            assert_eq!(slow.places[0].due - at, SECOND * 600, "a period longer than the longest pause is not made longer");
        }
    }

    /// One run of the schedule over simulated time; gives the greatest lateness of healthy servers, by second.
    struct World {
        schedule: Schedule,
        now: Instant,
        /// Running checks: when each ends, and whether it is answered.
        running: BTreeMap<(Instant, usize), bool>,
        most: usize,
        hung: usize,
    }

    impl World {
        /// Servers below `hung` never answer within `timeout`; the others take up to `longest`.
        fn run(
            &mut self,
            random: &mut Random,
            until: Instant,
            timeout: Duration,
            longest: Duration,
            mut late: impl FnMut(Instant, usize, Duration),
        ) {
            while self.now < until {
                let wait = loop {
                    match self.schedule.next(self.now) {
                        Next::Start { server, late: by } => {
                            assert!(!self.running.keys().any(|(_, other)| *other == server), "server {server} is checked twice at once");
                            late(self.now, server, by);
                            let took = if server < self.hung { timeout } else { longest.mul_f64(random.below(1000) as f64 / 1000.0) };
                            self.running.insert((self.now + took, server), server >= self.hung);
                            assert!(self.running.len() <= self.most);
                        }
                        Next::Wait(at) => break Some(at),
                        Next::Full => break None,
                    }
                };
                let ends = self.running.first_key_value().map(|((at, _), _)| *at);
                self.now = match (wait, ends) {
                    (Some(wait), Some(ends)) => wait.min(ends),
                    (wait, ends) => wait.or(ends).expect("something happens next"),
                };
                while let Some(entry) = self.running.first_entry().filter(|entry| entry.key().0 <= self.now) {
                    let ((_, server), answered) = entry.remove_entry();
                    self.schedule.done(server, self.now, answered);
                }
            }
        }
    }

    #[test]
    fn servers_that_do_not_answer_keep_nobody_waiting() {
        for seed in 0..60_u64 {
            let mut random = Random::new(seed);
            let (healthy, most) = (1 + random.below(60) as usize, 2 + random.below(9) as usize);
            let hung = random.below(40) as usize;
            let (period, timeout) = (SECOND * 10, SECOND * 5);
            // What the healthy need fits into what is left to them.
            let longest = period.mul_f64(0.5 / healthy as f64);
            let start = Instant::now();
            let hashes: Vec<u64> = (0..hung + healthy).map(|_| random.number()).collect();
            let mut world =
                World { schedule: Schedule::new(start, period, most, hashes), now: start, running: BTreeMap::new(), most, hung };
            // The first time nobody knows who hangs. From then on a place is free for the others, first come, first served:
            // each waits at most for those that were due before.
            let settled = start + period * 2 + timeout * u32::try_from(hung.div_ceil(most / 2).max(1)).unwrap();
            let bound = longest * u32::try_from(healthy).unwrap();
            let mut checks = vec![0_u32; hung + healthy];
            let mut worst = Duration::ZERO;
            let end = settled + period * 30;
            world.run(&mut random, end, timeout, longest, |now, server, late| {
                if now > settled {
                    checks[server] += 1;
                    if server >= hung {
                        worst = worst.max(late);
                    }
                }
            });
            assert!(worst <= bound, "seed {seed}: {worst:?} late, {bound:?} allowed; {hung} of {} hang, {most} at once", hung + healthy);
            for (server, count) in checks.iter().enumerate() {
                let expected = if server < hung { 1..=30 } else { 29..=31 };
                assert!(expected.contains(count), "seed {seed}: server {server} of {hung} hung ones was checked {count} times");
            }
        }
    }
}
