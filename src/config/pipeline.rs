//! The file's top level, and its parts put together to a graph.

use super::nodes::{self, Draft};
use super::problem::Problems;
use super::read::{Owner, read};
use super::scalar::resolve;
use super::schema::Shape;
use super::settings::{AlertSettings, EngineSettings, NotifierSettings, ServerSettings, StateSettings, StateType};
use super::tree::{Entry, Span, Tree, Value};
use super::{alerts, codes, effective, join, links, suggest};
use crate::Registry;
use crate::checkpoint::StateAt;
use crate::graph::{Graph, Input, Node};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The keys of the top level.
pub(super) const KEYS: [&str; 11] =
    ["version", "name", "engine", "state", "server", "defaults", "sources", "operators", "sinks", "alerts", "notifiers"];

/// Everything of a file that is not a node.
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) engine: EngineSettings,
    pub(super) state: StateSettings,
    pub(super) server: Option<ServerSettings>,
    pub(super) alerts: BTreeMap<String, AlertSettings>,
    pub(super) notifiers: BTreeMap<String, NotifierSettings>,
}

/// The map of a section; nothing written is an empty one.
pub(super) fn section<'t>(entry: &'t Entry, problems: &mut Problems) -> Option<&'t [Entry]> {
    if entry.value.is_null() {
        return Some(&[]);
    }
    let entries = entry.value.map();
    if entries.is_none() {
        let message = format!("`{}` is a map, not {}", entry.key, entry.value.noun());
        problems.error(codes::VALUE, &join("", &entry.key), entry.key_span, message);
    }
    entries
}

/// Checks everything, and makes the graph as far as that goes.
pub(super) fn build(tree: &Tree, path: &Path, registry: &Registry, problems: &mut Problems) -> (Option<Graph>, Option<String>) {
    let Value::Map(entries) = &tree.value else {
        let message = format!("a pipeline file is a map, not {}", tree.noun());
        problems.error(codes::VALUE, "", tree.span, message).help = Some(format!("its keys are {}", KEYS.join(", ")));
        return (None, None);
    };
    for entry in entries.iter().filter(|e| !KEYS.contains(&e.key.as_str())) {
        problems.hidden.push(entry.value.span);
        let message = format!("a pipeline has no field `{}`", entry.key);
        problems.error(codes::UNKNOWN_FIELD, &join("", &entry.key), entry.key_span, message).help = suggest::help(&entry.key, KEYS);
    }
    let settings = settings(tree, path, problems);
    let drafts = nodes::collect(tree, registry, problems);
    alerts::check(tree, &settings, &drafts, problems);
    for (kind, noun) in [(crate::Kind::Source, "sources"), (crate::Kind::Sink, "sinks")] {
        let written = tree.entry(noun).is_some_and(|e| e.value.map().is_some_and(|m| !m.is_empty()));
        if !written && !drafts.iter().any(|d| d.kind == kind) {
            let span = tree.entry(noun).map_or(Span { start: tree.span.start, end: tree.span.start }, |e| e.key_span);
            let message = format!("the pipeline has no {noun}");
            problems.error(codes::NOTHING_TO_DO, &join("", noun), span, message).help = Some(format!("add one under `{noun}:`"));
        }
    }
    let edges = links::resolve(&drafts, problems);
    let shown = effective::write(tree, &settings, &drafts, &edges, &problems.hidden);
    let graph = if problems.errors() == 0 { assemble(settings, drafts, &edges, path) } else { None };
    (graph, Some(shown))
}

fn settings(tree: &Tree, path: &Path, problems: &mut Problems) -> Settings {
    if let Some(entry) = tree.entry("version")
        && entry.value.scalar().is_none_or(|s| !s.opaque && resolve(&s.text) != 1)
    {
        let message = "`version` is 1, the only version there is";
        problems.error(codes::VALUE, "/version", entry.key_span, message).help = Some("leave it out, or write version: 1".into());
    }
    let name = name(tree, path, problems);
    let (engine, server) = (engine(tree, problems), server(tree, problems));
    let state = state(tree, problems);
    let notifiers: BTreeMap<String, NotifierSettings> = named(tree, "notifiers", "notifier", problems);
    let alerts: BTreeMap<String, AlertSettings> = named(tree, "alerts", "alert", problems);
    Settings { name, engine, state, server, alerts, notifiers }
}

/// Where its state is; what belongs to the other kind is refused.
fn state(tree: &Tree, problems: &mut Problems) -> StateSettings {
    let state: StateSettings = part(tree, "state", problems).unwrap_or_default();
    let Some(entry) = tree.entry("state") else { return state };
    let (kind, strays) = match state.kind {
        StateType::Sqlite => ("sqlite", [("url", state.url.is_some()), ("schema", state.schema.is_some())]),
        StateType::Postgres => ("postgres", [("path", state.path.is_some()), ("schema", state.schema.as_deref() == Some(""))]),
    };
    for (field, _) in strays.into_iter().filter(|(_, stray)| *stray) {
        let span = entry.value.entry(field).map_or(entry.key_span, |e| e.value.span);
        problems.error(codes::VALUE, &format!("/state/{field}"), span, format!("state of type {kind} has no such `{field}`"));
    }
    if state.kind == StateType::Postgres && state.url.as_ref().is_none_or(|url| url.forms() != 1) {
        problems.error(codes::MISSING_FIELD, "/state/url", entry.key_span, "state of type postgres needs a `url`").help =
            Some("write url: { env: NAME }, { file: PATH } or { command: [argv] }".into());
    }
    state
}

