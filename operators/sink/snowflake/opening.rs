//! A table's tables: made, changed and emptied at the places of its order where that is due.
//!
//! Everything here runs while nothing of the table is in flight: no rows sent and not committed, no merge.

use super::channel::Channel;
use super::context::Shared;
use super::ddl::{Columns, existing};
use super::errors::{SF_BEHIND, SF_REJECTED, SF_SCHEMA};
use super::evolve::{self, Wanted};
use super::ledger::Ledger;
use super::merge::{MergeTable, restart_snapshot};
use super::merger::load;
use super::names::{self, channel};
use super::plan::{Places, TablePlan};
use super::progress::{Progress, ProgressKey, lsn_text};
use super::settings::SchemaChanges;
use super::shape::Shape;
use super::sql::literal;
use super::stop::Stopped;
use super::streaming::Pipe;
use super::types::SfType;
use crate::contract::{CodedError, Lsn, TableSchema, Token, qualified};
use crate::failpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A schema that comes into force.
#[derive(Clone, Copy)]
pub(super) struct Coming<'a> {
    /// The schema.
    pub(super) schema: &'a Arc<TableSchema>,
    /// The first row that it is for.
    pub(super) at: Token,
    /// Whether all rows are about to be replaced, by a snapshot.
    pub(super) replaced: bool,
    /// Whether rows from before it have landed and cannot be merged yet.
    pub(super) landed: bool,
}

/// A table that rows can be written to.
pub(super) struct Opened {
    /// The schema in force.
    pub(super) plan: Arc<TablePlan>,
    /// What merges it.
    pub(super) merge: MergeTable,
    /// Its bookkeeping row.
    pub(super) progress: Progress,
    /// Rejected rows over all channels, as of their opening.
    pub(super) rejected: u64,
    /// Whether an earlier process ended before it knew which those are (see `account`).
    pub(super) recovering: bool,
}

/// What to do about rows whose values are not known.
const RESYNC: &str = "run `etl-stream resync` for the table, which copies it anew";

/// The source's columns that both tables have, sorted.
fn shared_columns(landing: &Columns, target: &Columns) -> Vec<String> {
    let own = |name: &str| names::OWN_COLUMNS.contains(&name) || name.starts_with(names::OWN_PREFIX);
    let mut columns: Vec<String> = target.keys().filter(|name| !own(name) && landing.contains_key(*name)).cloned().collect();
    columns.sort_unstable();
    columns
}

/// Those of the key's columns whose value may stand in `_ETL_EXACT`, as far as the target's types tell.
fn beyond(progress: &Progress, target: &Columns) -> Vec<String> {
    progress.key.iter().filter(|k| target.get(*k).is_some_and(SfType::may_be_exact)).cloned().collect()
}

/// Where a table is and whose it is.
#[derive(Clone)]
pub(super) struct Identity {
    /// What the sink shares.
    pub(super) shared: Arc<Shared>,
    /// Its bookkeeping row.
    pub(super) row: ProgressKey,
    /// Its tables.
    pub(super) places: Places,
    /// Whether the table has dead letters.
    pub(super) letters: Arc<AtomicBool>,
}

impl Identity {
    /// Of a table by its names at the source.
    pub(super) fn new(shared: Arc<Shared>, pipeline: &str, source: &str, schema: &str, table: &str) -> Self {
        let places = Places::of(&shared.naming, source, schema, table);
        let row = ProgressKey { pipeline: pipeline.into(), source: source.into(), schema: schema.into(), table: table.into() };
        Self { shared, row, places, letters: Arc::default() }
    }

    pub(super) fn full_name(&self) -> String {
        qualified(&self.row.schema, &self.row.table)
    }

    /// Notes whether an earlier process left dead letters of the table.
    pub(super) async fn note_letters(&self) -> Result<(), CodedError> {
        let all = (Token::ZERO, Token::end_of(u64::MAX));
        let known = self.shared.dead_letters.known(&self.shared, &self.row, all, 0).await?;
        self.letters.fetch_or(!known.is_empty(), Ordering::AcqRel);
        Ok(())
    }

    /// What merges the table, given its columns' stored names.
    pub(super) fn merge_table(&self, key: Vec<String>, beyond: Vec<String>, columns: impl IntoIterator<Item = String>) -> MergeTable {
        MergeTable {
            target: self.places.target.clone(),
            landing: self.places.landing.clone(),
            progress: self.shared.naming.progress(),
            row: self.row.clone(),
            values: columns.into_iter().filter(|c| !key.contains(c)).collect(),
            key,
            beyond,
            soft: self.shared.options.soft,
            only: None,
            letters: Arc::clone(&self.letters),
        }
    }

