//! A table that is stopped: its tables in Snowflake cannot follow a change, and the others go on.
//!
//! ```text
//! row under a schema that cannot be followed
//!    └─ all before it merged ──> STOPPED noted ──> it and every later row: counted, acknowledged, written nowhere
//!                                   └── the next snapshot (`etl-stream resync`) replaces all, and clears the note
//! ```
//! # Guarantees
//! - A row is acknowledged when it is durable, or when a stop at its token or before it is noted, and not before. So a
//!   process that ends at any moment finds the note, or is sent the row again and stops there anew.
//! - The note stands in the table's bookkeeping row. It is removed in the transaction that begins a snapshot.
//! - What stands before the stop is in the target exactly, be it in the middle of a transaction. Where a snapshot was not
//!   complete, the target is what it was before the snapshot.

use super::errors::SF_SCHEMA;
use crate::contract::{CodedError, StoppedTable, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Since when and why a table is stopped; kept as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stopped {
    since: String,
    why: String,
    advice: Option<String>,
}

impl Stopped {
    /// Because of an error, from a row on.
    pub(super) fn new(since: Token, error: &CodedError) -> Self {
        Self { since: since.to_string(), why: error.message.clone(), advice: error.hint.clone() }
    }

    /// With another advice than the error's.
    pub(super) fn advised(self, advice: &str) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// Reads a note; nothing where there is none. One that is not understood stops the table all the same.
    pub(super) fn read(text: &str) -> Option<Self> {
        let strange = || Self { since: String::new(), why: "the note of why it is stopped was not understood".into(), advice: None };
        (!text.is_empty()).then(|| serde_json::from_str(text).unwrap_or_else(|_| strange()))
    }

    /// The note.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The first row that was not taken.
    pub(super) fn since(&self) -> Token {
        self.since.parse().unwrap_or(Token::ZERO)
    }

    /// What the user sees.
    pub(super) fn shown(&self) -> StoppedTable {
        let advice = self.advice.as_deref().unwrap_or("run `etl-stream resync` for the table, which copies it anew");
        let error = CodedError::definite(SF_SCHEMA, self.why.clone()).hint(advice);
        StoppedTable { error: Arc::new(error), since: self.since(), discarded_rows: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes() {
        let error = CodedError::definite(SF_SCHEMA, "table \"a.b\" o'clock").hint("do this");
        let stopped = Stopped::new(Token::new(7, 3), &error);
        assert_eq!(Stopped::read(&stopped.text()), Some(stopped.clone()));
        assert_eq!(stopped.since(), Token::new(7, 3));
        for (text, since, hint) in [
            (stopped.text(), Some(Token::new(7, 3)), "do this"),
            (String::new(), None, ""),
            ("yes".into(), Some(Token::ZERO), "run `etl-stream resync` for the table, which copies it anew"),
        ] {
            let shown = Stopped::read(&text).map(|stopped| stopped.shown());
            assert_eq!(shown.as_ref().map(|shown| shown.since), since, "{text}");
            assert_eq!(shown.as_ref().and_then(|shown| shown.error.hint.as_deref()).unwrap_or_default(), hint);
        }
    }
}
