//! The graph as a picture, without anything from outside: the status page shows it, and so does a browser.

use super::Graph;
use super::layout::{Slot, layout};
use crate::Kind;
use std::fmt::Write;

/// Pixels of a letter, of a box's padding, height and distance below, between layers, and around it all.
const LETTER: f64 = 8.0;
const PADDING: f64 = 16.0;
const HEIGHT: f64 = 44.0;
const PITCH: f64 = 64.0;
const CHANNEL: f64 = 72.0;
const MARGIN: f64 = 16.0;

const STYLE: &str = "text{font:13px ui-monospace,monospace;fill:#1f2933}.type{font-size:11px;fill:#616e7c}\
rect{fill:#fff;stroke:#7b8794;stroke-width:1.5}.source rect{fill:#e3f8ff;stroke:#1992d4}.sink rect{fill:#e3f9e5;stroke:#3f9142}\
path{fill:none;stroke:#7b8794;stroke-width:1.5}.head{fill:#7b8794;stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#e4e7eb}.type{fill:#9aa5b1}rect{fill:#323f4b}.source rect{fill:#0b4f71}.sink rect{fill:#0e5814}}";

/// Draws it.
pub(super) fn draw(graph: &Graph) -> String {
    let layout = layout(graph);
    let tallest = layout.layers.iter().map(Vec::len).max().unwrap_or(0);
    let width = |slot: &Slot| {
        words(graph, *slot).map_or(0.0, |(name, ty, _)| name.chars().count().max(ty.chars().count()) as f64 * LETTER + 2.0 * PADDING)
    };
    let mut left = MARGIN;
    let mut columns = Vec::with_capacity(layout.layers.len());
    for layer in &layout.layers {
        let wide = layer.iter().map(width).fold(0.0, f64::max);
        columns.push((left, wide));
        left += wide + CHANNEL;
    }
    let full = (left - CHANNEL + MARGIN).max(2.0 * MARGIN);
    let high = tallest as f64 * PITCH - (PITCH - HEIGHT) + 2.0 * MARGIN;
    // Layers are centred; `middle` is the height at which lines meet a slot.
    let middle = |layer: usize, place: usize| {
        let count = layout.layers.get(layer).map_or(0, Vec::len);
        MARGIN + (tallest - count) as f64 * PITCH / 2.0 + place as f64 * PITCH + HEIGHT / 2.0
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{full:.0}\" height=\"{high:.0}\" viewBox=\"0 0 {full:.0} {high:.0}\" role=\"img\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n",
        escape(&graph.pipeline)
    );
    for (at, lines) in layout.lines.iter().enumerate() {
        for (from, to) in lines {
            let (Some(one), Some(two)) = (columns.get(at), columns.get(at + 1)) else { continue };
            let (x1, y1, x2, y2) = (one.0 + one.1, middle(at, *from), two.0, middle(at + 1, *to));
            let bend = CHANNEL / 2.0;
            let passes = layout.layers.get(at + 1).and_then(|l| l.get(*to)) == Some(&Slot::Pass);
            let tail = if passes { format!("H{:.1}\"", two.0 + two.1) } else { "\" marker-end=\"url(#head)\"".into() };
            let _ = writeln!(out, "<path d=\"M{x1:.1} {y1:.1}C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}{tail}/>", x1 + bend, x2 - bend);
        }
    }
    for (at, layer) in layout.layers.iter().enumerate() {
        for (place, slot) in layer.iter().enumerate() {
            let (Some((name, ty, class)), Some((x, wide))) = (words(graph, *slot), columns.get(at)) else { continue };
            let y = middle(at, place) - HEIGHT / 2.0;
            let _ = writeln!(
                out,
                "<g class=\"{class}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{HEIGHT:.1}\" rx=\"6\"/>\
                 <text x=\"{tx:.1}\" y=\"{:.1}\">{}</text><text class=\"type\" x=\"{tx:.1}\" y=\"{:.1}\">{}</text></g>",
                y + 19.0,
                escape(&name),
                y + 34.0,
                escape(&ty),
                tx = x + PADDING,
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn words(graph: &Graph, slot: Slot) -> Option<(String, String, &'static str)> {
    match slot {
        Slot::Node(at) => graph.nodes.get(at).map(|n| {
            let class = match n.kind {
                Kind::Source => "source",
                Kind::Operator => "operator",
                Kind::Sink => "sink",
            };
            (n.name.to_string(), n.type_name.to_string(), class)
        }),
        Slot::Output(at, output) => {
            graph.nodes.get(at).and_then(|n| Some((format!("{}.{}", n.name, n.outputs.get(output)?), "output".to_owned(), "output")))
        }
        Slot::Pass => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
