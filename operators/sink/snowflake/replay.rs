//! Dead letters sent again.
//!
//! ```text
//! letter ──channel "<pipeline>.<source>.<table>.replay"──> landing, with its own token
//!            └── merge: the key's rows from the letter's token on are folded into the target again
//! ```
//! A replayed row lands with the token it always had, by a channel of its own: the pipeline's channels and their
//! offset tokens know nothing of it. Merges are past its token, so the replay merges it, that key alone.
//!
//! # Guarantees
//! - A row never replaces a newer version of its key. What the key's row is after the replay is what it would
//!   have been with the row in its place: later rows win, a later delete, truncate or snapshot wins, and a column that
//!   later updates left out (`TOAST`) takes the replayed row's value.
//! - A merge for a letter is one transaction under the fence of the table's progress; the pipeline may run.
//! - A row lands once, however often the replay is cut short: what is in the landing table already is not sent.
//! - Where the landing table no longer has what came after a row (`landing_retention`), it is merged only if
//!   the target's row is older, and kept otherwise. So are rows whose values other keys' rows depend on.
//! - With `write_mode: append` it is enough that it lands.

use super::channel::Channel;
use super::context::Shared;
use super::fold::{folding, same_key};
use super::ledger::just_before;
use super::letter_table::Kept;
use super::merge::MergeTable;
use super::names::channel;
use super::opening::Identity;
use super::progress::Progress;
use super::requests::{Frame, frame};
use super::sql::literal;
use super::streaming::Pipe;
use crate::contract::{CodedError, DeadLetter, DeadLetters, Replayed, Token, qualified};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Letters of a table that are sent together.
const TOGETHER: usize = 500;
/// Plain bytes of one request.
const REQUEST: usize = 1 << 20;
/// How often a merge that the pipeline came before is tried.
const TRIES: usize = 20;
/// Clocks of commits and of Snowflake may differ by so much.
const SKEW: u64 = 60;

/// The sink's letters of one pipeline.
pub(super) struct Letters {
    /// What the sink shares.
    pub(super) shared: Arc<Shared>,
    /// The pipeline.
    pub(super) pipeline: String,
}

fn full_name(kept: &Kept) -> String {
    qualified(&kept.table.schema, &kept.table.table)
}

#[async_trait]
impl DeadLetters for Letters {
    async fn list(&self, table: Option<&str>, all: bool) -> Result<Vec<DeadLetter>, CodedError> {
        let kept = self.shared.dead_letters.read(&self.shared, &self.pipeline, all).await?;
        let wanted = kept.into_iter().filter(|kept| table.is_none_or(|table| table == full_name(kept)));
        let shown = wanted.map(|kept| DeadLetter {
            table: full_name(&kept),
            source: kept.table.source,
            token: kept.letter.token,
            op: kept.letter.op,
            code: kept.letter.code,
            reason: kept.letter.reason,
            key: kept.letter.key,
            row: kept.letter.row,
            outcome: kept.outcome,
        });
        Ok(shown.collect())
    }

    async fn replay(&self, table: Option<&str>) -> Result<Vec<Replayed>, CodedError> {
        let mut kept = self.shared.dead_letters.read(&self.shared, &self.pipeline, false).await?;
        kept.retain(|kept| table.is_none_or(|table| table == full_name(kept)));
        let mut all = Vec::new();
        for same in kept.chunk_by(|a, b| a.table == b.table) {
            for some in same.chunks(TOGETHER) {
                all.extend(self.replay_some(some).await?);
            }
        }
        Ok(all)
    }
}

/// What is to be done with a letter: its outcome and why.
type Outcome = (&'static str, &'static str);
const REPLAYED: Outcome = ("replayed", "");
const SUPERSEDED: Outcome = ("superseded", "newer rows of its key, a truncate or a snapshot came after it");

/// What came after a row, of its key.
struct Later {
    /// The operation of the last one, the row itself included.
    last: String,
    /// Whether nothing came after it.
    none: bool,
    /// Whether a newer row has all its values.
    covered: bool,
    /// Whether values moved from or to another key.
    moved: bool,
}

