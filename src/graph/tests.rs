//! Drawings against their golden files.

use super::{Graph, Strokes};
use crate::config::{Environment, dummy_registry, parse};
use std::path::Path;

fn graph(text: &str) -> Graph {
    let loaded = parse("p.yaml", text, Path::new("p.yaml"), &dummy_registry(), &Environment::Opaque);
    assert_eq!(loaded.problems.errors(), 0, "{:?}", loaded.problems.list);
    loaded.graph.expect("there is nothing wrong")
}

const LINE: &str = "
sources: { shop: { type: pull } }
operators: { live: { type: keep, where: x } }
sinks: { warehouse: { type: push, inputs: [live], account: a } }
";

const TWO: &str = "
sources: { eu: { type: pull }, us: { type: pull } }
sinks: { raw: { type: push, inputs: [eu, us], account: a } }
";

const WIDE: &str = "
sources: { eu: { type: pull }, us: { type: pull }, far: { type: pull } }
operators:
  live: { type: keep, where: x, inputs: [eu, us] }
  parts: { type: split, inputs: [live], routes: { big: a, small: b } }
  hidden: { type: hide, inputs: [far], columns: {} }
sinks:
  raw: { type: push, inputs: [parts.big, hidden], account: a }
  files: { type: push, inputs: [parts.small, far], account: a }
";

#[test]
fn drawings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/graph/golden");
    for (name, text) in [("line", LINE), ("two", TWO), ("wide", WIDE)] {
        let graph = graph(text);
        for (ext, drawn) in [
            ("txt", graph.ascii(Strokes::Unicode)),
            ("ascii.txt", graph.ascii(Strokes::Ascii)),
            ("mmd", graph.mermaid()),
            ("dot", graph.dot()),
            ("svg", graph.svg()),
        ] {
            let path = folder.join(format!("{name}.{ext}"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &drawn)).expect("the golden file is written");
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(drawn, golden, "{}: UPDATE_GOLDEN=1 records it again", path.display());
        }
    }
}

#[test]
fn order_and_subgraphs() {
    let graph = graph(WIDE);
    let names = |nodes: &[super::Node]| nodes.iter().map(|n| n.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&graph.nodes), ["eu", "us", "far", "live", "parts", "hidden", "raw", "files"]);
    for (at, node) in graph.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|i| i.node < at));
    }
    let subs: Vec<_> = graph.sources().map(|s| names(&graph.subgraph(s))).collect();
    assert_eq!(
        subs,
        [vec!["eu", "live", "parts", "raw", "files"], vec!["us", "live", "parts", "raw", "files"], vec!["far", "hidden", "raw", "files"]]
    );
    let eu = graph.subgraph(0);
    let inputs: Vec<Vec<(usize, usize)>> = eu.iter().map(|n| n.inputs.iter().map(|i| (i.node, i.output)).collect()).collect();
    assert_eq!(inputs, [vec![], vec![(0, 0)], vec![(1, 0)], vec![(2, 0)], vec![(2, 1)]]);
}

#[test]
fn thousands_of_sources() {
    let sources: String = (0..5000).map(|i| format!("  s{i}: {{ type: pull }}\n")).collect();
    let inputs: Vec<String> = (0..5000).map(|i| format!("s{i}")).collect();
    let graph = graph(&format!("sources:\n{sources}sinks: {{ raw: {{ type: push, account: a, inputs: [{}] }} }}\n", inputs.join(", ")));
    assert_eq!(graph.nodes.len(), 5001);
    assert_eq!(graph.subgraph(4999).len(), 2);
    assert!(graph.ascii(Strokes::Unicode).lines().count() > 5000);
    assert!(graph.svg().len() > 100_000);
}