/// How it runs.
pub(super) fn engine(tree: &Tree, problems: &mut Problems) -> EngineSettings {
    let engine: EngineSettings = part(tree, "engine", problems).unwrap_or_default();
    if let Some(entry) = tree.entry("engine") {
        let mut check = |right: bool, field: &str, form: &str| {
            if !right {
                let span = entry.value.entry(field).map_or(entry.key_span, |e| e.value.span);
                problems.error(codes::VALUE, &format!("/engine/{field}"), span, format!("`{field}` of engine is {form}"));
            }
        };
        let mib = |bytes: u64| bytes >> 20;
        check((1..=1024).contains(&engine.workers), "workers", "from 1 to 1024");
        check((1..4096).contains(&mib(engine.source_credit.0)), "source_credit", "from 1MiB to under 4GiB");
        check((1..=1 << 20).contains(&mib(engine.credit.0)), "credit", "from 1MiB to 1TiB");
        for field in engine.connections.out_of_range() {
            let connections = entry.value.entry("connections");
            let span = connections.and_then(|c| c.value.entry(field)).map_or(entry.key_span, |e| e.value.span);
            let message = format!("`connections.{field}` of engine is from 1 to 100000");
            problems.error(codes::VALUE, &format!("/engine/connections/{field}"), span, message);
        }
    }
    engine
}

/// Where the server listens.
pub(super) fn server(tree: &Tree, problems: &mut Problems) -> Option<ServerSettings> {
    match tree.entry("server") {
        Some(entry) if entry.value.scalar().is_some_and(|s| s.text == "none") => None,
        Some(_) => part(tree, "server", problems),
        None => Some(ServerSettings::default()),
    }
}

/// The pipeline's name: written, or the file's stem made into one.
fn name(tree: &Tree, path: &Path, problems: &mut Problems) -> String {
    let stem = || nodes::make_name(&path.file_stem().map_or_else(|| "pipeline".into(), |s| s.to_string_lossy()));
    let Some(entry) = tree.entry("name") else { return stem() };
    match entry.value.scalar() {
        Some(scalar) if scalar.opaque => stem(),
        Some(scalar) if nodes::valid_name(&scalar.text.replace('-', "_")) => scalar.text.clone(),
        _ => {
            let help = "names are a-z, 0-9, _ and -, start with a letter and have at most 63 characters";
            problems.error(codes::NAME, "/name", entry.value.span, "the pipeline has a name that cannot be one").help = Some(help.into());
            stem()
        }
    }
}

/// One part of the file, such as `engine`.
fn part<T: DeserializeOwned + JsonSchema>(tree: &Tree, key: &str, problems: &mut Problems) -> Option<T> {
    let entry = tree.entry(key).filter(|e| !e.value.is_null())?;
    let owner = Owner { name: key, pointer: &join("", key), span: entry.key_span, beside: &[] };
    read(&entry.value, &Shape::of_type::<T>(), owner, serde_path_to_error::deserialize, problems)
}

/// A map of named things, such as `alerts`.
fn named<T: DeserializeOwned + JsonSchema>(tree: &Tree, key: &str, noun: &str, problems: &mut Problems) -> BTreeMap<String, T> {
    let Some(entries) = tree.entry(key).and_then(|entry| section(entry, problems)) else { return BTreeMap::new() };
    let shape = Shape::of_type::<T>();
    let mut found = BTreeMap::new();
    for entry in entries {
        let pointer = join(&join("", key), &entry.key);
        let name = format!("{noun} \"{}\"", entry.key);
        if !nodes::valid_name(&entry.key) {
            let help = format!("write `{}`", nodes::make_name(&entry.key));
            problems.error(codes::NAME, &pointer, entry.key_span, format!("{name} has a name that cannot be one")).help = Some(help);
        }
        let owner = Owner { name: &name, pointer: &pointer, span: entry.key_span, beside: &[] };
        if let Some(value) = read(&entry.value, &shape, owner, serde_path_to_error::deserialize, problems) {
            found.insert(entry.key.clone(), value);
        }
    }
    found
}

/// The graph of drafts without errors. `None` when a setting is not known yet (`--no-env`).
fn assemble(settings: Settings, mut drafts: Vec<Draft>, edges: &[Vec<links::Edge>], path: &Path) -> Option<Graph> {
    let order = links::order(edges);
    let mut place = vec![0; drafts.len()];
    for (at, node) in order.iter().enumerate() {
        *place.get_mut(*node)? = at;
    }
    let mut graph = Vec::with_capacity(order.len());
    for at in order {
        let draft = drafts.get_mut(at)?;
        let inputs = edges.get(at)?.iter().map(|e| Some(Input { node: *place.get(e.node)?, output: e.output })).collect::<Option<_>>()?;
        graph.push(Node {
            name: Arc::clone(&draft.name),
            kind: draft.kind,
            type_name: std::mem::take(&mut draft.type_name).into(),
            parsed: draft.parsed.take()?,
            inputs,
            outputs: draft.outputs.take()?,
        });
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let sources = graph.iter().filter(|node| node.kind == crate::Kind::Source);
    let peers = crate::Peers::new(sources.map(|node| (Arc::clone(&node.name), Arc::clone(&node.parsed))));
    let folder: Arc<Path> = folder.into();
    let StateSettings { path: file, url, schema, .. } = settings.state;
    let state = match url {
        Some(url) => StateAt::Postgres { url, schema: schema.unwrap_or_else(|| "etl_stream".into()), folder: Arc::clone(&folder) },
        None => StateAt::Sqlite(folder.join(file.unwrap_or_else(|| format!(".etl-stream/{}.db", settings.name).into()))),
    };
    Some(Graph {
        pipeline: settings.name.into(),
        folder,
        peers,
        nodes: graph,
        engine: settings.engine,
        state,
        server: settings.server,
        alerts: settings.alerts,
        notifiers: settings.notifiers,
    })
}
