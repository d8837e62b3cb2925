//! One channel: its turn to write, what was sent and is not committed, and how it comes back after a fault.
//!
//! ```text
//! open ──> committed token, continuation token
//! append ──> rows request, one after the other, without waiting for a commit between them
//!    └─ turn lost, channel invalid, answer lost ──> open again ──> resend what lies after the committed token
//! ```
//! # Guarantees
//! Every row lands once. Rows that are not known to be committed are kept, so they can be sent again; opening
//! waits until nothing of an earlier writer is in flight, so the committed token then says all. Rows are kept
//! as well while some of them were rejected and it is not known which (see `account`).

use super::classify::Verdict;
use super::context::Shared;
use super::errors::{SF_FENCED, SF_UNREACHABLE};
use super::plan::TablePlan;
use super::requests::{Frame, Requests};
use super::shard::Share;
use super::streaming::{ChannelStatus, Pipe};
use crate::contract::{CodedError, RowBatch, Token};
use crate::failpoint;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often another writer may take the turn within [`FENCED_WITHIN`].
const FENCED_LIMIT: usize = 4;
const FENCED_WITHIN: Duration = Duration::from_secs(600);
/// How often a table is looked for that was created just now.
const MISSING_TRIES: u32 = 4;

/// What is known of a channel; shared between the channel and whoever asks the service.
#[derive(Debug, Default)]
pub(super) struct Position(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    committed: Token,
    sent: Token,
    broken: bool,
    /// Whether that is since another client has taken it.
    taken: bool,
    /// Rejected rows that are accounted for; `None` while some of an earlier process are not.
    accounted: Option<u64>,
}

impl Position {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every row up to it is in the landing table or in the dead letter.
    pub(super) fn committed(&self) -> Token {
        self.known().committed
    }

    /// The service has worked on everything up to it, and would take nothing of it again.
    pub(super) fn sent(&self) -> Token {
        self.known().sent
    }

    /// Whether the service says that the channel is no longer valid.
    pub(super) fn broken(&self) -> bool {
        self.known().broken
    }

    /// Notes that everything up to a token is accounted for, and so many rejected rows; `None`: not yet all.
    pub(super) fn settle(&self, committed: Token, accounted: Option<u64>) {
        let mut known = self.known();
        known.committed = known.committed.max(committed);
        known.sent = known.sent.max(committed);
        known.accounted = accounted;
    }

    /// Notes whether the channel is no longer valid, and whether that is since another client has taken it.
    pub(super) fn set_broken(&self, broken: bool, taken: bool) {
        let mut known = self.known();
        (known.broken, known.taken) = (broken, taken);
    }

    /// Notes what the service said when the channel was opened. With newly rejected rows nothing is known to be
    /// committed until they are found.
    fn opened(&self, status: &ChannelStatus) {
        let mut known = self.known();
        (known.sent, known.broken, known.taken) = (status.committed, false, false);
        if known.accounted == Some(status.rejected) {
            known.committed = status.committed;
        }
    }
}

/// A channel that is open.
pub(super) struct Channel {
    shared: Arc<Shared>,
    pipe: Pipe,
    name: String,
    continuation: String,
    position: Arc<Position>,
    unacked: VecDeque<(Arc<TablePlan>, Share)>,
    fenced: VecDeque<Instant>,
    /// Rejected rows as of the last opening.
    pub(super) rejected: u64,
}

