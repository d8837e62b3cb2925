//! Rows of one delivery on their way: split by channel, encoded beside the async threads, sent by all
//! channels at the same time.

use super::channel::Channel;
use super::context::Shared;
use super::letter::{self, Letter};
use super::plan::TablePlan;
use super::refusal::Refused;
use super::requests::{Frame, Requests, encode};
use super::shard;
use crate::contract::{CodedError, RowBatch, Token};
use std::sync::Arc;

/// The channels, given back with the outcome.
pub(super) type Sent = (Vec<Channel>, Result<(), CodedError>);

/// A channel's part of a delivery.
pub(super) struct Part {
    /// The rows that are sent or were by an earlier process, which is not accounted for.
    pub(super) rows: RowBatch,
    frames: Vec<Frame>,
}

/// Rows of one delivery, ready to be sent.
pub(super) struct Encoded {
    /// The whole delivery.
    pub(super) batch: RowBatch,
    /// The hash of each row's key.
    pub(super) hashes: Vec<u64>,
    /// By channel.
    pub(super) parts: Vec<Option<Part>>,
    /// Values that stand in `_ETL_EXACT` instead of their column.
    pub(super) exact: u64,
    /// Rows that are not sent, for the dead letter.
    pub(super) refused: Vec<Letter>,
}

/// Encodes a delivery for channels of which so much is `(accounted for, sent)`; what is accounted for is left
/// out: an earlier process landed it and it is delivered again.
///
/// # Errors
/// The error of a refused row, where there is no dead letter for it.
pub(super) fn encode_all(plan: &TablePlan, batch: RowBatch, done: &[(Token, Token)], stop: bool) -> Result<Encoded, CodedError> {
    let hashes = shard::hashes(&batch, &plan.key);
    let mut encoded = Encoded { batch, hashes, parts: Vec::with_capacity(done.len()), exact: 0, refused: Vec::new() };
    for (rows, (committed, sent)) in shard::split(encoded.batch.clone(), &encoded.hashes, done.len()).into_iter().zip(done) {
        let Some(rows) = rows.map(|rows| rows.after(*committed)).filter(|rows| !rows.is_empty()) else {
            encoded.parts.push(None);
            continue;
        };
        let unsent = rows.after(*sent);
        let Requests { frames, exact, refused } = encode(plan, unsent.clone())?;
        encoded.exact += exact;
        let rows = if refused.is_empty() { rows } else { without(plan, rows, &unsent, refused, stop, &mut encoded.refused)? };
        encoded.parts.push((!rows.is_empty()).then_some(Part { rows, frames }));
    }
    encoded.refused.sort_by_key(|letter| letter.token);
    Ok(encoded)
}

/// The rows without the refused ones of `unsent`, which are their end.
#[cold]
fn without(
    plan: &TablePlan,
    rows: RowBatch,
    unsent: &RowBatch,
    refused: Vec<Refused>,
    stop: bool,
    letters: &mut Vec<Letter>,
) -> Result<RowBatch, CodedError> {
    let before = rows.len() - unsent.len();
    let gone: Vec<u32> = refused.iter().map(|r| (before + r.row) as u32).collect();
    let kept: Vec<u32> = (0..rows.len() as u32).filter(|row| gone.binary_search(row).is_err()).collect();
    let mut reasons = Vec::with_capacity(refused.len());
    for Refused { error, .. } in refused {
        if stop {
            return Err(error);
        }
        reasons.push((error.code.id, error.message));
    }
    letters.extend(letter::of_rows(plan, &rows.take(&gone), reasons.iter().map(|(code, why)| (*code, why.as_str()))));
    Ok(rows.take(&kept))
}

async fn send(mut channel: Channel, part: Option<Part>, plan: Arc<TablePlan>) -> (Channel, Result<(), CodedError>) {
    let result = match part {
        Some(Part { rows, frames }) => channel.append(plan, rows, frames).await,
        None => Ok(()),
    };
    (channel, result)
}

async fn repair(mut channel: Channel) -> (Channel, Result<(), CodedError>) {
    let result = if channel.position().broken() { channel.repair().await } else { Ok(()) };
    (channel, result)
}

async fn together(work: impl Iterator<Item = impl Future<Output = (Channel, Result<(), CodedError>)>>) -> Sent {
    let mut channels = Vec::new();
    let mut result = Ok(());
    for (channel, done) in futures::future::join_all(work).await {
        channels.push(channel);
        result = result.and(done);
    }
    (channels, result)
}

/// Sends each channel its part.
pub(super) async fn send_all(shared: Arc<Shared>, channels: Vec<Channel>, plan: Arc<TablePlan>, parts: Vec<Option<Part>>) -> Sent {
    let _permit = shared.sends.acquire().await;
    together(channels.into_iter().zip(parts).map(|(channel, part)| send(channel, part, Arc::clone(&plan)))).await
}

/// Opens channels again that the service called invalid, and sends what is not committed of them.
pub(super) async fn repair_all(channels: Vec<Channel>) -> Sent {
    together(channels.into_iter().map(repair)).await
}
