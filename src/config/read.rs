//! A tree of settings to a typed value, with every problem on the way.
//!
//! ```text
//! Tree ──schema walk──> JSON ──serde──> T ──check──> T
//!          unknown keys     values          what types cannot say
//!          missing keys
//!          secrets
//! ```
//! What the walk has reported is left out of the JSON, so serde does not stop at it; what serde stops at is
//! reported and left out, and it is asked again. So one run finds what there is to find.

use super::problem::Problems;
use super::scalar::resolve;
use super::schema::Shape;
use super::tree::{Entry, Scalar, Span, Tree, Value};
use super::{codes, join, suggest};
use serde_json::{Map, Value as Json};
use serde_path_to_error::{Error, Path, Segment};

/// How often serde is asked again.
const MAX_ROUNDS: usize = 64;

/// Whose settings are read: where they stand and how messages name them.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Such as `sink "raw"`.
    pub(super) name: &'a str,
    /// Where they stand in the file.
    pub(super) pointer: &'a str,
    /// What to underline for what is not there.
    pub(super) span: Span,
    /// Keys that stand beside the settings and are read by someone else.
    pub(super) beside: &'a [&'a str],
}

/// Reads settings; `None` when something is wrong with them or not known yet.
pub(super) fn read<T>(
    tree: &Tree,
    shape: &Shape,
    owner: Owner<'_>,
    parse: impl Fn(Json) -> Result<T, Error<serde_json::Error>>,
    problems: &mut Problems,
) -> Option<T> {
    let before = problems.errors();
    let mut walk = Walk { shape, owner, problems, missing: Vec::new() };
    let mut json = walk.value(tree, &[shape.root()], &mut Vec::new(), owner.span);
    let missing = walk.missing;
    let mut removed: Vec<Vec<String>> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let error = match parse(json.clone()) {
            Ok(value) => return (problems.errors() == before && removed.is_empty()).then_some(value),
            Err(error) => error,
        };
        let path = steps(error.path());
        let message = error.inner().to_string();
        let echo = message.starts_with("missing field")
            && (removed.iter().any(|r| r.starts_with(&path)) || missing.iter().any(|m| m.starts_with(&path)));
        let (found, key) = locate(tree, &path);
        if !echo && !found.is_some_and(opaque) {
            report(tree, shape, owner, &path, &message, found, key, problems);
        }
        if !remove(&mut json, &path) {
            return None;
        }
        removed.push(path);
    }
    None
}

/// Says what serde said, where it said it.
#[expect(clippy::too_many_arguments, reason = "one caller; a struct would only rename them")]
fn report(
    tree: &Tree,
    shape: &Shape,
    owner: Owner<'_>,
    path: &[String],
    message: &str,
    found: Option<&Tree>,
    key: Option<Span>,
    problems: &mut Problems,
) {
    let options = shape.at(path);
    let mut message = message.to_owned();
    let scalar = found.and_then(Tree::scalar);
    if let Some(Scalar { text, raw: Some(raw), .. }) = scalar
        && !text.is_empty()
    {
        // The environment's values stay in the environment.
        message = message.replace(text.as_str(), raw);
    }
    if let Some(at) = message.find("expected struct ") {
        message.truncate(at);
        message.push_str("expected a map of settings");
    }
    let help = if message.starts_with("unknown variant") {
        suggest::help(scalar.map_or("", |s| &s.text), Shape::words(&options))
    } else if let Some(form) = Shape::form(&options) {
        Some(form.to_owned())
    } else if message.contains("expected a string") && found.is_some_and(|t| t.scalar().is_some() && !t.is_null()) {
        Some("put it in quotes".into())
    } else if message.contains("expected a boolean") {
        Some("write true or false".into())
    } else {
        None
    };
    let place = if path.is_empty() { owner.name.to_owned() } else { format!("`{}` of {}", path.join("."), owner.name) };
    let mut pointer = owner.pointer.to_owned();
    for step in path {
        pointer = join(&pointer, step);
    }
    let span = if path.is_empty() {
        owner.span
    } else {
        found.map_or(tree.span, |t| if t.scalar().is_some() { t.span } else { key.unwrap_or(t.span) })
    };
    problems.error(codes::VALUE, &pointer, span, format!("{place}: {message}")).help = help;
}

