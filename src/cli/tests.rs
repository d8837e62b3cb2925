//! Command lines against what they print and how they end.

use super::run_with;
use crate::Registry;
use crate::config::dummy_registry;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn call(registry: &Registry, args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["etl-stream", "--color", "never"].into_iter().chain(args.iter().copied()).map(Into::into);
    let code = run_with(registry, words, &mut out, &mut err);
    (code, String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"))
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the file is written");
    path.display().to_string()
}

const GOOD: &str = "sources: { s: { type: pull } }\nsinks: { k: { type: push, account: a } }\n";
const WARNS: &str = "sources: { s: { type: pull, password: { plain: x } } }\nsinks: { k: { type: push, account: a } }\n";
const WRONG: &str = "sources: { s: { type: pull } }\nsinks: { k: { type: push, acount: a } }\n";

#[test]
fn validate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (good, warns, wrong) =
        (file(folder.path(), "g.yaml", GOOD), file(folder.path(), "w.yaml", WARNS), file(folder.path(), "x.yaml", WRONG));
    let registry = dummy_registry();
    for (args, code, out, err) in [
        (vec!["validate", &good], 0, "", "g.yaml: ok\n"),
        (vec!["validate", &warns], 0, "", "w.yaml: ok, 1 warning\n"),
        (vec!["validate", &warns, "--deny-warnings"], 4, "", "w.yaml: ok, 1 warning\n"),
        (vec!["validate", &good, &wrong, &warns, "--deny-warnings"], 2, "", "x.yaml: 2 errors\n"),
        (vec!["validate", "/nowhere.yaml"], 2, "", "CFG0001"),
        (
            vec!["validate", "/nowhere.yaml", "--format", "json"],
            2,
            "\"code\":\"CFG0001\",\"severity\":\"error\",\"pointer\":\"\",\"file\":\"/nowhere.yaml\",\"line\":1",
            "",
        ),
        (vec!["validate", &good, "--format", "json"], 0, "{\"command\":\"validate\",\"ok\":true,\"findings\":[]}\n", ""),
        (vec!["validate", &warns, "--show-effective"], 0, "plain: \"<redacted>\"", "CFG0010"),
        (vec!["validate", &good, "--show-effective", "--format", "json"], 0, "\"yaml\":\"version: 1\\nname: g\\n", ""),
        (vec!["graph", &good], 0, "├", ""),
        (vec!["graph", &good, "--format", "mermaid"], 0, "flowchart LR", ""),
        (vec!["graph", &wrong], 2, "", "CFG0003"),
        (vec!["run", &wrong], 2, "", "CFG0003"),
        (vec!["list"], 0, "source    pull", ""),
        (vec!["describe", "push"], 0, "batch.max_rows", ""),
        (vec!["describe", "pusj"], 2, "", "did you mean `push`?"),
        (vec!["explain", "cfg0004"], 0, "# CFG0004: ", ""),
        (vec!["explain", "CFG9999"], 2, "", "there is no error code CFG9999"),
        (vec!["explain"], 0, "CFG0004  an input that does not exist", ""),
        (vec!["generate", "completions", "bash"], 0, "        etl__stream__subcmd__generate__subcmd__man)", ""),
        (vec!["generate", "man"], 0, ".TH etl-stream", ""),
        (vec!["--help"], 0, "Exit codes", ""),
        (vec!["--version"], 0, "etl-stream 0", ""),
        (vec!["frobnicate"], 2, "", "unrecognized subcommand"),
        (vec!["run", "--until", "noon"], 2, "", "caught-up"),
        (vec!["bench", "--sink", "nowhere"], 2, "", "BEN0002"),
        (vec!["bench", "--source", "replay"], 2, "", "BEN0002"),
        (vec!["bench", "--scenario", "snapshot", "--rate", "5"], 2, "", "BEN0002"),
        (vec!["bench", "--scenario", "none"], 2, "", "narrow_insert"),
        (vec!["bench", "--rows", "1", "--duration", "1s"], 2, "", "cannot be used with"),
        (vec!["bench", "--rows", "1", "--pipeline", &wrong], 2, "\"partial\": true", "BEN0002"),
        (vec!["bench", "--rows", "1", "--pipeline", &good], 2, "\"partial\": true", "BEN0004"),
        (vec!["bench", "compare", "/nowhere.json", "/nowhere.json"], 2, "", "BEN0003"),
        (vec!["resync"], 2, "", "TABLE"),
        (vec!["resync", "public.t", "--file", &wrong], 2, "", "CFG0003"),
        (vec!["resync", "public.t", "--file", &good], 2, "", "was ever read"),
        (vec!["check", &wrong], 2, "", "CFG0003"),
        (vec!["check", &good], 0, "source s (pull)\n  ok       has nothing to look at\nsink k (push)", "0 errors, 0 warnings\n"),
        (vec!["check", &good, "--format", "json"], 0, "{\"command\":\"check\",\"ok\":true,\"findings\":[]}\n", ""),
        (vec!["slot", "list", &good], 0, "SLOT  SOURCE", ""),
        (vec!["slot", "list", &good, "--format", "json"], 0, "", ""),
        (vec!["slot", "drop", "s", &good, "--yes"], 2, "", "RUN0033"),
        (vec!["slot", "drop", "other", &good, "--yes"], 2, "", "--force"),
        (vec!["status", &good, "--listen", "none"], 3, "SOURCE  STAGE", "RUN0031"),
        (vec!["top", &good, "--listen", "none"], 3, "", "RUN0031"),
        (vec!["tap", "s", "--file", &good, "--listen", "none"], 3, "", "RUN0031"),
        (vec!["pause", "t", "--file", &good, "--listen", "none"], 2, "", "RUN0030"),
        (vec!["pause", "--file", &good, "--listen", "none"], 0, "s paused\n", "its next run does so"),
        (
            vec!["status", &good, "--listen", "none", "--format", "json"],
            3,
            "\"running\":false,\"sources\":[{\"source\":\"s\",\"stage\":\"never run\",\"confirmed_lsn\":null,\"paused\":\"asked for\"",
            "RUN0031",
        ),
        (vec!["resume", "s", "--file", &good, "--listen", "none"], 0, "s resumed\n", ""),
        (vec!["init", "--file", &good], 2, "", "RUN0036"),
        (vec!["--log-filter", "a=b=c", "list"], 2, "", "log filter"),
    ] {
        let got = call(&registry, &args);
        assert!(got.0 == code && got.1.contains(out) && got.2.contains(err), "{args:?}: {} {:.2000} {:.2000}", got.0, got.1, got.2);
        if out.is_empty() {
            assert_eq!(got.1, "", "{args:?}: stdout is data");
        }
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_left_is_no_failure() {
    for args in [
        vec!["list"],
        vec!["--help"],
        vec!["generate", "schema"],
        vec!["generate", "completions", "zsh"],
        vec!["generate", "man"],
        vec!["explain"],
    ] {
        let words = ["etl-stream"].into_iter().chain(args.iter().copied()).map(Into::into);
        assert_eq!(run_with(&dummy_registry(), words, &mut Closed, &mut Vec::new()), 0, "{args:?}");
    }
}

#[test]
fn reference_is_up_to_date() {
    let registry = Registry::builtin();
    for (name, what) in [("pipeline.schema.json", "schema"), ("reference.md", "reference")] {
        let (code, text, _) = call(&registry, &["generate", what]);
        assert_eq!(code, 0);
        let path = Path::new(ROOT).join("docs/reference").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("the file is written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{} is stale: UPDATE_GOLDEN=1 cargo test -p etl-stream records it again", path.display());
    }
}

#[test]
fn the_schema_knows_every_node() {
    let (_, text, _) = call(&dummy_registry(), &["generate", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (pointer, expected) in [
        ("/$defs/sinks.push/properties/type/const", serde_json::json!("push")),
        ("/$defs/sinks.push/required", serde_json::json!(["type", "account"])),
        ("/$defs/sinks.push/additionalProperties", serde_json::json!(false)),
        ("/properties/sources/additionalProperties/oneOf/0/$ref", serde_json::json!("#/$defs/sources.pull")),
        ("/properties/defaults/properties/sinks/properties/account/type", serde_json::json!("string")),
        ("/$defs/Secret/secret", serde_json::json!(true)),
        ("/$defs/sources.pull/properties/port/type", serde_json::json!(["integer", "string"])),
        ("/$defs/sources.pull/properties/port/pattern", serde_json::json!("\\$\\{")),
    ] {
        assert_eq!(schema.pointer(pointer), Some(&expected), "{pointer}");
    }
    // Every reference leads somewhere.
    for registry in [dummy_registry(), Registry::builtin()] {
        let (_, text, _) = call(&registry, &["generate", "schema"]);
        let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let defs = schema["$defs"].as_object().expect("definitions");
        for (at, _) in text.match_indices("\"#/$defs/") {
            let name = text[at + 9..].split('"').next().unwrap_or_default();
            assert!(defs.contains_key(name), "{name}");
        }
    }
}

/// Examples are right for this binary, but for node types that it does not have.
#[test]
fn examples_validate() {
    let folder = Path::new(ROOT).join("examples");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).expect("examples").filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    assert!(paths.len() >= 5, "examples are there");
    for path in paths {
        let (_, out, _) = call(&Registry::builtin(), &["validate", "--no-env", "--format", "json", &path.display().to_string()]);
        let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let other: Vec<_> = answer["findings"].as_array().expect("a list").iter().filter(|f| f["code"] != "CFG0006").collect();
        assert!(other.is_empty(), "{}: {other:?}", path.display());
    }
}

/// What `describe` shows builds: each example, in a pipeline.
#[test]
fn node_examples_validate() {
    for registry in [dummy_registry(), Registry::builtin()] {
        for node in registry.types() {
            let own: String = super::reference::example(node).replace("inputs: [name]", "inputs: [other]");
            let other = "sources:\n  other: { type: pull }\n";
            let sink = "sinks:\n  end: { type: push, inputs: [X], account: a }\n";
            let text = match node.kind {
                crate::Kind::Source => format!("{own}{}", sink.replace('X', "my_source")),
                crate::Kind::Operator => format!("{other}{own}{}", sink.replace('X', "other")),
                crate::Kind::Sink => format!("{other}{own}"),
            };
            let loaded = crate::config::parse("p.yaml", &text, Path::new("p.yaml"), &registry, &crate::config::Environment::Opaque);
            let wrong: Vec<_> = loaded.problems.list.iter().filter(|p| !matches!(p.code.id, "CFG0006" | "CFG0015")).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", node.name);
        }
    }
}

#[test]
fn every_code_has_a_page() {
    let folder = Path::new(ROOT).join("docs/errors");
    let source = std::fs::read_to_string(Path::new(ROOT).join("src/config/codes.rs")).expect("the codes");
    let codes = source.split('"').filter(|word| word.starts_with("CFG"));
    for code in codes.chain(["CFG0014"]) {
        let page = std::fs::read_to_string(folder.join(format!("{code}.md"))).unwrap_or_default();
        assert!(page.starts_with(&format!("# {code}: ")), "{code}");
    }
}
