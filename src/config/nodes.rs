//! The nodes of a file: each with its defaults merged in, its settings read and checked on their own.

use super::problem::Problems;
use super::read::{Owner, read, spot};
use super::schema::Shape;
use super::tree::{Entry, Span, Tree, Value};
use super::{codes, join, suggest};
use crate::{Code, Exit, Findings, Kind, NodeType, ParsedNode, Registry};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// `type: python` in a binary without Python.
const NO_PYTHON: Code = Code::new("CFG0014", Exit::Usage);
/// The longest name, in bytes: it becomes part of names in other systems.
const MAX_NAME: usize = 63;

/// What a node says it reads.
#[derive(Clone, Debug)]
pub(super) enum Inputs {
    /// Nothing is said.
    Unsaid,
    /// These.
    Said(Vec<Wish>),
    /// Something that was reported.
    Wrong,
}

/// One input, as written.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) text: String,
    pub(super) span: Span,
    pub(super) pointer: String,
    /// It stands for something that is not known.
    pub(super) opaque: bool,
}

/// A node before its links are known.
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) name: Arc<str>,
    pub(super) key: Span,
    pub(super) pointer: String,
    pub(super) type_name: String,
    pub(super) inputs: Inputs,
    pub(super) parsed: Option<Arc<dyn ParsedNode>>,
    /// Names of its outputs; `None` while they are not known.
    pub(super) outputs: Option<Vec<String>>,
    /// Its settings, defaults merged in.
    pub(super) settings: Tree,
}

impl Draft {
    /// The node for messages, such as `sink "raw"`.
    pub(super) fn title(&self) -> String {
        format!("{} \"{}\"", self.kind.noun(), self.name)
    }
}

/// Whether a name may stand in a file.
pub(super) fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A name like `text` that may stand in a file.
pub(crate) fn make_name(text: &str) -> String {
    let mut name: String =
        text.chars().map(|c| c.to_ascii_lowercase()).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(MAX_NAME - 1).collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert(0, 'p');
    }
    name
}

/// Reads every node of the file.
pub(super) fn collect(tree: &Tree, registry: &Registry, problems: &mut Problems) -> Vec<Draft> {
    let mut reader = Reader { registry, problems, shapes: BTreeMap::new() };
    let mut drafts = Vec::new();
    let mut names: HashMap<String, Span> = HashMap::new();
    let defaults = reader.defaults(tree);
    for kind in [Kind::Source, Kind::Operator, Kind::Sink] {
        let section = kind.section();
        let Some(entry) = tree.entry(section) else { continue };
        let Some(entries) = super::pipeline::section(entry, reader.problems) else { continue };
        let under = defaults.iter().find(|(k, _)| *k == kind).map(|(_, tree)| *tree);
        for entry in entries {
            let pointer = join(&format!("/{section}"), &entry.key);
            if !valid_name(&entry.key) {
                let message = format!("{} \"{}\" has a name that cannot be one", kind.noun(), entry.key);
                let help = format!(
                    "names are a-z, 0-9 and _, start with a letter and have at most {MAX_NAME} characters: `{}`",
                    make_name(&entry.key)
                );
                reader.problems.error(codes::NAME, &pointer, entry.key_span, message).help = Some(help);
            }
            if let Some(earlier) = names.get(&entry.key) {
                let message = format!("the name \"{}\" is given to two nodes", entry.key);
                let problem = reader.problems.error(codes::DUPLICATE, &pointer, entry.key_span, message);
                problem.help = Some("sources, operators and sinks share their names".into());
                problem.labels.push((*earlier, "first given here".into()));
                continue;
            }
            names.insert(entry.key.clone(), entry.key_span);
            drafts.push(reader.draft(kind, entry, pointer, under));
        }
    }
    drafts
}

struct Reader<'a> {
    registry: &'a Registry,
    problems: &'a mut Problems,
    shapes: BTreeMap<(Kind, &'static str), Arc<Shape>>,
}

impl<'a> Reader<'a> {
    fn shape(&mut self, node: &NodeType) -> Arc<Shape> {
        Arc::clone(self.shapes.entry((node.kind, node.name)).or_insert_with(|| Arc::new(Shape::of(node))))
    }

