//! Which node reads which: inputs to edges, and everything that can be wrong with edges.

use super::nodes::{Draft, Inputs, Wish};
use super::problem::Problems;
use super::{codes, suggest};
use crate::Kind;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// Steps spent on looking for two paths to one sink.
const MAX_STEPS: usize = 10_000_000;

/// An edge into a node: the index of the node it comes from, and of the output there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) node: usize,
    pub(super) output: usize,
}

/// The edges into each node.
pub(super) fn resolve(drafts: &[Draft], problems: &mut Problems) -> Vec<Vec<Edge>> {
    let before = problems.errors();
    let names: HashMap<&str, usize> = drafts.iter().enumerate().map(|(at, d)| (&*d.name, at)).collect();
    let mut edges: Vec<Vec<Edge>> = Vec::with_capacity(drafts.len());
    // Of two nodes with one name only the first is here: what the other reads is not known.
    let mut complete = !problems.list.iter().any(|p| p.code == codes::DUPLICATE);
    for (at, draft) in drafts.iter().enumerate() {
        let mut into = Vec::new();
        match &draft.inputs {
            _ if draft.kind == Kind::Source => {}
            Inputs::Wrong => complete = false,
            Inputs::Unsaid => into.extend(only_upstream(at, drafts, problems)),
            Inputs::Said(wishes) if wishes.is_empty() => nothing_to_read(at, drafts, problems),
            Inputs::Said(wishes) => {
                for wish in wishes {
                    match find(at, wish, drafts, &names, problems) {
                        Some(edge) => into.push(edge),
                        None => complete = false,
                    }
                }
            }
        }
        edges.push(into);
    }
    cycles(drafts, &edges, problems);
    if complete && problems.errors() == before {
        unread(drafts, &edges, problems);
        two_paths(drafts, &edges, problems);
    }
    edges
}

/// What a node can read, as it would be written.
fn candidates(at: usize, drafts: &[Draft]) -> Vec<(Edge, String)> {
    let upstream = drafts.iter().enumerate().filter(|(other, draft)| *other != at && draft.kind != Kind::Sink);
    upstream
        .flat_map(|(node, draft)| match draft.outputs.as_deref() {
            None | Some([]) => vec![(Edge { node, output: 0 }, draft.name.to_string())],
            Some(outputs) => outputs.iter().enumerate().map(|(output, o)| (Edge { node, output }, format!("{}.{o}", draft.name))).collect(),
        })
        .collect()
}

fn only_upstream(at: usize, drafts: &[Draft], problems: &mut Problems) -> Option<Edge> {
    match candidates(at, drafts).as_slice() {
        [(edge, _)] => Some(*edge),
        _ => {
            nothing_to_read(at, drafts, problems);
            None
        }
    }
}

fn nothing_to_read(at: usize, drafts: &[Draft], problems: &mut Problems) {
    let Some(draft) = drafts.get(at) else { return };
    let names: Vec<String> = candidates(at, drafts).into_iter().map(|(_, name)| name).collect();
    let (message, help) = match names.as_slice() {
        [] => (format!("{} has nothing to read", draft.title()), "add a source".to_owned()),
        [one] => (format!("{} lists no inputs", draft.title()), format!("write inputs: [{one}]")),
        _ => {
            let few = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 12 { ", …" } else { "" };
            (format!("{} does not say what it reads", draft.title()), format!("write inputs: […] with one or more of: {few}{more}"))
        }
    };
    problems.error(codes::INPUTS, &draft.pointer, draft.key, message).help = Some(help);
}

