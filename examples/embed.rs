//! A pipeline inside a program of your own: read from a text, started on the program's runtime, watched, and stopped.

use etl_stream::config::{self, Environment};
use etl_stream::dataflow::{self, RunOptions};
use etl_stream::{CodedError, Registry};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PIPELINE: &str = "
sources:
  made_up: { type: synthetic, scenario: narrow_insert, rate: 20000 }
sinks:
  files: { type: file, inputs: [made_up], path: ./out, batch: { max_age: 200ms } }
server: none
";

/// Runs it in a folder until so many rows are in files; how many there are then.
async fn run(folder: &Path, rows: u64) -> Result<u64, CodedError> {
    let path = folder.join("pipeline.yaml");
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = config::parse("pipeline.yaml", PIPELINE, &path, &Registry::builtin(), &Environment::Lookup(&environment));
    let graph = loaded.graph.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    let started = dataflow::start(graph, RunOptions::default()).await?;
    let (files, stop) = (started.status().sink("files"), started.stopper());
    let counted = std::sync::Arc::clone(&files);
    tokio::spawn(async move {
        while counted.rows.load(Ordering::Relaxed) < rows {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Everything that has been read is made durable, and confirmed; then it ends.
        stop.send_replace(true);
    });
    started.supervise().await?;
    Ok(files.rows.load(Ordering::Relaxed))
}

fn main() -> Result<(), CodedError> {
    let runtime = tokio::runtime::Runtime::new().expect("threads for the runtime");
    let rows = runtime.block_on(run(Path::new("."), 10_000))?;
    println!("{rows} rows are in ./out");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_when_the_rows_are_there() {
        let folder = tempfile::tempdir().expect("a folder of the test");
        let runtime = tokio::runtime::Runtime::new().expect("threads for the runtime");
        let rows = runtime.block_on(run(folder.path(), 500)).expect("the pipeline runs");
        assert!(rows >= 500, "{rows}");
        assert!(folder.path().join("out").read_dir().is_ok_and(|mut tables| tables.next().is_some()));
    }
}
