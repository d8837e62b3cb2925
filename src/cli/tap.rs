//! `etl-stream tap`: rows as they leave a node of the running pipeline, as NDJSON.

use super::running::Running;
use super::{Shell, validate};
use crate::exit::{Failure, verdict};
use crate::server::client::{self, Tapped};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object for each, a line each.
    #[default]
    Ndjson,
}

#[derive(Debug, Args)]
#[command(after_help = "A sample: rows that come faster than they are read are left out. Nothing is shown of what left before.")]
pub(super) struct TapArgs {
    /// A source or operator; one output of an operator that has several as node.output.
    #[arg(value_name = "NODE")]
    node: String,
    /// The pipeline file.
    #[arg(short, long, default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    #[command(flatten)]
    running: Running,
    /// Rows to show. Without it: until Ctrl-C, or until the pipeline ends.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How they are shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Rows are values, possibly of people: say that they are to be shown. Not needed with `server: { tap: true }`.
    #[arg(long)]
    show_values: bool,
}

impl TapArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let Format::Ndjson = self.format;
        let address = self.running.address(Some(&graph));
        let Some(listen) = address else { return Err(client::not_running(&graph.pipeline, address).into()) };
        match client::tap((listen, &graph.pipeline), &self.node, self.limit, self.show_values, shell.out)? {
            Tapped::Done => Ok(()),
            Tapped::NotRunning => Err(client::not_running(&graph.pipeline, address).into()),
            Tapped::Refused(error) => Err(error.into()),
        }
    }
}