    /// The defaults of each kind. A key must be a field of some type of the kind; a type that does not
    /// have it is not given it.
    fn defaults(&mut self, tree: &'a Tree) -> Vec<(Kind, &'a Tree)> {
        let mut found = Vec::new();
        let Some(entries) = tree.entry("defaults").and_then(|entry| super::pipeline::section(entry, self.problems)) else { return found };
        let kinds = [Kind::Source, Kind::Operator, Kind::Sink];
        for entry in entries {
            let pointer = join("/defaults", &entry.key);
            let Some(kind) = kinds.into_iter().find(|k| k.section() == entry.key) else {
                let message = format!("`defaults` has no field `{}`", entry.key);
                let help = suggest::help(&entry.key, kinds.map(Kind::section));
                self.problems.error(codes::UNKNOWN_FIELD, &pointer, entry.key_span, message).help = help;
                continue;
            };
            let Some(fields) = super::pipeline::section(entry, self.problems) else { continue };
            let types: Vec<&NodeType> = self.registry.types().filter(|t| t.kind == kind).collect();
            let shapes: Vec<Arc<Shape>> = types.into_iter().map(|t| self.shape(t)).collect();
            for field in fields {
                let known = shapes.iter().any(|s| Shape::key(&s.options(&[s.root()]), &field.key).is_some());
                if known || shapes.is_empty() {
                    continue;
                }
                self.problems.hidden.push(field.value.span);
                let names: HashSet<&str> = shapes.iter().flat_map(|s| Shape::names(&s.options(&[s.root()]))).collect();
                let mut names: Vec<&str> = names.into_iter().collect();
                names.sort_unstable();
                let message = format!("no {} has a field `{}` to give a default to", kind.noun(), field.key);
                let help = suggest::help(&field.key, names);
                self.problems.error(codes::UNKNOWN_FIELD, &join(&pointer, &field.key), field.key_span, message).help = help;
            }
            found.push((kind, &entry.value));
        }
        found
    }

    fn draft(&mut self, kind: Kind, entry: &Entry, pointer: String, defaults: Option<&Tree>) -> Draft {
        let mut draft = Draft {
            kind,
            name: entry.key.as_str().into(),
            key: entry.key_span,
            pointer,
            type_name: String::new(),
            inputs: Inputs::Unsaid,
            parsed: None,
            outputs: None,
            settings: Tree { span: entry.value.span, value: Value::Map(Vec::new()) },
        };
        let title = draft.title();
        let Value::Map(entries) = &entry.value.value else {
            let message = format!("{title} is {}, not a map of settings", entry.value.noun());
            self.problems.error(codes::VALUE, &draft.pointer, entry.key_span, message).help = Some("start with `type:`".into());
            draft.inputs = Inputs::Wrong;
            return draft;
        };
        if kind != Kind::Source
            && let Some(inputs) = entries.iter().find(|e| e.key == "inputs")
        {
            draft.inputs = self.inputs(&title, &join(&draft.pointer, "inputs"), inputs);
        }
        if kind == Kind::Source
            && let Some(inputs) = entries.iter().find(|e| e.key == "inputs")
        {
            let pointer = join(&draft.pointer, "inputs");
            let help = "rows start at a source: name it in the inputs of an operator or a sink".to_owned();
            self.problems.error(codes::UNKNOWN_FIELD, &pointer, inputs.key_span, format!("{title} has no field `inputs`")).help =
                Some(help);
        }
        let own: Vec<Entry> = entries.iter().filter(|e| e.key != "type" && e.key != "inputs").cloned().collect();
        let own = Tree { span: entry.value.span, value: Value::Map(own) };
        let Some(node) = self.node_type(kind, &title, &draft, entries) else {
            draft.settings = own;
            return draft;
        };
        draft.type_name = node.name.to_owned();
        let shape = self.shape(node);
        let root = shape.options(&[shape.root()]);
        let under =
            defaults.and_then(Tree::map).unwrap_or_default().iter().filter(|e| Shape::key(&root, &e.key).is_some()).cloned().collect();
        let under = Tree { span: own.span, value: Value::Map(under) };
        draft.settings = merge(&under, &own, &shape, &[shape.root()]);
        let beside: &[&str] = if kind == Kind::Source { &["type"] } else { &["type", "inputs"] };
        let owner = Owner { name: &title, pointer: &draft.pointer, span: entry.key_span, beside };
        draft.parsed = read(&draft.settings, &shape, owner, node.parse, self.problems);
        if let Some(parsed) = &draft.parsed {
            let mut findings = Findings::default();
            parsed.check(&mut findings);
            for finding in findings.0 {
                let (span, opaque) = spot(&draft.settings, &finding.pointer, entry.key_span);
                if !opaque {
                    let message = format!("{title}: {}", finding.message);
                    self.problems.error(finding.code, &format!("{}{}", draft.pointer, finding.pointer), span, message).help = finding.help;
                }
            }
            draft.outputs = Some(parsed.outputs());
        }
        draft
    }