struct Walk<'a> {
    shape: &'a Shape,
    owner: Owner<'a>,
    problems: &'a mut Problems,
    missing: Vec<Vec<String>>,
}

impl<'a> Walk<'a> {
    fn pointer(&self, path: &[String]) -> String {
        path.iter().fold(self.owner.pointer.to_owned(), |pointer, step| join(&pointer, step))
    }

    fn place(&self, path: &[String]) -> String {
        if path.is_empty() { self.owner.name.to_owned() } else { format!("`{}` of {}", path.join("."), self.owner.name) }
    }

    /// The JSON of a value. `key` is what names it in the file.
    fn value(&mut self, tree: &Tree, schemas: &[&'a Json], path: &mut Vec<String>, key: Span) -> Json {
        let options = self.shape.options(schemas);
        if Shape::is_secret(&options) && !(tree.is_null() && Shape::allows(&options, "null")) {
            return self.secret(tree, &options, path, key);
        }
        match &tree.value {
            Value::Scalar(scalar) => self::scalar(scalar, &options),
            Value::List(items) => {
                let inner = Shape::items(&options);
                let mut list = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    path.push(at.to_string());
                    list.push(self.value(item, &inner, path, item.span));
                    path.pop();
                }
                list.into()
            }
            Value::Map(entries) => self.map(entries, &options, path, key),
        }
    }