impl Letters {
    /// Letters of one table, in token order.
    async fn replay_some(&self, letters: &[Kept]) -> Result<Vec<Replayed>, CodedError> {
        let Some(first) = letters.first() else { return Ok(Vec::new()) };
        let shared = &self.shared;
        let row = &first.table;
        let identity = Identity::new(Arc::clone(shared), &row.pipeline, &row.source, &row.schema, &row.table);
        let name = shared.naming.progress();
        let mut done = Vec::new();
        let mut to_land = Vec::new();
        let progress = shared.progress(&name).read(row).await?;
        for kept in letters {
            match progress.as_ref().map(|progress| self.before(kept, progress)) {
                None => done.push((kept, ("kept", "the pipeline has no such table"))),
                Some(Some(outcome)) => done.push((kept, outcome)),
                Some(None) => to_land.push(kept),
            }
        }
        let landed = if to_land.is_empty() { HashSet::new() } else { self.land(&identity, &to_land).await? };
        for kept in to_land {
            let outcome = if !landed.contains(&kept.letter.token) {
                ("kept", "Snowflake rejected it again, or it does not fit into a request")
            } else if shared.options.merge {
                self.merge(&identity, kept).await?
            } else {
                REPLAYED
            };
            done.push((kept, outcome));
        }
        done.sort_by_key(|(kept, _)| kept.letter.token);
        let mut replayed = Vec::with_capacity(done.len());
        for (kept, (outcome, note)) in done {
            let token = kept.letter.token;
            if outcome != "kept" {
                shared.dead_letters.mark(shared, row, token, outcome).await?;
            }
            replayed.push(Replayed { source: row.source.clone(), table: full_name(kept), token, outcome, note: note.into() });
        }
        Ok(replayed)
    }

    /// What can be said of a letter before it is sent.
    fn before(&self, kept: &Kept, progress: &Progress) -> Option<Outcome> {
        let letter = &kept.letter;
        let options = &self.shared.options;
        if options.strict && letter.code == super::errors::SF_STRICT.id {
            return Some(("kept", "`strict: true` is still set"));
        }
        if !options.merge {
            return None;
        }
        if letter.op == 't' {
            return Some(("kept", "a truncate cannot be made afterwards: run `etl-stream resync` for the table"));
        }
        if progress.snapshot.is_some_and(|lsn| letter.token < Token::new(lsn, 0)) {
            return Some(SUPERSEDED);
        }
        (letter.token > progress.fence).then_some(("kept", "the table is not merged that far: let the pipeline run, then try again"))
    }

    /// Sends the rows that have not landed; gives the tokens of those that have then.
    async fn land(&self, identity: &Identity, letters: &[&Kept]) -> Result<HashSet<Token>, CodedError> {
        let shared = &self.shared;
        let landing = &identity.places.landing;
        let pipe = Pipe::of(&landing.database, &landing.schema, &landing.table);
        let table = format!("{}.{}", identity.row.schema, identity.row.table);
        let name = format!("{}.replay", channel(&identity.row.pipeline, &identity.row.source, &table, 0).trim_end_matches(".0"));
        // Opening waits for what an earlier replay sent, and ends one that is at work.
        let mut channel = Channel::open(Arc::clone(shared), pipe.clone(), name.clone()).await?;
        let mut landed = self.landed(identity, letters).await?;
        let mut next = channel.position().sent();
        let mut frames: Vec<Frame> = Vec::new();
        let mut text: Vec<u8> = Vec::new();
        let mut push = |text: &mut Vec<u8>| -> Result<(), CodedError> {
            if !text.is_empty() {
                next = Token::new(next.commit_lsn, next.ordinal.saturating_add(1));
                frames.extend(frame(text, next)?);
                text.clear();
            }
            Ok(())
        };
        for kept in letters.iter().filter(|kept| !landed.contains(&kept.letter.token)) {
            if text.len() + kept.letter.row.len() > REQUEST {
                push(&mut text)?;
            }
            text.extend_from_slice(kept.letter.row.as_bytes());
            text.push(b'\n');
        }
        push(&mut text)?;
        let Some(last) = frames.last().map(|frame| frame.last) else { return Ok(landed) };
        if !channel.send(frames).await? {
            return Err(CodedError::transient(super::errors::SF_STREAMING, format!("channel \"{name}\" was taken by another process"))
                .hint("wait until the other replay has ended, then run it again"));
        }
        let mut pauses = shared.http.pauses();
        loop {
            let statuses = shared.streaming.statuses(&pipe, std::slice::from_ref(&name)).await?;
            if statuses.into_iter().flatten().any(|status| status.committed >= last) {
                break;
            }
            let late =
                || CodedError::transient(super::errors::SF_UNREACHABLE, format!("rows of channel \"{name}\" were not committed in time"));
            tokio::time::sleep(pauses.next().ok_or_else(late)?.min(Duration::from_secs(1))).await;
        }
        landed.extend(self.landed(identity, letters).await?);
        Ok(landed)
    }

