//! A pipeline file as a tree, in which every key and value knows where it stands.

use super::scalar::resolve;

/// A part of the text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// A scalar, not yet interpreted.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// Its text, after escapes and interpolation.
    pub(super) text: String,
    /// Written without quotes: the core schema decides what it is.
    pub(super) plain: bool,
    /// The text before interpolation, if there was something to interpolate.
    pub(super) raw: Option<String>,
    /// Its value is not known: a placeholder that was left alone, or has no value.
    pub(super) opaque: bool,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Tree,
}

impl Tree {
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        if let Value::Scalar(scalar) = &self.value { Some(scalar) } else { None }
    }

    pub(super) fn map(&self) -> Option<&[Entry]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Self]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    /// The entry of a key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.map()?.iter().find(|entry| entry.key == key)
    }

    /// Whether it is what YAML calls null: empty, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        self.scalar().is_some_and(|s| s.plain && s.raw.is_none() && resolve(&s.text).is_null())
    }

    /// The word for messages.
    pub(super) fn noun(&self) -> &'static str {
        match &self.value {
            Value::Scalar(_) if self.is_null() => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// How many values it has, itself included, and how deep they nest.
    pub(super) fn size(&self) -> (usize, usize) {
        let children: Vec<&Self> = match &self.value {
            Value::Scalar(_) => return (1, 1),
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => entries.iter().map(|e| &e.value).collect(),
        };
        children.into_iter().map(Self::size).fold((1, 1), |(n, depth), (m, d)| (n + m, depth.max(d + 1)))
    }
}
