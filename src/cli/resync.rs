//! `etl-stream resync`: has tables of a pipeline copied anew, by the process that runs it or by its next run.

use super::running::Running;
use super::{Shell, validate};
use crate::Kind;
use crate::checkpoint::{Requested, Resync};
use crate::exit::{Failure, verdict};
use crate::server::client;
use clap::Args;
use etl_stream_operators::contract::MemoryState;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct ResyncArgs {
    /// Tables as schema.table; `*` in either part stands for any characters.
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// The pipeline file.
    #[arg(short, long, default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// Only tables of this source.
    #[arg(long, value_name = "NAME", env = "ETL_STREAM_SOURCE", hide_env_values = true)]
    source: Option<String>,
    #[command(flatten)]
    running: Running,
}

impl ResyncArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let resync = Resync { pipeline: graph.pipeline.to_string(), tables: self.tables, source: self.source };
        // A running pipeline has its state to itself.
        let running = self.running.address(Some(&graph)).and_then(|address| client::resync(address, &resync)).transpose()?;
        let (found, who) = match running {
            Some(found) => (found, "the pipeline, which is running, copies them anew"),
            None => {
                let sources = graph.nodes.iter().filter(|node| node.kind == Kind::Source).map(|node| &*node.name);
                // Nothing was read yet where there is no state, and none is made for that.
                let there = graph.state.file().is_none_or(std::path::Path::exists);
                let state = if there { graph.state.open_to_mark()? } else { Arc::<MemoryState>::default() };
                (resync.request(&*state, sources)?.into_iter().collect::<Vec<_>>(), "the next run copies them anew")
            }
        };
        for Requested { source, table } in &found {
            writeln!(shell.out, "{source} {table}")?;
        }
        Ok(writeln!(shell.err, "{who}, beside the stream of the others")?)
    }
}
