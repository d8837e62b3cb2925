//! A failure that a worker process tells of.
//!
//! The exception's own words may hold values of a row. They are kept apart, and shown where the settings ask for it.

use serde_json::Value;
use std::fmt;

/// A failure of the user's code, or of what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Which.
    pub(crate) kind: String,
    /// What failed: the exception's type, or words without values.
    pub(crate) message: String,
    /// The exception's type and words; values too.
    pub(crate) words: String,
    /// Where: files, lines and source text.
    pub(crate) trace: String,
}

impl Told {
    /// The failure of an answer; nothing when it is none.
    pub(crate) fn of(header: &Value) -> Option<Self> {
        let error = header.get("error")?;
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { kind: text("kind"), message: text("message"), words: text("words"), trace: text("trace") })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.trace.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}, most recent call last:\n{}", self.message, self.trace.trim_end())
        }
    }
}

impl std::error::Error for Told {}