    /// What merges a table that only its bookkeeping row is known of; `None` when there is nothing to merge into.
    pub(super) async fn found(&self, progress: &Progress) -> Result<Option<MergeTable>, CodedError> {
        let (landing, target) = existing(&self.shared.sql, &self.places).await?;
        let columns = shared_columns(&landing, &target);
        let known = !progress.key.is_empty() && progress.key.iter().all(|k| columns.contains(k));
        Ok(known.then(|| self.merge_table(progress.key.clone(), beyond(progress, &target), columns)))
    }

    /// Opens its channels.
    pub(super) async fn channels(&self, count: usize) -> Result<Vec<Channel>, CodedError> {
        let landing = &self.places.landing;
        let pipe = Pipe::of(&landing.database, &landing.schema, &landing.table);
        let open = (0..count).map(|shard| {
            let name = channel(&self.row.pipeline, &self.row.source, &self.full_name(), shard);
            Channel::open(Arc::clone(&self.shared), pipe.clone(), name)
        });
        futures::future::try_join_all(open).await
    }

    /// Whether a schema changes what the tables were made for, so that all before it is merged first.
    pub(super) fn changes(&self, progress: &Progress, coming: Coming<'_>) -> Result<bool, CodedError> {
        let Some(shape) = progress.shape.as_ref().filter(|shape| coming.at >= shape.since()) else { return Ok(false) };
        let plan = TablePlan::new(coming.schema, self.shared.options.merge, self.shared.options.strict, None)?;
        let next = Shape::next(Some(shape), coming.schema, &plan.names, coming.at);
        Ok(!shape.is_of(&next) || progress.key != plan.key_names())
    }

    /// Makes the tables what a schema needs. Says what merges them from here on, and whether they were changed.
    async fn fit(&self, coming: Coming<'_>, progress: &mut Progress) -> Result<(TablePlan, MergeTable, bool), CodedError> {
        let Coming { schema, at, replaced, landed } = coming;
        let options = &self.shared.options;
        let mut plan = TablePlan::new(schema, options.merge, options.strict, None)?;
        let (landing, target) = existing(&self.shared.sql, &self.places).await?;
        let there = !landing.is_empty();
        let known: Vec<String> = landing.keys().cloned().collect();
        if there && progress.shape.as_ref().is_some_and(|shape| at < shape.since()) {
            // Rows from before the last change come again: all of them are committed, and nothing is left to do.
            plan = TablePlan::new(schema, options.merge, options.strict, Some(&known))?;
            let merge = self.merge_table(progress.key.clone(), beyond(progress, &target), shared_columns(&landing, &target));
            return Ok((plan, merge, false));
        }
        if there && options.schema_changes == SchemaChanges::Ignore {
            plan = TablePlan::new(schema, options.merge, options.strict, Some(&known))?;
            if let Some(lost) = plan.key_names().iter().find(|k| !known.contains(k)) {
                return Err(
                    self.changed(&format!("column \"{lost}\" of its key is new, and `schema_changes: ignore` leaves new columns out"))
                );
            }
            let left_out: Vec<&String> = plan.names.iter().filter(|name| !known.contains(name)).collect();
            if !left_out.is_empty() {
                tracing::warn!(table = self.full_name(), columns = ?left_out, "new columns are left out: `schema_changes: ignore` is set");
                self.shared.http.meter.ignored(left_out.len() as u64);
            }
        }
        // A stopped table is copied anew when the user has seen why.
        let refuse = options.schema_changes == SchemaChanges::Refuse && !(replaced && progress.stopped.is_some());
        let written: Vec<String> = plan.columns.iter().map(|c| c.name.clone()).collect();
        let shape = progress.shape.as_ref().filter(|_| there);
        let next = Shape::next(shape, schema, &written, at);
        let differs = shape.is_some_and(|shape| !shape.is_of(&next));
        if differs && refuse {
            return Err(self.changed("`schema_changes: refuse` is set"));
        }
        if options.merge
            && !replaced
            && let Some(why) = shape.and_then(|shape| shape.unknown(schema, &written))
        {
            return Err(evolve::refused(&plan, &format!("{why}, so that the rows that are there would be wrong"), RESYNC));
        }
        let wanted = Wanted { plan: &plan, places: &self.places, shape, replaced, merge: options.merge, soft: options.soft };
        let work = evolve::work(wanted, (&landing, &target))?;
        if landed && (work.fills() || progress.key != plan.key_names()) {
            let message = format!("table \"{}\" was altered while the copy of its rows was not complete", self.full_name());
            return Err(CodedError::definite(SF_SCHEMA, message).hint(RESYNC));
        }
        if refuse && work.tables.iter().any(|s| s.starts_with("ALTER")) {
            return Err(self.changed("`schema_changes: refuse` is set"));
        }
        if !work.tables.is_empty() {
            tracing::info!(table = self.full_name(), statements = work.tables.len(), "tables in Snowflake are made or changed");
            self.shared.sql.run_all(&format!("making the tables of \"{}\"", self.full_name()), &work.tables).await?;
        }
        // A column that the source dropped is merged as well: later rows do not have it.
        let mut columns = written;
        let mut dropped = shared_columns(&landing, &target);
        dropped.retain(|name| !columns.contains(name));
        columns.extend(dropped);
        let key = plan.key_names();
        if progress.shape.as_ref() != Some(&next)
            && (differs || shape.is_none() || progress.shape.as_ref().is_some_and(|s| s.file() != next.file()))
            || progress.key != key
        {
            self.note_shape(&next, &key, work.values).await?;
            progress.shape = Some(next);
            progress.key.clone_from(&key);
        }
        let merge = self.merge_table(key, plan.beyond_names(), columns);
        Ok((plan, merge, !work.tables.is_empty()))
    }

