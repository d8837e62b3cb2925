//! Which rows Snowflake rejected: found by comparing what was sent with what landed.
//!
//! ```text
//! status: more rejected rows than are known of
//!    └─ rows sent and not accounted for  −  tokens in the landing table  =  rejected rows ──> dead letter, count
//!                                                                              └──> position: what is durable
//! ```
//! Snowpipe Streaming takes rows and checks them later. A row that does not fit is left out and counted; the
//! channel's committed token passes it. The status has no more than a count and a token at or after the last
//! such row. So a channel keeps its rows until a status says that nothing was rejected up to the committed
//! token; when it says otherwise, the landing table says which.
//!
//! # Guarantees
//! - A delivery with rejected rows is acknowledged once they are durable in the dead letter.
//! - The count of rejected rows (`REJECTED` of the progress row) is written with the dead letters, before the
//!   acknowledgement. A process that finds more rejected rows than that when it opens the channels knows that an earlier
//!   one ended in between, that nothing from the first of them on was acknowledged, and that the source sends it
//!   again: rows after the merge's fence are kept, not sent twice, and compared in the same way. Merges go no further
//!   than what is acknowledged, so none has removed landing rows that are compared.
//! - A letter of an earlier process is found by its token, and neither written nor counted again.
//! - A changed key's new row may have values that only its old key's row has; when that one's delete is rejected, the
//!   pipeline stops (`SF0007`), since the new row would be merged without them.
//! - When fewer rows are found than were rejected, and all that could be were looked at, the pipeline stops (`SF0007`).

use super::channel::{Channel, Position};
use super::errors::SF_REJECTED;
use super::letter::{self, Letter};
use super::opening::Identity;
use super::plan::TablePlan;
use super::sql::Rows;
use super::streaming::ChannelStatus;
use crate::contract::{CodedError, Op, RowBatch, Token};
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::sync::Arc;

/// A table's accounting: a status that says of rejected rows, and the search for them.
#[derive(Default)]
pub(super) struct Accounting {
    /// Statuses that await the search.
    pub(super) suspect: Option<Vec<ChannelStatus>>,
    /// The search at work.
    pub(super) running: Option<BoxFuture<'static, Result<Accounted, CodedError>>>,
    /// The last row that was delivered.
    pub(super) delivered: Token,
}

impl Accounting {
    /// Whether nothing is to be found out.
    pub(super) fn idle(&self) -> bool {
        self.suspect.is_none() && self.running.is_none()
    }

    /// Starts the search, when there is one to start; the channels are here.
    pub(super) fn start(&mut self, identity: &Identity, channels: &[Channel], known: u64) {
        if self.running.is_some() {
            return;
        }
        let Some(statuses) = self.suspect.take() else { return };
        let whole = statuses.iter().all(|status| status.committed <= self.delivered);
        let last = statuses.iter().filter(|s| !s.last_error_bound.is_empty()).max_by_key(|s| &s.last_error_bound);
        let mut question = Question {
            rows: Vec::new(),
            known,
            total: statuses.iter().map(|status| status.rejected).sum(),
            whole,
            moved: HashSet::new(),
            reason: last.map_or_else(String::new, |status| status.last_error.clone()),
            upto: Vec::with_capacity(channels.len()),
        };
        for (channel, status) in channels.iter().zip(&statuses) {
            let upto = status.committed.min(self.delivered);
            question.rows.extend(channel.unaccounted(upto));
            for (_, rows) in channel.unaccounted(Token::end_of(u64::MAX)) {
                let moved = rows.unchanged.iter().filter(|(row, ..)| rows.op(*row) == Op::Insert);
                question.moved.extend(moved.map(|(row, ..)| rows.token(row)));
            }
            question.upto.push((upto, whole.then_some(status.rejected)));
        }
        self.running = Some(Box::pin(account(identity.clone(), question)));
    }
}

impl Accounted {
    /// Notes it for the channels.
    pub(super) fn settle(&self, positions: &[Arc<Position>]) {
        for (position, (committed, rejected)) in positions.iter().zip(&self.upto) {
            position.settle(*committed, *rejected);
        }
    }
}

/// What is asked: rows of one table that the service has worked on.
struct Question {
    /// The rows, in order for each channel.
    rows: Vec<(Arc<TablePlan>, RowBatch)>,
    /// Rejected rows that are known of.
    known: u64,
    /// Rejected rows that the service counts.
    total: u64,
    /// Whether these are all the rows that can be among them.
    whole: bool,
    /// Rows that go on with values of the row before them: the new rows of changed keys.
    moved: HashSet<Token>,
    /// What the service says of the last rejection: a code, never a value.
    reason: String,
    /// What is known of each channel when the question is answered: its committed token and its count.
    upto: Vec<(Token, Option<u64>)>,
}

