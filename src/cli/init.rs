//! `etl-stream init`: a pipeline file to start from.

use super::{Shell, terminal};
use crate::config::nodes::make_name;
use crate::config::{self, Environment};
use crate::exit::Failure;
use crate::{Exit, Kind};
use clap::{Args, ValueEnum};
use etl_stream_operators::contract::{CheckContext, Checks, Code, CodedError, MemoryState, Standing, TableSchema};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// There is a file already.
const FILE_THERE: Code = Code::new("RUN0036", Exit::Usage);
/// Tables that are named one by one; of more, their schemas are.
const NAMED: usize = 60;

/// Where rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sink {
    /// Into files of a folder: runs as it is.
    #[default]
    File,
    /// Into Snowflake: account, user, key and places are to be filled in.
    Snowflake,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The database whose tables are listed in the file, as postgres://user:password@host/database. It is not written to
    /// the file, which reads it from PG_URL.
    #[arg(value_name = "URL", env = "PG_URL", hide_env_values = true)]
    url: Option<String>,
    /// The file to write.
    #[arg(short, long, default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// Where rows go.
    #[arg(long, value_enum, default_value_t)]
    sink: Sink,
    /// Overwrite a file that is there.
    #[arg(long)]
    force: bool,
}

impl InitArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let shown = self.file.display();
        let there = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::from(
                CodedError::definite(FILE_THERE, format!("\"{shown}\" is there already, and was left as it is"))
                    .hint("name another file with --file, or overwrite it with --force"),
            ),
            _ => Failure::from(
                CodedError::definite(Code::new("CFG0001", Exit::Usage), format!("\"{shown}\" was not written")).caused_by(error),
            ),
        };
        if !self.force && self.file.exists() {
            return Err(there(std::io::ErrorKind::AlreadyExists.into()));
        }
        let tables = match &self.url {
            Some(url) => tables(url, shell)?,
            None => Vec::new(),
        };
        let text = file(&source_name(self.url.as_deref()), self.url.is_some(), &tables, self.sink);
        // Opened after the database was asked: nobody else's file is overwritten meanwhile.
        let mut options = std::fs::OpenOptions::new();
        options.write(true);
        let options = if self.force { options.create(true).truncate(true) } else { options.create_new(true) };
        options.open(&self.file).and_then(|mut file| file.write_all(text.as_bytes())).map_err(there)?;
        writeln!(shell.err, "wrote {shown}; next: export PG_URL=postgres://…, then `etl-stream check` and `etl-stream run`")?;
        Ok(())
    }
}

