//! The graph as boxes and lines of text.
//!
//! ```text
//! ┌──────────┐   ┌───────────┐
//! │ shop     ├──>│ raw       │
//! │ postgres │   │ snowflake │
//! └──────────┘   └───────────┘
//! ```
//! Between two layers is a channel of vertical lanes. Boxes with the same readers share a lane. Lines leave
//! a box beside its name; they enter beside the name too, or, where that would join lines that do not
//! belong together, beside the type.

use super::Graph;
use super::layout::{Layout, Slot, layout};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The largest drawing, in characters; beyond it the graph is a list.
const MAX_CELLS: usize = 4_000_000;
/// Lines from one box to the one below.
const PITCH: usize = 5;

const NORTH: u8 = 1;
const EAST: u8 = 2;
const SOUTH: u8 = 4;
const WEST: u8 = 8;

/// What lines are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strokes {
    /// Box-drawing characters.
    Unicode,
    /// `+`, `-` and `|`.
    Ascii,
}

/// Draws it.
pub(super) fn draw(graph: &Graph, strokes: Strokes) -> String {
    let layout = layout(graph);
    let widths: Vec<usize> = layout.layers.iter().map(|layer| layer.iter().map(|s| width(graph, *s)).max().unwrap_or(1)).collect();
    let channels: Vec<Channel> = (0..layout.lines.len()).map(|at| Channel::new(&layout, at)).collect();
    let height = layout.layers.iter().map(Vec::len).max().unwrap_or(0) * PITCH;
    let full: usize = widths.iter().sum::<usize>() + channels.iter().map(Channel::width).sum::<usize>();
    if full.saturating_mul(height) > MAX_CELLS {
        return list(graph);
    }
    let mut canvas = Canvas { width: full, lines: vec![0; full * height], text: vec!['\0'; full * height] };
    let mut left = 0;
    for (at, layer) in layout.layers.iter().enumerate() {
        let (wide, before, after) = (widths[at], at.checked_sub(1).map(|c| &channels[c]), channels.get(at));
        for (place, slot) in layer.iter().enumerate() {
            let top = place * PITCH;
            let leaves = after.is_some_and(|c| c.groups.iter().any(|g| g.from.contains(&place)));
            match slot {
                Slot::Pass => {
                    canvas.vertical(left, top + 1, top + before.map_or(1, |c| c.entry));
                    canvas.horizontal(top + 1, left, left + wide - 1);
                }
                slot => canvas.place(left, top, wide, &words(graph, *slot), leaves),
            }
        }
        left += wide;
        if let Some(channel) = after {
            let passes: Vec<bool> = layout.layers.get(at + 1).into_iter().flatten().map(|s| *s == Slot::Pass).collect();
            channel.draw(&mut canvas, left, &passes);
            left += channel.width();
        }
    }
    canvas.finish(strokes)
}

fn words(graph: &Graph, slot: Slot) -> [String; 2] {
    match slot {
        Slot::Node(at) => graph.nodes.get(at).map(|n| [n.name.to_string(), n.type_name.to_string()]).unwrap_or_default(),
        Slot::Output(at, output) => {
            let name = graph.nodes.get(at).and_then(|n| Some(format!("{}.{}", n.name, n.outputs.get(output)?)));
            [name.unwrap_or_default(), "output".into()]
        }
        Slot::Pass => Default::default(),
    }
}

fn width(graph: &Graph, slot: Slot) -> usize {
    if slot == Slot::Pass { 1 } else { words(graph, slot).iter().map(|w| w.chars().count()).max().unwrap_or(0) + 4 }
}

/// Lines that share a lane: each of `from` is read by each of `to`.
struct Group {
    from: Vec<usize>,
    to: BTreeSet<usize>,
}

struct Channel {
    groups: Vec<Group>,
    /// The row of a box at which lines enter it: 1 beside its name, 2 beside its type.
    entry: usize,
}