    fn node_type(&mut self, kind: Kind, title: &str, draft: &Draft, entries: &[Entry]) -> Option<&'a NodeType> {
        let names = || self.registry.types().filter(|t| t.kind == kind).map(|t| t.name);
        let pointer = join(&draft.pointer, "type");
        let Some(entry) = entries.iter().find(|e| e.key == "type") else {
            let help = suggest::help("", names());
            self.problems.error(codes::UNKNOWN_TYPE, &draft.pointer, draft.key, format!("{title} has no `type`")).help = help;
            return None;
        };
        let span = entry.value.span;
        let Some(scalar) = entry.value.scalar() else {
            let message = format!("the type of {title} is {}, not a word", entry.value.noun());
            self.problems.error(codes::UNKNOWN_TYPE, &pointer, entry.key_span, message).help = suggest::help("", names());
            return None;
        };
        if scalar.opaque {
            // Where variables are looked up, the one that is missing has been said.
            if !self.problems.list.iter().any(|problem| problem.code.id == codes::VARIABLE.id) {
                let message = format!("the type of {title} is a variable's, and variables are not looked up here");
                let help = "write the type out, or check the file where the variable is set".to_owned();
                self.problems.error(codes::UNKNOWN_TYPE, &pointer, span, message).help = Some(help);
            }
            return None;
        }
        if let Some(node) = self.registry.get(kind, &scalar.text) {
            return Some(node);
        }
        if kind == Kind::Operator && scalar.text == "python" {
            let help = "write the operator in Rust (a binary of your own with it in its registry), or leave it out".to_owned();
            self.problems.error(NO_PYTHON, &pointer, span, format!("{title} is of type `python`, and this build has no Python")).help =
                Some(help);
            return None;
        }
        let elsewhere = self.registry.types().find(|t| t.name == scalar.text);
        let help = match elsewhere {
            Some(other) => Some(format!("`{}` is a {}: it belongs under `{}`", other.name, other.kind.noun(), other.kind.section())),
            None => suggest::help(&scalar.text, names()),
        };
        let message = format!("{title} is of type `{}`, which does not exist", scalar.text);
        self.problems.error(codes::UNKNOWN_TYPE, &pointer, span, message).help = help;
        None
    }

    fn inputs(&mut self, title: &str, pointer: &str, entry: &Entry) -> Inputs {
        let wrong = |span: Span, pointer: &str, noun: &str, help: String, problems: &mut Problems| {
            problems.error(codes::VALUE, pointer, span, format!("the inputs of {title} are a list of names, not {noun}")).help = Some(help);
            Inputs::Wrong
        };
        let Value::List(items) = &entry.value.value else {
            let help = match entry.value.scalar() {
                Some(scalar) if !entry.value.is_null() => format!("write inputs: [{}]", scalar.text),
                _ => "write inputs: [name]".into(),
            };
            return wrong(entry.value.span, pointer, entry.value.noun(), help, self.problems);
        };
        let mut wishes: Vec<Wish> = Vec::new();
        let mut seen = HashSet::new();
        for (at, item) in items.iter().enumerate() {
            let pointer = join(pointer, &at.to_string());
            let Some(scalar) = item.scalar() else {
                return wrong(item.span, &pointer, item.noun(), "write inputs: [name]".into(), self.problems);
            };
            if !seen.insert(scalar.text.as_str()) {
                let message = format!("{title} lists the input \"{}\" twice", scalar.text);
                self.problems.error(codes::DUPLICATE, &pointer, item.span, message).help = Some("every row would come twice".into());
                continue;
            }
            wishes.push(Wish { text: scalar.text.clone(), span: item.span, pointer, opaque: scalar.opaque });
        }
        Inputs::Said(wishes)
    }
}

/// Lays `over` over `under`: maps merge, everything else, and a secret as a whole, is replaced.
fn merge(under: &Tree, over: &Tree, shape: &Shape, schemas: &[&serde_json::Value]) -> Tree {
    let options = shape.options(schemas);
    let (Value::Map(low), Value::Map(high)) = (&under.value, &over.value) else { return over.clone() };
    if Shape::is_secret(&options) {
        return over.clone();
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(low.len() + high.len());
    for entry in high {
        let value = match low.iter().find(|e| e.key == entry.key) {
            Some(below) => merge(&below.value, &entry.value, shape, &Shape::key(&options, &entry.key).unwrap_or_default()),
            None => entry.value.clone(),
        };
        entries.push(Entry { value, ..entry.clone() });
    }
    entries.extend(low.iter().filter(|e| !high.iter().any(|h| h.key == e.key)).cloned());
    Tree { span: over.span, value: Value::Map(entries) }
}
