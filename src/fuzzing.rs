//! Entry points for fuzzing of this crate's parsers: see `etl_stream_operators::fuzzing`, whose replay this has too.
//! Not part of the interface; there with the feature `fuzzing` and in tests.

use crate::config::{Drawing, Environment, parse};
use crate::graph::Strokes;
use crate::{Kind, Registry};
use std::cell::OnceCell;
use std::path::Path;

/// What stands for a secret written into a file: nothing may show it.
const SECRET: &str = "hunter2-hunter2";

thread_local! {
    static BUILTIN: OnceCell<Registry> = const { OnceCell::new() };
}

/// A pipeline file: it is a graph or has problems, each inside the text, and both can be drawn.
pub fn pipeline(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lookup = |name: &str| (name == "PORT" || name == "HOST").then(|| "5432".to_owned());
    BUILTIN.with(|registry| {
        let registry = registry.get_or_init(Registry::builtin);
        for environment in [Environment::Opaque, Environment::Lookup(&lookup)] {
            let loaded = parse("p.yaml", text, Path::new("/nowhere/p.yaml"), registry, &environment);
            assert!(loaded.graph.is_none() || loaded.problems.errors() == 0);
            assert!(loaded.graph.is_some() || loaded.problems.errors() > 0, "no graph and no reason");
            let lines = 1 + text.matches('\n').count();
            for problem in &loaded.problems.list {
                assert!((1..=lines).contains(&problem.line) && (1..=1 + text.chars().count()).contains(&problem.column));
            }
            for json in loaded.problems.json() {
                assert!(json["code"].as_str().is_some_and(|code| !code.is_empty()));
            }
            for drawing in [Drawing::Plain, Drawing::Narrated] {
                let drawn = loaded.problems.draw(drawing, 80);
                assert_eq!(drawn.is_empty(), loaded.problems.list.is_empty());
                if text.contains(&format!("password: {{ plain: {SECRET} }}\n")) {
                    assert!(!drawn.contains(SECRET), "{drawn}");
                }
            }
            if let Some(graph) = &loaded.graph {
                assert!(graph.nodes.iter().any(|node| node.kind == Kind::Source));
                let _ = (graph.ascii(Strokes::Unicode), graph.mermaid(), graph.dot(), graph.svg());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use etl_stream_operators::testing::replay::replay;
    use std::path::Path;

    #[test]
    fn pipeline() {
        replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("operators/fuzz/corpus/pipeline"), super::pipeline);
    }
}
