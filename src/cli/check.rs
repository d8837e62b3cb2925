//! `etl-stream check`: whether a pipeline could run, found out on the live systems without changing them.

use super::validate::Format;
use super::{Shell, validate};
use crate::Exit;
use crate::exit::{Failure, verdict};
use crate::preflight::{Looked, preflight};
use clap::Args;
use etl_stream_operators::contract::{Checked, CodedError, Standing};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Changes nothing on either side. Exits with 3 when `run` would stop at something; warnings do not count.")]
pub(super) struct CheckArgs {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// How findings are shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl CheckArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let found = runtime.block_on(preflight(&graph))?;
        // A server that does not answer is not waited for.
        runtime.shutdown_background();
        let verdict = judge(&found);
        match self.format {
            Format::Human => draw(&found, shell)?,
            Format::Json => {
                let findings: Vec<Value> =
                    found.iter().flat_map(|node| node.checks.0.iter().map(|checked| finding(node, checked))).collect();
                writeln!(shell.out, "{}", json!({ "command": "check", "ok": verdict.is_ok(), "findings": findings }))?;
            }
        }
        verdict.map_err(Failure::Reported)
    }
}

/// How the command ends: the environment counts before what the file asks of it.
fn judge(found: &[Looked]) -> Result<(), Exit> {
    let wrong: Vec<&Checked> = found.iter().flat_map(|node| &node.checks.0).filter(|checked| checked.standing == Standing::Wrong).collect();
    let usage = |checked: &&Checked| checked.error.as_ref().is_some_and(|error| error.code.exit == Exit::Usage);
    match wrong.as_slice() {
        [] => Ok(()),
        all if all.iter().all(usage) => Err(Exit::Usage),
        _ => Err(Exit::Environment),
    }
}

/// Everything that caused an error, in one line.
fn causes(error: &CodedError) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn message(checked: &Checked) -> String {
    format!("{}{}", checked.message, checked.error.as_ref().map(causes).unwrap_or_default())
}

fn draw(found: &[Looked], shell: &mut Shell<'_>) -> std::io::Result<()> {
    let mut counts = [0; 3];
    for node in found {
        writeln!(shell.out, "{} {} ({})", node.kind.noun(), node.node, node.type_name)?;
        if node.checks.0.is_empty() {
            writeln!(shell.out, "  ok       has nothing to look at")?;
        }
        for checked in &node.checks.0 {
            counts[checked.standing as usize] += 1;
            let code = checked.error.as_ref().map(|error| format!("[{}] ", error.code.id)).unwrap_or_default();
            writeln!(shell.out, "  {:8} {code}{}", checked.standing.word(), message(checked))?;
            if let Some(hint) = &checked.hint {
                writeln!(shell.out, "           help: {hint}")?;
            }
        }
    }
    let [_, doubtful, wrong] = counts;
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    writeln!(shell.err, "{}, {}", count(wrong, "error"), count(doubtful, "warning"))
}

fn finding(node: &Looked, checked: &Checked) -> Value {
    json!({
        "node": &*node.node, "kind": node.kind.noun(), "type": &*node.type_name, "severity": checked.standing.word(),
        "code": checked.error.as_ref().map(|error| error.code.id), "message": message(checked), "help": checked.hint,
    })
}
