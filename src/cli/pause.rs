//! `etl-stream pause` and `etl-stream resume`: whether sources read, in the process that runs the pipeline and after it.

use super::running::Running;
use super::{Shell, validate};
use crate::Kind;
use crate::checkpoint::{Pause, SqliteState, Wish};
use crate::exit::{Failure, verdict};
use crate::server::client;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Sources of the pipeline; all without any.
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The pipeline file.
    #[arg(short, long, default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    #[command(flatten)]
    running: Running,
}

impl PauseArgs {
    pub(super) fn run(self, wish: Wish, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let pause = Pause::asked(&graph.pipeline, self.sources);
        // A running pipeline has its state to itself.
        let running = self.running.address(&graph).and_then(|address| client::tell(address, wish, &pause)).transpose()?;
        let runs = running.is_some();
        let told = match running {
            Some(told) => told,
            None => {
                let known: Vec<&str> = graph.nodes.iter().filter(|node| node.kind == Kind::Source).map(|node| &*node.name).collect();
                pause.store(wish, &SqliteState::open(&graph.state)?, &known)?
            }
        };
        for source in &told {
            writeln!(shell.out, "{source} {}", if wish == Wish::Pause { "paused" } else { "resumed" })?;
        }
        let when = if runs { "the pipeline, which is running, was told" } else { "the pipeline does not run here; its next run does so" };
        writeln!(shell.err, "{when}")?;
        if wish == Wish::Pause {
            let warning = "while a source is paused its server keeps all log from its slot's position on, and the disk fills: \
                           watch it with `etl-stream slot list`, and resume in time (max_slot_wal_keep_size bounds it, and then costs the slot)";
            writeln!(shell.err, "{warning}")?;
        }
        Ok(())
    }
}
