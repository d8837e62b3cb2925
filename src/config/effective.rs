//! The file as the engine understands it: defaults merged, inputs spelt out, secrets left out. YAML that
//! reads back to the same pipeline, but for the secrets.

use super::links::Edge;
use super::nodes::Draft;
use super::pipeline::Settings;
use super::report::masked;
use super::scalar::resolve;
use super::settings::StateType;
use super::tree::{Scalar, Span, Tree, Value};
use crate::Kind;
use std::fmt::Write;

/// What stands for a secret.
const REDACTED: &str = "\"<redacted>\"";

/// Writes it.
pub(super) fn write(tree: &Tree, settings: &Settings, drafts: &[Draft], edges: &[Vec<Edge>], hidden: &[Span]) -> String {
    let mut writer = Writer { out: String::new(), hidden };
    let engine = &settings.engine;
    let _ = writeln!(writer.out, "version: 1\nname: {}\nengine:\n  workers: {}", settings.name, engine.workers);
    let _ = writeln!(writer.out, "  source_credit: {}\n  credit: {}", engine.source_credit, engine.credit);
    let connections = engine.connections;
    let _ = writeln!(writer.out, "  connections:\n    total: {}\n    per_server: {}", connections.total, connections.per_server);
    match (settings.state.kind, tree.entry("state")) {
        (StateType::Postgres, Some(entry)) => {
            writer.out.push_str("state:\n");
            writer.value(&entry.value, 1);
        }
        _ => {
            let path =
                settings.state.path.as_ref().map_or_else(|| format!(".etl-stream/{}.db", settings.name), |p| p.display().to_string());
            let _ = writeln!(writer.out, "state:\n  type: sqlite\n  path: {}", quoted(&path));
        }
    }
    match &settings.server {
        Some(server) => {
            let tap = if server.tap { "\n  tap: true" } else { "" };
            let _ = writeln!(writer.out, "server:\n  listen: \"{}\"{tap}", server.listen);
        }
        None => writer.out.push_str("server: none\n"),
    }
    for kind in [Kind::Source, Kind::Operator, Kind::Sink] {
        let mut nodes = drafts.iter().zip(edges).filter(|(d, _)| d.kind == kind).peekable();
        if nodes.peek().is_some() {
            let _ = writeln!(writer.out, "{}:", kind.section());
        }
        for (draft, into) in nodes {
            let _ = writeln!(writer.out, "  {}:\n    type: {}", quoted(&draft.name), quoted(&draft.type_name));
            if kind != Kind::Source {
                let names: Vec<String> = into.iter().filter_map(|e| name(drafts, *e)).collect();
                let _ = writeln!(writer.out, "    inputs: [{}]", names.join(", "));
            }
            if draft.settings.map().is_some_and(|m| !m.is_empty()) {
                writer.value(&draft.settings, 2);
            }
        }
    }
    for key in ["alerts", "notifiers"] {
        if let Some(entry) = tree.entry(key).filter(|e| e.value.map().is_some_and(|m| !m.is_empty())) {
            let _ = writeln!(writer.out, "{key}:");
            writer.value(&entry.value, 1);
        }
    }
    writer.out
}

fn name(drafts: &[Draft], edge: Edge) -> Option<String> {
    let draft = drafts.get(edge.node)?;
    let output = draft.outputs.as_ref().and_then(|o| o.get(edge.output));
    Some(output.map_or_else(|| draft.name.to_string(), |output| format!("{}.{output}", draft.name)))
}

struct Writer<'h> {
    out: String,
    hidden: &'h [Span],
}

impl Writer<'_> {
    /// A map's entries or a list's items, each on lines of its own.
    fn value(&mut self, tree: &Tree, depth: usize) {
        let indent = "  ".repeat(depth);
        match &tree.value {
            Value::Map(entries) => {
                for entry in entries {
                    let _ = write!(self.out, "{indent}{}:", quoted(&entry.key));
                    self.after(&entry.value, depth);
                }
            }
            Value::List(items) => {
                for item in items {
                    let _ = write!(self.out, "{indent}-");
                    self.after(item, depth);
                }
            }
            Value::Scalar(_) => {}
        }
    }

    /// What follows a key or a dash.
    fn after(&mut self, tree: &Tree, depth: usize) {
        let secret = self.hidden.iter().any(|h| h.start <= tree.span.start && tree.span.end <= h.end);
        match &tree.value {
            _ if secret => _ = writeln!(self.out, " {REDACTED}"),
            Value::Scalar(scalar) => _ = writeln!(self.out, " {}", written(scalar)),
            Value::Map(entries) if entries.is_empty() => self.out.push_str(" {}\n"),
            Value::List(items) if items.is_empty() => self.out.push_str(" []\n"),
            Value::List(items) if items.iter().all(|i| i.scalar().is_some()) => {
                let texts: Vec<String> = items.iter().filter_map(Tree::scalar).map(written).collect();
                let _ = writeln!(self.out, " [{}]", texts.join(", "));
            }
            _ => {
                self.out.push('\n');
                self.value(tree, depth + 1);
            }
        }
    }
}

fn written(scalar: &Scalar) -> String {
    if scalar.plain && !resolve(&scalar.text).is_string() {
        return if scalar.text.is_empty() { "null".into() } else { scalar.text.clone() };
    }
    if scalar.text.contains("://") { quoted(&masked(&scalar.text, &[])) } else { quoted(&scalar.text) }
}

/// A string, in quotes where it would read as something else.
fn quoted(text: &str) -> String {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/' || c == '.') && text.bytes().all(word);
    if bare && resolve(text).is_string() && text != "..." { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
