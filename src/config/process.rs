//! The settings of a process that runs a folder of pipelines: `engine` and `server`, as in a pipeline file.

use super::pipeline::{engine, server};
use super::problem::Problems;
use super::settings::{EngineSettings, ServerSettings};
use super::tree::Value;
use super::{Environment, codes, document, interpolate, join, report, suggest};
use std::path::Path;

/// The keys of the file.
const KEYS: [&str; 2] = ["engine", "server"];

/// What the process is to be like.
#[derive(Clone, Debug)]
pub struct Process {
    /// `workers` are the threads that its pipelines share; `source_credit` is a matter of each pipeline.
    pub engine: EngineSettings,
    /// Whether the file says how many workers.
    pub workers_given: bool,
    /// Where the server of all its pipelines listens.
    pub server: Option<ServerSettings>,
}

impl Default for Process {
    fn default() -> Self {
        Self { engine: EngineSettings::default(), workers_given: false, server: Some(ServerSettings::default()) }
    }
}

/// Reads such a file.
#[must_use]
pub fn load_process(path: &Path, environment: &Environment<'_>) -> (Process, Problems) {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let mut problems = Problems::new(&file, text.as_deref().unwrap_or_default());
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            problems.error(codes::SYNTAX, "", super::Span::default(), format!("file \"{file}\" was not read: {error}"));
            return (Process::default(), problems);
        }
    };
    let (tree, faults) = document::parse(&text);
    for fault in faults {
        problems.error(fault.code, &fault.pointer, fault.span, fault.message).help = fault.help;
    }
    report::conceal(tree.as_ref(), &text, &mut problems.hidden);
    let mut process = Process::default();
    if let Some(mut tree) = tree {
        interpolate::apply(&mut tree, environment, "", &mut problems);
        match &tree.value {
            Value::Map(entries) => {
                for entry in entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
                    let message = format!("a process has no field `{}`", entry.key);
                    problems.error(codes::UNKNOWN_FIELD, &join("", &entry.key), entry.key_span, message).help =
                        suggest::help(&entry.key, KEYS);
                }
                process.workers_given = tree.entry("engine").is_some_and(|engine| engine.value.entry("workers").is_some());
                process.engine = engine(&tree, &mut problems);
                process.server = server(&tree, &mut problems);
            }
            _ => {
                let message = format!("the settings of a process are a map, not {}", tree.noun());
                problems.error(codes::VALUE, "", tree.span, message);
            }
        }
    }
    problems.finish();
    (process, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etl-stream.yaml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let (process, problems) = load_process(&path, &Environment::Lookup(&|_| None));
            (process, problems.list.iter().map(|problem| (problem.code.id, problem.line)).collect::<Vec<_>>())
        };
        let (process, problems) = load("engine: { workers: 3, connections: { total: 7 } }\nserver: none\n");
        assert!(problems.is_empty() && process.server.is_none() && process.workers_given);
        assert_eq!((process.engine.workers, process.engine.connections.total), (3, 7));
        let (process, problems) = load("server: { listen: \"127.0.0.1:1\" }\n");
        assert!(problems.is_empty() && process.server.is_some() && !process.workers_given, "{problems:?}");
        for (text, expected) in
            [("sources: {}\n", vec![("CFG0003", 1)]), ("engine: { workers: 0 }\n", vec![("CFG0002", 1)]), ("- 1\n", vec![("CFG0002", 1)])]
        {
            assert_eq!(load(text).1, expected, "{text}");
        }
    }
}
