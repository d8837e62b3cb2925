//! What every node must keep to, built in or your own, as a test.
//!
//! ```text
//! example ──> settings, schema
//! Subject ──┼──> operator: rows at times through the engine's own operators; replayed from every point
//!           ├──> sink:     deliveries; replayed after a crash
//!           └──> source:   run, crashed, run again
//! ```
//!
//! # Guarantees
//! A node that breaks a property named in [`Property`] on the rows it is given is told so. Rows are made from a seed that
//! never changes. Nothing here waits for a clock but the deadline after which a source or a sink counts as stuck.

mod operator;
mod settings;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use super::flow::PATIENCE;
use super::rows;
use crate::{BuildContext, Kind, NodeType, Peers, Registry, TableSchema, Token};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Stands where a secret would: nothing of the environment or the disk is read.
const STAND_IN: &str = "a secret that stands in for another one";

/// What a node must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Its example builds, alone and in a pipeline file; a setting that it does not have is refused; every setting says what
    /// it is.
    Settings,
    /// Rows are taken as they come: no error and no panic.
    Rows,
    /// An operator says of a table, each time alike, what leaves; and that is what leaves. The schema goes through JSON and
    /// back.
    Schema,
    /// Rows keep their tokens and, in each table and output, their order. None is made up, none comes twice.
    Order,
    /// No row lies before a time that has passed, and time passes: a row is not withheld for good, nor a delivery's
    /// acknowledgement, nor is one given before the row is there.
    Frontier,
    /// Marks leave by every output, where they stood between the rows.
    Marks,
    /// A batch of no rows is nothing.
    Empty,
    /// Rows of nulls are rows.
    Nulls,
    /// A value that PostgreSQL did not send stays unsent; it is never filled in. Refusing the row is no breach.
    Unchanged,
    /// From any point, with batches cut in other places, the same rows come out, each once.
    Replay,
    /// Rows are counted.
    Metrics,
}

/// A property that a node did not keep to.
#[derive(Clone, Debug)]
pub struct Breach {
    /// Which.
    pub property: Property,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.what)
    }
}

/// Breaches so far.
#[derive(Debug, Default)]
struct Breaches(Vec<Breach>);

impl Breaches {
    fn add(&mut self, property: Property, what: impl Into<String>) {
        self.0.push(Breach { property, what: what.into() });
    }

    fn unless(&mut self, kept: bool, property: Property, what: impl FnOnce() -> String) {
        if !kept {
            self.add(property, what());
        }
    }
}

/// What a place holds of each table, by `schema.table`, in its order.
pub type Held = BTreeMap<String, Vec<Token>>;

/// A node type under test, and what it is tested with.
pub struct Subject<'a> {
    registry: &'a Registry,
    node: &'a NodeType,
    settings: Result<Value, String>,
    folder: PathBuf,
    tables: Vec<Arc<TableSchema>>,
    held: Option<Arc<dyn Fn() -> Held + Send + Sync>>,
    changes: Option<Box<dyn Fn() + Send + Sync + 'a>>,
    observes: bool,
    patience: Duration,
}

impl<'a> Subject<'a> {
    /// A type of the registry, with its example's settings; a secret of the example stands as text.
    ///
    /// # Panics
    /// When the registry has no such type.
    #[must_use]
    pub fn of(registry: &'a Registry, kind: Kind, name: &str) -> Self {
        let node = registry.get(kind, name).unwrap_or_else(|| panic!("the registry has no {} `{name}`", kind.noun()));
        let settings = crate::config::node_settings(node, node.example).map_err(|problems| {
            let all: Vec<String> = problems.list.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect();
            all.join("; ")
        });
        let settings = settings.map(|mut settings| {
            stand_in(&mut settings);
            settings
        });
        let (folder, tables) = (std::env::temp_dir(), rows::tables());
        Self { registry, node, settings, folder, tables, held: None, changes: None, observes: false, patience: PATIENCE }
    }

    /// Sets a setting, by its name at the top; null takes it away.
    #[must_use]
    pub fn set(mut self, setting: &str, value: Value) -> Self {
        if let Ok(Value::Object(settings)) = &mut self.settings {
            if value.is_null() { drop(settings.remove(setting)) } else { drop(settings.insert(setting.to_owned(), value)) }
        }
        self
    }

    /// The folder of the pipeline file. Default: the system's for temporary files.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// The tables whose rows it is given. Default: [`rows::tables`].
    #[must_use]
    pub fn tables(mut self, tables: Vec<Arc<TableSchema>>) -> Self {
        self.tables = tables;
        self
    }

    /// Reads back what a sink holds. With it, every row must be there once, in order, before it is acknowledged, and after a
    /// crash too; without it a sink may hold rows twice. Called outside of any tokio runtime.
    #[must_use]
    pub fn held(mut self, held: impl Fn() -> Held + Send + Sync + 'static) -> Self {
        self.held = Some(Arc::new(held));
        self
    }

    /// Makes rows for a source that waits for them. Called outside of any tokio runtime.
    #[must_use]
    pub fn changes(mut self, changes: impl Fn() + Send + Sync + 'a) -> Self {
        self.changes = Some(Box::new(changes));
        self
    }

    /// The source's rows are what it sees at the moment, so that none comes again after a crash.
    #[must_use]
    pub fn observes(mut self) -> Self {
        self.observes = true;
        self
    }

    /// How long an operator over the stream may take for what it does elsewhere. Default: [`PATIENCE`].
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Every property that it does not keep to.
    #[must_use]
    pub fn breaches(&self) -> Vec<Breach> {
        let mut breaches = Breaches::default();
        let settings = match &self.settings {
            Ok(settings) => settings,
            Err(problems) => {
                breaches.add(Property::Settings, format!("the example is wrong: {problems}"));
                return breaches.0;
            }
        };
        if let Some(parsed) = settings::check(self, settings, &mut breaches) {
            match self.node.kind {
                Kind::Operator => operator::check(self, &*parsed, &mut breaches),
                Kind::Sink => sink::check(self, &*parsed, &mut breaches),
                Kind::Source => source::check(self, &*parsed, &mut breaches),
            }
        }
        breaches.0
    }

    /// Asserts that it keeps to every property.
    ///
    /// # Panics
    /// With what it does not keep to.
    pub fn comply(&self) {
        let breaches: Vec<String> = self.breaches().iter().map(ToString::to_string).collect();
        assert!(breaches.is_empty(), "{} `{}`:\n{}", self.node.kind.noun(), self.node.name, breaches.join("\n"));
    }

    fn context(&self) -> BuildContext {
        BuildContext {
            pipeline: "test".into(),
            node: super::flow::NODE.into(),
            folder: self.folder.clone().into(),
            peers: Peers::default(),
        }
    }
}

/// Puts text where a secret is read from elsewhere.
fn stand_in(settings: &mut Value) {
    match settings {
        Value::Object(map) => {
            let is_secret = map.len() == 1 && map.keys().all(|key| ["env", "file", "command"].contains(&key.as_str()));
            if is_secret { *settings = json!({ "plain": STAND_IN }) } else { map.values_mut().for_each(stand_in) }
        }
        Value::Array(items) => items.iter_mut().for_each(stand_in),
        _ => {}
    }
}

/// What a node counts, while something runs.
fn counted<R>(run: impl FnOnce() -> R) -> (R, String) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let result = metrics::with_local_recorder(&recorder, run);
    (result, recorder.handle().render())
}

/// The sum of a counter's values that have a label.
fn sum(page: &str, name: &str, label: &str) -> u64 {
    let of_it = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
