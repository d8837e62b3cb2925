//! What needs the table to itself: a schema that comes into force, a snapshot that begins or ends, a stop.
//!
//! Nothing of the table is in flight here: no rows sent and not committed, no merge.

use super::super::account::Accounting;
use super::super::errors::{SF_SCHEMA, SF_STREAMING};
use super::super::ledger::just_before;
use super::super::opening::Coming;
use super::super::settings::SchemaChanges;
use super::super::stop::Stopped;
use super::Table;
use crate::contract::{CodedError, Delivery, Mark, StateKey, Token, awaits_copy};
use crate::failpoint;
use std::sync::Arc;

impl Table {
    /// Handles a delivery.
    pub(super) async fn turn(&mut self, delivery: Delivery) -> Result<(), CodedError> {
        match delivery {
            Delivery::Rows { batch, ack } => {
                if let Some(at) = batch.first_token() {
                    self.follow(Coming { schema: &batch.table, at, replaced: false, landed: false }).await?;
                    self.queue.push_front(Delivery::Rows { batch, ack });
                } else {
                    ack.durable();
                    self.completed += 1;
                }
            }
            Delivery::Mark { mark, ack } => {
                self.snapshot_mark(&mark).await?;
                ack.durable();
                self.completed += 1;
            }
            Delivery::Upper(_) => {}
        }
        Ok(())
    }

    /// Begins or ends a snapshot. Of a schema's mark nothing is to be done: the first rows under it say from where on
    /// it is in force.
    async fn snapshot_mark(&mut self, mark: &Mark) -> Result<(), CodedError> {
        let (Mark::SnapshotBegin { lsn, .. } | Mark::SnapshotEnd { lsn, .. }) = *mark else { return Ok(()) };
        // The end's schema is that of rows to come, which bring it: those that have landed are of the one before.
        if self.opened.is_none() || matches!(mark, Mark::SnapshotBegin { .. }) {
            let coming = Coming { schema: mark.table(), at: Token::new(lsn, 0), replaced: true, landed: false };
            if !self.follow(coming).await? {
                return Ok(());
            }
        }
        let Some(opened) = &mut self.opened else { return Ok(()) };
        if let Mark::SnapshotBegin { replaces, .. } = *mark {
            if let Some(removed) = self.identity.begin_snapshot(opened, &mut self.channels, lsn, replaces).await? {
                self.ledger.removed(removed);
            }
            (self.snapshot, self.snapshotting, self.awaits_copy) = (opened.progress.snapshot, true, false);
            self.note_channels();
            self.go_on();
        } else {
            self.identity.end_snapshot(opened, lsn).await?;
            self.snapshotting = false;
        }
        Ok(())
    }

    /// Makes a schema the one in force, or stops the table when its tables cannot follow. Says whether it is in force.
    async fn follow(&mut self, coming: Coming<'_>) -> Result<bool, CodedError> {
        match self.adopt(coming).await {
            Err(error) if error.code == SF_SCHEMA => self.stop(coming, &error).await.map(|()| false),
            adopted => adopted,
        }
    }

    /// Makes a schema the one in force. Whatever landed under the one before is merged first, as it was. False: the
    /// table is stopped.
    async fn adopt(&mut self, mut coming: Coming<'_>) -> Result<bool, CodedError> {
        if let Some(opened) = &self.opened {
            if *opened.plan.schema == **coming.schema {
                return Ok(true);
            }
            if self.identity.changes(&opened.progress, coming)? {
                coming.landed = !self.merged_before(coming).await? && !coming.replaced;
            }
            if let Some(opened) = &mut self.opened {
                self.identity.evolve(opened, &mut self.channels, coming).await?;
            }
            return Ok(true);
        }
        let mut progress = self.identity.begin(coming.schema).await?;
        self.merged = self.merged.max(progress.fence);
        self.snapshot = progress.snapshot;
        self.snapshotting = progress.snapshot.is_some() && !progress.snapshot_done;
        if let Some(stopped) = progress.stopped.as_ref().filter(|_| !coming.replaced) {
            // By a process that ended after this one had looked.
            self.halt(stopped.clone());
            return Ok(false);
        }
        if self.identity.changes(&progress, coming)? {
            coming.landed = !self.merged_before(coming).await? && !coming.replaced;
            progress.fence = self.merged;
        }
        let shared = Arc::clone(&self.identity.shared);
        let _permit = shared.sends.acquire().await;
        let (opened, channels) = self.identity.open(coming, progress, &mut self.ledger, self.noted).await?;
        (self.opened, self.channels) = (Some(opened), channels);
        self.note_channels();
        Ok(true)
    }

