//! Rows on their way: deliveries that go out together, split by channel, encoded on as many cores as there
//! are, sent by all channels at the same time.
//!
//! ```text
//! deliveries ──> split by key ──> channel 0: requests ──┐
//!                            └──> channel 1: requests ──┴──> sent together
//! ```
//! A round takes up deliveries while the one before it is sent, until its requests are as large as they may be: what is
//! delivered in small pieces costs no more requests than what comes at once.

use super::channel::Channel;
use super::context::Shared;
use super::errors::SF_STREAMING;
use super::letter::{self, Letter};
use super::plan::TablePlan;
use super::refusal::{Refused, unheld};
use super::requests::{Frame, Requests};
use super::shard::{self, Share};
use crate::contract::{Ack, CodedError, RowBatch, Token};
use std::sync::Arc;

/// Bytes of rows that are taken up at once, for each channel: less than a request has room for.
pub(super) const TAKE: usize = 6 << 20;

/// The channels, given back with the outcome.
pub(super) type Sent = (Vec<Channel>, Result<(), CodedError>);

/// A delivery, split.
pub(super) struct Split {
    /// Its rows.
    pub(super) batch: RowBatch,
    /// As they land.
    landed: RowBatch,
    /// The hash of each row's key.
    pub(super) hashes: Vec<u64>,
    /// By channel.
    shares: Vec<Share>,
}

impl Split {
    fn of(plan: &TablePlan, batch: RowBatch, channels: usize) -> Self {
        let hashes = shard::hashes(&batch, &plan.key);
        Self { landed: plan.landed(batch.clone()), shares: shard::split(&batch, &hashes, channels), batch, hashes }
    }
}

/// A delivery in its round.
pub(super) struct Encoded {
    /// Its rows.
    pub(super) rows: Arc<Split>,
    /// The last token of each channel that has rows of it.
    pub(super) lasts: Vec<Option<Token>>,
    /// How many rows are sent, or were by an earlier process, which is not accounted for.
    pub(super) sent: u64,
    /// To be told when they are durable.
    pub(super) ack: Ack,
}

/// A channel's part of a round.
#[derive(Default)]
struct Part {
    shares: Vec<Share>,
    requests: Requests,
}

/// A channel's part, ready to be sent.
type Ready = (Vec<Share>, Vec<Frame>);

/// Deliveries under one schema that go out together.
pub(super) struct Round {
    /// The schema.
    pub(super) plan: Arc<TablePlan>,
    /// The deliveries, in order.
    pub(super) deliveries: Vec<Encoded>,
    parts: Vec<Part>,
    /// Values that stand in `_ETL_EXACT` instead of their column.
    pub(super) exact: u64,
    /// Rows that are not sent, for the dead letter.
    pub(super) refused: Vec<Letter>,
}

/// What becomes of deliveries in one channel.
#[derive(Default)]
struct Grown {
    part: Part,
    /// For each delivery: the last token, and how many rows.
    shares: Vec<(Option<Token>, u64)>,
    exact: u64,
    refused: Vec<Letter>,
}

impl Round {
    /// An empty one.
    pub(super) fn new(plan: Arc<TablePlan>, channels: usize, plain: bool) -> Self {
        let parts = (0..channels).map(|_| Part { shares: Vec::new(), requests: Requests::new(plain) }).collect();
        Self { plan, deliveries: Vec::new(), parts, exact: 0, refused: Vec::new() }
    }

    /// Whether it is best sent before more is added.
    pub(super) fn full(&self) -> bool {
        self.parts.iter().any(|part| part.requests.full())
    }

