//! `etl-stream slot`: replication slots on the servers of a pipeline's sources, listed and dropped.
//!
//! A slot that nobody reads keeps log until the server's disk is full: those of pipelines that are gone are shown too,
//! by the beginning of their names.

use super::validate::Format;
use super::{Shell, describe, validate};
use crate::exit::{Failure, verdict};
use crate::graph::Graph;
use crate::server::status::size;
use crate::{Exit, Kind};
use clap::{Args, Subcommand};
use etl_stream_operators::contract::{Code, CodedError, SlotFacts, Source};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A slot was not dropped: it is not known, not this program's, or that was not confirmed.
const SLOT_KEPT: Code = Code::new("RUN0033", Exit::Usage);
/// What the names of this program's slots begin with.
const PREFIX: &str = "etl_stream_";

#[derive(Debug, Args)]
pub(super) struct SlotArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the slots of the file's sources, and others on their servers that are named etl_stream_….
    List {
        #[command(flatten)]
        which: Which,
        /// How they are shown.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Drop a slot that nobody uses. The log it held goes, and with it changes that were not read.
    Drop {
        /// A source of the file, or the name of a slot.
        #[arg(value_name = "SOURCE|SLOT")]
        name: String,
        #[command(flatten)]
        which: Which,
        /// Drop it, instead of saying what would be dropped.
        #[arg(long)]
        yes: bool,
        /// Drop the publication too: the source's, or the one of the slot's name.
        #[arg(long)]
        publication: bool,
        /// Drop it even when no source of the file names it and it is not named etl_stream_….
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
}

/// A source that was asked, and what it said.
struct Asked {
    name: String,
    source: Box<dyn Source>,
    slots: Result<Vec<SlotFacts>, CodedError>,
}

impl Which {
    fn graph(&self, shell: &mut Shell<'_>) -> Result<Option<Graph>, Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        Ok(loaded.graph)
    }
}

async fn ask(graph: &Graph) -> Vec<Asked> {
    let mut all = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.kind == Kind::Source) {
        match node.parsed.source(&graph.context(node)) {
            Ok(mut source) => {
                let slots = source.slots().await;
                all.push(Asked { name: node.name.to_string(), source, slots });
            }
            Err(error) => all.push(Asked { name: node.name.to_string(), source: Box::new(Unmade), slots: Err(error) }),
        }
    }
    all
}

/// Stands for a source whose settings could not be read.
struct Unmade;

#[async_trait::async_trait]
impl Source for Unmade {
    async fn run(self: Box<Self>, _: etl_stream_operators::contract::SourceContext) -> Result<(), CodedError> {
        Ok(())
    }
}

/// Every slot once, with the source of the file that it is of.
fn merged(asked: &[Asked]) -> BTreeMap<(String, String), (SlotFacts, Option<String>)> {
    let mut all: BTreeMap<(String, String), (SlotFacts, Option<String>)> = BTreeMap::new();
    for one in asked {
        for slot in one.slots.iter().flatten() {
            let entry = all.entry((slot.server.clone(), slot.slot.clone())).or_insert_with(|| (slot.clone(), None));
            if slot.own {
                *entry = (slot.clone(), Some(one.name.clone()));
            }
        }
    }
    all
}

fn wait<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(work))
}

impl SlotArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        match self.what {
            What::List { which, format } => {
                let Some(graph) = which.graph(shell)? else { return Ok(()) };
                let asked = wait(ask(&graph))?;
                list(&asked, format, shell)
            }
            What::Drop { name, which, yes, publication, force } => {
                let Some(graph) = which.graph(shell)? else { return Ok(()) };
                wait(drop_slot(&graph, &name, (yes, publication, force), shell))?
            }
        }
    }
}

