//! Where servers' logs end, and what is visible there: of all that wish to know, one asks; of all that would move it, one does.
//!
//! # Guarantees
//! A position never goes back. Whoever is told to ask, or to beat, has the turn for the time given, whether or not it comes
//! to anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is known of where a server's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Somebody has asked a moment ago, or is about to: the last answer.
    Said(u64),
    /// Whoever hears this asks, and says what came of it.
    Ask,
}

/// The last answer, and when somebody set out to ask.
struct Position {
    asked: Instant,
    lsn: u64,
    /// What was visible, and when that was said.
    visible: Option<(Arc<str>, Instant)>,
}

/// What sources tell each other of their servers' logs.
#[derive(Default)]
pub struct LogEnds {
    /// By server, and whether it is a standby.
    positions: Mutex<BTreeMap<(Arc<str>, bool), Position>>,
    /// When somebody set out to write to a server's log.
    beaten: Mutex<BTreeMap<Arc<str>, Instant>>,
}

impl LogEnds {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Arc<str>, bool), Position>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to write to a server's log: nobody has set out to within `every`. Every slot of a server moves
    /// with its log, whichever source's heartbeat it was.
    #[must_use]
    pub fn beats(&self, server: &str, every: Duration) -> bool {
        let (mut beaten, now) = (self.beaten.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        match beaten.get_mut(server) {
            Some(last) if now.duration_since(*last) < every => false,
            Some(last) => {
                *last = now;
                true
            }
            // A source's first word is a moment after its start.
            None => beaten.insert(server.into(), now).is_some(),
        }
    }

    /// Where a server's log ends, as far as somebody has asked within `every`.
    #[must_use]
    pub fn known(&self, server: &str, standby: bool, every: Duration) -> Known {
        let (mut positions, now) = (self.lock(), Instant::now());
        match positions.get_mut(&(Arc::from(server), standby)) {
            Some(position) if now.duration_since(position.asked) < every => Known::Said(position.lsn),
            Some(position) => {
                position.asked = now;
                Known::Ask
            }
            None => {
                positions.insert((server.into(), standby), Position { asked: now, lsn: 0, visible: None });
                Known::Ask
            }
        }
    }

    /// Says where a server's log ends, and which transactions are visible, in the server's words.
    pub fn said(&self, server: &str, standby: bool, lsn: u64, visible: &Arc<str>) {
        if let Some(position) = self.lock().get_mut(&(Arc::from(server), standby)) {
            position.lsn = position.lsn.max(lsn);
            position.visible = Some((Arc::clone(visible), Instant::now()));
        }
    }

    /// What was visible on a server, if it was said within `every`. While the words are the same, so is all that can be read.
    #[must_use]
    pub fn visible(&self, server: &str, standby: bool, every: Duration) -> Option<Arc<str>> {
        let positions = self.lock();
        let (visible, said) = positions.get(&(Arc::from(server), standby))?.visible.as_ref()?;
        (said.elapsed() < every).then(|| Arc::clone(visible))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_for_all() {
        let ends = LogEnds::default();
        let long = Duration::from_secs(3600);
        assert_eq!(ends.known("a", false, long), Known::Ask);
        assert_eq!(ends.known("a", false, long), Known::Said(0));
        assert_eq!(ends.visible("a", false, long), None);
        ends.said("a", false, 7, &"9:9:".into());
        ends.said("a", false, 5, &"10:10:".into());
        assert_eq!((ends.known("a", false, long), ends.known("a", true, long)), (Known::Said(7), Known::Ask));
        assert_eq!((ends.visible("a", false, long).as_deref(), ends.visible("a", true, long)), (Some("10:10:"), None));
        assert_eq!(ends.visible("a", false, Duration::ZERO), None, "it was long ago");
        assert_eq!(ends.known("a", false, Duration::ZERO), Known::Ask, "it was long ago");
    }

    #[test]
    fn one_beats_for_all() {
        let ends = LogEnds::default();
        let long = Duration::from_secs(3600);
        assert_eq!([ends.beats("a", long), ends.beats("a", long), ends.beats("b", Duration::ZERO)], [false; 3]);
        assert_eq!([ends.beats("a", Duration::ZERO), ends.beats("a", long), ends.beats("b", Duration::ZERO)], [true, false, true]);
    }
}