/// The tables of a database, as the source would read them.
fn tables(url: &str, shell: &mut Shell<'_>) -> Result<Vec<Arc<TableSchema>>, Failure> {
    let secret = serde_json::json!({ "plain": url });
    let text = format!("sources: {{ source: {{ type: postgres, url: {secret} }} }}\nsinks: {{ sink: {{ type: blackhole }} }}\n");
    let loaded = config::parse("init", &text, "init.yaml".as_ref(), shell.registry, &Environment::Opaque);
    let Some(graph) = loaded.graph else {
        shell.err.write_all(loaded.problems.draw(terminal::drawing(shell.colour), terminal::width()).as_bytes())?;
        return Err(Failure::Reported(Exit::Usage));
    };
    let mut checks = Checks::default();
    let mut found = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.kind == Kind::Source) {
        let mut source = node.parsed.source(&graph.context(node))?;
        let cx = CheckContext {
            pipeline: Arc::clone(&graph.pipeline),
            node: Arc::clone(&node.name),
            state: Some(Arc::<MemoryState>::default()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        found.extend(runtime.block_on(source.check(&cx, &mut checks)));
    }
    // What a user may lack is for `check` to say; without a connection there is nothing to list.
    if found.is_empty()
        && let Some(error) = checks.0.into_iter().filter(|c| c.standing == Standing::Wrong).find_map(|c| c.error)
    {
        return Err(error.into());
    }
    Ok(found)
}

/// A text as a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A name for the source: the database's.
fn source_name(url: Option<&str>) -> String {
    let place = url.and_then(|url| url.split_once("://")).map_or("", |(_, place)| place);
    let database = place.split_once('/').map_or("", |(_, path)| path.split('?').next().unwrap_or_default());
    if database.is_empty() { "db".to_owned() } else { make_name(database) }
}

fn file(name: &str, listed: bool, tables: &[Arc<TableSchema>], sink: Sink) -> String {
    let mut out = format!(
        "# A pipeline of etl-stream: PostgreSQL tables, copied and kept current.\n\
         # `etl-stream validate` checks this file, `etl-stream check` the systems it names, `etl-stream run` runs it;\n\
         # `etl-stream describe postgres` lists every setting of a node.\n\n\
         sources:\n  {name}:\n    type: postgres\n\
         \x20   url: {{ env: PG_URL }} # postgres://user:password@host/database?sslmode=verify-full\n    tables:\n      include:\n"
    );
    if tables.is_empty() {
        out.push_str("        - \"public.*\" # schema.table, case-sensitive; * stands for any characters\n");
        if listed {
            out.push_str("        # no table was found in the database\n");
        }
    } else if tables.len() > NAMED {
        let schemas: std::collections::BTreeSet<&str> = tables.iter().map(|table| &*table.schema).collect();
        for schema in schemas {
            let count = tables.iter().filter(|table| *table.schema == *schema).count();
            let _ = writeln!(out, "        - {} # {count} tables", quoted(&format!("{schema}.*")));
        }
    } else {
        for table in tables {
            let key: Vec<&str> = table.key().into_iter().filter_map(|at| table.columns.get(at)).map(|column| &*column.name).collect();
            let key = if key.is_empty() {
                "no key: updates and deletes need REPLICA IDENTITY FULL, a merge `keys` of the source".to_owned()
            } else {
                // One line, whatever a name holds.
                format!("key {}", quoted(&key.join(", ")))
            };
            let _ = writeln!(out, "        - {} # {key}", quoted(&format!("{}.{}", table.schema, table.name)));
        }
    }
    out.push_str(
        "      exclude: []\n    # snapshot: { mode: never } # leaves out the rows that are there\n\
         \x20   # publication and slot are called etl_stream_<pipeline>_<source>, and made if absent\n\n\
         # operators:\n#   clean:\n#     type: mask\n",
    );
    let _ = writeln!(out, "#     inputs: [{name}]");
    out.push_str("#     columns: { public.customers.email: { with: hmac_sha256, key: { env: MASK_KEY } } }\n\nsinks:\n");
    match sink {
        Sink::File => {
            let _ = write!(out, "  files:\n    type: file\n    inputs: [{name}]\n    path: ./out\n    format: ndjson # or parquet\n");
        }
        Sink::Snowflake => {
            let _ = write!(
                out,
                "  warehouse:\n    type: snowflake\n    inputs: [{name}]\n    account: ACME-PROD # the account's identifier\n    user: LOADER\n\
                 \x20   private_key: {{ file: ./snowflake.p8 }} # `etl-stream explain SF0001` says how to make one\n    database: RAW # must exist\n    schema: SHOP\n\
                 \x20   write_mode: merge # current rows; append: the history of changes\n    deletes: hard # soft: deleted rows stay, marked\n"
            );
        }
    }
    out.push_str("\n# Health, metrics and a status page; `server: none` turns it off.\nserver: { listen: \"127.0.0.1:8080\" }\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use etl_stream_operators::contract::ReplicaIdentity;

    fn table(name: &str) -> Arc<TableSchema> {
        Arc::new(TableSchema {
            source: "s".into(),
            id: 1,
            schema: "public".into(),
            name: name.into(),
            columns: Vec::new(),
            identity: ReplicaIdentity::Default,
            storage: None,
        })
    }

    #[test]
    fn sources_are_called_as_their_database() {
        for (url, name) in [
            (None, "db"),
            (Some("postgres://u:p@h:5432/Shop-1?sslmode=require"), "shop_1"),
            (Some("postgres://h"), "db"),
            (Some("postgres:///1st"), "p1st"),
            (Some("host=x"), "db"),
        ] {
            assert_eq!(source_name(url), name);
        }
    }

    #[test]
    fn what_it_writes_is_right() {
        let many: Vec<_> = (0..=NAMED).map(|at| table(&format!("t{at}"))).collect();
        for tables in [vec![], vec![table("orders"), table("a \"b\": #c\n- d"), table("*")], many] {
            for sink in [Sink::File, Sink::Snowflake] {
                let text = file("shop", true, &tables, sink);
                let loaded = config::parse("p", &text, "p.yaml".as_ref(), &Registry::builtin(), &Environment::Opaque);
                assert!(loaded.problems.list.is_empty() && loaded.graph.is_some(), "{text}\n{:?}", loaded.problems.list);
            }
        }
    }
}