    /// Notes what the tables are made for now, and sets values of existing rows in the same transaction, once.
    async fn note_shape(&self, shape: &Shape, key: &[String], values: Option<String>) -> Result<(), CodedError> {
        let name = self.shared.naming.progress();
        let text = literal(&serde_json::to_string(shape).unwrap_or_default());
        let key = literal(&serde_json::Value::from(key.to_vec()).to_string());
        let noted = [("SHAPE", text.clone()), ("KEY_COLUMNS", key)];
        let Some(values) = values else { return self.set(&noted).await };
        let once = format!("NOT EXISTS (SELECT 1 FROM {} WHERE {} AND \"SHAPE\" = {text})", name.sql(), self.row.condition());
        let statements = vec![format!("{values} WHERE {once}"), self.shared.progress(&name).update(&self.row, &noted)];
        self.shared
            .sql
            .transaction(&format!("setting values of changed columns of table \"{}\"", self.full_name()), statements)
            .await
            .map(|_| ())
    }

    fn changed(&self, why: &str) -> CodedError {
        CodedError::definite(SF_SCHEMA, format!("the columns of table \"{}\" differ from Snowflake's: {why}", self.full_name()))
            .hint("run `etl-stream resync` for the table, which copies it anew with its columns of today; `schema_changes: evolve` follows later changes")
    }

    /// Takes the table's place and reads how far it is, before its first delivery is written.
    pub(super) async fn begin(&self, schema: &Arc<TableSchema>) -> Result<Progress, CodedError> {
        let options = &self.shared.options;
        // All that can be refused is, before anything is made.
        let plan = TablePlan::new(schema, options.merge, options.strict, None)?;
        self.shared.targets.claim(&self.shared.naming, &self.places, options.merge, schema)?;
        let name = self.shared.naming.progress();
        self.shared.progress(&name).open(&self.row, schema, &self.places, &plan.key_names(), options.channels, options.merge).await
    }

    /// Opens the table for its first delivery. What an earlier process left is noted in `ledger`, unless it
    /// was before.
    pub(super) async fn open(
        &self,
        coming: Coming<'_>,
        mut progress: Progress,
        ledger: &mut Ledger,
        noted: bool,
    ) -> Result<(Opened, Vec<Channel>), CodedError> {
        let (plan, merge, _) = self.fit(coming, &mut progress).await?;
        let channels = self.channels(progress.channels).await?;
        self.note_letters().await?;
        if self.shared.options.merge && !noted {
            load(&self.shared, &self.places.landing, progress.fence, ledger).await?;
        }
        let rejected: u64 = channels.iter().map(|c| c.rejected).sum();
        if rejected < progress.rejected {
            // The channels are new: the landing table was made again.
            self.set(&[("REJECTED", rejected.to_string())]).await?;
            progress.rejected = rejected;
        }
        let recovering = rejected > progress.rejected && !self.shared.dead_letters.stop();
        for channel in &channels {
            let position = channel.position();
            // Nothing after the fence need have been acknowledged, so all of that is looked at.
            let committed = if recovering { position.sent().min(progress.fence) } else { position.sent() };
            position.settle(committed, (!recovering).then_some(channel.rejected));
        }
        if recovering {
            let (table, rows) = (self.full_name(), rejected - progress.rejected);
            tracing::info!(table, rows, "an earlier process ended before it found rows that Snowflake rejected: looking for them");
        }
        Ok((Opened { plan: Arc::new(plan), merge, progress, rejected, recovering }, channels))
    }

