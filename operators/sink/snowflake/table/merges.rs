//! When and up to where the table is merged.

use super::super::errors::SF_UNKNOWN_VALUE;
use super::super::ledger::just_before;
use super::super::merge::Range;
use super::super::merger::{self, Merged};
use super::super::opening::Coming;
use super::Table;
use crate::contract::{CodedError, Token};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Time between deletions of merged landing rows past their retention.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often another process may have merged what this one was about to.
const SURPRISES: usize = 3;

impl Table {
    /// As [`Self::merge_before`]; values that are not known are not asked for when a snapshot replaces all rows.
    pub(super) async fn merged_before(&mut self, coming: Coming<'_>) -> Result<bool, CodedError> {
        match self.merge_before(coming.at).await {
            Err(error) if coming.replaced && error.code == SF_UNKNOWN_VALUE => Ok(false),
            merged => merged,
        }
    }

    /// Merges what landed before a row, be it in the middle of a transaction. Nothing of the table is in flight.
    /// Says whether all of it is merged.
    async fn merge_before(&mut self, at: Token) -> Result<bool, CodedError> {
        let fence = just_before(at);
        while self.mergeable(fence) {
            self.start_merge(fence);
            let Some(merging) = self.merging.take() else { break };
            let merged = merging.await?;
            self.merge_ended(merged)?;
        }
        Ok(!self.identity.shared.options.merge || !self.ledger.ripe(fence))
    }

    pub(super) fn mergeable(&self, fence: Token) -> bool {
        let whole = !self.snapshotting && !self.awaits_copy;
        self.identity.shared.options.merge && whole && fence > self.merged && self.ledger.ripe(fence)
    }

    /// Notes what a merge now would cover, or looks again later.
    pub(super) fn consider_merge(&mut self) {
        // The upper first: every delivery that it speaks of is then in the count.
        let fence = self.uppers.borrow().fence();
        let need = self.enqueued.load(Ordering::Acquire);
        self.merge_at = Instant::now() + self.identity.shared.options.interval;
        if self.mergeable(fence) {
            self.candidate = Some((fence, need));
        }
    }

    pub(super) fn start_merge(&mut self, fence: Token) {
        let Some(table) = self.opened.as_ref().map(|o| o.merge.clone()).or_else(|| self.found.clone()) else { return };
        let options = &self.identity.shared.options;
        let range = Range { from: self.merged, fence, snapshot: self.snapshot, delete_landed: options.retention.is_zero() };
        let statements = merger::planned(&table, &self.ledger, range);
        let sweep = (!options.retention.is_zero() && self.swept.elapsed() >= SWEEP).then_some(options.retention);
        if sweep.is_some() {
            self.swept = Instant::now();
        }
        self.merging = Some(Box::pin(merger::merge(Arc::clone(&self.identity.shared), table, statements, range, sweep)));
    }

    pub(super) fn merge_ended(&mut self, merged: Merged) -> Result<(), CodedError> {
        self.merge_at = Instant::now() + self.identity.shared.options.interval;
        match merged {
            Merged::Upto(fence) => {
                self.merged = fence;
                self.ledger.merged(fence);
                Ok(())
            }
            // A process that ended may have had a merge under way, and a table that is known from bookkeeping
            // alone may be another worker's: what they merged needs no merging. Two that go on are a mistake.
            Merged::Elsewhere(fence) => {
                self.surprises += usize::from(self.opened.is_some());
                if fence <= self.merged || self.surprises > SURPRISES {
                    return Err(merger::elsewhere(&self.identity.places.target, fence));
                }
                self.merged = fence;
                self.ledger.merged(fence);
                Ok(())
            }
        }
    }
}
