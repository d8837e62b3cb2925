//! `etl-stream dead-letter`: the rows that a sink was definitively refused, and another try of them.
//!
//! Keys and rows are values: `list` prints keys, and rows with `--format json`, to stdout alone.

use super::{Shell, validate};
use crate::Exit;
use crate::exit::{Failure, verdict};
use clap::{Args, Subcommand, ValueEnum};
use etl_stream_operators::contract::{Code, CodedError, DeadLetter, DeadLetters, Replayed};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// No sink of the pipeline keeps dead letters, or the one that is named does not.
const NO_DEAD_LETTERS: Code = Code::new("RUN0020", Exit::Usage);

/// What a sink keeps, by the sink's name.
type Named = (String, Box<dyn DeadLetters>);

/// How letters are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each, without the row.
    #[default]
    Human,
    /// A JSON object for each, a line each, with the row.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct DeadLetterArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the rows that are not sent again yet.
    List {
        #[command(flatten)]
        which: Which,
        /// List those that were sent again too.
        #[arg(long)]
        all: bool,
    },
    /// Send rows again, after the cause is fixed; exits with 4 when some are refused again.
    Replay {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// One table alone, as schema.table.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// One sink alone.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// How they are shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Which {
    /// The dead letters of each sink that has some.
    fn sinks(&self, shell: &mut Shell<'_>) -> Result<Vec<Named>, Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let mut found = Vec::new();
        if let Some(graph) = loaded.graph {
            for node in graph.sinks().filter_map(|at| graph.nodes.get(at)) {
                if self.sink.as_deref().is_none_or(|wanted| wanted == &*node.name)
                    && let Some(letters) = node.parsed.sink(&graph.context(node))?.dead_letters(&graph.pipeline)
                {
                    found.push((node.name.to_string(), letters));
                }
            }
        }
        if found.is_empty() {
            let message = match &self.sink {
                Some(name) => format!("sink \"{name}\" of \"{}\" keeps no dead letters", self.file.display()),
                None => format!("no sink of \"{}\" keeps dead letters", self.file.display()),
            };
            let hint = "a `snowflake` sink does, unless `dead_letter: stop` is set";
            return Err(CodedError::definite(NO_DEAD_LETTERS, message).hint(hint).into());
        }
        Ok(found)
    }
}

fn wait<T>(work: impl Future<Output = Result<T, CodedError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

fn show(sink: &str, letter: &DeadLetter, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    let DeadLetter { source, table, token, op, code, reason, key, row, outcome } = letter;
    match format {
        Format::Human => {
            let outcome = if outcome.is_empty() { "open" } else { outcome };
            writeln!(out, "{sink}  {source}  {table}  {token}  {op}  {code}  {outcome}  {key}")
        }
        Format::Json => {
            let line = json!({
                "sink": sink, "source": source, "table": table, "token": token.to_string(), "op": op.to_string(), "code": code,
                "reason": reason, "key": key, "row": row, "outcome": outcome,
            });
            writeln!(out, "{line}")
        }
    }
}

fn show_replayed(sink: &str, done: &Replayed, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    let Replayed { source, table, token, outcome, note } = done;
    match format {
        Format::Human if note.is_empty() => writeln!(out, "{sink}  {source}  {table}  {token}  {outcome}"),
        Format::Human => writeln!(out, "{sink}  {source}  {table}  {token}  {outcome}: {note}"),
        Format::Json => {
            let token = token.to_string();
            writeln!(out, "{}", json!({ "sink": sink, "source": source, "table": table, "token": token, "outcome": outcome, "note": note }))
        }
    }
}

impl DeadLetterArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        match self.what {
            What::List { which, all } => {
                for (sink, letters) in which.sinks(shell)? {
                    for letter in wait(letters.list(which.table.as_deref(), all))? {
                        show(&sink, &letter, which.format, shell.out)?;
                    }
                }
                Ok(())
            }
            What::Replay { which } => {
                let mut kept = 0;
                for (sink, letters) in which.sinks(shell)? {
                    for done in wait(letters.replay(which.table.as_deref()))? {
                        kept += usize::from(done.outcome == "kept");
                        show_replayed(&sink, &done, which.format, shell.out)?;
                    }
                }
                if kept > 0 { Err(Failure::Reported(Exit::Negative)) } else { Ok(()) }
            }
        }
    }
}