    /// Adds deliveries, for channels of which so much is `(accounted for, sent)`; what is accounted for is left
    /// out: an earlier process landed it and it is delivered again.
    ///
    /// # Errors
    /// With `stop`, that of a refused row.
    pub(super) async fn add(
        mut self,
        shared: Arc<Shared>,
        deliveries: Vec<(RowBatch, Ack)>,
        done: Vec<(Token, Token)>,
        stop: bool,
    ) -> Result<Self, CodedError> {
        let (batches, acks): (Vec<RowBatch>, Vec<Ack>) = deliveries.into_iter().unzip();
        let (plan, channels) = (Arc::clone(&self.plan), done.len());
        let split = move || batches.into_iter().map(|batch| Arc::new(Split::of(&plan, batch, channels))).collect::<Vec<_>>();
        let splits = beside(&shared, split).await?;
        let work = std::mem::take(&mut self.parts).into_iter().zip(done).enumerate().map(|(channel, (part, done))| {
            let (plan, splits) = (Arc::clone(&self.plan), splits.clone());
            beside(&shared, move || grow(&plan, &splits, channel, part, done, stop))
        });
        let grown: Vec<Grown> = futures::future::try_join_all(work).await?.into_iter().collect::<Result<_, _>>()?;
        for (nth, (rows, ack)) in splits.into_iter().zip(acks).enumerate() {
            let (lasts, sent): (Vec<_>, Vec<u64>) = grown.iter().filter_map(|grown| grown.shares.get(nth).copied()).unzip();
            self.deliveries.push(Encoded { rows, lasts, sent: sent.iter().sum(), ack });
        }
        for grown in grown {
            self.parts.push(grown.part);
            self.exact += grown.exact;
            self.refused.extend(grown.refused);
        }
        self.refused.sort_by_key(|letter| letter.token);
        Ok(self)
    }

    /// What each channel is to send.
    ///
    /// # Errors
    /// When rows cannot be compressed.
    pub(super) fn ready(&mut self) -> Result<Vec<Ready>, CodedError> {
        std::mem::take(&mut self.parts).into_iter().map(|part| Ok((part.shares, part.requests.finish()?))).collect()
    }
}

/// Does work that keeps a core busy, beside the async threads; no more of it at once than there are cores.
async fn beside<T: Send + 'static>(shared: &Shared, work: impl FnOnce() -> T + Send + 'static) -> Result<T, CodedError> {
    let _permit = shared.encodes.acquire().await;
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| CodedError::definite(SF_STREAMING, "rows were not encoded").caused_by(e))
}

/// Adds deliveries to a channel's part.
fn grow(
    plan: &TablePlan,
    splits: &[Arc<Split>],
    channel: usize,
    mut part: Part,
    (committed, sent): (Token, Token),
    stop: bool,
) -> Result<Grown, CodedError> {
    let mut grown = Grown::default();
    for split in splits {
        let mut rows = split.shares[channel].after(committed);
        let unsent = rows.after(sent);
        let mut refused = unheld(plan, &split.landed);
        if !refused.is_empty() {
            let own: Vec<usize> = unsent.rows().collect();
            refused.retain(|r| own.binary_search(&r.row).is_ok());
        }
        let added = part.requests.add(plan, &split.landed, &unsent, &refused)?;
        grown.exact += added.exact;
        refused.extend(added.refused);
        if !refused.is_empty() {
            refused.sort_by_key(|r| r.row);
            rows = without(plan, &rows, refused, stop, &mut grown.refused)?;
        }
        grown.shares.push((rows.last_token(), rows.len() as u64));
        if !rows.is_empty() {
            part.shares.push(rows);
        }
    }
    grown.part = part;
    Ok(grown)
}

/// The rows without the refused ones, which become letters.
#[cold]
fn without(plan: &TablePlan, rows: &Share, refused: Vec<Refused>, stop: bool, letters: &mut Vec<Letter>) -> Result<Share, CodedError> {
    let gone: Vec<u32> = refused.iter().map(|r| r.row as u32).collect();
    let mut reasons = Vec::with_capacity(refused.len());
    for Refused { error, .. } in refused {
        if stop {
            return Err(error);
        }
        reasons.push((error.code.id, error.message));
    }
    letters.extend(letter::of_rows(plan, &rows.batch().take(&gone), reasons.iter().map(|(code, why)| (*code, why.as_str()))));
    Ok(rows.without(&gone))
}

