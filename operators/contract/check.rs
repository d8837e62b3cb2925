//! A preflight: what a node finds when it looks at the place that it reads or writes.
//!
//! # Guarantees
//! A check changes nothing on either side. One problem hides no other that can be seen without it.

use super::{CodedError, StateStore};
use std::sync::Arc;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As it should be.
    Fine,
    /// `run` goes on, and the user may not want what comes of it.
    Doubtful,
    /// `run` would stop here.
    Wrong,
}

impl Standing {
    /// The word the user sees.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Doubtful => "warning",
            Self::Wrong => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Checked {
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The error that `run` would end with.
    pub error: Option<CodedError>,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default)]
pub struct Checks(pub Vec<Checked>);

impl Checks {
    fn push(&mut self, standing: Standing, message: String, hint: Option<String>, error: Option<CodedError>) {
        self.0.push(Checked { standing, message, hint, error });
    }

    /// Notes what is as it should be.
    pub fn fine(&mut self, message: impl Into<String>) {
        self.push(Standing::Fine, message.into(), None, None);
    }

    /// Notes what the user may not want.
    pub fn doubt(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Standing::Doubtful, message.into(), Some(hint.into()), None);
    }

    /// Notes what `run` would stop at.
    pub fn wrong(&mut self, error: CodedError) {
        self.push(Standing::Wrong, error.message.clone(), error.hint.clone(), Some(error));
    }

    /// Notes the error; gives what there is without one.
    pub fn take<T>(&mut self, result: Result<T, CodedError>) -> Option<T> {
        result.map_err(|error| self.wrong(error)).ok()
    }
}

/// What a check knows of the pipeline.
#[derive(Clone)]
pub struct CheckContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// Where progress is kept, to be read only. `None`: a process that runs the pipeline has it, and with it slots,
    /// locks and the like.
    pub state: Option<Arc<dyn StateStore>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Code, Exit};

    #[test]
    fn errors_are_kept_and_the_rest_goes_on() {
        let mut checks = Checks::default();
        assert_eq!(checks.take(Ok(7)), Some(7));
        let error = CodedError::definite(Code::new("X0001", Exit::Environment), "no").hint("try");
        assert_eq!(checks.take::<u8>(Err(error)), None);
        checks.doubt("hm", "look");
        checks.fine("yes");
        let seen: Vec<_> = checks.0.iter().map(|c| (c.standing.word(), c.message.as_str(), c.hint.as_deref())).collect();
        assert_eq!(seen, [("error", "no", Some("try")), ("warning", "hm", Some("look")), ("ok", "yes", None)]);
        assert_eq!(checks.0[0].error.as_ref().map(|e| e.code.id), Some("X0001"));
    }
}