    fn map(&mut self, entries: &[Entry], options: &[&'a Map<String, Json>], path: &mut Vec<String>, key: Span) -> Json {
        let mut map = Map::new();
        for entry in entries {
            match Shape::key(options, &entry.key) {
                Some(inner) => {
                    path.push(entry.key.clone());
                    let value = self.value(&entry.value, &inner, path, entry.key_span);
                    path.pop();
                    map.insert(entry.key.clone(), value);
                }
                None => self.unknown(entry, options, path),
            }
        }
        for name in Shape::required(options) {
            if !entries.iter().any(|entry| entry.key == name) {
                let message = format!("{} needs `{name}`", self.place(path));
                let about = Shape::key(options, name).and_then(|s| s.first()?.get("description")?.as_str().map(str::to_owned));
                self.problems.error(codes::MISSING_FIELD, &self.pointer(path), key, message).help = about;
                path.push(name.to_owned());
                self.missing.push(path.clone());
                path.pop();
            }
        }
        map.into()
    }

    fn unknown(&mut self, entry: &Entry, options: &[&'a Map<String, Json>], path: &[String]) {
        // A misspelt secret is still a secret.
        self.problems.hidden.push(entry.value.span);
        let message = format!("{} has no field `{}`", self.place(path), entry.key);
        let pointer = join(&self.pointer(path), &entry.key);
        let beside = if path.is_empty() { self.owner.beside } else { &[] };
        let help = suggest::help(&entry.key, Shape::names(options).into_iter().chain(beside.iter().copied()));
        self.problems.error(codes::UNKNOWN_FIELD, &pointer, entry.key_span, message).help = help;
    }

    /// A secret, its form checked. Wrong ones are replaced: serde's words would quote them.
    fn secret(&mut self, tree: &Tree, options: &[&'a Map<String, Json>], path: &mut Vec<String>, key: Span) -> Json {
        const FORMS: [&str; 4] = ["env", "file", "command", "plain"];
        let stand_in = serde_json::json!({ "env": "NAME" });
        let three = "write { env: NAME }, { file: PATH } or { command: [program, argument] }";
        let place = self.place(path);
        let pointer = self.pointer(path);
        let Value::Map(entries) = &tree.value else {
            self.problems.hidden.push(tree.span);
            let raw = tree.scalar().and_then(|s| s.raw.as_deref().or_else(|| s.opaque.then_some(s.text.as_str())));
            let name = raw
                .and_then(|r| r.strip_prefix("${")?.strip_suffix('}'))
                .filter(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            let help = name.map_or_else(|| three.to_owned(), |name| format!("write {{ env: {name} }}"));
            let message = format!("{place} is a secret, and a secret is not written into the file");
            self.problems.error(codes::SECRET_FORM, &pointer, key, message).help = Some(help);
            return stand_in;
        };
        let before = self.problems.errors();
        let mut map = Map::new();
        for entry in entries {
            if !FORMS.contains(&entry.key.as_str()) {
                self.unknown(entry, options, path);
                continue;
            }
            if entry.key == "plain" {
                self.problems.hidden.push(entry.value.span);
                let text = entry.value.scalar().map(|s| Json::from(s.text.clone()));
                if text.is_none() {
                    let message = format!("{place}: `plain` takes one text, not {}", entry.value.noun());
                    self.problems.error(codes::SECRET_FORM, &pointer, entry.key_span, message).help = Some(three.into());
                }
                map.insert("plain".into(), text.unwrap_or_default());
                continue;
            }
            path.push(entry.key.clone());
            let inner = Shape::key(options, &entry.key).unwrap_or_default();
            let value = self.value(&entry.value, &inner, path, entry.key_span);
            path.pop();
            map.insert(entry.key.clone(), value);
        }
        if self.problems.errors() > before {
            return stand_in;
        }
        if map.len() != 1 {
            let message = format!("{place} needs exactly one of env, file and command");
            self.problems.error(codes::SECRET_FORM, &pointer, key, message).help = Some(three.into());
            return stand_in;
        }
        if map.contains_key("plain") {
            let message = format!("{place} is written into the file");
            self.problems.warning(codes::PLAIN_SECRET, &pointer, key, message).help = Some(three.into());
        }
        map.into()
    }
}

/// The JSON of a scalar. What came from the environment is text, and becomes what its field holds.
fn scalar(scalar: &Scalar, options: &[&Map<String, Json>]) -> Json {
    if scalar.raw.is_some() {
        let value = resolve(&scalar.text);
        let fits = match &value {
            Json::Bool(_) => Shape::allows(options, "boolean"),
            Json::Number(n) => Shape::allows(options, if n.is_f64() { "number" } else { "integer" }),
            _ => false,
        };
        return if fits && !Shape::allows(options, "string") { value } else { scalar.text.clone().into() };
    }
    if scalar.plain { resolve(&scalar.text) } else { scalar.text.clone().into() }
}

/// Whether some of the value is not known yet.
fn opaque(tree: &Tree) -> bool {
    match &tree.value {
        Value::Scalar(scalar) => scalar.opaque,
        Value::List(items) => items.iter().any(opaque),
        Value::Map(entries) => entries.iter().any(|e| opaque(&e.value)),
    }
}

fn steps(path: &Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

/// The value at a path, as far as the path leads, and the key that names it.
fn locate<'t>(tree: &'t Tree, path: &[String]) -> (Option<&'t Tree>, Option<Span>) {
    let (mut at, mut key) = (tree, None);
    for step in path {
        match &at.value {
            Value::Map(entries) => match entries.iter().find(|e| e.key == *step) {
                Some(entry) => (at, key) = (&entry.value, Some(entry.key_span)),
                None => break,
            },
            Value::List(items) => match step.parse::<usize>().ok().and_then(|i| items.get(i)) {
                Some(item) => (at, key) = (item, Some(item.span)),
                None => break,
            },
            Value::Scalar(_) => break,
        }
    }
    (Some(at), key)
}

/// The value that a relative pointer of a node's own check names, or the nearest around it.
pub(super) fn spot(tree: &Tree, pointer: &str, otherwise: Span) -> (Span, bool) {
    let path: Vec<String> = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let (found, key) = locate(tree, &path);
    match (found, key) {
        (Some(found), Some(key)) => (if found.scalar().is_some() { found.span } else { key }, opaque(found)),
        _ => (otherwise, false),
    }
}

/// Takes out what stands at a path: its key, or the whole list it is an item of, so that the places of the
/// other items stay true.
fn remove(json: &mut Json, path: &[String]) -> bool {
    for length in (1..=path.len()).rev() {
        let Some((last, parents)) = path.get(..length).and_then(<[String]>::split_last) else { return false };
        let mut at = Some(&mut *json);
        for step in parents {
            at = at.and_then(|value| match value {
                Json::Object(map) => map.get_mut(step),
                Json::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
                _ => None,
            });
        }
        if let Some(Json::Object(map)) = at
            && map.shift_remove(last).is_some()
        {
            return true;
        }
    }
    false
}