impl Channel {
    fn new(layout: &Layout, at: usize) -> Self {
        let mut readers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, to) in layout.lines.get(at).into_iter().flatten() {
            readers.entry(*from).or_default().insert(*to);
        }
        let mut by_readers: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
        for (from, to) in readers {
            by_readers.entry(to).or_default().push(from);
        }
        let mut groups: Vec<Group> = by_readers.into_iter().map(|(to, from)| Group { from, to }).collect();
        groups.sort_by_key(|g| g.from.first().copied());
        // Beside the name a line may only go straight into a box that reads nothing else.
        let straight = groups.iter().enumerate().all(|(own, group)| {
            group.from.iter().all(|row| groups.iter().enumerate().all(|(other, g)| other == own || !g.to.contains(row)))
        });
        Self { groups, entry: if straight { 1 } else { 2 } }
    }

    fn width(&self) -> usize {
        2 * self.groups.len() + 2
    }

    fn draw(&self, canvas: &mut Canvas, left: usize, passes: &[bool]) {
        let right = left + self.width() - 1;
        for (at, group) in self.groups.iter().enumerate() {
            let lane = left + 1 + 2 * at;
            let exits = group.from.iter().map(|p| p * PITCH + 1);
            let entries = group.to.iter().map(|p| p * PITCH + self.entry);
            let rows: Vec<usize> = exits.clone().chain(entries.clone()).collect();
            let (Some(top), Some(bottom)) = (rows.iter().min(), rows.iter().max()) else { continue };
            canvas.vertical(lane, *top, *bottom);
            exits.for_each(|row| canvas.horizontal(row, left.saturating_sub(1), lane));
            for (place, row) in group.to.iter().zip(entries) {
                if passes.get(*place) == Some(&true) {
                    canvas.horizontal(row, lane, right + 1);
                } else {
                    canvas.horizontal(row, lane, right);
                    canvas.write(right, row, ">");
                }
            }
        }
    }
}

struct Canvas {
    width: usize,
    /// Directions in which a line leaves each cell.
    lines: Vec<u8>,
    text: Vec<char>,
}

impl Canvas {
    fn add(&mut self, x: usize, y: usize, bits: u8) {
        if let Some(cell) = self.lines.get_mut(y * self.width + x) {
            *cell |= bits;
        }
    }

    fn horizontal(&mut self, y: usize, from: usize, to: usize) {
        for x in from..to {
            self.add(x, y, EAST);
            self.add(x + 1, y, WEST);
        }
    }

    fn vertical(&mut self, x: usize, one: usize, other: usize) {
        for y in one.min(other)..one.max(other) {
            self.add(x, y, SOUTH);
            self.add(x, y + 1, NORTH);
        }
    }

    fn write(&mut self, x: usize, y: usize, text: &str) {
        for (at, letter) in text.chars().enumerate() {
            if let Some(cell) = self.text.get_mut(y * self.width + x + at) {
                *cell = letter;
            }
        }
    }

    fn place(&mut self, x: usize, y: usize, wide: usize, words: &[String; 2], leaves: bool) {
        for row in [y, y + 3] {
            self.horizontal(row, x, x + wide - 1);
        }
        for column in [x, x + wide - 1] {
            self.vertical(column, y, y + 3);
        }
        for (row, word) in words.iter().enumerate() {
            self.write(x + 2, y + 1 + row, word);
        }
        if leaves {
            self.add(x + wide - 1, y + 1, EAST);
        }
    }

    fn finish(&self, strokes: Strokes) -> String {
        const UNICODE: [char; 16] = [' ', '╵', '╶', '└', '╷', '│', '┌', '├', '╴', '┘', '─', '┴', '┐', '┤', '┬', '┼'];
        let mut out = String::new();
        for (lines, text) in self.lines.chunks(self.width.max(1)).zip(self.text.chunks(self.width.max(1))) {
            let row: String = lines
                .iter()
                .zip(text)
                .map(|(bits, letter)| match (*letter, *bits, strokes) {
                    ('\0', 0, _) => ' ',
                    ('\0', bits, Strokes::Unicode) => UNICODE[usize::from(bits & 15)],
                    ('\0', bits, Strokes::Ascii) if bits & (NORTH | SOUTH) == 0 => '-',
                    ('\0', bits, Strokes::Ascii) if bits & (EAST | WEST) == 0 => '|',
                    ('\0', _, Strokes::Ascii) => '+',
                    (letter, ..) => letter,
                })
                .collect();
            out.push_str(row.trim_end());
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// Graphs too large to draw: a line a node.
fn list(graph: &Graph) -> String {
    let mut out = String::new();
    for node in &graph.nodes {
        let _ = write!(out, "{} {} ({})", node.kind.noun(), node.name, node.type_name);
        for (at, input) in node.inputs.iter().enumerate() {
            let Some(from) = graph.nodes.get(input.node) else { continue };
            let _ = write!(out, "{}{}", if at == 0 { " <- " } else { ", " }, from.name);
            if let Some(output) = from.outputs.get(input.output) {
                let _ = write!(out, ".{output}");
            }
        }
        out.push('\n');
    }
    out
}