fn list(asked: &[Asked], format: Format, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let slots = merged(asked);
    let user = |slot: &SlotFacts| match (slot.pid, slot.application.as_deref()) {
        (None, _) => String::new(),
        (Some(pid), None | Some("")) => pid.to_string(),
        (Some(pid), Some(application)) => format!("{pid} ({application})"),
    };
    match format {
        Format::Human => {
            let rows = slots.values().map(|(slot, source)| {
                vec![
                    slot.slot.clone(),
                    source.clone().unwrap_or_else(|| "(none of this file)".into()),
                    slot.server.clone(),
                    slot.wal_status.clone().unwrap_or_default(),
                    slot.retained_bytes.map(size).unwrap_or_default(),
                    slot.confirmed.map(|lsn| lsn.to_string()).unwrap_or_default(),
                    user(slot),
                ]
            });
            writeln!(shell.out, "{}", describe::table(["SLOT", "SOURCE", "SERVER", "WAL", "RETAINED", "CONFIRMED", "USED BY"], rows))?;
        }
        Format::Json => {
            for (slot, source) in slots.values() {
                let SlotFacts {
                    server, slot, database, plugin, pid, application, confirmed, retained_bytes, wal_status, temporary, ..
                } = slot;
                let line = json!({
                    "slot": slot, "source": source, "server": server, "database": database, "plugin": plugin, "active": pid.is_some(), "pid": pid,
                    "application": application, "confirmed_lsn": confirmed.map(|lsn| lsn.to_string()), "retained_bytes": retained_bytes,
                    "wal_status": wal_status, "temporary": temporary,
                });
                writeln!(shell.out, "{line}")?;
            }
        }
    }
    // What was seen is shown, whoever else was not reached.
    let mut failed = None;
    for error in asked.iter().filter_map(|one| one.slots.as_ref().err()) {
        writeln!(shell.err, "{}", error.report())?;
        failed = Some(error.code.exit);
    }
    failed.map_or(Ok(()), |exit| Err(Failure::Reported(exit)))
}

fn kept(message: String, hint: &str) -> Failure {
    CodedError::definite(SLOT_KEPT, message).hint(hint).into()
}

/// The source that can drop what is named, by its place, and the slot.
fn choose(asked: &mut [Asked], name: &str, force: bool) -> Result<(usize, String), Failure> {
    let missing = |message: String| kept(message, "`etl-stream slot list` shows which there are");
    if let Some((at, one)) = asked.iter_mut().enumerate().find(|(_, one)| one.name == name) {
        let slots = std::mem::replace(&mut one.slots, Ok(Vec::new()))?;
        let own = slots.into_iter().find(|slot| slot.own).map(|slot| (at, slot.slot));
        return own.ok_or_else(|| missing(format!("source \"{name}\" has no replication slot on its server")));
    }
    let has = |one: &Asked| one.slots.iter().flatten().any(|slot| slot.slot == name);
    let owns = |one: &Asked| one.slots.iter().flatten().any(|slot| slot.own && slot.slot == name);
    if !force && !name.starts_with(PREFIX) && !asked.iter().any(owns) {
        let message = format!("replication slot \"{name}\" is no source's of the file, and not named {PREFIX}…");
        return Err(kept(message, "name a source or a slot of `etl-stream slot list`; --force drops it whosever it is"));
    }
    let servers: BTreeSet<&str> =
        asked.iter().flat_map(|one| one.slots.iter().flatten()).filter(|slot| slot.slot == name).map(|slot| slot.server.as_str()).collect();
    if servers.len() > 1 {
        let list = servers.into_iter().collect::<Vec<_>>().join(", ");
        return Err(kept(format!("several servers have a replication slot \"{name}\": {list}"), "name the source, or drop it there"));
    }
    // One that is not listed, for its name, may still be there.
    let unlisted = || asked.iter().position(|one| force && one.slots.is_ok());
    let at = asked.iter().position(owns).or_else(|| asked.iter().position(has)).or_else(unlisted);
    match at {
        Some(at) => Ok((at, name.to_owned())),
        None => match asked.iter_mut().find_map(|one| std::mem::replace(&mut one.slots, Ok(Vec::new())).err()) {
            Some(error) => Err(error.into()),
            None => Err(missing(format!("there is no replication slot \"{name}\""))),
        },
    }
}

async fn drop_slot(graph: &Graph, name: &str, (yes, publication, force): (bool, bool, bool), shell: &mut Shell<'_>) -> Result<(), Failure> {
    let mut asked = ask(graph).await;
    let (at, slot) = choose(&mut asked, name, force)?;
    if !yes {
        let with = if publication { ", and its publication" } else { "" };
        let message = format!("replication slot \"{slot}\" would be dropped{with}, and was not");
        return Err(kept(message, "the log that it holds goes with it: changes that were not read are lost; say --yes to drop it"));
    }
    let mut chosen = asked.swap_remove(at);
    let dropped = chosen.source.drop_slot(&slot, publication).await?;
    if let Some(slot) = &dropped.slot {
        writeln!(shell.out, "dropped slot {slot}")?;
    }
    match &dropped.publication {
        Some(name) => writeln!(shell.out, "dropped publication {name}")?,
        None if publication => writeln!(shell.err, "there was no publication to drop in the database of source \"{}\"", chosen.name)?,
        None => {}
    }
    if dropped.slot.is_none() {
        return Err(kept(format!("there is no replication slot \"{slot}\""), "`etl-stream slot list` shows which there are"));
    }
    if chosen.name == name {
        writeln!(
            shell.err,
            "the source's state still knows the slot: a run is refused (PG0016) until the state is removed, and then copies every table anew"
        )?;
    }
    Ok(())
}
