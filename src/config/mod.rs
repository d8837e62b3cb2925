//! A pipeline file to a checked graph, or every problem the file has.
//!
//! ```text
//! text ──document──> Tree ──interpolate──> Tree ──nodes──> drafts ──links──> Graph
//!                                            │   (defaults merged, each node's schema
//!                                            │    walked, parsed and checked)
//!                                            └──settings──> engine, state, server, alerts
//! ```
//! # Guarantees
//! No network, and no file but the one named. All problems come out of one run, each with its code, its
//! JSON pointer, line and column. A graph comes out only when there is no error. Text from outside never
//! panics, and no secret is shown.

mod alerts;
mod codes;
mod document;
mod effective;
mod interpolate;
mod links;
pub(crate) mod nodes;
mod pipeline;
mod problem;
mod process;
mod read;
mod report;
mod scalar;
mod schema;
mod settings;
pub(crate) mod suggest;
mod tree;
mod when;

#[cfg(test)]
#[expect(dead_code, reason = "settings of tests are read, not used")]
mod dummies;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

pub use problem::{Problem, Problems, Severity};
pub use process::{Process, load_process};
pub use report::Drawing;
pub use settings::{
    AlertSettings, AlertSeverity, EngineSettings, NotifierSettings, NotifierType, PayloadFormat, ServerSettings, StateSettings, StateType,
};
pub use tree::Span;
pub use when::{Comparison, METRICS, Metric, Reading, SubjectKind, Unit, When};

pub(crate) use schema::Shape;
pub(crate) use suggest::help as suggestion;

#[cfg(test)]
pub(crate) use dummies::registry as dummy_registry;

use crate::graph::Graph;
use crate::{NodeType, Registry};
use std::io::Read;
use std::path::Path;

/// Where `${NAME}` comes from.
pub enum Environment<'a> {
    /// Values by name.
    Lookup(&'a dyn Fn(&str) -> Option<String>),
    /// Nowhere: placeholders are left alone and everything else is checked.
    Opaque,
}

/// A file that was read.
pub struct Loaded {
    /// What is wrong with it.
    pub problems: Problems,
    /// The graph, when nothing is.
    pub graph: Option<Graph>,
    /// The file with its defaults merged into the nodes, secrets left out, as YAML.
    pub effective: Option<String>,
}

/// Reads a pipeline file.
#[must_use]
pub fn load(path: &Path, registry: &Registry, environment: &Environment<'_>) -> Loaded {
    let file = path.display().to_string();
    let failed = |message: String, help: Option<String>| {
        let mut problems = Problems::new(&file, "");
        problems.error(codes::SYNTAX, "", Span::default(), message).help = help;
        Loaded { problems, graph: None, effective: None }
    };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(document::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = (error.kind() == std::io::ErrorKind::NotFound).then(|| "name the pipeline file, or write pipeline.yaml here".to_owned());
        return failed(format!("pipeline file \"{file}\" was not read: {error}"), help);
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
            return failed(format!("pipeline file \"{file}\" is not UTF-8 in line {line}"), None);
        }
    };
    parse(&file, &text, path, registry, environment)
}

/// Reads the text of a pipeline file. `path` gives the pipeline its name and relative paths their folder.
#[must_use]
pub fn parse(file: &str, text: &str, path: &Path, registry: &Registry, environment: &Environment<'_>) -> Loaded {
    let mut problems = Problems::new(file, text);
    let (tree, faults) = document::parse(text);
    for fault in faults {
        let problem = problems.error(fault.code, &fault.pointer, fault.span, fault.message);
        problem.help = fault.help;
        problem.labels.extend(fault.earlier.map(|span| (span, "first given here".to_owned())));
    }
    report::conceal(tree.as_ref(), text, &mut problems.hidden);
    let (graph, effective) = match tree {
        Some(mut tree) => {
            interpolate::apply(&mut tree, environment, "", &mut problems);
            pipeline::build(&tree, path, registry, &mut problems)
        }
        None => (None, None),
    };
    problems.finish();
    Loaded { graph: graph.filter(|_| problems.errors() == 0), effective, problems }
}

/// A node's settings, without `type` and `inputs`, as JSON.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn node_settings(node: &NodeType, text: &str) -> Result<serde_json::Value, Problems> {
    let mut problems = Problems::new("settings", text);
    let (tree, faults) = document::parse(text);
    for fault in faults {
        problems.error(fault.code, &fault.pointer, fault.span, fault.message);
    }
    let owner = read::Owner { name: node.name, pointer: "", span: Span::default(), beside: &[] };
    let settings = tree.and_then(|tree| read::read(&tree, &Shape::of(node), owner, Ok, &mut problems));
    settings.ok_or(problems)
}

/// A pointer with one more step (RFC 6901).
fn join(pointer: &str, step: &str) -> String {
    format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"))
}