    /// Tokens of letters whose rows are in the landing table.
    async fn landed(&self, identity: &Identity, letters: &[&Kept]) -> Result<HashSet<Token>, CodedError> {
        let tokens: Vec<String> = letters.iter().map(|kept| literal(&kept.letter.token.to_string())).collect();
        let landing = identity.places.landing.sql();
        let query = format!("SELECT \"_SEQ\" FROM {landing} WHERE \"_SEQ\" IN ({})", tokens.join(", "));
        let rows = self.shared.sql.query(&format!("looking for replayed rows in {landing}"), &query, &[]).await?;
        Ok(rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect())
    }

    /// Merges one landed row.
    async fn merge(&self, identity: &Identity, kept: &Kept) -> Result<Outcome, CodedError> {
        let shared = &self.shared;
        let token = kept.letter.token;
        let name = shared.naming.progress();
        for _ in 0..TRIES {
            let Some(progress) = shared.progress(&name).read(&identity.row).await? else {
                return Ok(("kept", "the pipeline has no such table"));
            };
            let Some(mut table) = identity.found(&progress).await? else {
                return Ok(("kept", "the key's columns are not those of the tables in Snowflake"));
            };
            let fence = progress.fence;
            if let Some(outcome) = self.decide(&table, kept, &progress).await? {
                return Ok(outcome);
            }
            table.only = Some(token);
            let folded: Vec<&String> = table.values.iter().collect();
            let statements = vec![
                folding(&table, &folded, (just_before(token), fence), fence, false),
                // Says whether the fence was where it should be, and the row still there.
                format!(
                    "UPDATE {} SET \"UPDATED_AT\" = CURRENT_TIMESTAMP() WHERE {} AND \"FENCE\" = {} \
                     AND EXISTS (SELECT 1 FROM {} WHERE \"_SEQ\" = {})",
                    table.progress.sql(),
                    table.row.condition(),
                    literal(&fence.to_string()),
                    table.landing.sql(),
                    literal(&token.to_string())
                ),
            ];
            let doing = format!("merging a replayed row into {}", table.target.sql());
            let handles = shared.sql.transaction(&doing, statements).await?;
            if let Some(handle) = handles.len().checked_sub(2).and_then(|at| handles.get(at))
                && shared.sql.rows_of(&doing, handle).await?.first().and_then(|row| row.first()?.as_deref()) == Some("1")
            {
                return Ok(REPLAYED);
            }
            if self.landed(identity, &[kept]).await?.is_empty() {
                return Ok((
                    "kept",
                    "a merge removed it from the landing table (`landing_retention: 0s`): try again, best with the pipeline stopped",
                ));
            }
        }
        Ok(("kept", "the pipeline merged too often in between: try again"))
    }