    /// Follows a change of the table's schema.
    pub(super) async fn evolve(&self, opened: &mut Opened, channels: &mut [Channel], coming: Coming<'_>) -> Result<(), CodedError> {
        let (plan, merge, altered) = self.fit(coming, &mut opened.progress).await?;
        if altered {
            // A channel goes on with the columns it was opened with.
            for channel in channels.iter_mut() {
                channel.reopen().await?;
            }
        }
        opened.merge = merge;
        opened.plan = Arc::new(plan);
        Ok(())
    }

    /// Begins a snapshot: what unfinished ones left is removed as a whole, from the first of them on, which is
    /// returned. Nothing of it is in flight, since opening a channel waits for that. `replaces` is the first that
    /// the source never noted as complete.
    pub(super) async fn begin_snapshot(
        &self,
        opened: &mut Opened,
        channels: &mut Vec<Channel>,
        lsn: u64,
        replaces: Option<u64>,
    ) -> Result<Option<u64>, CodedError> {
        let options = &self.shared.options;
        let progress = &mut opened.progress;
        if progress.snapshot == Some(lsn) && progress.stopped.is_none() {
            return Ok(None);
        }
        let committed = channels.iter().map(|c| c.position().sent()).max().unwrap_or_default();
        if committed >= Token::new(lsn, 0) {
            let message = format!(
                "the snapshot of table \"{}\" at {} lies before what is in {}: {}",
                self.full_name(),
                Lsn(lsn),
                self.places.landing.sql(),
                committed
            );
            return Err(CodedError::definite(SF_BEHIND, message).hint(
                "the source is another database cluster than before, or was restored: drop the table's landing table and target and its row of _ETL_STREAM_PROGRESS, or name the pipeline differently",
            ));
        }
        let unfinished = progress.snapshot.filter(|_| !progress.snapshot_done).into_iter().chain(replaces).min();
        // What was rejected before the snapshot is in it.
        let rejected = opened.rejected.max(progress.rejected);
        let values = [("CHANNELS", options.channels.to_string()), ("REJECTED", rejected.to_string()), ("STOPPED", "NULL".into())];
        let mut statements = restart_snapshot(&opened.merge, unfinished, lsn, &values);
        statements.extend(unfinished.and_then(|old| self.shared.dead_letters.forget_snapshot(&self.row, old, lsn)));
        failpoint::reach("snowflake.snapshot");
        self.shared.sql.transaction(&format!("beginning the snapshot of table \"{}\"", self.full_name()), statements).await?;
        failpoint::reach("snowflake.emptied");
        progress.snapshot = Some(lsn);
        progress.snapshot_done = false;
        progress.stopped = None;
        progress.rejected = rejected;
        opened.recovering = false;
        if progress.channels != options.channels {
            // Every row from here on has a token past all that the old channels have: keys may change channels.
            progress.channels = options.channels;
            *channels = self.channels(options.channels).await?;
            let rejected = channels.iter().map(|c| c.rejected).sum();
            self.set(&[("REJECTED", format!("{rejected}"))]).await?;
            (opened.rejected, opened.progress.rejected) = (rejected, rejected);
        }
        for channel in channels.iter() {
            channel.position().settle(channel.position().sent(), Some(channel.rejected));
        }
        Ok(unfinished)
    }

    /// Notes that a snapshot is whole.
    pub(super) async fn end_snapshot(&self, opened: &mut Opened, lsn: u64) -> Result<(), CodedError> {
        self.set(&[("SNAPSHOT_LSN", literal(&lsn_text(lsn))), ("SNAPSHOT_DONE", "TRUE".into())]).await?;
        opened.progress.snapshot = Some(lsn);
        opened.progress.snapshot_done = true;
        Ok(())
    }

    /// Notes a stop; durable on return.
    pub(super) async fn note_stop(&self, stopped: &Stopped) -> Result<(), CodedError> {
        self.set(&[("STOPPED", literal(&stopped.text()))]).await
    }

    async fn set(&self, values: &[(&str, String)]) -> Result<(), CodedError> {
        let name = self.shared.naming.progress();
        self.shared.progress(&name).set(&self.row, values).await
    }
}

/// The error of rows that the service rejected.
pub(super) fn rejected(table: &str, more: u64, code: &str, bound: &str) -> CodedError {
    let bound = if bound.is_empty() { "an unknown token" } else { bound };
    CodedError::definite(
        SF_REJECTED,
        format!("Snowflake rejected {more} rows of table \"{table}\", the last at or before {bound} ({code})"),
    )
    .hint("compare the landing table's column types with the source's, then run `etl-stream resync` for the table")
}
