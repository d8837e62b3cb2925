//! Where the boxes go: layers from left to right, and an order within each layer with few crossings.
//!
//! Sources stand in the first layer, sinks in the last, everything else one layer after what it reads. A
//! node's named outputs are boxes of their own behind it. An edge over several layers passes through a
//! slot in each; edges from one box share those slots.

use super::Graph;
use crate::Kind;
use std::collections::BTreeMap;

/// Rounds of sorting each layer by its neighbours.
const ROUNDS: usize = 4;

/// What stands at a place of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A node.
    Node(usize),
    /// A named output of a node.
    Output(usize, usize),
    /// A line on its way to a later layer.
    Pass,
}

/// A layout.
pub(super) struct Layout {
    /// What stands in each layer, top to bottom.
    pub(super) layers: Vec<Vec<Slot>>,
    /// Lines from each layer to the next, as places in both; sorted.
    pub(super) lines: Vec<Vec<(usize, usize)>>,
}

/// Lays a graph out.
pub(super) fn layout(graph: &Graph) -> Layout {
    let mut build = Build { slots: Vec::new(), layer: Vec::new(), lines: Vec::new(), passes: BTreeMap::new() };
    // The box that an output leaves from.
    let mut exits: Vec<Vec<usize>> = Vec::with_capacity(graph.nodes.len());
    let mut boxes = Vec::with_capacity(graph.nodes.len());
    for (at, node) in graph.nodes.iter().enumerate() {
        let layer =
            node.inputs.iter().filter_map(|i| exit(&exits, i.node, i.output)).filter_map(|e| build.layer.get(e)).max().map_or(0, |l| l + 1);
        let own = build.slot(Slot::Node(at), layer);
        boxes.push(own);
        exits.push(match node.outputs.len() {
            0 => vec![own],
            count => (0..count).map(|output| build.slot(Slot::Output(at, output), layer + 1)).collect(),
        });
    }
    let last = build.layer.iter().copied().max().unwrap_or(0);
    for (node, own) in graph.nodes.iter().zip(&boxes) {
        if node.kind == Kind::Sink
            && let Some(layer) = build.layer.get_mut(*own)
        {
            *layer = last;
        }
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        let Some(own) = boxes.get(at).copied() else { continue };
        for output in exits.get(at).into_iter().flatten().filter(|e| **e != own) {
            build.line(own, *output);
        }
        for from in node.inputs.iter().filter_map(|i| exit(&exits, i.node, i.output)) {
            build.line(from, own);
        }
    }
    build.finish(last)
}

fn exit(exits: &[Vec<usize>], node: usize, output: usize) -> Option<usize> {
    exits.get(node)?.get(output).copied()
}

struct Build {
    slots: Vec<Slot>,
    layer: Vec<usize>,
    lines: Vec<(usize, usize)>,
    passes: BTreeMap<(usize, usize), usize>,
}

impl Build {
    fn slot(&mut self, slot: Slot, layer: usize) -> usize {
        self.slots.push(slot);
        self.layer.push(layer);
        self.slots.len() - 1
    }

    fn line(&mut self, from: usize, to: usize) {
        let (Some(first), Some(last)) = (self.layer.get(from).copied(), self.layer.get(to).copied()) else { return };
        let mut at = from;
        for layer in first + 1..last {
            let next = match self.passes.get(&(from, layer)) {
                Some(pass) => *pass,
                None => {
                    let pass = self.slot(Slot::Pass, layer);
                    self.passes.insert((from, layer), pass);
                    pass
                }
            };
            self.lines.push((at, next));
            at = next;
        }
        self.lines.push((at, to));
    }

    fn finish(mut self, last: usize) -> Layout {
        self.lines.sort_unstable();
        self.lines.dedup();
        let count = self.slots.len();
        let mut layers: Vec<Vec<usize>> = vec![Vec::new(); last + 1];
        for (slot, layer) in self.layer.iter().enumerate() {
            if let Some(list) = layers.get_mut(*layer) {
                list.push(slot);
            }
        }
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (from, to) in &self.lines {
            after[*from].push(*to);
            before[*to].push(*from);
        }
        let mut place = vec![0_usize; count];
        let number = |layer: &[usize], place: &mut [usize]| layer.iter().enumerate().for_each(|(at, slot)| place[*slot] = at);
        for layer in &layers {
            number(layer, &mut place);
        }
        for round in 0..ROUNDS {
            let neighbours = if round % 2 == 0 { &before } else { &after };
            let mut visit = |layer: &mut Vec<usize>| {
                // The mean place of a slot's neighbours, its own where it has none.
                let mean = |slot: usize| {
                    let near = &neighbours[slot];
                    if near.is_empty() {
                        place[slot] as f64
                    } else {
                        near.iter().map(|n| place[*n] as f64).sum::<f64>() / near.len() as f64
                    }
                };
                let mut keyed: Vec<(f64, usize)> = layer.iter().map(|slot| (mean(*slot), *slot)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                *layer = keyed.into_iter().map(|(_, slot)| slot).collect();
                number(layer, &mut place);
            };
            if round % 2 == 0 {
                layers.iter_mut().for_each(&mut visit);
            } else {
                layers.iter_mut().rev().for_each(&mut visit);
            }
        }
        let mut lines = vec![Vec::new(); last];
        for (from, to) in &self.lines {
            if let Some(list) = lines.get_mut(self.layer[*from]) {
                list.push((place[*from], place[*to]));
            }
        }
        lines.iter_mut().for_each(|list| list.sort_unstable());
        Layout { layers: layers.into_iter().map(|layer| layer.into_iter().map(|slot| self.slots[slot]).collect()).collect(), lines }
    }
}
