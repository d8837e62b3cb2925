//! `etl-stream graph`: draws a pipeline.

use super::{Shell, terminal, validate};
use crate::exit::{Failure, verdict};
use crate::graph::Strokes;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How it is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Boxes and lines of text.
    #[default]
    Ascii,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
    /// A picture.
    Svg,
}

#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// How it is drawn.
    #[arg(long, value_enum, default_value_t, env = "ETL_STREAM_GRAPH_FORMAT", hide_env_values = true)]
    format: Format,
}

impl GraphArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let drawn = match self.format {
            Format::Ascii if terminal::utf8() => graph.ascii(Strokes::Unicode),
            Format::Ascii => graph.ascii(Strokes::Ascii),
            Format::Mermaid => graph.mermaid(),
            Format::Dot => graph.dot(),
            Format::Svg => graph.svg(),
        };
        Ok(shell.out.write_all(drawn.as_bytes())?)
    }
}
