//! The graph as a Mermaid flowchart, for Markdown pages.

use super::Graph;
use crate::Kind;
use std::fmt::Write;

/// Draws it.
pub(super) fn draw(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    for node in &graph.nodes {
        // Names of nodes may be words of Mermaid, such as `end`; with a prefix they are not.
        let (open, close) = match node.kind {
            Kind::Source => ("[(", ")]"),
            Kind::Operator => ("[", "]"),
            Kind::Sink => ("[/", "/]"),
        };
        let _ = writeln!(out, "  n_{}{open}\"{}<br/>{}\"{close}", node.name, node.name, node.type_name);
    }
    for node in &graph.nodes {
        for input in &node.inputs {
            let Some(from) = graph.nodes.get(input.node) else { continue };
            let label = from.outputs.get(input.output).map(|o| format!("|\"{}\"|", o.replace('"', "#quot;"))).unwrap_or_default();
            let _ = writeln!(out, "  n_{} -->{label} n_{}", from.name, node.name);
        }
    }
    out
}
