//! A source of made-up changes: real pgoutput bytes, from a seed.
//!
//! ```text
//! seed ──workload──> changes ──generate, pgoutput──> bytes ──postgres::Player: frame, assemble──> dataflow
//!                       └──> what a sink must have (`etl-stream bench`)
//! ```
//! # Guarantees
//! The settings decide every row, value and token; nothing else does but the commit times, which are the clock's. The bytes
//! are those that a server would send, so that everything behind the socket is on the way. With `rows` the stream ends
//! there, and is caught up at its end; without it goes on until it is stopped, between two transactions. A run goes on where what
//! is durable ends; after a crash it repeats up to a second, with the same tokens.

mod generate;
mod live;
mod pgoutput;
mod scenario;
#[cfg(test)]
mod tests;
mod value;
mod workload;

pub use live::Scratch;
pub use scenario::Scenario;
pub use value::{Kind, Value};
pub use workload::{Change, VARIANTS, Workload};

use super::pace::Pace;
use super::postgres::{Payloads, Player};
use crate::contract::{BuildContext, Code, CodedError, Exit, Findings, Lsn, NodeConfig, Source, SourceConfig, SourceContext};
use async_trait::async_trait;
use bytes::Bytes;
use generate::Generator;
use pgoutput::Messages;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A setting that cannot work.
pub(crate) const CFG_SYNTHETIC: Code = Code::new("CFG0041", Exit::Usage);

/// Where a stream may begin: ahead of it is room for its snapshots, and behind it for its changes.
const STARTS: std::ops::RangeInclusive<u64> = workload::BEGIN..=0xf000_0000_0000_0000;

/// Tables that a source may have.
const MOST_TABLES: u32 = 10_000;

/// Settings of the `synthetic` source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticConfig {
    /// What the changes are.
    pub scenario: Scenario,
    /// Decides every value.
    #[serde(default = "seed")]
    pub seed: u64,
    /// How many changes there are, or rows of a snapshot; then the source ends. Default: no end.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Changes a second. Default: as fast as they are taken.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Changes in a transaction. Default: 100; 500,000 in `large_transaction`.
    #[serde(default)]
    pub transaction: Option<u32>,
    /// How many tables the changes go to, in turn. Default: 1; 50 in `many_tables`.
    #[serde(default)]
    pub tables: Option<u32>,
    /// Where in the log the stream begins: later than one that a sink has had before. Default: 0/1000000.
    #[serde(default)]
    pub start: Option<String>,
}

const fn seed() -> u64 {
    1
}

impl NodeConfig for SyntheticConfig {
    const TYPE: &'static str = "synthetic";
    const SUMMARY: &'static str = "made-up changes in PostgreSQL's own bytes, from a seed, for benchmarks and trials";
    const EXAMPLE: &'static str = "scenario: narrow_insert\nseed: 7\nrows: 100000\nrate: 5000\n";

    fn check(&self, findings: &mut Findings) {
        let mut add = |pointer: &str, message: &str, help: &str| findings.push(CFG_SYNTHETIC, pointer, message, Some(help.to_owned()));
        if self.rows == Some(0) {
            add("/rows", "a source of no rows gives nothing", "write 1 or more, or leave `rows` out for no end");
        }
        for (pointer, value) in [("/rate", self.rate), ("/transaction", self.transaction)] {
            if value == Some(0) {
                add(pointer, "0 gives nothing", "write 1 or more");
            }
        }
        if self.tables.is_some_and(|tables| !(1..=MOST_TABLES).contains(&tables)) {
            add("/tables", "the number of tables is out of range", "write 1 to 10000");
        }
        if let Some(start) = &self.start
            && start.parse::<Lsn>().ok().is_none_or(|lsn| !STARTS.contains(&lsn.0))
        {
            add("/start", "the stream cannot begin there", "write a log sequence number from 0/1000000 to F0000000/0");
        }
        if self.scenario == Scenario::Snapshot {
            if self.rows.is_none() {
                add("", "a snapshot has an end", "set `rows`");
            }
            for (pointer, given) in
                [("/rate", self.rate.is_some()), ("/transaction", self.transaction.is_some()), ("/tables", self.tables.is_some())]
            {
                if given {
                    add(pointer, "a snapshot is one table, copied as fast as it is taken", "leave it out");
                }
            }
        }
    }
}

impl SourceConfig for SyntheticConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Synthetic { workload: Arc::new(Workload::new(self, &cx.node)), rate: self.rate }))
    }
}

struct Synthetic {
    workload: Arc<Workload>,
    rate: Option<u32>,
}

#[async_trait]
impl Source for Synthetic {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let Self { workload, rate } = *self;
        let mut player = Player::start(cx, workload.title(), workload.end())?;
        let mut generator = Generator::new(Arc::clone(&workload), workload.first_at(player.reached()));
        let pace = Pace::start(rate, generator.next());
        if workload.is_copy() {
            let time = pace.commit_time(0).unwrap_or(0);
            if !player.copy(&workload.tables()[0], time, workload.begin_lsn(0), || generator.copy(Player::ROOM)).await? {
                return player.finish().await;
            }
            player.stream()?;
            return player.finish().await;
        }
        player.stream()?;
        // A transaction is never cut: what is left of it is made in no time.
        while !generator.is_done() {
            let held = player.room().await?;
            let (stopping, mut made) = (player.stopping(), Messages::with_room(Player::ROOM));
            generator.fill(Player::ROOM, |change| pace.commit_time(change).filter(|_| !stopping), &mut made);
            if !made.places.is_empty() {
                let read = Payloads { bytes: Bytes::from(made.bytes), messages: made.places };
                player.take(&read, held, |relation| table(&workload, relation.id)).await?;
                continue;
            }
            drop(held);
            let due = pace.due(generator.next()).unwrap_or_else(Instant::now).max(Instant::now() + TICK);
            if stopping || !player.until(due).await? {
                break;
            }
        }
        player.finish().await
    }
}

/// The runtime's timers are no finer.
const TICK: Duration = Duration::from_millis(1);

fn table(workload: &Workload, id: u32) -> Result<Arc<crate::contract::TableSchema>, CodedError> {
    let found = workload.tables().iter().find(|table| table.id == id);
    Ok(Arc::clone(found.expect("the generator describes its own tables")))
}