impl Channel {
    /// Opens it.
    pub(super) async fn open(shared: Arc<Shared>, pipe: Pipe, name: String) -> Result<Self, CodedError> {
        let mut channel = Self {
            shared,
            pipe,
            name,
            continuation: String::new(),
            position: Arc::default(),
            unacked: VecDeque::new(),
            fenced: VecDeque::new(),
            rejected: 0,
        };
        channel.reopen().await?;
        Ok(channel)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is committed of it.
    pub(super) fn position(&self) -> &Arc<Position> {
        &self.position
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} channel \"{}\" of table \"{}\"", self.name, self.pipe.table)
    }

    /// Takes the turn: waits until nothing sent before is in flight, then reads what is committed.
    pub(super) async fn reopen(&mut self) -> Result<(), CodedError> {
        let mut pauses = self.shared.http.pauses();
        let mut missing = 0;
        loop {
            failpoint::reach("snowflake.open");
            let refusal = match self.shared.streaming.open(&self.pipe, &self.name).await? {
                Ok((continuation, status)) => {
                    self.continuation = continuation;
                    self.rejected = status.rejected;
                    self.position.opened(&status);
                    self.prune();
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            let again = match refusal.verdict {
                Verdict::Uncommitted | Verdict::Fenced | Verdict::Reopen => true,
                Verdict::Missing => {
                    missing += 1;
                    missing < MISSING_TRIES
                }
                _ => false,
            };
            match pauses.next() {
                Some(pause) if again => tokio::time::sleep(pause).await,
                _ => return Err(refusal.error(&self.doing("opening"))),
            }
        }
    }

    /// Rows that are not known to be committed, up to a token that the service has worked up to.
    pub(super) fn unaccounted(&self, upto: Token) -> Vec<(Arc<TablePlan>, RowBatch)> {
        let after = self.position.committed();
        let rows = self.unacked.iter().map(|(plan, rows)| (plan, rows.after(after).upto(upto)));
        rows.filter(|(_, rows)| !rows.is_empty()).map(|(plan, rows)| (Arc::clone(plan), rows.copy())).collect()
    }

    /// Lets go of rows that are known to be committed.
    pub(super) fn prune(&mut self) {
        let committed = self.position.committed();
        while self.unacked.front().is_some_and(|(_, rows)| rows.last_token().is_none_or(|last| last <= committed)) {
            self.unacked.pop_front();
        }
    }

    /// Appends rows that were encoded before; returns when they are accepted.
    pub(super) async fn append(&mut self, plan: &Arc<TablePlan>, rows: Vec<Share>, frames: Vec<Frame>) -> Result<(), CodedError> {
        self.prune();
        self.unacked.extend(rows.into_iter().map(|rows| (Arc::clone(plan), rows)));
        if self.send(frames).await? { Ok(()) } else { self.repair().await }
    }

    /// Opens the channel again and sends what is not committed.
    pub(super) async fn repair(&mut self) -> Result<(), CodedError> {
        let mut pauses = self.shared.http.pauses();
        if self.position.known().taken {
            self.count_fence()?;
        }
        let plain = self.shared.streaming.plain();
        loop {
            tracing::info!(channel = self.name, "channel is opened again");
            self.reopen().await?;
            let sent = self.position.sent();
            let kept: Vec<_> = self.unacked.iter().cloned().collect();
            let frames = tokio::task::spawn_blocking(move || {
                let mut requests = Requests::new(plain);
                for (plan, rows) in kept {
                    requests.add(&plan, &plan.landed(rows.batch().clone()), &rows.after(sent), &[])?;
                }
                requests.finish()
            });
            let frames = frames.await.map_err(|e| CodedError::definite(SF_UNREACHABLE, self.doing("encoding rows of")).caused_by(e))??;
            if self.send(frames).await? {
                return Ok(());
            }
            let Some(pause) = pauses.next() else {
                return Err(CodedError::transient(SF_UNREACHABLE, self.doing("the service kept invalidating")));
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends requests in order; `false` when the channel has to be opened again.
    pub(super) async fn send(&mut self, frames: Vec<Frame>) -> Result<bool, CodedError> {
        for frame in frames {
            let tokens = (frame.first, frame.last);
            failpoint::reach("snowflake.rows");
            match self.shared.streaming.append(&self.pipe, &self.name, &self.continuation, tokens, frame.body).await? {
                Ok(next) => {
                    failpoint::reach("snowflake.accepted");
                    self.continuation = next;
                }
                Err(refusal) => match refusal.verdict {
                    Verdict::Reopen | Verdict::Uncommitted => return Ok(false),
                    Verdict::Fenced => {
                        // After a lost answer it was ourselves who took the turn, with the same rows.
                        if !refusal.ambiguous {
                            self.count_fence()?;
                        }
                        return Ok(false);
                    }
                    _ => return Err(refusal.error(&self.doing("appending rows to"))),
                },
            }
        }
        Ok(true)
    }

    fn count_fence(&mut self) -> Result<(), CodedError> {
        let now = Instant::now();
        self.fenced.push_back(now);
        self.fenced.retain(|at| now.duration_since(*at) < FENCED_WITHIN);
        if self.fenced.len() <= FENCED_LIMIT {
            return Ok(());
        }
        Err(CodedError::definite(SF_FENCED, self.doing("another process keeps opening"))
            .hint("stop the other process that runs this pipeline, or name one of the pipelines differently"))
    }
}