fn find(at: usize, wish: &Wish, drafts: &[Draft], names: &HashMap<&str, usize>, problems: &mut Problems) -> Option<Edge> {
    if wish.opaque {
        return None;
    }
    let reader = drafts.get(at)?;
    let (name, output) = wish.text.split_once('.').map_or((wish.text.as_str(), None), |(n, o)| (n, Some(o)));
    let Some((node, draft)) = names.get(name).and_then(|node| Some((*node, drafts.get(*node)?))) else {
        let near: Vec<String> = candidates(at, drafts).into_iter().map(|(_, name)| name).collect();
        let help = suggest::help(&wish.text, near.iter().map(String::as_str));
        let label = suggest::nearest(name, drafts.iter().filter(|d| d.kind != Kind::Sink).map(|d| &*d.name))
            .and_then(|near| drafts.get(*names.get(near)?))
            .map(|d| (d.key, "did you mean this one?".to_owned()));
        let message = format!("{} reads from \"{}\", which does not exist", reader.title(), wish.text);
        let problem = problems.error(codes::UNKNOWN_INPUT, &wish.pointer, wish.span, message);
        problem.help = help;
        problem.labels.extend(label);
        return None;
    };
    let mut wrong = |message: String, help: Option<String>| {
        let problem = problems.error(codes::UNKNOWN_INPUT, &wish.pointer, wish.span, message);
        problem.help = help;
        problem.labels.push((draft.key, "this one".into()));
        None
    };
    if draft.kind == Kind::Sink {
        return wrong(
            format!("{} reads from \"{}\", which is a sink", reader.title(), wish.text),
            Some("nothing leaves a sink: read what the sink reads".into()),
        );
    }
    match (draft.outputs.as_deref(), output) {
        (None, _) | (Some([]), None) => Some(Edge { node, output: 0 }),
        (Some([]), Some(output)) => wrong(
            format!("{} reads output \"{output}\" of {}, which has only one output", reader.title(), draft.title()),
            Some(format!("write {name}")),
        ),
        (Some(outputs), Some(output)) => match outputs.iter().position(|o| o == output) {
            Some(output) => Some(Edge { node, output }),
            None => {
                wrong(format!("{} has no output \"{output}\"", draft.title()), suggest::help(output, outputs.iter().map(String::as_str)))
            }
        },
        (Some(outputs), None) => {
            let list: Vec<String> = outputs.iter().map(|o| format!("{name}.{o}")).collect();
            wrong(
                format!("{} has several outputs, and {} does not say which", draft.title(), reader.title()),
                Some(format!("write one of: {}", list.join(", "))),
            )
        }
    }
}

/// Reports each way back to a node that is still on the path to it.
fn cycles(drafts: &[Draft], edges: &[Vec<Edge>], problems: &mut Problems) {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::Not; drafts.len()];
    for start in 0..drafts.len() {
        if seen.get(start) != Some(&Seen::Not) {
            continue;
        }
        // Each element: a node of the path, and which of its inputs is next. No recursion: a chain may
        // be as long as the file.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if let Some(state) = seen.get_mut(node) {
                *state = Seen::OnPath;
            }
            let Some(edge) = edges.get(node).and_then(|e| e.get(*next)).copied() else {
                if let Some(state) = seen.get_mut(node) {
                    *state = Seen::Done;
                }
                path.pop();
                continue;
            };
            *next += 1;
            match seen.get(edge.node) {
                Some(Seen::Not) => path.push((edge.node, 0)),
                Some(Seen::OnPath) => {
                    let from = path.iter().position(|(n, _)| *n == edge.node).unwrap_or(0);
                    report_cycle(&path.iter().skip(from).map(|(n, _)| *n).collect::<Vec<_>>(), drafts, problems);
                }
                _ => {}
            }
        }
    }
}

fn report_cycle(backwards: &[usize], drafts: &[Draft], problems: &mut Problems) {
    // The path follows inputs, so rows go the other way. It starts at the node that comes first in the
    // file, so that one cycle reads the same wherever it was met.
    let mut cycle: Vec<usize> = backwards.iter().rev().copied().collect();
    let first = cycle.iter().enumerate().min_by_key(|(_, n)| **n).map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    let Some(draft) = cycle.first().and_then(|n| drafts.get(*n)) else { return };
    let mut names: Vec<&str> = cycle.iter().filter_map(|n| drafts.get(*n)).map(|d| &*d.name).collect();
    names.push(&draft.name);
    let message = if cycle.len() == 1 {
        format!("{} reads itself", draft.title())
    } else {
        format!("nodes read in a circle: {}", names.join(" -> "))
    };
    let problem = problems.error(codes::CYCLE, &draft.pointer, draft.key, message);
    problem.help = Some("rows flow one way, from sources to sinks: take one of these inputs out".into());
    problem.labels.extend(cycle.iter().skip(1).take(8).filter_map(|n| drafts.get(*n)).map(|d| (d.key, "and this one".to_owned())));
}

