//! Carries merges out, and finds what an earlier process left to be merged.

use super::context::Shared;
use super::errors::SF_FENCED;
use super::ledger::{Ledger, Move};
use super::merge::{MergeTable, Range, statements};
use super::names::TableName;
use super::sql::literal;
use crate::contract::{CodedError, Token};
use crate::failpoint;
use std::sync::Arc;
use std::time::Duration;

/// How a merge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Everything up to here is in the target.
    Upto(Token),
    /// Another process has merged, up to here.
    Elsewhere(Token),
}

/// Merges a range in one transaction.
pub(super) async fn merge(
    shared: Arc<Shared>,
    table: MergeTable,
    statements: Vec<String>,
    range: Range,
    sweep: Option<Duration>,
) -> Result<Merged, CodedError> {
    let _permit = shared.merges.acquire().await;
    let doing = format!("merging table \"{}.{}\" into {} up to {}", table.row.schema, table.row.table, table.target.sql(), range.fence);
    failpoint::reach("snowflake.merge");
    let handles = shared.sql.transaction(&doing, statements).await?;
    failpoint::reach("snowflake.merged");
    // The statement before COMMIT moved the fence; its count says whether this merge was the one.
    let moved = match handles.len().checked_sub(2).and_then(|at| handles.get(at)) {
        // An answer that cannot be had any more says nothing; the progress row does.
        Some(handle) => match shared.sql.rows_of(&doing, handle).await {
            Ok(rows) => rows.first().and_then(|row| row.first()?.as_deref()?.parse::<u64>().ok()),
            Err(_) => None,
        },
        None => None,
    };
    if moved != Some(1) {
        // Also after an answer was lost and the request was carried out a second time, to no effect.
        let now = shared.progress(&table.progress).read(&table.row).await?.map_or(Token::ZERO, |p| p.fence);
        if now != range.fence {
            return Ok(Merged::Elsewhere(now));
        }
    }
    if let Some(retention) = sweep {
        let landing = table.landing.sql();
        let delete = format!(
            "DELETE FROM {landing} WHERE \"_SEQ\" <= {} AND \"_COMMIT_TS\" < DATEADD(second, -{}, CURRENT_TIMESTAMP())",
            literal(&range.fence.to_string()),
            retention.as_secs()
        );
        shared.sql.run_all(&format!("deleting merged rows from {landing}"), &[delete]).await?;
    }
    Ok(Merged::Upto(range.fence))
}

/// The statements of a range; see [`merge`].
pub(super) fn planned(table: &MergeTable, ledger: &Ledger, range: Range) -> Vec<String> {
    statements(table, ledger, range)
}

/// The error of a table that another process merges too.
pub(super) fn elsewhere(target: &TableName, fence: Token) -> CodedError {
    CodedError::definite(SF_FENCED, format!("another process merges into {}: it is at {fence}", target.sql()))
        .hint("stop the other process that runs this pipeline, or name one of the pipelines differently")
}

/// Notes what is in a landing table after `merged`.
pub(super) async fn load(shared: &Shared, landing: &TableName, merged: Token, ledger: &mut Ledger) -> Result<(), CodedError> {
    let place = landing.sql();
    let doing = format!("reading what is not merged of {place}");
    let after = merged.to_string();
    let rows = shared.sql.query(&doing, &format!("SELECT MIN(\"_SEQ\"), MAX(\"_SEQ\") FROM {place} WHERE \"_SEQ\" > ?"), &[&after]).await?;
    let token = |cell: Option<&Option<String>>| cell.and_then(|c| c.as_deref()).and_then(|text| text.parse::<Token>().ok());
    let ends = rows.first().and_then(|row| Some((token(row.first())?, token(row.get(1))?)));
    let Some((first, last)) = ends else { return Ok(()) };
    ledger.note(first);
    ledger.note(last);
    let truncates = format!("SELECT \"_SEQ\" FROM {place} WHERE \"_OP\" = 't' AND \"_SEQ\" > ?");
    for row in shared.sql.query(&doing, &truncates, &[&after]).await? {
        if let Some(at) = token(row.first()) {
            ledger.note_truncate(at);
        }
    }
    let unchanged = format!(
        "SELECT f.VALUE::VARCHAR, MIN(l.\"_SEQ\"), MAX(l.\"_SEQ\") FROM {place} AS l, LATERAL FLATTEN(INPUT => l.\"_UNCHANGED\") AS f \
         WHERE l.\"_SEQ\" > ? GROUP BY f.VALUE::VARCHAR"
    );
    let unchanged = shared.sql.query(&doing, &unchanged, &[&after]).await?;
    for row in &unchanged {
        if let (Some(Some(name)), Some(first), Some(last)) = (row.first(), token(row.get(1)), token(row.get(2))) {
            ledger.note_unchanged(name, first);
            ledger.note_unchanged(name, last);
        }
    }
    if unchanged.is_empty() {
        return Ok(());
    }
    let moves = format!(
        "SELECT \"_SEQ\", \"_before\" FROM (SELECT \"_SEQ\", \"_OP\", \"_UNCHANGED\", LAG(\"_SEQ\") OVER (ORDER BY \"_SEQ\") AS \"_before\" \
         FROM {place} WHERE \"_SEQ\" > ?) AS m WHERE \"_OP\" = 'i' AND \"_UNCHANGED\" IS NOT NULL"
    );
    for row in shared.sql.query(&doing, &moves, &[&after]).await? {
        if let (Some(new), Some(delete)) = (token(row.first()), token(row.get(1))) {
            ledger.note_move(new, Move { delete, from: 0, to: 0, hashed: false });
        }
    }
    Ok(())
}
