//! How a command ends, and the exit code that says so. The only place where exit codes are decided.
//!
//! 0 done · 1 failed while running · 2 bad usage or bad pipeline file · 3 the environment · 4 it worked and
//! the answer is no.

use crate::config::Problems;
use crate::{CodedError, Exit};
use std::io;

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// An error that nobody has shown yet.
    Error(CodedError),
    /// Everything has been said; only the exit code is left.
    Reported(Exit),
    /// What it had to say could not be written.
    Output(io::Error),
}

impl From<CodedError> for Failure {
    fn from(error: CodedError) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// The exit code. A reader that has seen enough (`| head`) is no failure.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Error(error) => error.code.exit.code(),
            Self::Reported(exit) => exit.code(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => Exit::Failure.code(),
        }
    }
}

/// What a pipeline file's problems mean for the command: errors end it, and warnings do where denied.
///
/// # Errors
/// `Usage` for errors, `Negative` for denied warnings.
pub fn verdict(problems: &Problems, deny_warnings: bool) -> Result<(), Failure> {
    if problems.errors() > 0 {
        Err(Failure::Reported(Exit::Usage))
    } else if deny_warnings && problems.warnings() > 0 {
        Err(Failure::Reported(Exit::Negative))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn codes() {
        for (exit, code) in [(Exit::Failure, 1), (Exit::Usage, 2), (Exit::Environment, 3), (Exit::Negative, 4)] {
            assert_eq!(Failure::Reported(exit).code(), code);
            assert_eq!(Failure::Error(CodedError::definite(Code::new("X0001", exit), "x")).code(), code);
        }
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).code(), 0);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).code(), 1);
    }
}
