//! YAML text to a tree whose every key and value knows where it stands. The only file that meets the
//! YAML parser.
//!
//! ```text
//! text ──events──> Tree { span, Scalar | List | Map }      (order kept, nothing interpreted)
//! ```
//! # Guarantees
//! Hostile text is a fault, never a crash: size, depth and the number of nodes after expanding aliases are
//! bounded. A key given twice is a fault. Anchors, aliases and merge keys (`<<`) are expanded; an explicit
//! key wins over a merged one. Tags other than the core schema's, keys that are not scalars, and a second
//! document are refused. Scalars follow the YAML 1.2 core schema: `no` and `on` are strings.

use super::codes;
use super::tree::{Entry, Scalar, Span, Tree, Value};
use crate::Code;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::collections::{HashMap, HashSet};

/// The largest file read, in bytes.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// The most nodes, aliases expanded.
const MAX_NODES: usize = 1 << 20;

/// Something wrong with the text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) pointer: String,
    pub(super) span: Span,
    pub(super) earlier: Option<Span>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Fault {
    fn new(span: Span, message: impl Into<String>, help: Option<&str>) -> Self {
        Self { code: codes::SYNTAX, pointer: String::new(), span, earlier: None, message: message.into(), help: help.map(Into::into) }
    }
}

/// Reads the text. The tree is there when the text was read to its end, faults or not.
pub(super) fn parse(text: &str) -> (Option<Tree>, Vec<Fault>) {
    if text.len() > MAX_BYTES {
        return (None, vec![Fault::new(Span::default(), format!("the file is larger than {} MiB", MAX_BYTES >> 20), None)]);
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        path: Vec::new(),
        nodes: 0,
        end: text.len(),
        faults: Vec::new(),
    };
    let tree = match reader.document() {
        Ok(tree) => Some(tree),
        Err(mut fault) => {
            fault.pointer = reader.pointer();
            reader.faults.push(*fault);
            None
        }
    };
    (tree, reader.faults)
}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Tree>,
    /// Keys and indices on the way to what is being read.
    path: Vec<String>,
    nodes: usize,
    end: usize,
    faults: Vec<Fault>,
}

type Read<T> = Result<T, Box<Fault>>;

impl<'t> Reader<'t> {
    fn fault<T>(span: Span, message: impl Into<String>, help: Option<&str>) -> Read<T> {
        Err(Box::new(Fault::new(span, message, help)))
    }

    fn pointer(&self) -> String {
        self.path.iter().fold(String::new(), |pointer, step| super::join(&pointer, step))
    }

    fn next(&mut self) -> Read<(Event<'t>, Span)> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let start = span.start.byte_offset().unwrap_or(self.end).min(self.end);
                Ok((event, Span { start, end: span.end.byte_offset().unwrap_or(self.end).clamp(start, self.end) }))
            }
            Some(Err(error)) => Err(Box::new(self.scan_fault(&error))),
            None => Ok((Event::StreamEnd, Span { start: self.end, end: self.end })),
        }
    }

    fn scan_fault(&self, error: &ScanError) -> Fault {
        let start = error.marker().byte_offset().unwrap_or(self.end).min(self.end);
        Fault::new(Span { start, end: start }, format!("the file is not YAML: {}", error.info()), None)
    }

    fn document(&mut self) -> Read<Tree> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, span) => return Self::fault(span, "the file is empty", Some("it needs sources and sinks")),
                (event, span) => {
                    let tree = self.node(event, span, 0)?;
                    loop {
                        match self.next()? {
                            (Event::DocumentEnd, _) => {}
                            (Event::StreamEnd, _) => return Ok(tree),
                            (_, span) => {
                                let help = Some("one file is one pipeline: give each its own file");
                                return Self::fault(span, "the file has a second YAML document", help);
                            }
                        }
                    }
                }
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Read<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES { Self::fault(span, format!("the file has more than {MAX_NODES} values"), None) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Read<Tree> {
        if depth > MAX_DEPTH {
            return Self::fault(span, format!("values are nested more than {MAX_DEPTH} deep"), None);
        }
        self.count(1, span)?;
        let (anchor, tree) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && core_tag(tag.as_deref(), span)? != Some("str");
                (anchor, Tree { span, value: Value::Scalar(Scalar { text: text.into_owned(), plain, raw: None, opaque: false }) })
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), span)?;
                (anchor, self.list(span, depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), span)?;
                (anchor, self.map(span, depth)?)
            }
            Event::Alias(id) => {
                let Some(tree) = self.anchors.get(&id) else {
                    return Self::fault(span, "an alias stands inside what it refers to", None);
                };
                let (nodes, inner) = tree.size();
                if depth + inner > MAX_DEPTH {
                    return Self::fault(span, format!("values are nested more than {MAX_DEPTH} deep"), None);
                }
                let tree = tree.clone();
                self.count(nodes, span)?;
                return Ok(tree);
            }
            _ => return Self::fault(span, "the file is not YAML: a value is missing here", None),
        };
        if anchor != 0 {
            self.count(tree.size().0, span)?;
            self.anchors.insert(anchor, tree.clone());
        }
        Ok(tree)
    }

    fn list(&mut self, open: Span, depth: usize) -> Read<Tree> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, close) => {
                    return Ok(Tree { span: Span { start: open.start, end: close.end.max(open.end) }, value: Value::List(items) });
                }
                (event, span) => {
                    self.path.push(items.len().to_string());
                    items.push(self.node(event, span, depth + 1)?);
                    self.path.pop();
                }
            }
        }
    }

    fn map(&mut self, open: Span, depth: usize) -> Read<Tree> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        let mut places: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, key_span) = match self.next()? {
                (Event::MappingEnd, close) => {
                    merge(&mut entries, merged);
                    return Ok(Tree { span: Span { start: open.start, end: close.end.max(open.end) }, value: Value::Map(entries) });
                }
                next => next,
            };
            let Value::Scalar(key) = self.node(event, key_span, depth + 1)?.value else {
                return Self::fault(key_span, "a key is a list or a map", Some("keys are plain words"));
            };
            self.path.push(key.text.clone());
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            self.path.pop();
            if key.plain && key.text == "<<" {
                match value.value {
                    Value::Map(inner) => merged.extend(inner),
                    Value::List(maps) if maps.iter().all(|m| m.map().is_some()) => {
                        self.count(maps.len(), span)?;
                        merged.extend(
                            maps.into_iter().filter_map(|m| if let Value::Map(inner) = m.value { Some(inner) } else { None }).flatten(),
                        );
                    }
                    _ => return Self::fault(span, "a merge key takes a map or a list of maps", Some("write <<: *anchor")),
                }
            } else if let Some(earlier) = places.get(&key.text) {
                let mut fault = Fault::new(key_span, format!("key `{}` is given twice", key.text), Some("keep one of them"));
                fault.code = codes::DUPLICATE;
                fault.pointer = super::join(&self.pointer(), &key.text);
                fault.earlier = Some(*earlier);
                self.faults.push(fault);
            } else {
                places.insert(key.text.clone(), key_span);
                entries.push(Entry { key: key.text, key_span, value });
            }
        }
    }
}

