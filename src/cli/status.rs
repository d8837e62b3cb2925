//! `etl-stream status`: what the process that runs a pipeline says of itself; without one, what its state says.

use super::running::Running;
use super::validate::Format;
use super::{Shell, describe, validate};
use crate::Kind;
use crate::checkpoint::paused;
use crate::exit::{Failure, verdict};
use crate::graph::Graph;
use crate::server::client;
use crate::server::status::{Status, age, size};
use clap::Args;
use etl_stream_operators::contract::{CodedError, StateKey};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Exits with 3 when no process runs the pipeline; what its state says is shown then.")]
pub(super) struct StatusArgs {
    /// The pipeline file, or the folder that a process runs: then all its pipelines are listed.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    #[command(flatten)]
    running: Running,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A source as its state has it.
struct Stopped {
    source: String,
    stage: String,
    confirmed: Option<String>,
    paused: Option<String>,
    tables: Vec<(String, String)>,
}

impl StatusArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        if self.file.is_dir() {
            return self.folder(shell);
        }
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let address = self.running.address(Some(&graph));
        let Some(said) = address.and_then(|address| client::status(address, &graph.pipeline)) else {
            let stopped = stopped(&graph)?;
            match self.format {
                Format::Human => shell.out.write_all(draw_stopped(&stopped).as_bytes())?,
                Format::Json => writeln!(shell.out, "{}", json_stopped(&graph.pipeline, &stopped))?,
            }
            return Err(client::not_running(&graph.pipeline, address).into());
        };
        match self.format {
            Format::Human => shell.out.write_all(draw(&said).as_bytes())?,
            Format::Json => {
                let mut value = json!(said);
                value["running"] = true.into();
                writeln!(shell.out, "{value}")?;
            }
        }
        Ok(())
    }
}

impl StatusArgs {
    /// The pipelines of the process that runs a folder.
    fn folder(&self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let address = self.running.address(None);
        let said = address.and_then(client::pipelines);
        let Some(said) = said else { return Err(client::not_running(&self.file.display().to_string(), address).into()) };
        if let Format::Json = self.format {
            said.iter().try_for_each(|pipeline| writeln!(shell.out, "{pipeline}"))?;
            return Ok(());
        }
        let text = |value: &Value| value.as_str().map_or_else(String::new, str::to_owned);
        let rows = said.iter().map(|pipeline| {
            let why = [&pipeline["reason"], &pipeline["file_problem"]].map(&text);
            let number = |key: &str| pipeline[key].as_u64().unwrap_or(0);
            let phases = pipeline["sources"].as_array().into_iter().flatten();
            let phases =
                phases.map(|source| format!("{}: {}", text(&source["source"]), text(&source["phase"]))).collect::<Vec<_>>().join(", ");
            let why = why.into_iter().filter(|why| !why.is_empty()).collect::<Vec<_>>().join("; ");
            vec![text(&pipeline["pipeline"]), text(&pipeline["state"]), phases, size(number("lag_bytes")), number("rows").to_string(), why]
        });
        let table = describe::table(["PIPELINE", "STATE", "SOURCES", "BEHIND", "ROWS", "WHY"], rows);
        Ok(writeln!(shell.out, "{table}")?)
    }
}

