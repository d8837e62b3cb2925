//! Errors with a stable code, a class and a hint.
//!
//! Messages follow PostgreSQL's style: lower case, no full stop, names quoted with their kind. `Display`
//! prints the message alone, never the chain and never a row's value or a secret.

use std::fmt;

/// Whether trying again can help. Transient unless proven definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This row, table, file or setting will fail again.
    Definite,
    /// Worth another try, with backoff and a deadline.
    Transient,
}

/// The process's exit code when the error ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 1: failed while running.
    Failure,
    /// 2: bad usage or bad pipeline file.
    Usage,
    /// 3: the environment: unreachable, unauthorised, a setting or privilege missing.
    Environment,
    /// 4: it worked and the answer is no.
    Negative,
}

impl Exit {
    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Environment => 3,
            Self::Negative => 4,
        }
    }
}

/// A stable error code; `docs/errors/<id>.md` is its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Such as `PG0003`.
    pub id: &'static str,
    /// How the process ends for it.
    pub exit: Exit,
}

impl Code {
    /// Declares a code.
    #[must_use]
    pub const fn new(id: &'static str, exit: Exit) -> Self {
        Self { id, exit }
    }
}

/// An error of a node or the engine.
pub struct CodedError {
    /// Its code.
    pub code: Code,
    /// Whether trying again can help.
    pub class: Class,
    /// What was attempted, on which table or file, and what came back.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What caused it.
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CodedError {
    /// An error that will come again.
    pub fn definite(code: Code, message: impl Into<String>) -> Self {
        Self { code, class: Class::Definite, message: message.into(), hint: None, cause: None }
    }

    /// An error worth another try.
    pub fn transient(code: Code, message: impl Into<String>) -> Self {
        Self { class: Class::Transient, ..Self::definite(code, message) }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class == Class::Transient
    }

    /// The message, causes and hint over several lines, for the terminal and the log.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("error[{}]: {}", self.code.id, self.message);
        let mut cause: Option<&dyn std::error::Error> = self.cause.as_deref().map(|c| c as _);
        while let Some(error) = cause {
            text.push_str(&format!("\n  caused by: {error}"));
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  help: {hint}"));
        }
        text.push_str(&format!("\n  more: etl-stream explain {}", self.code.id));
        text
    }
}

impl fmt::Display for CodedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code.id)
    }
}

impl fmt::Debug for CodedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}

impl std::error::Error for CodedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