    /// Whether a landed row needs no merge, or must not be merged.
    async fn decide(&self, table: &MergeTable, kept: &Kept, progress: &Progress) -> Result<Option<Outcome>, CodedError> {
        let (landing, token) = (table.landing.sql(), kept.letter.token);
        let at = literal(&token.to_string());
        let fence = literal(&progress.fence.to_string());
        let doing = format!("looking for what came after a replayed row of {landing}");
        let on = |other: &str| same_key(table, other, |c| format!("k.{c}"), "k.\"_ETL_EXACT\"");
        let retention = self.shared.options.retention.as_secs();
        let row = format!(
            "SELECT IFF(k.\"_UNCHANGED\" IS NULL, 0, 1), IFF(k.\"_COMMIT_TS\" < DATEADD(second, {}, CURRENT_TIMESTAMP()), 1, 0), \
             (SELECT COUNT(*) FROM {landing} WHERE \"_OP\" = 't' AND \"_SEQ\" > {at} AND \"_SEQ\" <= {fence}) \
             FROM {landing} AS k WHERE k.\"_SEQ\" = {at}",
            SKEW as i64 - retention as i64
        );
        let facts = self.shared.sql.query(&doing, &row, &[]).await?;
        let fact = |at: usize| facts.first().and_then(|row| row.get(at)?.as_deref()) != Some("0");
        let (leaves_out, swept, truncated) = (fact(0), retention == 0 || fact(1), fact(2));
        if truncated {
            return Ok(Some(SUPERSEDED));
        }
        let target =
            format!("SELECT t.\"_ETL_SEQ\" FROM {} AS t JOIN {landing} AS k ON {} WHERE k.\"_SEQ\" = {at}", table.target.sql(), on("t"));
        let target = self.shared.sql.query(&doing, &target, &[]).await?;
        let merged: Option<Token> = target.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        if swept {
            return Ok(match merged {
                Some(newest) if newest < token => None,
                Some(_) => Some(SUPERSEDED),
                None if table.soft && !leaves_out => None,
                None => Some(("kept", "what came after it is no longer in the landing table: run `etl-stream resync` for the table")),
            });
        }
        let later = self.later(table, &doing, &on("l"), (&at, &fence)).await?;
        Ok(if later.covered || later.last == "d" && !later.none || later.none && merged.is_some_and(|newest| newest > token) {
            Some(SUPERSEDED)
        } else if later.moved || leaves_out && (kept.letter.op == 'i' || merged.is_none() && kept.letter.op != 'd') {
            Some(("kept", "values moved between it and rows of other keys: run `etl-stream resync` for the table"))
        } else {
            None
        })
    }

    /// What landed of a row's key from the row on.
    async fn later(&self, table: &MergeTable, doing: &str, on: &str, (at, fence): (&str, &str)) -> Result<Later, CodedError> {
        let landing = table.landing.sql();
        let query = format!(
            "SELECT l.\"_SEQ\", l.\"_OP\", IFF(l.\"_UNCHANGED\" IS NULL, 0, 1) FROM {landing} AS l JOIN {landing} AS k ON {on} \
             WHERE k.\"_SEQ\" = {at} AND l.\"_SEQ\" > {at} AND l.\"_SEQ\" <= {fence} ORDER BY l.\"_SEQ\""
        );
        let mut later = Later { last: String::new(), none: true, covered: false, moved: false };
        let mut after_delete = Vec::new();
        for row in self.shared.sql.query(doing, &query, &[]).await? {
            let cell = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let (op, leaves_out) = (cell(1), cell(2) == "1");
            later.none = false;
            later.last = op.to_owned();
            later.covered |= op != "d" && !leaves_out;
            later.moved |= op == "i" && leaves_out;
            if let ("d", Ok(token)) = (op, cell(0).parse::<Token>())
                && !later.covered
            {
                after_delete.push(literal(&Token::new(token.commit_lsn, token.ordinal.saturating_add(1)).to_string()));
            }
        }
        if !after_delete.is_empty() {
            let query = format!(
                "SELECT COUNT(*) FROM {landing} WHERE \"_OP\" = 'i' AND \"_UNCHANGED\" IS NOT NULL AND \"_SEQ\" IN ({})",
                after_delete.join(", ")
            );
            let rows = self.shared.sql.query(doing, &query, &[]).await?;
            if rows.first().and_then(|row| row.first()?.as_deref()) != Some("0") {
                // The row that a changed key went on as has values of before this one.
                later = Later { last: String::new(), none: false, covered: false, moved: true };
            }
        }
        Ok(later)
    }
}