/// A running pipeline as tables of text.
pub(super) fn draw(said: &Status) -> String {
    let sources = said.sources.iter().map(|s| {
        let (copied, all) = s.copied();
        let doing = if s.phase == "snapshot" { format!("{}: {copied} of about {all} rows", s.doing()) } else { s.doing() };
        let numbers = [size(s.lag_bytes), age(s.lag_seconds), s.received_lsn.clone(), s.durable_lsn.clone(), s.confirmed_lsn.clone()];
        [s.source.clone(), doing].into_iter().chain(numbers).chain([s.changes.to_string()]).collect()
    });
    let sources = describe::table(["SOURCE", "PHASE", "BEHIND", "FOR", "RECEIVED", "DURABLE", "CONFIRMED", "CHANGES"], sources);
    let sinks = said.sinks.iter().map(|s| {
        let sent = [s.rows.to_string(), size(s.bytes), s.pending_rows.to_string(), age(s.freshness_seconds)];
        let refused = [s.rejected_rows, s.dead_letter_rows, s.retries].map(|number| number.to_string());
        [s.sink.clone()].into_iter().chain(sent).chain(refused).collect()
    });
    let sinks = describe::table(["SINK", "ROWS", "SENT", "PENDING", "OLDEST", "REFUSED", "DEAD LETTERS", "RETRIES"], sinks);
    let tables = said
        .sources
        .iter()
        .flat_map(|s| s.tables.iter().map(|t| vec![t.table.clone(), t.phase.clone(), s.source.clone(), t.snapshot_rows.to_string()]));
    let tables = describe::table(["TABLE", "PHASE", "SOURCE", "ROWS COPIED"], tables);
    let remark = said.remark().map(|remark| format!("{remark}\n\n")).unwrap_or_default();
    let mut text = format!("{remark}{sources}\n\n{sinks}\n\n{tables}\n");
    for s in &said.sources {
        for (table, why) in s.tables.iter().filter_map(|t| Some((&t.table, t.failed.as_ref()?))) {
            text.push_str(&format!("\ntable {table} of source {} was not copied: {why}\n", s.source));
        }
    }
    for s in &said.sinks {
        for t in &s.stopped_tables {
            let hint = t.hint.as_ref().map(|hint| format!("\n  help: {hint}")).unwrap_or_default();
            text.push_str(&format!(
                "\ntable {} is stopped in sink {} since {} [{}]: {}{hint}\n",
                t.table, s.sink, t.since, t.code, t.reason
            ));
        }
    }
    text
}

/// What the state says, read without disturbing it.
fn stopped(graph: &Graph) -> Result<Vec<Stopped>, CodedError> {
    let Some(state) = graph.state.open_to_read()? else { return Ok(Vec::new()) };
    let word = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let mut all = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.kind == Kind::Source) {
        let documents = state.list(&graph.pipeline, &node.name)?;
        let own = documents.iter().find(|(key, _)| key.table.is_empty()).map(|(_, value)| word(value, "stage"));
        // Where a source keeps the position that it confirmed, if it has one.
        let confirmed = state.load(&StateKey::node(&graph.pipeline, &format!("{}/confirmed", node.name)))?;
        all.push(Stopped {
            source: node.name.to_string(),
            stage: own.unwrap_or_else(|| "never run".into()),
            confirmed: confirmed.and_then(|value| value.as_str().map(str::to_owned)),
            paused: paused(&*state, &graph.pipeline, &node.name)?,
            tables: documents
                .into_iter()
                .filter(|(key, _)| !key.table.is_empty())
                .map(|(key, value)| (key.table, word(&value, "stage")))
                .collect(),
        });
    }
    Ok(all)
}

fn draw_stopped(sources: &[Stopped]) -> String {
    let rows = sources.iter().map(|s| {
        let paused = s.paused.as_ref().map(|why| format!("paused ({why})")).unwrap_or_default();
        vec![s.source.clone(), s.stage.clone(), s.confirmed.clone().unwrap_or_default(), paused]
    });
    let sources_table = describe::table(["SOURCE", "STAGE", "CONFIRMED", "PAUSED"], rows);
    let rows = sources.iter().flat_map(|s| s.tables.iter().map(|(table, stage)| vec![table.clone(), stage.clone(), s.source.clone()]));
    format!("{sources_table}\n\n{}\n", describe::table(["TABLE", "STAGE", "SOURCE"], rows))
}

fn json_stopped(pipeline: &str, sources: &[Stopped]) -> Value {
    let table = |(table, stage): &(String, String)| json!({ "table": table, "stage": stage });
    let source = |s: &Stopped| json!({ "source": s.source, "stage": s.stage, "confirmed_lsn": s.confirmed, "paused": s.paused, "tables": s.tables.iter().map(table).collect::<Vec<_>>() });
    json!({ "pipeline": pipeline, "running": false, "sources": sources.iter().map(source).collect::<Vec<_>>() })
}
