//! What a row means here.

use super::rows::{DestinationRow, Found, PipelineRow, SourceRow};
use super::{Made, Note, Translated};
use crate::config::nodes::make_name;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What the program before did when nothing was said.
const BATCH_ROWS: i64 = 1_000;
const BATCH_MILLIS: i64 = 5_000;
const COPIERS: i64 = 4;
const MERGE_MINUTES: i64 = 60;
const LANDING: &str = "ETL_SCHEMA";
const WARNING_MIB: &str = "3000";
const DANGER_MIB: &str = "6000";
const ALERT_MINUTES: &str = "10";
const CHECK_SECONDS: &str = "60";
const CHECKS: &str = "20";

/// Variables of the program before that say nothing to this one, and why.
const OTHER_VARIABLES: [(&str, &str); 5] = [
    ("REDIS_URL", "progress is kept in a SQLite file beside the pipeline file, or in PostgreSQL: see `state`"),
    ("METRICS_ADDR", "metrics are at /metrics of `server: { listen: … }`, where /health and /ready are"),
    ("SNOWFLAKE_ACTOR_POOL_SIZE", "a table's rows are spread over `channels` of the snowflake sink"),
    ("PIPELINE_POLL_INTERVAL_SECS", "a pipeline is a file; `etl-stream run FOLDER` notices files that come, change and go"),
    ("WAL_MAX_CONNECTION_POOLS", "connections come out of `engine.connections`"),
];

/// Looks up a variable of the environment.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text as a YAML string that nothing is put into.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

/// Names that are taken, so that no two become one.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn of(&mut self, text: &str) -> String {
        let name = make_name(text);
        let more = (2..).map(|number| format!("{}_{number}", name.get(..name.len().min(58)).unwrap_or(&name)));
        let free = std::iter::once(name.clone()).chain(more).find(|name| !self.0.contains(name)).unwrap_or_default();
        self.0.insert(free.clone());
        free
    }
}

struct Translator<'a> {
    environment: &'a Environment<'a>,
    out: Translated,
}

