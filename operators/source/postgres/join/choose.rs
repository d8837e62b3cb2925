//! Which tables are to be copied beside the stream, and which have left: a look at what is published, compared with what
//! is known.

use super::super::catalog::{Catalog, Published};
use super::super::config::SnapshotMode;
use super::super::publication;
use super::super::report::POSITION_EVERY;
use super::super::side::Side;
use super::super::state::{Stage, TableProgress};
use super::super::stream::Session;
use super::super::survey::{Survey, Surveyed};
use super::{Join, LEAST_CREDIT, RETRY};
use crate::contract::{CodedError, Phase};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

/// A look is put off no longer than this, whatever the server says.
const PUT_OFF: Duration = Duration::from_secs(300);

impl Session<'_> {
    pub(super) fn look(&mut self) -> Result<(), CodedError> {
        let now = Instant::now();
        self.joins.looked = Some(now);
        self.joins.settled = None;
        self.joins.look_at = now + self.run.settings.discovery.0;
        let survey = Survey {
            control: self.control.clone(),
            settings: self.run.settings.clone(),
            version: self.server.version,
            standby: self.server.standby,
            may_add: self.joins.add_at <= now,
            known: self.known.iter().map(|(name, (id, _))| (name.clone(), *id)).collect(),
        };
        self.joins.surveying.spawn(survey.look());
        Ok(())
    }

    /// Whether a look would find what the last one did: of thousands of sources on a server where nobody commits, none looks.
    /// What is visible there is said every so often: who looks more often than that does so.
    pub(super) fn nothing_new(&mut self) -> Result<bool, CodedError> {
        let Some(settled) = &self.joins.settled else { return Ok(false) };
        let (since, discovery) = (|at: Option<Instant>| at.map_or(Duration::MAX, |at| at.elapsed()), self.run.settings.discovery.0);
        if since(self.joins.looked) >= PUT_OFF || discovery < POSITION_EVERY {
            return Ok(false);
        }
        let visible = self.control.budget().log_ends().visible(self.control.server(), self.server.standby, 2 * POSITION_EVERY);
        if visible.as_ref() != Some(settled) {
            return Ok(false);
        }
        if since(self.joins.no_requests.max(self.joins.looked)) >= discovery {
            if !self.run.documents().requests()?.is_empty() {
                return Ok(false);
            }
            self.joins.no_requests = Some(Instant::now());
        }
        Ok(true)
    }

    /// Compares what is published with what is known.
    pub(super) fn surveyed(&mut self, found: Surveyed) -> Result<(), CodedError> {
        self.say_left_out(&found);
        let (documents, requests) = (self.run.documents().tables()?, self.run.documents().requests()?);
        let handed: BTreeSet<String> = self.run.handed.iter().flat_map(|handed| handed.tables.keys().cloned()).collect();
        let mut changes: BTreeMap<String, TableProgress> = BTreeMap::new();
        let mut wanted = Vec::new();
        for table in &found.published {
            let name = table.full_name();
            if handed.contains(&name) {
                continue;
            }
            let before = documents.get(&name);
            let asked = requests.contains(&name);
            let why = match before {
                None => "it is new",
                Some(known) if known.relation != table.id => "it was dropped and made anew",
                Some(known) if known.stage == Stage::Copying => "its copy is not complete",
                Some(known) if known.stage == Stage::Removed || known.membership.is_some_and(|m| m != table.membership) => {
                    "it was out of the publication, or is in it with other rows or columns"
                }
                Some(_) if asked => "it was asked for",
                Some(known) => {
                    if known.membership.is_none() {
                        changes.insert(name, TableProgress { membership: Some(table.membership), ..known.clone() });
                    }
                    continue;
                }
            };
            let begun = before.is_some_and(|known| known.stage == Stage::Copying);
            if self.run.settings.snapshot.mode == SnapshotMode::Never && !asked && !begun {
                let snapshot = before.and_then(|known| known.snapshot_lsn);
                changes.insert(name.clone(), TableProgress::streaming(table.id, Some(table.membership), snapshot));
                self.limit(&name, table.id, (0, u64::MAX));
                self.run.status.table(&name, |status| status.phase = Phase::Streaming);
                continue;
            }
            wanted.push((table.clone(), why));
        }
        let published: BTreeSet<String> = found.published.iter().map(Published::full_name).collect();
        for (name, known) in documents {
            if !published.contains(&name) && !handed.contains(&name) && known.stage != Stage::Removed {
                let gone = removed(known, found.position);
                info!(table = name, "the table is no longer published, or no longer selected: its changes end");
                if found.published.iter().any(|table| table.id == gone.relation) {
                    // It has another name now, under which its changes come, or will.
                    self.known.insert(name.clone(), (gone.relation, gone.window()));
                } else {
                    self.limit(&name, gone.relation, gone.window());
                }
                self.run.status.table(&name, |status| status.phase = Phase::Removed);
                changes.insert(name, gone);
            }
        }
        let in_vain: Vec<String> = requests.into_iter().filter(|name| !published.contains(name)).collect();
        for name in &in_vain {
            warn!(table = name, "the table was to be copied anew, and is not published: it will be when it is again");
        }
        if !changes.is_empty() || !in_vain.is_empty() {
            self.run.documents().change(&changes, &in_vain)?;
        }
        let tried = found.refused.is_none() && (found.left_out.is_empty() || !self.run.settings.own_publication);
        if tried && changes.is_empty() && in_vain.is_empty() && wanted.is_empty() && handed.is_empty() && self.joins.current.is_none() {
            self.joins.settled = Some(found.visible);
        }
        self.choose(wanted, handed.len())
    }

    /// Starts to copy what is to be copied.
    fn choose(&mut self, mut wanted: Vec<(Published, &str)>, handed: usize) -> Result<(), CodedError> {
        let same = |join: &Join| {
            let is_wanted = |table: &Published| wanted.iter().any(|(w, _)| (w.id, w.membership) == (table.id, table.membership));
            join.tables.iter().all(is_wanted)
        };
        if self.joins.current.as_ref().is_some_and(|join| !same(join)) {
            info!("a table that was being copied is no longer published as it was: the copy starts again");
            self.joins.current = None;
        }
        let now = Instant::now();
        for name in self.joins.aside.keys().filter(|name| !wanted.iter().any(|(table, _)| table.full_name() == **name)) {
            self.run.status.table(name, |status| status.failed = None);
        }
        self.joins.aside.retain(|_, until| *until > now);
        wanted.retain(|(table, _)| {
            let name = table.full_name();
            match publication::check_readable(std::slice::from_ref(table), &self.server) {
                Ok(()) => !self.joins.aside.contains_key(&name),
                Err(error) => {
                    if self.joins.told.insert(name.clone()) {
                        warn!(code = error.code.id, hint = error.hint, "a new table is left out until it can be read: {error}");
                    }
                    false
                }
            }
        });
        self.run.status.joining.store((wanted.len() + handed) as u64, Ordering::Relaxed);
        if wanted.is_empty() || self.joins.current.is_some() || self.joins.retry_at > now {
            if self.joins.retry_at > now {
                self.joins.look_at = self.joins.look_at.min(self.joins.retry_at);
            }
            return Ok(());
        }
        for (table, why) in &wanted {
            info!(table = table.full_name(), "the table will be copied beside the stream: {why}");
            self.run.status.table(&table.full_name(), |status| status.failed = None);
        }
        self.start(wanted.into_iter().map(|(table, _)| table).collect())
    }

    fn start(&mut self, tables: Vec<Published>) -> Result<(), CodedError> {
        let run = &*self.run;
        let (said, heard) = mpsc::unbounded_channel();
        let (go, gone) = oneshot::channel();
        let share = run.credits.share(LEAST_CREDIT);
        let side = Side {
            endpoint: run.endpoint()?,
            control: self.control.clone(),
            server: self.server.clone(),
            slot: run.settings.slot.clone(),
            publication: run.settings.publication.clone(),
            workers: run.settings.snapshot.workers,
            connections: Arc::clone(&run.connections),
            range_bytes: run.range_bytes,
            catalog: Catalog::new(Arc::clone(&run.source), run.settings.keys.clone()),
            tables: tables.clone(),
            credits: share.clone(),
            durable: run.durable.clone(),
            status: Arc::clone(&run.status),
            said,
            go: gone,
        };
        let mut task = JoinSet::new();
        task.spawn(side.run());
        self.joins.current = Some(Join {
            tables,
            task,
            said: heard,
            go: Some(go),
            described: None,
            lsn: 0,
            followed: None,
            near: None,
            share,
            in_flight: VecDeque::new(),
        });
        Ok(())
    }

    fn say_left_out(&mut self, found: &Surveyed) {
        if found.refused.is_some() {
            self.joins.add_at = Instant::now() + RETRY.1;
        }
        let fresh: Vec<(String, String)> =
            found.left_out.iter().filter(|(schema, name)| self.joins.told.insert(format!("{schema}.{name}"))).cloned().collect();
        if fresh.is_empty() {
            return;
        }
        match &found.refused {
            Some(error) => warn!(code = error.code.id, hint = error.hint, "new tables were not added to the publication: {error}"),
            None => publication::say_left_out(&self.run.settings, &fresh),
        }
    }
}

/// The document of a table that is gone: what was committed until now is still given.
fn removed(known: TableProgress, position: u64) -> TableProgress {
    let from_lsn = if known.stage == Stage::Copying { Some(u64::MAX) } else { known.from_lsn };
    TableProgress { stage: Stage::Removed, from_lsn, until_lsn: Some(position), ..known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_gone_gives_what_came_before() {
        let streaming = TableProgress { from_lsn: Some(7), ..TableProgress::streaming(1, Some(2), Some(5)) };
        assert_eq!(removed(streaming.clone(), 9).window(), (7, 9));
        let window = removed(TableProgress { stage: Stage::Copying, ..streaming }, 9).window();
        assert!((window.0..window.1).is_empty());
    }
}
