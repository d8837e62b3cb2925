//! Problems for people, with the line underlined, and as JSON. The only file that meets miette.
//!
//! # Guarantees
//! No secret is printed: hidden spans, values of keys that sound secret, and passwords in URLs are masked
//! in the copy of the text that snippets are cut from, whatever line they stand on.

use super::problem::{Problem, Problems, Severity};
use super::tree::{Span, Tree, Value};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, NarratableReportHandler};
use serde_json::json;
use std::fmt::{self, Write};
use std::sync::Arc;

/// The most problems drawn for people; JSON has them all.
const DRAWN: usize = 200;

/// How to draw for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// Unicode lines and colours.
    Colour,
    /// Unicode lines.
    Plain,
    /// Sentences, for screen readers and dumb terminals.
    Narrated,
}

impl Problem {
    /// The problem as JSON.
    #[must_use]
    pub fn json(&self, file: &str) -> serde_json::Value {
        json!({
            "code": self.code.id,
            "severity": self.severity.word(),
            "pointer": self.pointer,
            "file": file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "help": self.help,
        })
    }
}

impl Problems {
    /// The problems as JSON, in the order of the file.
    pub fn json(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        self.list.iter().map(|p| p.json(&self.file))
    }

    /// The problems for people. Empty without problems.
    #[must_use]
    pub fn draw(&self, drawing: Drawing, width: usize) -> String {
        let mut out = String::new();
        if self.list.is_empty() {
            return out;
        }
        let source = Arc::new(NamedSource::new(&*self.file, masked(&self.text, &self.hidden)));
        for problem in self.list.iter().take(DRAWN) {
            let shown = Shown { problem, source: Arc::clone(&source), length: self.text.len() };
            let drawn = match drawing {
                Drawing::Narrated => NarratableReportHandler::new().render_report(&mut out, &shown),
                Drawing::Colour => handler(GraphicalTheme::unicode(), width).render_report(&mut out, &shown),
                Drawing::Plain => handler(GraphicalTheme::unicode_nocolor(), width).render_report(&mut out, &shown),
            };
            if drawn.is_err() {
                let _ =
                    writeln!(out, "{}[{}] {}:{}: {}", problem.severity.word(), problem.code.id, self.file, problem.line, problem.message);
            }
            out.push('\n');
        }
        if let Some(more) = self.list.len().checked_sub(DRAWN).filter(|more| *more > 0) {
            let _ = writeln!(out, "and {more} more: --format json has them all");
        }
        out
    }
}

fn handler(theme: GraphicalTheme, width: usize) -> GraphicalReportHandler {
    GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1).without_syntax_highlighting()
}

struct Shown<'p> {
    problem: &'p Problem,
    source: Arc<NamedSource<String>>,
    length: usize,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem.code.id)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code.id))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let explain = format!("etl-stream explain {}", self.problem.code.id);
        Some(Box::new(match &self.problem.help {
            Some(help) => format!("{help}\n{explain}"),
            None => explain,
        }))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        // Without text there is no line to show: the file was not read.
        (self.length > 0).then_some(&*self.source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labelled = |span: Span, text: &str, primary: bool| {
            let start = span.start.min(self.length);
            let length = span.end.min(self.length).saturating_sub(start);
            let text = (!text.is_empty()).then(|| text.to_owned());
            if primary {
                LabeledSpan::new_primary_with_span(text, (start, length))
            } else {
                LabeledSpan::new_with_span(text, (start, length))
            }
        };
        let first = labelled(one_line(self.source.inner(), self.problem.span), "here", true);
        let others = self.problem.labels.iter().map(move |(span, text)| labelled(one_line(self.source.inner(), *span), text, false));
        Some(Box::new(std::iter::once(first).chain(others)))
    }
}

/// A span cut at its line's end: one line is enough to find the place.
fn one_line(text: &str, span: Span) -> Span {
    let part = text.get(span.start..span.end.min(text.len())).unwrap_or_default();
    let line = part.lines().next().unwrap_or_default().trim_end();
    Span { start: span.start, end: span.start + line.len() }
}

/// The text with secrets masked, byte for byte as long as before.
pub(super) fn masked(text: &str, hidden: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in hidden {
        mask(&mut bytes, span.start, span.end);
    }
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        for (from, to) in suspicious(line) {
            mask(&mut bytes, start + from, start + to);
        }
        start += line.len();
    }
    // Masks cover whole characters, so this is the same text but for the masks.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Covers a part: three stars and blanks, line breaks kept, so that its length does not show.