/// The edges out of each node: the output, and who reads it.
fn readers(edges: &[Vec<Edge>]) -> Vec<Vec<(usize, usize)>> {
    let mut out = vec![Vec::new(); edges.len()];
    for (reader, into) in edges.iter().enumerate() {
        for edge in into {
            if let Some(list) = out.get_mut(edge.node) {
                list.push((edge.output, reader));
            }
        }
    }
    out
}

fn unread(drafts: &[Draft], edges: &[Vec<Edge>], problems: &mut Problems) {
    let out = readers(edges);
    let mut reaches = vec![false; drafts.len()];
    let mut open: Vec<usize> = drafts.iter().enumerate().filter(|(_, d)| d.kind == Kind::Sink).map(|(at, _)| at).collect();
    while let Some(node) = open.pop() {
        if let Some(reach) = reaches.get_mut(node)
            && !std::mem::replace(reach, true)
        {
            open.extend(edges.get(node).into_iter().flatten().map(|e| e.node));
        }
    }
    for ((draft, reaches), out) in drafts.iter().zip(reaches).zip(out) {
        if draft.kind == Kind::Sink || draft.parsed.as_ref().is_some_and(|parsed| parsed.may_be_unread()) {
            continue;
        }
        let mut warn = |message: String| {
            let help = "read it in a sink's inputs, or take it out".to_owned();
            problems.warning(codes::NOT_READ, &draft.pointer, draft.key, message).help = Some(help);
        };
        if !reaches && (draft.kind == Kind::Source || out.is_empty()) {
            warn(format!("{} is not read by any sink", draft.title()));
        } else if let Some(outputs) = &draft.outputs {
            for (_, output) in outputs.iter().enumerate().filter(|(at, _)| !out.iter().any(|(o, _)| o == at)) {
                warn(format!("nothing reads output \"{output}\" of {}: its rows end there", draft.title()));
            }
        }
    }
}

/// Warns of sinks that get one output's rows over two readers of it: a row would come twice.
fn two_paths(drafts: &[Draft], edges: &[Vec<Edge>], problems: &mut Problems) {
    let out = readers(edges);
    let mut steps = 0;
    for (node, all) in out.iter().enumerate() {
        let mut by_output: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (output, reader) in all {
            by_output.entry(*output).or_default().push(*reader);
        }
        for first in by_output.into_values().filter(|readers| readers.len() > 1) {
            let mut sinks: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for reader in first {
                let mut seen = vec![false; drafts.len()];
                let mut open = vec![reader];
                while let Some(at) = open.pop() {
                    steps += 1;
                    if steps > MAX_STEPS {
                        return;
                    }
                    if seen.get_mut(at).is_some_and(|s| !std::mem::replace(s, true)) {
                        if drafts.get(at).is_some_and(|d| d.kind == Kind::Sink) {
                            sinks.entry(at).or_default().push(reader);
                        }
                        open.extend(out.get(at).into_iter().flatten().map(|(_, reader)| *reader));
                    }
                }
                steps += drafts.len() / 64;
            }
            for (sink, over) in sinks.into_iter().filter(|(_, over)| over.len() > 1) {
                let (Some(sink), Some(from)) = (drafts.get(sink), drafts.get(node)) else { continue };
                let over: Vec<String> = over
                    .iter()
                    .filter_map(|o| drafts.get(*o))
                    .map(|d| if d.key == sink.key { "directly".to_owned() } else { format!("over \"{}\"", d.name) })
                    .collect();
                let message = format!("rows of {} reach {} more than once: {}", from.title(), sink.title(), over.join(" and "));
                let problem = problems.error(codes::TWO_PATHS, &sink.pointer, sink.key, message);
                problem.help = Some("chain the operators one after the other, or give the second path a sink of its own".into());
            }
        }
    }
}

/// The nodes in an order in which each comes after all it reads; among equals, the file's order.
pub(super) fn order(edges: &[Vec<Edge>]) -> Vec<usize> {
    let out = readers(edges);
    let mut waiting: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> = waiting.iter().enumerate().filter(|(_, w)| **w == 0).map(|(at, _)| Reverse(at)).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for (_, reader) in out.get(node).into_iter().flatten() {
            if let Some(left) = waiting.get_mut(*reader) {
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(*reader));
                }
            }
        }
    }
    order
}