    /// Stops the table at a schema that cannot be followed. On return that is noted, and what comes may be
    /// acknowledged without being written.
    async fn stop(&mut self, coming: Coming<'_>, error: &CodedError) -> Result<(), CodedError> {
        // Also where nothing of the change was to be seen before its statements were looked for.
        self.merged_before(coming).await?;
        let mut stopped = Stopped::new(self.stopped.as_ref().map_or(coming.at, Stopped::since), error);
        // Altered while it is copied: another copy has it all, unless nobody wants it followed. What a new copy
        // meets again is the user's to see.
        let copying = self.snapshotting && !coming.replaced && self.identity.shared.options.schema_changes != SchemaChanges::Refuse;
        if copying && self.ask_for_copy().await? {
            stopped = stopped.advised("nothing: the table is copied anew by itself");
        }
        // After the request, so that a process that ends in between leaves both or the cause of both.
        self.identity.note_stop(&stopped).await?;
        failpoint::reach("snowflake.stopped");
        self.halt(stopped);
        Ok(())
    }

    /// Whether the source is to copy the table anew, as far as it knows it by this name.
    pub(super) async fn is_to_be_copied(&mut self) -> Result<bool, CodedError> {
        let (row, table, state) = (self.identity.row.clone(), self.identity.full_name(), Arc::clone(&self.state));
        let looked = tokio::task::spawn_blocking(move || awaits_copy(&*state, &row.pipeline, &row.source, &table));
        looked.await.map_err(|e| CodedError::definite(SF_STREAMING, "the state was not read").caused_by(e))?
    }

    /// Asks the source to copy the table anew once the copy at work is complete. False where the source does not know
    /// it by this name.
    async fn ask_for_copy(&mut self) -> Result<bool, CodedError> {
        let (row, table, state) = (&self.identity.row, self.identity.full_name(), Arc::clone(&self.state));
        let known = StateKey::table(&row.pipeline, &row.source, &table);
        let request = StateKey::resync(&row.pipeline, &row.source, &table);
        let asked = tokio::task::spawn_blocking(move || match state.load(&known)? {
            Some(_) => state.store(&[(request, Some(true.into()))]).map(|()| true),
            None => Ok(false),
        });
        asked.await.map_err(|e| CodedError::definite(SF_STREAMING, "a new copy of the table was not asked for").caused_by(e))?
    }

    /// Takes nothing more of the table from here on, and says so.
    pub(super) fn halt(&mut self, stopped: Stopped) {
        (self.opened, self.accounting, self.poll_at) = (None, Accounting::default(), None);
        self.channels.clear();
        self.note_channels();
        let (shared, table) = (&self.identity.shared, self.identity.full_name());
        let shown = stopped.shown();
        let (code, since, hint) = (shown.error.code.id, shown.since.to_string(), shown.error.hint.as_deref());
        tracing::warn!(table, code, since, hint, "the table is stopped, the others go on: {}", shown.error.message);
        shared.http.meter.stop(&self.identity.row.source, &table, Some(shown));
        self.stopped = Some(stopped);
    }

    /// Takes the table up again: a snapshot replaces all of it.
    fn go_on(&mut self) {
        if self.stopped.take().is_some() {
            let table = self.identity.full_name();
            tracing::info!(table, "the table goes on: it is copied anew");
            self.identity.shared.http.meter.stop(&self.identity.row.source, &table, None);
        }
    }

    /// Acknowledges what a stopped table does not take. Rows before the stop are there already: they come again.
    pub(super) fn discard(&mut self, delivery: Delivery) {
        let Some(stopped) = &self.stopped else { return };
        let ack = match delivery {
            Delivery::Rows { batch, ack } => {
                let rows = batch.after(just_before(stopped.since())).len() as u64;
                if rows > 0 {
                    self.identity.shared.http.meter.discarded(&self.identity.row.source, &self.identity.full_name(), rows);
                }
                ack
            }
            Delivery::Mark { ack, .. } => ack,
            Delivery::Upper(_) => return,
        };
        ack.durable();
        self.completed += 1;
    }
}