impl Translator<'_> {
    fn note(&mut self, about: &str, what: impl Into<String>) {
        self.out.notes.push(Note { about: about.to_owned(), what: what.into() });
    }

    /// The variable of a secret: one for each place, whatever reads it.
    fn secret(&mut self, owner: &str, what: &str, place: &str) -> String {
        if let Some((name, _)) = self.out.secrets.iter().find(|(_, other)| other == place) {
            return name.clone();
        }
        let name = format!("{}_{what}", make_name(owner).to_ascii_uppercase());
        // Two owners may have one name in other letters.
        let more = (2..).map(|number| format!("{name}_{number}"));
        let free = |name: &String| !self.out.secrets.iter().any(|(other, _)| other == name);
        let name = std::iter::once(name.clone()).chain(more).find(free).unwrap_or_default();
        self.out.secrets.push((name.clone(), place.to_owned()));
        name
    }

    /// The lines of a source below its name.
    fn source(&mut self, source: &SourceRow, pipeline: &PipelineRow) -> Result<String, String> {
        let about = format!("source \"{}\"", source.name);
        let port = u16::try_from(source.pg_port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("{about} has port {}, which is none", source.pg_port))?;
        let mut text = format!(
            "    type: postgres\n    host: {}\n    port: {port}\n    database: {}\n    user: {}\n",
            quoted(&source.pg_host),
            quoted(&source.pg_database),
            quoted(&source.pg_username)
        );
        if source.has_secret {
            let name = self.secret(&source.name, "PG_PASSWORD", &format!("pg_password of source \"{}\"", source.name));
            let _ = writeln!(text, "    password: {{ env: {name} }}");
        }
        if source.pg_tls_enabled {
            text.push_str("    tls: { mode: verify-full }\n");
            self.note(&about, "the earlier program could not connect with TLS. Here the server's certificate is verified: name its authority with `tls.ca_file` if it is not one of the system's");
        } else {
            self.note(
                &about,
                "was read unencrypted; it is encrypted now where the server offers that. Ask for more with `tls: { mode: verify-full }`",
            );
        }
        let _ = writeln!(text, "    publication: {}", quoted(&source.publication_name));
        if let Some(workers) = pipeline.max_table_sync_workers.filter(|workers| (1..=64).contains(workers) && *workers != COPIERS) {
            let _ = writeln!(text, "    snapshot: {{ workers: {workers} }}");
        }
        Ok(text)
    }

    /// The lines of a sink below its name and its inputs.
    fn sink(&mut self, destination: &DestinationRow, pipeline: &PipelineRow) -> Result<String, String> {
        let about = format!("destination \"{}\"", destination.name);
        let mut text = match destination.destination_type.to_ascii_lowercase().as_str() {
            "snowflake" => self.snowflake(destination, &about)?,
            "http" => self.http(destination, &about)?,
            other => return Err(format!("{about} is of type \"{other}\", which is none")),
        };
        let rows = pipeline.batch_max_size.filter(|rows| *rows != BATCH_ROWS && (1..=i64::from(u32::MAX)).contains(rows));
        let millis = pipeline.batch_max_fill_ms.filter(|millis| *millis != BATCH_MILLIS && *millis > 0);
        let limits: Vec<String> = [rows.map(|rows| format!("max_rows: {rows}")), millis.map(|millis| format!("max_age: {millis}ms"))]
            .into_iter()
            .flatten()
            .collect();
        if !limits.is_empty() {
            let _ = writeln!(text, "    batch: {{ {} }}", limits.join(", "));
        }
        Ok(text)
    }

    fn snowflake(&mut self, destination: &DestinationRow, about: &str) -> Result<String, String> {
        let mut text = String::from("    type: snowflake\n");
        let set = |value: &Option<String>| value.as_deref().filter(|value| !value.trim().is_empty()).map(str::to_owned);
        let needed = |column: &str, value: &Option<String>| set(value).ok_or_else(|| format!("{about} has no {column}"));
        let _ = writeln!(text, "    account: {}", quoted(&needed("snowflake_account", &destination.snowflake_account)?));
        if let Some(host) = set(&destination.snowflake_host) {
            let url = if host.contains("://") { host } else { format!("https://{host}") };
            let _ = writeln!(text, "    url: {}", quoted(&url));
        }
        let _ = writeln!(text, "    user: {}", quoted(&needed("snowflake_user", &destination.snowflake_user)?));
        let key = needed("snowflake_private_key_path", &destination.snowflake_private_key_path)?;
        let _ = writeln!(text, "    private_key: {{ file: {} }}", quoted(&key));
        if destination.has_secret {
            let place = format!("snowflake_private_key_passphrase of {about}");
            let name = self.secret(&destination.name, "KEY_PASSPHRASE", &place);
            let _ = writeln!(text, "    private_key_passphrase: {{ env: {name} }}");
        }
        for (setting, value) in [("role", &destination.snowflake_role), ("warehouse", &destination.snowflake_warehouse)] {
            if let Some(value) = set(value) {
                let _ = writeln!(text, "    {setting}: {}", quoted(&value));
            }
        }
        let database = needed("snowflake_database", &destination.snowflake_database)?;
        let schema = needed("snowflake_schema", &destination.snowflake_schema)?;
        let landing = set(&destination.snowflake_landing_schema).unwrap_or_else(|| LANDING.to_owned());
        let minutes = destination.snowflake_task_schedule_minutes.filter(|minutes| *minutes > 0).unwrap_or(MERGE_MINUTES);
        let _ = write!(
            text,
            "    database: {}\n    schema: {}\n    landing_schema: {}\n    merge: {{ interval: {minutes}m }}\n",
            quoted(&database),
            quoted(&schema),
            quoted(&landing)
        );
        self.note(
            about,
            format!(
                "the earlier program's tables in {database}.{schema} are not this program's, and are refused (SF0008): rename them, or write another `schema`, \
                 before the first run. Its tasks ETL_MERGE_…_TASK, and its LANDING_… tables in {database}.{landing}, are of no use any more; suspend the tasks first"
            ),
        );
        Ok(text)
    }

    fn http(&mut self, destination: &DestinationRow, about: &str) -> Result<String, String> {
        if !destination.has_url {
            return Err(format!("{about} has no http_url"));
        }
        let name = self.secret(&destination.name, "URL", &format!("http_url of {about}"));
        let mut text = format!("    type: webhook\n    url: {{ env: {name} }}\n");
        if let Some(millis) = destination.http_timeout_ms.filter(|millis| *millis > 0) {
            let _ = writeln!(text, "    timeout: {millis}ms");
        }
        self.note(about, "bodies are NDJSON here, a line for each row (`etl-stream describe webhook`); http_retry_attempts is `retry`, a time and not a number");
        Ok(text)
    }

    fn pipeline(&mut self, pipeline: &PipelineRow, found: &Found, files: &mut Names) -> Result<(), String> {
        let source = found.sources.iter().find(|source| source.id == pipeline.source_id);
        let source = source.ok_or_else(|| format!("there is no source {}", pipeline.source_id))?;
        let destination = found.destinations.iter().find(|destination| destination.id == pipeline.destination_id);
        let destination = destination.ok_or_else(|| format!("there is no destination {}", pipeline.destination_id))?;
        // Names of nodes are one set.
        let mut nodes = Names::default();
        let (from, to) = (nodes.of(&source.name), nodes.of(&destination.name));
        let (source_text, sink_text) = (self.source(source, pipeline)?, self.sink(destination, pipeline)?);
        let name = files.of(&pipeline.name);
        let about = format!("pipeline \"{}\"", pipeline.name);
        let running = pipeline.status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("START"));
        let mut text = format!("# {} of the earlier program; written by `etl-stream import`.\n", about.replace(['\n', '\r'], " "));
        if !running {
            text.push_str("# It was paused there.\n");
            self.note(&about, format!("was paused; {name}.yaml is like the others, and runs when it is run. `etl-stream pause {name}.yaml` before that keeps it paused"));
        }
        let _ = write!(text, "name: {name}\nsources:\n  {from}:\n{source_text}sinks:\n  {to}:\n    inputs: [{from}]\n{sink_text}");
        let id = pipeline.id_pipeline.unwrap_or(0);
        self.note(
            &about,
            format!(
                "has a slot of its own here, and copies the rows that exist, which the earlier program never did. When that one has been stopped, drop its slots, \
                 or they hold back the server's log: supabase_etl_apply_{id}, and those that begin with supabase_etl_table_sync_{id}_"
            ),
        );
        self.out.files.push(Made { file: format!("{name}.yaml"), text });
        Ok(())
    }

    /// One pipeline that watches every server, as the earlier program did in the same process.
    fn monitor(&mut self, sources: &[SourceRow], files: &mut Names) {
        let mut servers: BTreeMap<(&str, i64), &SourceRow> = BTreeMap::new();
        for source in sources {
            servers.entry((&source.pg_host, source.pg_port)).or_insert(source);
        }
        if servers.is_empty() {
            return;
        }
        let name = files.of("wal_monitor");
        let numbers: Vec<String> = [
            ("WAL_POLL_INTERVAL_SECS", CHECK_SECONDS),
            ("WAL_MAX_CONCURRENT_CHECKS", CHECKS),
            ("WARNING_WAL", WARNING_MIB),
            ("DANGER_WAL", DANGER_MIB),
            ("TIME_CHECK_NOTIFICATION", ALERT_MINUTES),
        ]
        .map(|(variable, default)| self.number(variable, default))
        .into();
        let [interval, checks, warning, danger, minutes] = numbers.as_slice() else { return };
        let mut text = format!(
            "# The log that slots hold back, on every server of the earlier program; written by `etl-stream import`.\nname: {name}\n\
             sources:\n  wal:\n    type: wal_monitor\n    interval: {interval}s\n    checks: {checks}\n    retained_wal_limit: {warning}MiB\n    servers:\n"
        );
        let mut names = Names::default();
        for source in servers.values() {
            let place = format!(
                "a URL of source \"{}\": postgres://{}@{}:{}/{}, with pg_password after the user",
                source.name, source.pg_username, source.pg_host, source.pg_port, source.pg_database
            );
            let variable = self.secret(&source.name, "PG_URL", &place);
            let _ = writeln!(text, "      {}: {{ url: {{ env: {variable} }} }}", names.of(&source.name));
        }
        text.push_str("sinks:\n  rows: { type: blackhole, inputs: [wal] }\n");
        let told = (self.environment)("ALERT_WAL_URL").is_some_and(|url| !url.trim().is_empty());
        if told {
            let _ = write!(
                text,
                "alerts:\n  retained_wal: {{ when: slot.retained_wal > {warning}MiB, danger: slot.retained_wal > {danger}MiB, for: {minutes}m, notify: [ops] }}\n\
                 notifiers:\n  ops: {{ type: webhook, url: {{ env: ALERT_WAL_URL }}, format: predecessor }}\n"
            );
        }
        let about = format!("{name}.yaml");
        self.note(&about, "watches what slots hold back; the earlier program measured the whole log of a server");
        if !told {
            self.note(&about, "tells nobody: ALERT_WAL_URL is not set here, so that a slot over the limit is in the log and the metrics alone. Set it and import again");
        }
        self.out.files.push(Made { file: about, text });
    }

    /// A variable's number, if it is one.
    fn number(&mut self, variable: &str, default: &str) -> String {
        match (self.environment)(variable).map(|text| text.trim().to_owned()) {
            Some(text) if text.parse::<u32>().is_ok_and(|number| number > 0) => text,
            Some(_) => {
                self.note(&format!("variable {variable}"), format!("is no number; {default} was written"));
                default.to_owned()
            }
            None => default.to_owned(),
        }
    }
}