async fn send(mut channel: Channel, (rows, frames): Ready, plan: Arc<TablePlan>) -> (Channel, Result<(), CodedError>) {
    let result = if rows.is_empty() { Ok(()) } else { channel.append(&plan, rows, frames).await };
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
pub(super) async fn send_all(shared: Arc<Shared>, channels: Vec<Channel>, plan: Arc<TablePlan>, parts: Vec<Ready>) -> Sent {
    let _permit = shared.sends.acquire().await;
    together(channels.into_iter().zip(parts).map(|(channel, part)| send(channel, part, Arc::clone(&plan)))).await
}

/// Opens channels again that the service called invalid, and sends what is not committed of them.
pub(super) async fn repair_all(channels: Vec<Channel>) -> Sent {
    together(channels.into_iter().map(repair)).await
}

#[cfg(test)]
mod tests {
    use super::super::errors::SF_STRICT;
    use super::super::tests::{batch_of, schema};
    use super::*;
    use crate::contract::ColumnType;
    use arrow::array::Date32Array;

    /// A part's rows, and what was written of them.
    fn grown(plan: &TablePlan, rows: &RowBatch, channels: usize, done: (Token, Token), stop: bool) -> Vec<Result<Grown, CodedError>> {
        let pieces = [rows.slice(0, 1), rows.slice(1, 0), rows.slice(1, rows.len() - 1)];
        let splits: Vec<_> = pieces.into_iter().map(|piece| Arc::new(Split::of(plan, piece, channels))).collect();
        (0..channels).map(|channel| grow(plan, &splits, channel, Part::default(), done, stop)).collect()
    }

    #[test]
    fn values_that_a_column_cannot_hold() {
        let columns = [("id", ColumnType::Date), ("d", ColumnType::Date)];
        let table = schema("pg", "public", "t", &columns, 1);
        let column =
            |far: usize| Arc::new(Date32Array::from_iter_values((0..4).map(|row| if row as usize == far { 9_999_999 } else { row })));
        let rows = batch_of(&table, vec![column(1), column(2)]);
        for (merge, strict, expected) in
            [(false, false, vec![]), (true, false, vec![]), (false, true, vec![1, 2]), (true, true, vec![1, 2])]
        {
            let plan = TablePlan::new(&table, merge, strict, None).unwrap();
            for channels in [1, 2, 3] {
                let parts: Vec<Grown> =
                    grown(&plan, &rows, channels, (Token::ZERO, Token::ZERO), false).into_iter().map(Result::unwrap).collect();
                let mut letters: Vec<&Letter> = parts.iter().flat_map(|grown| &grown.refused).collect();
                letters.sort_by_key(|letter| letter.token);
                assert_eq!(
                    letters.iter().map(|l| l.token).collect::<Vec<_>>(),
                    expected.iter().map(|at| rows.token(*at)).collect::<Vec<_>>()
                );
                assert!(letters.iter().all(|l| l.code == SF_STRICT.id));
                let exact: u64 = parts.iter().map(|grown| grown.exact).sum();
                let rows_sent: u64 = parts.iter().flat_map(|grown| &grown.shares).map(|(_, rows)| rows).sum();
                assert_eq!((rows_sent as usize, exact as usize), (4 - expected.len(), 2 - expected.len()), "{merge} {strict}");
                let frames: usize = parts.into_iter().flat_map(|grown| grown.part.requests.finish().unwrap()).map(|f| f.rows).sum();
                assert_eq!(frames, 4 - expected.len());
            }
            let stopped = grown(&plan, &rows, 1, (Token::ZERO, Token::ZERO), true);
            assert_eq!(stopped[0].as_ref().err().map(|e| e.code), strict.then_some(SF_STRICT));
        }
    }

    #[test]
    fn what_is_there_is_left_out_and_what_was_sent_is_kept() {
        let table = schema("pg", "public", "t", &[("id", ColumnType::Date)], 1);
        let rows = batch_of(&table, vec![Arc::new(Date32Array::from_iter_values(0..6))]);
        let plan = TablePlan::new(&table, true, false, None).unwrap();
        for (committed, sent, kept, written) in [(0, 0, 6, 6), (2, 2, 4, 4), (2, 4, 4, 2), (6, 6, 0, 0), (0, 6, 6, 0)] {
            let before = |rows: u64| if rows == 0 { Token::ZERO } else { Token::new(1, rows - 1) };
            let mut parts = grown(&plan, &rows, 1, (before(committed), before(sent)), false);
            let Grown { part, shares, .. } = parts.remove(0).unwrap();
            assert_eq!(shares.len(), 3, "every delivery is told of");
            assert_eq!(shares.iter().map(|(_, rows)| *rows as usize).sum::<usize>(), kept);
            assert_eq!(part.shares.iter().map(Share::len).sum::<usize>(), kept);
            let frames = part.requests.finish().unwrap();
            assert_eq!(frames.iter().map(|f| f.rows).sum::<usize>(), written);
            assert!(frames.len() <= 1, "deliveries share a request");
        }
    }
}
