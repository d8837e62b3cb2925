//! The checked graph: what the engine builds a dataflow of, and what `etl-stream graph` draws.
//!
//! # Guarantees
//! Nodes are in topological order, the file's order among equals: every input of a node stands before it.
//! Every node parsed and passed its check. Drawings are the same for the same graph.

mod ascii;
mod dot;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;

pub use ascii::Strokes;

use crate::checkpoint::StateAt;
use crate::config::{AlertSettings, EngineSettings, NotifierSettings, ServerSettings};
use crate::{BuildContext, Kind, ParsedNode, Peers};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An edge into a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Index of the node it comes from.
    pub node: usize,
    /// Index of the output there; 0 where the output has no name.
    pub output: usize,
}

/// One node.
#[derive(Clone)]
pub struct Node {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Its `type:`.
    pub type_name: Arc<str>,
    /// Its settings, which build it.
    pub parsed: Arc<dyn ParsedNode>,
    /// What it reads. Empty for a source.
    pub inputs: Vec<Input>,
    /// Names of its outputs; empty: one, without a name.
    pub outputs: Vec<String>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} {:?} {:?}", self.kind.noun(), self.name, self.type_name, self.inputs, self.outputs)
    }
}

/// A checked pipeline.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The folder of the pipeline file; relative paths start there.
    pub folder: Arc<Path>,
    /// Its sources, for nodes that watch them.
    pub peers: Peers,
    /// Its nodes, each after what it reads.
    pub nodes: Vec<Node>,
    /// How it runs.
    pub engine: EngineSettings,
    /// Where its state is.
    pub state: StateAt,
    /// Where its server listens; `None`: it has none.
    pub server: Option<ServerSettings>,
    /// Its alerts.
    pub alerts: BTreeMap<String, AlertSettings>,
    /// Who is told of alerts.
    pub notifiers: BTreeMap<String, NotifierSettings>,
}

impl Graph {
    /// Indices of the sources.
    pub fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        self.of(Kind::Source)
    }

    /// Indices of the sinks.
    pub fn sinks(&self) -> impl Iterator<Item = usize> + '_ {
        self.of(Kind::Sink)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().enumerate().filter(move |(_, n)| n.kind == kind).map(|(at, _)| at)
    }

    /// What a node is built with.
    #[must_use]
    pub fn context(&self, node: &Node) -> BuildContext {
        BuildContext {
            pipeline: Arc::clone(&self.pipeline),
            node: Arc::clone(&node.name),
            folder: Arc::clone(&self.folder),
            peers: self.peers.clone(),
        }
    }

    /// Indices of the nodes that the rows of one source reach: the source first, each after what it reads.
    #[must_use]
    pub fn reachable(&self, source: usize) -> Vec<usize> {
        let mut reached = vec![false; self.nodes.len()];
        let mut nodes = Vec::new();
        for (at, node) in self.nodes.iter().enumerate().skip(source) {
            let reads = |input: &Input| reached.get(input.node).copied().unwrap_or(false);
            if at == source || node.inputs.iter().any(reads) {
                reached[at] = true;
                nodes.push(at);
            }
        }
        nodes
    }

    /// The nodes of [`Graph::reachable`]. Inputs are indices into the result; inputs from elsewhere are left out.
    #[must_use]
    pub fn subgraph(&self, source: usize) -> Vec<Node> {
        let reached = self.reachable(source);
        let place = |input: &Input| reached.binary_search(&input.node).ok().map(|node| Input { node, output: input.output });
        let node =
            |at: &usize| self.nodes.get(*at).map(|node| Node { inputs: node.inputs.iter().filter_map(place).collect(), ..node.clone() });
        reached.iter().filter_map(node).collect()
    }

    /// The graph as boxes and lines of text.
    #[must_use]
    pub fn ascii(&self, strokes: Strokes) -> String {
        ascii::draw(self, strokes)
    }

    /// The graph as a Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        mermaid::draw(self)
    }

    /// The graph in Graphviz's language.
    #[must_use]
    pub fn dot(&self) -> String {
        dot::draw(self)
    }

    /// The graph as a picture.
    #[must_use]
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}
