//! One content of a pipeline's file, and the settings of the process.

use super::PROCESS_FILE;
use crate::config::{self, Environment, Process};
use crate::exit::{Failure, verdict};
use crate::graph::Graph;
use crate::{Exit, Kind, Registry};
use etl_stream_operators::contract::CodedError;
use std::collections::BTreeSet;
use std::path::Path;

/// A pipeline that a file describes.
pub(super) struct Version {
    pub(super) graph: Graph,
    /// What no other pipeline may have.
    pub(super) claims: BTreeSet<String>,
}

/// Why a file is not run.
pub(super) struct Problem {
    /// In a line or several.
    pub(super) text: String,
    pub(super) failure: Failure,
}

fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads a file.
pub(super) fn load(path: &Path, registry: &Registry) -> Result<Version, Problem> {
    let loaded = config::load(path, registry, &Environment::Lookup(&lookup));
    let found = loaded.problems.list.iter().filter(|problem| problem.severity == config::Severity::Error);
    let lines: Vec<String> = found
        .map(|problem| format!("[{}] line {}, column {}: {}", problem.code.id, problem.line, problem.column, problem.message))
        .collect();
    let Some(graph) = loaded.graph else {
        return Err(Problem { text: lines.join("; "), failure: Failure::Reported(Exit::Usage) });
    };
    match claims(&graph) {
        Ok(claims) => Ok(Version { graph, claims }),
        Err(error) => Err(Problem { text: error.to_string(), failure: Failure::Error(error) }),
    }
}

/// What a pipeline has to itself. Making its sources and operators reads their secrets, which a file that is to be taken has.
fn claims(graph: &Graph) -> Result<BTreeSet<String>, CodedError> {
    let folder = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut claims = BTreeSet::from([format!("pipeline name \"{}\"", graph.pipeline)]);
    claims.extend(graph.state.file().map(|file| format!("state file \"{}\"", folder(file).display())));
    for node in &graph.nodes {
        let context = graph.context(node);
        match node.kind {
            Kind::Source => {
                claims.extend(node.parsed.claims(&context)?);
                drop(node.parsed.source(&context)?);
            }
            Kind::Operator => drop(node.parsed.operator(&context)?),
            Kind::Sink => drop(node.parsed.sink(&context)?),
        }
    }
    Ok(claims)
}

/// Reads the process's settings; the defaults where there is no such file.
pub(super) fn process(path: &Path) -> Result<Process, Failure> {
    if !path.exists() {
        return Ok(Process::default());
    }
    let (process, problems) = config::load_process(path, &Environment::Lookup(&lookup));
    for problem in &problems.list {
        tracing::error!(file = PROCESS_FILE, code = problem.code.id, line = problem.line, column = problem.column, "{}", problem.message);
    }
    verdict(&problems, false)?;
    Ok(process)
}
