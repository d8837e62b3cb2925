//! The example, the settings' schema, and building.

use super::{Breaches, Property, Subject};
use crate::config::{Environment, Shape, parse};
use crate::{Findings, Kind, ParsedNode};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Problems of what stands around the example: a type that the registry lacks, an operator that nothing reads.
const AROUND: [&str; 2] = ["CFG0006", "CFG0015"];

/// Checks them; the settings, unless they are of no use.
pub(super) fn check(subject: &Subject<'_>, settings: &Value, breaches: &mut Breaches) -> Option<Arc<dyn ParsedNode>> {
    let mut breach = |what: String| breaches.add(Property::Settings, what);
    for (extra, refused) in [("", false), ("    a_setting_that_no_node_has: 1\n", true)] {
        let text = pipeline(subject, extra);
        let loaded = parse("pipeline.yaml", &text, Path::new("pipeline.yaml"), subject.registry, &Environment::Opaque);
        let problems: Vec<_> = loaded.problems.list.iter().filter(|problem| !AROUND.contains(&problem.code.id)).collect();
        if refused && problems.is_empty() {
            breach("a setting that it does not have is taken; put #[serde(deny_unknown_fields)] on the settings".into());
        }
        if !refused {
            problems.iter().for_each(|problem| breach(format!("the example, in a pipeline: {}", problem.message)));
        }
    }
    let shape = Shape::of(subject.node);
    for option in shape.options(&[shape.root()]) {
        for (name, schema) in option.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let said = shape.options(&[schema]).iter().any(|option| option.get("description").is_some());
            if !said {
                breach(format!("setting `{name}` does not say what it is; write a doc comment"));
            }
        }
    }
    let mut with_unknown = settings.clone();
    if let Value::Object(map) = &mut with_unknown {
        map.insert("a_setting_that_no_node_has".into(), 1.into());
    }
    if (subject.node.parse)(with_unknown).is_ok() {
        breach("serde takes a setting that it does not have".into());
    }
    let parsed = match (subject.node.parse)(settings.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            breach(format!("the settings are not read: {error}"));
            return None;
        }
    };
    let mut findings = Findings::default();
    parsed.check(&mut findings);
    findings.0.iter().for_each(|finding| breach(format!("the settings are refused: {} at {}", finding.message, finding.pointer)));
    let cx = subject.context();
    let built = match subject.node.kind {
        Kind::Source => parsed.source(&cx).map(drop),
        Kind::Operator => parsed.operator(&cx).map(drop),
        Kind::Sink => parsed.sink(&cx).map(drop),
    };
    if let Err(error) = built {
        breach(format!("it does not build: {}", error.report()));
        return None;
    }
    Some(parsed)
}

/// A file with the example between a made-up source and a sink that counts.
fn pipeline(subject: &Subject<'_>, extra: &str) -> String {
    let node = subject.node;
    let mut own = format!("{}:\n  node:\n    type: {}\n", node.kind.section(), node.name);
    if node.kind != Kind::Source {
        own.push_str("    inputs: [rows]\n");
    }
    node.example.trim_end().lines().for_each(|line| own.push_str(&format!("    {line}\n")));
    own.push_str(extra);
    let source = "sources:\n  rows: { type: synthetic, scenario: narrow_insert }\n";
    let sink = |from: &str| format!("sinks:\n  end: {{ type: blackhole, inputs: [{from}] }}\n");
    match node.kind {
        Kind::Source => format!("{own}{}", sink("node")),
        Kind::Operator => format!("{source}{own}{}", sink("rows")),
        Kind::Sink => format!("{source}{own}"),
    }
}
