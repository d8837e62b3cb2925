//! Rows of one delivery on their way: split by channel, encoded beside the async threads, sent by all
//! channels at the same time.

use super::channel::Channel;
use super::context::Shared;
use super::plan::TablePlan;
use super::requests::{Frame, encode};
use super::shard;
use crate::contract::{CodedError, RowBatch, Token};
use std::sync::Arc;

/// The channels, given back with the outcome.
pub(super) type Sent = (Vec<Channel>, Result<(), CodedError>);
/// A channel's part of a delivery.
pub(super) type Part = Option<(RowBatch, Vec<Frame>)>;

/// Rows of one delivery, ready to be sent.
pub(super) struct Encoded {
    /// The whole delivery.
    pub(super) batch: RowBatch,
    /// The hash of each row's key.
    pub(super) hashes: Vec<u64>,
    /// By channel.
    pub(super) parts: Vec<Part>,
    /// Values that stand in `_ETL_EXACT` instead of their column.
    pub(super) exact: u64,
}

/// Encodes a delivery for channels that have committed that much; what is committed is left out: an
/// earlier process landed it and it is delivered again.
pub(super) fn encode_all(plan: &TablePlan, batch: RowBatch, committed: &[Token]) -> Result<Encoded, CodedError> {
    let hashes = shard::hashes(&batch, &plan.key);
    let mut exact = 0;
    let mut parts = Vec::with_capacity(committed.len());
    for (rows, committed) in shard::split(batch.clone(), &hashes, committed.len()).into_iter().zip(committed) {
        let rows = rows.map(|rows| rows.after(*committed)).filter(|rows| !rows.is_empty());
        parts.push(match rows {
            None => None,
            Some(rows) => {
                let (frames, values) = encode(plan, rows.clone())?;
                exact += values;
                Some((rows, frames))
            }
        });
    }
    Ok(Encoded { batch, hashes, parts, exact })
}

async fn send(mut channel: Channel, part: Part, plan: Arc<TablePlan>) -> (Channel, Result<(), CodedError>) {
    let result = match part {
        Some((rows, frames)) => channel.append(plan, rows, frames).await,
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
pub(super) async fn send_all(shared: Arc<Shared>, channels: Vec<Channel>, plan: Arc<TablePlan>, parts: Vec<Part>) -> Sent {
    let _permit = shared.sends.acquire().await;
    together(channels.into_iter().zip(parts).map(|(channel, part)| send(channel, part, Arc::clone(&plan)))).await
}

/// Opens channels again that the service called invalid, and sends what is not committed of them.
pub(super) async fn repair_all(channels: Vec<Channel>) -> Sent {
    together(channels.into_iter().map(repair)).await
}
