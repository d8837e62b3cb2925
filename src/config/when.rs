//! The condition of an alert: a metric, a comparison and a threshold.
//!
//! ```text
//! condition = metric comparison value
//! metric    = one of METRICS
//! value     = size | duration | whole number | word, as the metric's unit says; size/s is written as a size
//! ```
//! The list of metrics is closed: what is not in it is an error of the file, and never a condition that does not hold.

use super::suggest;
use crate::{ByteSize, Period};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectKind {
    /// A source of the file.
    Source,
    /// A sink of the file.
    Sink,
    /// A server that a `wal_monitor` checks.
    Server,
    /// A replication slot of such a server, whoever reads it.
    Slot,
}

impl SubjectKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Server => "server",
            Self::Slot => "slot",
        }
    }
}

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Seconds.
    Seconds,
    /// A number of things.
    Count,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Unit {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes/s",
            Self::Seconds => "seconds",
            Self::Count => "count",
            Self::Word(_) => "word",
        }
    }
}

/// A value that an alert can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, which starts with what it is a metric of.
    pub name: &'static str,
    /// What it is a metric of.
    pub subject: SubjectKind,
    /// What its values are.
    pub unit: Unit,
    /// Whether it comes from a `wal_monitor`.
    pub monitored: bool,
}

const YES: &[&str] = &["true", "false"];
const WAL_STATUS: &[&str] = &["reserved", "extended", "unreserved", "lost", "missing"];
const PHASE: &[&str] = &["starting", "snapshot", "streaming", "paused", "retrying", "stopped"];

const fn metric(name: &'static str, subject: SubjectKind, unit: Unit, monitored: bool) -> Metric {
    Metric { name, subject, unit, monitored }
}

/// Every metric. `docs/alerts.md` says what each means.
pub static METRICS: &[Metric] = {
    use SubjectKind::{Server, Sink, Slot, Source};
    &[
        metric("source.phase", Source, Unit::Word(PHASE), false),
        metric("source.lag", Source, Unit::Bytes, false),
        metric("source.freshness", Source, Unit::Seconds, false),
        metric("source.retained_wal", Source, Unit::Bytes, true),
        metric("source.safe_wal", Source, Unit::Bytes, true),
        metric("source.wal_status", Source, Unit::Word(WAL_STATUS), true),
        metric("source.slot_active", Source, Unit::Word(YES), true),
        metric("source.inactive_for", Source, Unit::Seconds, true),
        metric("source.over_limit", Source, Unit::Word(YES), true),
        metric("sink.freshness", Sink, Unit::Seconds, false),
        metric("sink.rejected_rows", Sink, Unit::Count, false),
        metric("sink.dead_letter_rows", Sink, Unit::Count, false),
        metric("sink.stopped_tables", Sink, Unit::Count, false),
        metric("sink.retries", Sink, Unit::Count, false),
        metric("server.failed_checks", Server, Unit::Count, true),
        metric("server.free_slots", Server, Unit::Count, true),
        metric("server.free_walsenders", Server, Unit::Count, true),
        metric("server.free_connections", Server, Unit::Count, true),
        metric("server.wal_rate", Server, Unit::BytesPerSecond, true),
        metric("server.replay_lag", Server, Unit::Seconds, true),
        metric("slot.retained_wal", Slot, Unit::Bytes, true),
        metric("slot.safe_wal", Slot, Unit::Bytes, true),
        metric("slot.wal_status", Slot, Unit::Word(WAL_STATUS), true),
        metric("slot.active", Slot, Unit::Word(YES), true),
        metric("slot.inactive_for", Slot, Unit::Seconds, true),
        metric("slot.over_limit", Slot, Unit::Word(YES), true),
    ]
};

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// Longer ones first: each is found where a shorter one would be too.
const COMPARISONS: [(&str, Comparison); 6] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
];

/// A value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// In the metric's unit.
    Number(f64),
    /// One of the metric's words.
    Word(Cow<'static, str>),
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    /// As it was written.
    pub text: String,
    /// What it is about.
    pub metric: &'static Metric,
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub threshold: Reading,
}

