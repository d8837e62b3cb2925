//! `etl-stream verify`: whether sinks hold what their sources have.

use super::running::Running;
use super::validate::Format;
use super::{Shell, describe, validate};
use crate::Exit;
use crate::exit::{Failure, verdict};
use crate::server::client;
use crate::verify::{Compared, Verified, Wanted, verify};
use clap::Args;
use etl_stream_operators::contract::{Lsn, TablePattern, TableSchema};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Differing keys that are shown of a table, where they are.
const KEYS: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "Exits with 4 when a table differs, or when none could be compared; with 3 when a side is not reached.")]
pub(super) struct VerifyArgs {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// Tables as schema.table; `*` in either part stands for any characters. All without any.
    #[arg(value_name = "TABLE", value_parser = pattern)]
    tables: Vec<TablePattern>,
    /// One sink alone.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Show the keys of rows that differ. Keys are values.
    #[arg(long)]
    show_keys: bool,
    /// How many keys are shown of a table.
    #[arg(long, value_name = "N", default_value_t = KEYS)]
    keys: usize,
    /// How long a running pipeline may take to bring its sinks to the point of the comparison.
    #[arg(long, value_name = "DURATION", value_parser = super::run::duration, default_value = "60s")]
    timeout: Duration,
    #[command(flatten)]
    running: Running,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn pattern(text: &str) -> Result<TablePattern, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

impl VerifyArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let tables = |table: &TableSchema| self.tables.is_empty() || self.tables.iter().any(|p| p.matches(&table.schema, &table.name));
        let address = self.running.address(Some(&graph));
        let confirmed = |source: &str| -> Option<Lsn> {
            let said = client::status(address?, &graph.pipeline)?;
            said.sources.into_iter().find(|one| one.source == source)?.confirmed_lsn.parse().ok()
        };
        if address.and_then(|address| client::status(address, &graph.pipeline)).is_none() {
            writeln!(shell.err, "the pipeline does not run here: what it has not read yet counts as a difference")?;
        }
        let wanted = Wanted {
            tables: &tables,
            sink: self.sink.as_deref(),
            keys: if self.show_keys { self.keys.max(1) } else { 0 },
            patience: self.timeout,
            confirmed: &confirmed,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let found = runtime.block_on(verify(&graph, &wanted))?;
        match self.format {
            Format::Human => draw(&found, shell)?,
            Format::Json => {
                let tables: Vec<Value> = found.iter().map(object).collect();
                writeln!(shell.out, "{}", json!({ "command": "verify", "equal": equal(&found), "tables": tables }))?;
            }
        }
        if equal(&found) { Ok(()) } else { Err(Failure::Reported(Exit::Negative)) }
    }
}

/// Whether something was compared, and nothing differs.
fn equal(found: &[Verified]) -> bool {
    let mut compared = found.iter().filter_map(|one| one.outcome.as_ref().ok()).peekable();
    compared.peek().is_some() && compared.all(Compared::equal)
}

fn describe_one(compared: &Compared) -> String {
    let mut parts = Vec::new();
    let mut count = |number: u64, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    count(compared.missing, "missing");
    count(compared.extra, "too many");
    count(compared.differing, "with other values");
    count(compared.touched, "changed meanwhile and not compared");
    match (compared.equal(), parts.is_empty()) {
        (true, true) => "equal".into(),
        (true, false) => format!("equal; {}", parts.join(", ")),
        (false, _) => format!("DIFFERENT: {}", parts.join(", ")),
    }
}

fn draw(found: &[Verified], shell: &mut Shell<'_>) -> std::io::Result<()> {
    let rows = found.iter().map(|one| {
        let names = [one.sink.to_string(), one.source.to_string(), one.table.clone()];
        let cells = match &one.outcome {
            Ok(c) => {
                [c.source.rows.to_string(), c.sink.rows.to_string(), c.source.checksum.clone(), c.sink.checksum.clone(), describe_one(c)]
            }
            Err(reason) => [String::new(), String::new(), String::new(), String::new(), format!("skipped: {reason}")],
        };
        names.into_iter().chain(cells).collect()
    });
    let header = ["SINK", "SOURCE", "TABLE", "ROWS", "IN SINK", "CHECKSUM", "IN SINK", "RESULT"];
    writeln!(shell.out, "{}", describe::table(header, rows))?;
    for one in found {
        let Ok(compared) = &one.outcome else { continue };
        if compared.equal() {
            continue;
        }
        writeln!(shell.out, "\n{} in {}:", one.table, one.sink)?;
        for (column, rows) in &compared.columns {
            writeln!(shell.out, "  column {column}: {rows} rows")?;
        }
        let buckets: Vec<String> = compared.buckets.iter().map(|(bucket, rows)| format!("{bucket:02x}: {rows}")).collect();
        writeln!(shell.out, "  keys in {} of 256 buckets by hash: {}", buckets.len(), shorten(&buckets))?;
        for key in &compared.keys {
            writeln!(shell.out, "  key {key}")?;
        }
        if compared.keys.is_empty() {
            writeln!(shell.out, "  --show-keys shows keys, which are values")?;
        }
    }
    if !found.iter().any(|one| one.outcome.is_ok()) {
        writeln!(shell.err, "no table was compared")?;
    }
    Ok(())
}

/// The first few of a list.
fn shorten(list: &[String]) -> String {
    let shown = list.get(..16).unwrap_or(list).join(", ");
    if list.len() > 16 { format!("{shown}, …") } else { shown }
}

fn object(one: &Verified) -> Value {
    let mut object = json!({ "sink": &*one.sink, "source": &*one.source, "table": one.table });
    let more = match &one.outcome {
        Err(reason) => json!({ "result": "skipped", "reason": reason }),
        Ok(c) => json!({
            "result": if c.equal() { "equal" } else { "different" },
            "rows": c.source.rows, "sink_rows": c.sink.rows, "checksum": c.source.checksum, "sink_checksum": c.sink.checksum,
            "missing": c.missing, "extra": c.extra, "differing": c.differing, "columns": c.columns, "changed_meanwhile": c.touched,
            "buckets": c.buckets.iter().map(|(bucket, rows)| (format!("{bucket:02x}"), json!(rows))).collect::<serde_json::Map<_, _>>(),
            "keys": c.keys,
        }),
    };
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
