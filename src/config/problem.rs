//! One problem of a pipeline file, and the list of them all.
//!
//! A problem is made once, with the place it stands at, and shown in two ways: for people and as JSON
//! (`report`). What must not be shown of the file is collected here too.

use super::tree::Span;
use crate::Code;
use std::collections::HashSet;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// It runs, and perhaps not as meant.
    Warning,
}

impl Severity {
    /// The word the user sees.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Its code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The setting, as a JSON pointer into the file.
    pub pointer: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    pub(super) span: Span,
    pub(super) labels: Vec<(Span, String)>,
}

/// Every problem of a file.
#[derive(Clone, Debug)]
pub struct Problems {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The problems, in the order of the file once it is read.
    pub list: Vec<Problem>,
    pub(super) text: Arc<str>,
    /// Parts of the text that nothing may show.
    pub(super) hidden: Vec<Span>,
}

impl Problems {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self { file: file.into(), list: Vec::new(), text: text.into(), hidden: Vec::new() }
    }

    fn push(&mut self, severity: Severity, code: Code, pointer: &str, span: Span, message: impl Into<String>) -> &mut Problem {
        self.list.push(Problem {
            code,
            severity,
            pointer: pointer.into(),
            message: message.into(),
            help: None,
            line: 1,
            column: 1,
            span,
            labels: Vec::new(),
        });
        self.list.last_mut().expect("it was pushed just now")
    }

    pub(super) fn error(&mut self, code: Code, pointer: &str, span: Span, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, code, pointer, span, message)
    }

    pub(super) fn warning(&mut self, code: Code, pointer: &str, span: Span, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, code, pointer, span, message)
    }

    /// Says where each stands, puts them in the file's order, and drops repetitions: a default's problem
    /// shows once, not once for each node it reaches (messages that differ only in quoted names are one).
    pub(super) fn finish(&mut self) {
        self.list.sort_by_key(|p| p.span);
        let mut seen = HashSet::new();
        let unnamed = |message: &str| message.split('"').step_by(2).collect::<String>();
        self.list.retain(|p| seen.insert((p.span, p.code.id, unnamed(&p.message))));
        let text = Arc::clone(&self.text);
        let (mut line, mut start, mut at) = (1, 0, 0);
        for problem in &mut self.list {
            let target = problem.span.start.min(text.len());
            for (newline, _) in text.get(at..target).unwrap_or_default().match_indices('\n') {
                line += 1;
                start = at + newline + 1;
            }
            at = target;
            problem.line = line;
            problem.column = 1 + text.get(start..target).map_or(0, |before| before.chars().count());
        }
    }

    /// How many are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// How many are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }
}