impl When {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, reading: &Reading) -> bool {
        match (reading, &self.threshold) {
            (Reading::Number(value), Reading::Number(threshold)) => match self.comparison {
                Comparison::Greater => value > threshold,
                Comparison::GreaterOrEqual => value >= threshold,
                Comparison::Less => value < threshold,
                Comparison::LessOrEqual => value <= threshold,
                Comparison::Equal => value.total_cmp(threshold).is_eq(),
                Comparison::NotEqual => value.total_cmp(threshold).is_ne(),
            },
            (Reading::Word(value), Reading::Word(threshold)) => (value == threshold) == (self.comparison == Comparison::Equal),
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=', '!']).ok_or("write a condition such as source.retained_wal > 20GiB")?;
        let (name, rest) = text.split_at(at);
        let name = name.trim();
        let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else {
            let help = suggest::help(name, METRICS.iter().map(|metric| metric.name)).unwrap_or_default();
            return Err(format!("there is no metric `{name}`; {help}"));
        };
        let Some((comparison, rest)) = COMPARISONS.iter().find_map(|(sign, c)| Some((*c, rest.strip_prefix(sign)?))) else {
            return Err("a comparison is one of >, >=, <, <=, == and !=".into());
        };
        let value = rest.trim();
        let threshold = match metric.unit {
            Unit::Bytes | Unit::BytesPerSecond => Reading::Number(size(value)? as f64),
            Unit::Seconds => Reading::Number(serde_json::from_value::<Period>(value.into()).map_err(|e| e.to_string())?.0.as_secs_f64()),
            Unit::Count => Reading::Number(f64::from(value.parse::<u32>().map_err(|_| format!("`{value}` is not a whole number"))?)),
            Unit::Word(words) => {
                if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
                    return Err(format!("{name} is a word: compare it by == or !="));
                }
                let word = words.iter().find(|word| **word == value);
                Reading::Word(Cow::Borrowed(word.ok_or_else(|| format!("{name} is one of {}, not `{value}`", words.join(", ")))?))
            }
        };
        Ok(Self { text: text.trim().to_owned(), metric, comparison, threshold })
    }
}

fn size(text: &str) -> Result<u64, String> {
    serde_json::from_value::<ByteSize>(text.into()).map(|size| size.0).map_err(|e| e.to_string())
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for When {
    fn schema_name() -> Cow<'static, str> {
        "When".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<String> = METRICS.iter().map(|metric| metric.name.replace('.', "\\.")).collect();
        let pattern = format!("^ *({}) *(>=|<=|==|!=|>|<) *[0-9A-Za-z_]+ *$", names.join("|"));
        json_schema!({ "type": "string", "pattern": pattern, "description": "A condition such as source.retained_wal > 20GiB." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{Equal, Greater, GreaterOrEqual, LessOrEqual, NotEqual};

    #[test]
    fn conditions() {
        for (text, comparison, threshold) in [
            ("source.retained_wal > 20GiB", Greater, Reading::Number(21_474_836_480.0)),
            ("sink.freshness>=2m", GreaterOrEqual, Reading::Number(120.0)),
            ("  server.free_slots <= 3 ", LessOrEqual, Reading::Number(3.0)),
            ("server.wal_rate > 50MiB", Greater, Reading::Number(52_428_800.0)),
            ("slot.wal_status == lost", Equal, Reading::Word("lost".into())),
            ("source.slot_active != true", NotEqual, Reading::Word("true".into())),
        ] {
            let when = When::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((when.comparison, &when.threshold), (comparison, &threshold), "{text}");
            assert_eq!(When::parse(&when.to_string()).as_ref(), Ok(&when));
        }
    }

    #[test]
    fn what_is_no_condition() {
        for (text, part) in [
            ("", "such as"),
            ("source.retained_wal", "such as"),
            ("source.retaned_wal > 1GiB", "did you mean `source.retained_wal`"),
            ("source.retained_wal => 1GiB", "a comparison is one of"),
            ("source.retained_wal > 1", "is not a size"),
            ("source.retained_wal > -1GiB", "is not a size"),
            ("sink.freshness > 5", "is not a duration"),
            ("sink.rejected_rows > 1.5", "is not a whole number"),
            ("slot.wal_status > lost", "by == or !="),
            ("slot.wal_status == gone", "reserved, extended"),
        ] {
            let error = When::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn holding() {
        for (text, number, holds) in [
            ("source.lag > 1KiB", 1024.0, false),
            ("source.lag > 1KiB", 1025.0, true),
            ("source.lag >= 1KiB", 1024.0, true),
            ("source.safe_wal < 1B", -5.0, true),
            ("sink.retries <= 2", 2.0, true),
            ("sink.retries == 2", 2.0, true),
            ("sink.retries != 2", 2.0, false),
        ] {
            assert_eq!(When::parse(text).unwrap().holds(&Reading::Number(number)), holds, "{text} {number}");
        }
        for (text, word, holds) in [
            ("source.phase == retrying", "retrying", true),
            ("source.phase == retrying", "streaming", false),
            ("source.phase != streaming", "stopped", true),
        ] {
            let when = When::parse(text).unwrap();
            assert_eq!(when.holds(&Reading::Word(word.into())), holds, "{text} {word}");
            assert!(!when.holds(&Reading::Number(1.0)));
        }
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../docs/alerts.md");
        for metric in METRICS {
            assert!(page.contains(&format!("| `{}` |", metric.name)), "{}", metric.name);
            assert!(metric.name.starts_with(metric.subject.word()), "{}", metric.name);
        }
    }
}