/// Adds merged entries whose keys are not there yet; the first of several wins.
fn merge(entries: &mut Vec<Entry>, merged: Vec<Entry>) {
    if merged.is_empty() {
        return;
    }
    let mut keys: HashSet<String> = entries.iter().map(|e| e.key.clone()).collect();
    entries.extend(merged.into_iter().filter(|entry| keys.insert(entry.key.clone())));
}

/// The core schema's tag, such as `str` of `!!str`.
fn core_tag(tag: Option<&Tag>, span: Span) -> Read<Option<&str>> {
    match tag {
        None => Ok(None),
        Some(tag) => match tag.core_suffix() {
            Some(suffix) => Ok(Some(suffix)),
            None => Reader::fault(span, format!("tag `{}` is not supported", tag.original()), Some("leave the tag out")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::resolve;
    use super::*;
    use serde_json::json;

    fn plain(tree: &Tree) -> serde_json::Value {
        match &tree.value {
            Value::Scalar(s) if s.plain => resolve(&s.text),
            Value::Scalar(s) => s.text.clone().into(),
            Value::List(items) => items.iter().map(plain).collect(),
            Value::Map(entries) => entries.iter().map(|e| (e.key.clone(), plain(&e.value))).collect::<serde_json::Map<_, _>>().into(),
        }
    }

    #[test]
    fn trees() {
        for (text, value) in [
            ("a: 1\nb: ['2', no]", json!({"a": 1, "b": ["2", "no"]})),
            ("a: &x {p: 1}\nb: *x", json!({"a": {"p": 1}, "b": {"p": 1}})),
            ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", json!({"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}})),
            ("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc: {<<: [*x, *y]}", json!({"a": {"p": 1}, "b": {"p": 2, "q": 2}, "c": {"p": 1, "q": 2}})),
            ("{\"a\": [1, true, null]}", json!({"a": [1, true, null]})),
            ("a: !!str 12", json!({"a": "12"})),
            ("a: |\n  x\n  y\n", json!({"a": "x\ny\n"})),
        ] {
            let (tree, faults) = parse(text);
            assert!(faults.is_empty(), "{text}: {faults:?}");
            assert_eq!(plain(&tree.expect(text)), value, "{text}");
        }
    }

    #[test]
    fn refused() {
        let deep = "[".repeat(100_000);
        let nested: String = (0..70).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        let laughs: String = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(1..12).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","))).collect::<String>();
        for (text, message) in [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("a: 1\na: 2", "given twice"),
            ("a: [1", "not YAML"),
            ("a: !mine 1", "tag `!mine`"),
            ("? [1]\n: 2", "key is a list"),
            ("a: 1\n---\nb: 2", "second YAML document"),
            ("a: *x", "not YAML"),
            ("a: &x [*x]", "inside what it refers to"),
            ("a: {<<: 1}", "merge key"),
            (deep.as_str(), ""),
            (nested.as_str(), ""),
            (laughs.as_str(), "more than"),
        ] {
            let (_, faults) = parse(text);
            let start: String = text.chars().take(40).collect();
            assert!(faults.first().is_some_and(|f| f.message.contains(message)), "{start}: {faults:?}");
        }
    }

    #[test]
    fn spans_are_bytes() {
        let text = "ä: ö\nkey: [val, \"q\"]\n";
        let (tree, _) = parse(text);
        let tree = tree.expect("it parses");
        let entry = tree.entry("key").expect("it is there");
        let at = |span: Span| &text[span.start..span.end];
        assert_eq!(at(entry.key_span), "key");
        let items = entry.value.list().expect("a list");
        assert_eq!(items.iter().map(|i| at(i.span)).collect::<Vec<_>>(), ["val", "\"q\""]);
        assert_eq!(at(entry.value.span), "[val, \"q\"]");
        assert_eq!(at(tree.entry("ä").expect("it is there").value.span), "ö");
    }
}