fn mask(bytes: &mut [u8], start: usize, end: usize) {
    let end = end.min(bytes.len());
    for (at, byte) in bytes.get_mut(start.min(end)..end).unwrap_or_default().iter_mut().filter(|b| !matches!(b, b'\n' | b'\r')).enumerate()
    {
        *byte = if at < 3 { b'*' } else { b' ' };
    }
}

/// Names of settings that sound secret.
const WORDS: [&str; 7] = ["password", "passphrase", "secret", "token", "private_key", "api_key", "plain"];

/// A secret of fewer bytes is not looked for elsewhere: it would be found in words.
const WORTH: usize = 6;

/// What to hide of a text before any schema has been asked: texts under keys that sound secret, over
/// however many lines. Of a text that is not YAML, every line without a key: it may be the rest of a secret; and what is
/// seen to be a secret somewhere, wherever it stands again.
pub(super) fn conceal(tree: Option<&Tree>, text: &str, hidden: &mut Vec<Span>) {
    let Some(tree) = tree else {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let bare = line.trim();
            if !bare.contains(':') && !bare.starts_with('#') {
                let from = start + (line.len() - line.trim_start().len());
                hidden.push(Span { start: from, end: from + bare.len() });
            }
            for (from, to) in suspicious(line) {
                let secret = line.get(from..to).unwrap_or_default().trim_matches([' ', '"', '\'', ',', '}', ']']);
                if secret.len() >= WORTH {
                    hidden.extend(text.match_indices(secret).map(|(at, _)| Span { start: at, end: at + secret.len() }));
                }
            }
            start += line.len();
        }
        return;
    };
    match &tree.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| conceal(Some(item), text, hidden)),
        Value::Map(entries) => {
            for entry in entries {
                let key = entry.key.to_ascii_lowercase();
                if entry.value.scalar().is_some() && WORDS.iter().any(|word| key.contains(word)) {
                    hidden.push(entry.value.span);
                }
                conceal(Some(&entry.value), text, hidden);
            }
        }
    }
}

/// Parts of a line that sound secret although nothing says so: the value of a key that is named like a
/// secret and does not open a map, the lines of a PEM block, and the password of a URL.
fn suspicious(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let end = line.trim_end().len();
    let lower = line.to_ascii_lowercase();
    for word in WORDS {
        for (at, _) in lower.match_indices(word) {
            let Some(colon) = lower.get(at..).and_then(|rest| rest.find(':')).map(|c| at + c) else { continue };
            let key = lower.get(at..colon).unwrap_or_default();
            if !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'"' | b'\'' | b' ')) {
                continue;
            }
            let rest = line.get(colon + 1..end).unwrap_or_default();
            let value = colon + 1 + (rest.len() - rest.trim_start().len());
            // A map (`{ env: … }`) or an anchor is structure, and is looked at by its own keys.
            if !rest.trim_start().starts_with(['{', '&', '*', '|', '>']) && value < end {
                found.push((value, end));
            }
        }
    }
    for (at, _) in line.match_indices("://") {
        let rest = line.get(at + 3..end).unwrap_or_default();
        let authority = rest.split(['/', ' ', '"', '\'', '?']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            let password = user.find(':').map_or(user.len(), |c| c + 1);
            found.push((at + 3 + password, at + 3 + user.len()));
        }
    }
    let bare = line.trim();
    if bare.contains("-----") || (bare.len() >= 40 && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))) {
        found.push((line.len() - line.trim_start().len(), end));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_once_is_secret_in_all_of_a_broken_file() {
        let text = "password: { plain: hunter2-x }\n} n: hunter2-x.\nport: 1\n";
        let mut hidden = Vec::new();
        conceal(None, text, &mut hidden);
        let shown = masked(text, &hidden);
        assert!(!shown.contains("hunter2") && shown.contains("port: 1"), "{shown}");
    }

    #[test]
    fn secrets_are_masked() {
        for (text, hidden, shown) in [
            ("password: hunter2\nhost: a\n", vec![], "password: ***    \nhost: a\n"),
            ("pg_password: \"hunter2\" # x\n", vec![], "pg_password: ***          \n"),
            ("password: { env: A }\n", vec![], "password: { env: A }\n"),
            ("x: { plain: abcdef }\n", vec![], "x: { plain: ***     \n"),
            ("url: postgres://me:pw@h/db\n", vec![], "url: postgres://me:**@h/db\n"),
            ("url: postgres://me:p@w:x@h/db\n", vec![], "url: postgres://me:***  @h/db\n"),
            ("a: öäü!\n", vec![Span { start: 3, end: 10 }], "a: ***    \n"),
            ("k: |\n  -----BEGIN X-----\n", vec![], "k: |\n  ***              \n"),
        ] {
            let got = masked(text, &hidden);
            assert_eq!(got, shown);
            assert_eq!(got.len(), text.len());
        }
    }
}
