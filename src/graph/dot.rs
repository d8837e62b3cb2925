//! The graph in Graphviz's language: `etl-stream graph --format dot | dot -Tpdf`.

use super::Graph;
use crate::Kind;
use std::fmt::Write;

/// Draws it.
pub(super) fn draw(graph: &Graph) -> String {
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n", escape(&graph.pipeline));
    for node in &graph.nodes {
        let shape = match node.kind {
            Kind::Source => "cylinder",
            Kind::Operator => "box",
            Kind::Sink => "folder",
        };
        let (name, ty) = (escape(&node.name), escape(&node.type_name));
        let _ = writeln!(out, "  \"{name}\" [shape={shape}, label=\"{name}\\n{ty}\"];");
    }
    for node in &graph.nodes {
        for input in &node.inputs {
            let Some(from) = graph.nodes.get(input.node) else { continue };
            let label = from.outputs.get(input.output).map(|o| format!(" [label=\"{}\"]", escape(o))).unwrap_or_default();
            let _ = writeln!(out, "  \"{}\" -> \"{}\"{label};", escape(&from.name), escape(&node.name));
        }
    }
    out.push_str("}\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
