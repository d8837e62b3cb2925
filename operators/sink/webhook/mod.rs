//! Rows as HTTP POSTs of NDJSON, a batch of one table each.
//!
//! ```text
//! Delivery ──> lane of its table ──POST: a mark, or lines {"_table":…,"_op":…,"_seq":…, columns}──> 2xx ──ack
//! ```
//!
//! # Guarantees
//! - Order: a table's requests come one after the other, each after the one before it was taken; tables do not
//!   wait for each other, up to `connections`.
//! - Progress: 2xx is taken for durable, so a receiver must store before it answers.
//! - At least once: after a crash or a lost answer rows come again, in other batches perhaps. A receiver that keeps the
//!   last `_seq` of each table and drops what is not beyond it has each change once.
//! - Snapshots: `snapshot_begin` says which earlier attempt to remove; a snapshot is whole at `snapshot_end`.
//! - Failure: see `request`. What is not taken is not acknowledged, and ends the run past its deadline.

mod lane;
mod request;
#[cfg(test)]
mod tests;

pub use request::{GAVE_UP, REFUSED, SETTING};

use super::batch_limits;
use super::tally::Tally;
use crate::contract::{
    BatchSettings, BuildContext, ByteSize, CodedError, Deliveries, Delivery, Findings, NodeConfig, Period, RetrySettings, Secret, Sink,
    SinkConfig, Writer, WriterContext,
};
use async_trait::async_trait;
use lane::Lane;
use request::Receiver;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

const BATCH: BatchSettings = BatchSettings::new(1_000, ByteSize::mib(1), Period::millis(1_000));

fn timeout() -> Period {
    Period::millis(30_000)
}

fn connections() -> u16 {
    4
}

/// Settings of the `webhook` sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where to post: `https://host/path`, or plain `http` where the network is trusted.
    pub url: Secret,
    /// Further headers, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The key that requests are signed with, in `X-Etl-Stream-Signature`. Without it they are not.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// How long one try may take.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Requests at the same time, each of another table.
    #[serde(default = "connections")]
    pub connections: u16,
    /// When a batch is sealed; each is a request.
    #[serde(default)]
    pub batch: Option<BatchSettings>,
    /// How a receiver that is away or busy is met.
    #[serde(default)]
    pub retry: RetrySettings,
}

impl NodeConfig for WebhookConfig {
    const TYPE: &'static str = "webhook";
    const SUMMARY: &'static str = "Posts rows to a URL as NDJSON, at least once";
    const EXAMPLE: &'static str = "url: { env: HOOK_URL }\nheaders: { Authorization: { env: HOOK_TOKEN } }\nsecret: { env: HOOK_SECRET }\n";

    fn check(&self, findings: &mut Findings) {
        if self.connections == 0 {
            findings.push(SETTING, "/connections", "without a connection nothing is sent", Some("write 1 or more".into()));
        }
        for name in self.headers.keys().filter(|name| request::header_name(name).is_none()) {
            let help = Some("headers that the sink sets itself, and what is no header's name, cannot be given".into());
            findings.push(SETTING, format!("/headers/{}", name.replace('~', "~0").replace('/', "~1")), "this header cannot be set", help);
        }
    }
}

impl SinkConfig for WebhookConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Webhook { receiver: Arc::new(Receiver::new(self, cx)?), batch: batch_limits(self.batch, BATCH) }))
    }
}

struct Webhook {
    receiver: Arc<Receiver>,
    batch: BatchSettings,
}

#[async_trait]
impl Sink for Webhook {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    /// Sends nothing: a receiver knows rows and marks, and no greeting.
    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        Ok(())
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        Box::new(Lanes { receiver: Arc::clone(&self.receiver), tally: Tally::new(&cx), inboxes: HashMap::new(), lanes: JoinSet::new() })
    }
}

/// The writer of one source on one worker: a lane for each table.
struct Lanes {
    receiver: Arc<Receiver>,
    tally: Tally,
    inboxes: HashMap<(Arc<str>, Arc<str>), mpsc::UnboundedSender<Delivery>>,
    lanes: JoinSet<Result<(), CodedError>>,
}

fn ended(result: Result<Result<(), CodedError>, JoinError>) -> Result<(), CodedError> {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Lanes {
    fn deliver(&mut self, delivery: Delivery) {
        let table = match &delivery {
            Delivery::Rows { batch, .. } => &batch.table,
            Delivery::Mark { mark, .. } => mark.table(),
            Delivery::Upper(_) => return,
        };
        let key = (Arc::clone(&table.schema), Arc::clone(&table.name));
        let inbox = self.inboxes.entry(key).or_insert_with(|| {
            let (sender, inbox) = mpsc::unbounded_channel();
            self.lanes.spawn(Lane::new(Arc::clone(&self.receiver), self.tally.clone()).run(inbox));
            sender
        });
        // A lane that ended by an error is met at the next turn of `run`.
        let _ = inbox.send(delivery);
    }
}

#[async_trait]
impl Writer for Lanes {
    async fn run(mut self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        loop {
            tokio::select! {
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => self.deliver(delivery),
                    None => break,
                },
                Some(result) = self.lanes.join_next() => ended(result)?,
            }
        }
        self.inboxes.clear();
        while let Some(result) = self.lanes.join_next().await {
            ended(result)?;
        }
        Ok(())
    }
}