/// Makes the files of everything that was found.
pub(crate) fn translate(found: &Found, environment: &Environment<'_>) -> Translated {
    let mut translator = Translator { environment, out: Translated::default() };
    let mut files = Names::default();
    for pipeline in &found.pipelines {
        if let Err(why) = translator.pipeline(pipeline, found, &mut files) {
            translator.out.failed += 1;
            translator.note(&format!("pipeline \"{}\"", pipeline.name), format!("was not translated: {why}"));
        }
    }
    translator.monitor(&found.sources, &mut files);
    for source in found.sources.iter().filter(|source| !found.pipelines.iter().any(|pipeline| pipeline.source_id == source.id)) {
        translator.note(&format!("source \"{}\"", source.name), "is read by no pipeline; its server is watched");
    }
    for destination in found.destinations.iter().filter(|destination| !found.pipelines.iter().any(|p| p.destination_id == destination.id)) {
        translator.note(&format!("destination \"{}\"", destination.name), "is written by no pipeline, and is in no file");
    }
    for (variable, why) in OTHER_VARIABLES {
        if environment(variable).is_some() {
            translator.note(&format!("variable {variable}"), format!("is not read here: {why}"));
        }
    }
    let mut out = translator.out;
    let mut said = BTreeSet::new();
    out.notes.retain(|note| said.insert((note.about.clone(), note.what.clone())));
    out
}