/// The answer.
pub(super) struct Accounted {
    /// Rejected rows that are known of now.
    pub(super) rejected: u64,
    /// Whether no rejected row is left to be found.
    pub(super) whole: bool,
    upto: Vec<(Token, Option<u64>)>,
}

fn tokens(rows: &Rows) -> HashSet<Token> {
    rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect()
}

/// How often the search begins again because another process has found rows: one that was killed, whose last
/// request is carried out late.
const SEARCHES: usize = 5;

/// Finds the rejected rows and writes them to the dead letter.
///
/// # Errors
/// `SF0007` when not all are found, and whatever keeps the dead letter from being written.
async fn account(identity: Identity, mut question: Question) -> Result<Accounted, CodedError> {
    let shared = &identity.shared;
    for _ in 0..SEARCHES {
        let (letters, found) = search(&identity, &question).await?;
        let Question { known, total, whole, .. } = question;
        if !whole || known + found >= total {
            let rejected = if whole { total } else { total.min(known + found) }.max(known);
            identity.letters.fetch_or(!letters.is_empty(), std::sync::atomic::Ordering::AcqRel);
            if rejected != known || !letters.is_empty() {
                shared.dead_letters.write(shared, &identity.row, letters, Some((known, rejected))).await?;
            }
            return Ok(Accounted { rejected, whole, upto: question.upto });
        }
        let name = shared.naming.progress();
        let now = shared.progress(&name).read(&identity.row).await?.map_or(known, |progress| progress.rejected);
        if now == known {
            break;
        }
        question.known = now;
    }
    let Question { known, total, .. } = question;
    let (schema, table, rows) = (&identity.row.schema, &identity.row.table, total.saturating_sub(known));
    let message = format!(
        "Snowflake rejected {rows} rows of table \"{schema}.{table}\" of which not all are among those sent since the last acknowledgement"
    );
    Err(CodedError::definite(SF_REJECTED, message)
        .hint("run `etl-stream resync` for the table: its new snapshot has the rows, and takes note of the count"))
}

/// The letters that are to be written, and how many rejected rows were found that are not in the count.
async fn search(identity: &Identity, question: &Question) -> Result<(Vec<Letter>, u64), CodedError> {
    let Question { rows, known, reason, .. } = question;
    let shared = &identity.shared;
    let low = rows.iter().filter_map(|(_, rows)| rows.first_token()).min();
    let high = rows.iter().filter_map(|(_, rows)| rows.last_token()).max();
    let (Some(low), Some(high)) = (low, high) else { return Ok((Vec::new(), 0)) };
    let landing = identity.places.landing.sql();
    let query = format!("SELECT \"_SEQ\" FROM {landing} WHERE \"_SEQ\" >= ? AND \"_SEQ\" <= ?");
    let doing = format!("looking for rejected rows of {landing}");
    let landed = tokens(&shared.sql.query(&doing, &query, &[&low.to_string(), &high.to_string()]).await?);
    let before = shared.dead_letters.known(shared, &identity.row, (low, high), *known).await?;
    let mut letters: Vec<Letter> = Vec::new();
    let mut found = 0;
    for (plan, rows) in rows {
        let missing: Vec<u32> = (0..rows.len() as u32).filter(|row| !landed.contains(&rows.token(*row as usize))).collect();
        let letter = |row: &u32| before.get(&rows.token(*row as usize));
        found += missing.iter().filter(|row| letter(row) != Some(&true)).count() as u64;
        for row in missing.iter().filter(|row| rows.op(**row as usize) == Op::Delete) {
            let token = rows.token(*row as usize);
            if question.moved.contains(&Token::new(token.commit_lsn, token.ordinal.saturating_add(1))) {
                let (schema, table) = (&identity.row.schema, &identity.row.table);
                let message = format!(
                    "Snowflake rejected the old key's delete at {token} of table \"{schema}.{table}\", and the new key's row has values of it"
                );
                return Err(CodedError::definite(SF_REJECTED, message)
                    .hint("run `etl-stream resync` for the table: its new snapshot has the rows, and takes note of the count"));
            }
        }
        let new: Vec<u32> = missing.into_iter().filter(|row| letter(row).is_none()).collect();
        if !new.is_empty() {
            letters.extend(letter::of_rows(plan, &rows.take(&new), std::iter::repeat((SF_REJECTED.id, reason.as_str()))));
        }
    }
    letters.sort_by_key(|letter| letter.token);
    Ok((letters, found))
}
