//! Random changes of real files: whatever comes out, reading it is no crash.

use super::{Drawing, Environment, dummies, parse};
use std::path::Path;

/// Every example, for the dummies' node types.
fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("examples are there").filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let names = [("postgres", "pull"), ("filter", "keep"), ("mask", "hide"), ("route", "split"), ("snowflake", "push")];
    let read = |p: &std::path::PathBuf| {
        let text = std::fs::read_to_string(p).expect("an example reads");
        names.iter().fold(text, |text, (real, dummy)| text.replace(&format!("type: {real}"), &format!("type: {dummy}")))
    };
    paths.iter().map(read).collect()
}

/// Random changes of real files: pieces taken out, doubled, moved, replaced by what YAML and the file's
/// own syntax give meaning to.
#[test]
fn mutations_never_panic() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRng, TestRunner};
    const PIECES: [&str; 28] = [
        ":", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *a", "!!str ", "!x ", "|\n", ">\n", "\"", "'", "#", "\n", "  ", "\t", "---\n",
        "${", "${A:-b}", "${A:?c}", "plain: x", "~", "\u{0}", "\u{feff}", "ö",
    ];
    let seed: u64 = std::env::var("PROPTEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64));
    println!("PROPTEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(config.rng_algorithm, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let files = examples();
    let step = (0..5_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::sample::select(&PIECES[..]));
    let input = (0..files.len(), prop::collection::vec(step, 1..8));
    let done = runner.run(&input, |(file, steps)| {
        let mut text: Vec<char> = files[file].chars().collect();
        for (what, one, other, piece) in steps {
            let (from, to) = (one.index(text.len() + 1), other.index(text.len() + 1));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
            let part: Vec<char> = text[from..to].to_vec();
            match what {
                0 => drop(text.drain(from..to)),
                1 => drop(text.splice(to..to, part)),
                2 => drop(text.splice(from..to, piece.chars())),
                3 => drop(text.splice(from..from, piece.chars())),
                _ => {
                    text.drain(from..to);
                    let at = other.index(text.len() + 1);
                    drop(text.splice(at..at, part));
                }
            }
        }
        let text: String = text.into_iter().collect();
        for environment in [Environment::Opaque, Environment::Lookup(&|_| None)] {
            let loaded = parse("p.yaml", &text, Path::new("p.yaml"), &dummies::registry(), &environment);
            let _ = (loaded.problems.draw(Drawing::Plain, 80), loaded.problems.json().count());
            if let Some(graph) = &loaded.graph {
                let _ = (graph.ascii(crate::graph::Strokes::Unicode), graph.svg());
            }
        }
        Ok(())
    });
    assert!(done.is_ok(), "PROPTEST_SEED={seed}: {done:?}");
}
