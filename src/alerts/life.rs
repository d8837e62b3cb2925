//! The life of an alert on one subject: pending, firing, escalated, over. Pure: the time is given.
//!
//! ```text
//!          holds            held for `hold`           danger            clear for `hold`
//! quiet ─────────> pending ───Started──> firing ──Escalated──> firing ───Resolved──> quiet
//!   ^   does not hold  │                   └─Repeated─┘
//!   └──────────────────┘
//! ```
//!
//! # Guarantees
//! - Each episode has one `Started`, at most one `Escalated`, and one `Resolved`; a value that goes back and forth over
//!   a threshold while the alert fires tells nobody anything.
//! - A value that is not known changes nothing: what was pending stays so and does not fire, what fires goes on.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The condition does not hold.
    Clear,
    /// It does.
    Raised,
    /// So does the one for danger.
    Danger,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The condition has held for long enough.
    Started,
    /// It became dangerous.
    Escalated,
    /// It still holds.
    Repeated,
    /// It is over.
    Resolved,
}

impl Event {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Escalated => "escalated",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
        }
    }
}

/// How patient an alert is, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long the condition holds before it is told, and does not hold before it is over.
    pub(crate) hold: f64,
    /// How often it is told again.
    pub(crate) repeat: Option<f64>,
}

/// An episode. Times are seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Since when the condition holds.
    pub(crate) since: f64,
    /// Once it has been told.
    pub(crate) fired: Option<Fired>,
}

/// An episode that was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fired {
    /// The worst so far.
    pub(crate) level: Level,
    /// When it was told last.
    told: f64,
    /// Since when the condition does not hold.
    clear: Option<f64>,
}

/// Takes a look at `now`; `level` is `None` where it is not known.
pub(crate) fn step(life: &mut Option<Life>, terms: Terms, level: Option<Level>, now: f64) -> Option<Event> {
    let level = level?.min(Level::Danger);
    let Some(alive) = life else {
        if level == Level::Clear {
            return None;
        }
        *life = Some(Life { since: now, fired: None });
        return step(life, terms, Some(level), now);
    };
    let Some(fired) = &mut alive.fired else {
        if level == Level::Clear {
            *life = None;
            return None;
        }
        if now - alive.since < terms.hold {
            return None;
        }
        alive.fired = Some(Fired { level, told: now, clear: None });
        return Some(Event::Started);
    };
    if level == Level::Clear {
        let clear = *fired.clear.get_or_insert(now);
        if now - clear < terms.hold {
            return None;
        }
        *life = None;
        return Some(Event::Resolved);
    }
    fired.clear = None;
    if level > fired.level {
        (fired.level, fired.told) = (level, now);
        return Some(Event::Escalated);
    }
    if terms.repeat.is_some_and(|repeat| now - fired.told >= repeat) {
        fired.told = now;
        return Some(Event::Repeated);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Escalated, Repeated, Resolved, Started};
    use Level::{Clear, Danger, Raised};

    /// What each look gives: the second, what is seen, what is told.
    type Looks = &'static [(u32, Option<Level>, Option<Event>)];

    #[test]
    fn lives() {
        let cases: &[(&str, f64, Option<f64>, Looks)] = &[
            (
                "at once without a hold",
                0.0,
                None,
                &[
                    (0, Some(Clear), None),
                    (1, Some(Raised), Some(Started)),
                    (2, Some(Raised), None),
                    (3, Some(Clear), Some(Resolved)),
                    (4, Some(Clear), None),
                ],
            ),
            ("only after the hold", 10.0, None, &[(0, Some(Raised), None), (9, Some(Raised), None), (10, Some(Raised), Some(Started))]),
            (
                "a gap starts the hold again",
                10.0,
                None,
                &[
                    (0, Some(Raised), None),
                    (5, Some(Clear), None),
                    (6, Some(Raised), None),
                    (15, Some(Raised), None),
                    (16, Some(Raised), Some(Started)),
                ],
            ),
            (
                "over after the same time",
                10.0,
                None,
                &[
                    (0, Some(Raised), None),
                    (10, Some(Raised), Some(Started)),
                    (11, Some(Clear), None),
                    (20, Some(Clear), None),
                    (21, Some(Clear), Some(Resolved)),
                ],
            ),
            (
                "back and forth is one episode",
                10.0,
                None,
                &[
                    (0, Some(Raised), None),
                    (10, Some(Raised), Some(Started)),
                    (11, Some(Clear), None),
                    (19, Some(Raised), None),
                    (20, Some(Clear), None),
                    (29, Some(Raised), None),
                    (30, Some(Clear), None),
                    (40, Some(Clear), Some(Resolved)),
                ],
            ),
            (
                "escalates once, without a hold of its own",
                10.0,
                None,
                &[
                    (0, Some(Raised), None),
                    (10, Some(Raised), Some(Started)),
                    (12, Some(Danger), Some(Escalated)),
                    (13, Some(Raised), None),
                    (14, Some(Danger), None),
                    (15, Some(Clear), None),
                    (25, Some(Clear), Some(Resolved)),
                ],
            ),
            (
                "danger while pending does not restart the clock",
                10.0,
                None,
                &[(0, Some(Raised), None), (8, Some(Danger), None), (10, Some(Danger), Some(Started)), (11, Some(Danger), None)],
            ),
            (
                "repeats",
                0.0,
                Some(60.0),
                &[
                    (0, Some(Raised), Some(Started)),
                    (59, Some(Raised), None),
                    (60, Some(Raised), Some(Repeated)),
                    (61, Some(Raised), None),
                    (119, Some(Raised), None),
                    (121, Some(Raised), Some(Repeated)),
                    (130, Some(Danger), Some(Escalated)),
                    (181, Some(Danger), None),
                    (190, Some(Danger), Some(Repeated)),
                ],
            ),
            (
                "does not repeat while it may be over",
                30.0,
                Some(10.0),
                &[
                    (0, Some(Raised), None),
                    (30, Some(Raised), Some(Started)),
                    (41, Some(Clear), None),
                    (60, Some(Clear), None),
                    (71, Some(Clear), Some(Resolved)),
                ],
            ),
            (
                "unknown changes nothing",
                10.0,
                Some(100.0),
                &[
                    (0, None, None),
                    (1, Some(Raised), None),
                    (12, None, None),
                    (13, Some(Raised), Some(Started)),
                    (14, None, None),
                    (500, None, None),
                    (501, Some(Clear), None),
                    (511, Some(Clear), Some(Resolved)),
                ],
            ),
        ];
        for (name, hold, repeat, looks) in cases {
            let mut life = None;
            for (second, level, event) in *looks {
                let got = step(&mut life, Terms { hold: *hold, repeat: *repeat }, *level, f64::from(*second));
                assert_eq!(got, *event, "{name}: second {second}");
                // What is kept over a restart goes on the same.
                let kept = serde_json::to_string(&life).expect("JSON");
                assert_eq!(serde_json::from_str::<Option<Life>>(&kept).expect("JSON"), life, "{name}");
            }
        }
    }
}
