//! What a running pipeline says of itself: made by its server, read by `status`, `top` and the status page.

use etl_stream_operators::contract::{Lsn, PipelineStatus, SinkStatus, SourceStatus, StoppedTable};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The whole pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) pipeline: String,
    /// `running`; in a folder of pipelines it may be `starting`, `retrying`, `stopping`, `ended` or `refused`.
    pub(crate) state: String,
    /// Why, where the state does not say it.
    pub(crate) reason: Option<String>,
    /// Why its file, as it stands now, is not what runs.
    pub(crate) file_problem: Option<String>,
    pub(crate) sources: Vec<Source>,
    pub(crate) sinks: Vec<Sink>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) source: String,
    pub(crate) phase: String,
    /// Why, where the phase does not say it.
    pub(crate) reason: Option<String>,
    /// Why it is not to read, when it is not.
    pub(crate) paused: Option<String>,
    /// Bytes of log between the server's position and what is confirmed.
    pub(crate) lag_bytes: u64,
    /// For how long there has been log past what is confirmed.
    pub(crate) lag_seconds: f64,
    pub(crate) server_lsn: String,
    pub(crate) received_lsn: String,
    pub(crate) durable_lsn: String,
    pub(crate) confirmed_lsn: String,
    pub(crate) changes: u64,
    pub(crate) transactions: u64,
    pub(crate) bytes: u64,
    pub(crate) open_transactions: u64,
    pub(crate) held_bytes: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) streamed_transactions: u64,
    pub(crate) tables: Vec<Table>,
}

/// One table of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) table: String,
    pub(crate) phase: String,
    pub(crate) snapshot_rows: u64,
    pub(crate) estimated_rows: u64,
    /// Why its copy failed and will fail again, until it is tried again.
    pub(crate) failed: Option<String>,
}

/// A table that a sink does not take any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) source: String,
    pub(crate) table: String,
    /// The first row that was not taken.
    pub(crate) since: String,
    pub(crate) discarded_rows: u64,
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sink {
    pub(crate) sink: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Rows that it has been given and that are not durable.
    pub(crate) pending_rows: u64,
    /// How long ago the oldest of them was committed; 0 when there is none.
    pub(crate) freshness_seconds: f64,
    pub(crate) rejected_rows: u64,
    pub(crate) dead_letter_rows: u64,
    pub(crate) retries: u64,
    pub(crate) stopped_tables: Vec<Stopped>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The age of the oldest row that a sink has and that is not durable, in seconds.
pub(crate) fn freshness(sink: &SinkStatus) -> f64 {
    // A server whose clock is ahead is no reason for a negative age.
    sink.oldest_pending().map_or(0.0, |time| (now().saturating_sub(time).max(0)) as f64 / 1e6)
}

impl Status {
    /// As it is now.
    pub(crate) fn of(pipeline: &str, status: &PipelineStatus) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            state: "running".to_owned(),
            reason: None,
            file_problem: None,
            sources: status.sources().iter().map(|(name, source)| Source::of(name, source)).collect(),
            sinks: status.sinks().iter().map(|(name, sink)| Sink::of(name, sink)).collect(),
        }
    }
}

impl Status {
    /// What is to be said of the pipeline beside its nodes; nothing when it just runs.
    pub(crate) fn remark(&self) -> Option<String> {
        let state = (self.state != "running").then(|| match &self.reason {
            Some(reason) => format!("pipeline {} is {}: {reason}", self.pipeline, self.state),
            None => format!("pipeline {} is {}", self.pipeline, self.state),
        });
        let file = self.file_problem.as_ref().map(|why| format!("its file has changed, and is not what runs: {why}"));
        let remarks: Vec<String> = state.into_iter().chain(file).collect();
        (!remarks.is_empty()).then(|| remarks.join("\n"))
    }
}

impl Source {
    fn of(name: &str, source: &SourceStatus) -> Self {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let lsn = |value: &AtomicU64| Lsn(number(value)).to_string();
        let (phase, reason) = source.phase();
        let table = |(table, t): (String, etl_stream_operators::contract::TableStatus)| Table {
            table,
            phase: t.phase.word().to_owned(),
            snapshot_rows: t.snapshot_rows,
            estimated_rows: t.estimated_rows,
            failed: t.failed.as_ref().map(ToString::to_string),
        };
        Self {
            source: name.to_owned(),
            phase: phase.word().to_owned(),
            reason,
            paused: source.paused(),
            lag_bytes: source.lag_bytes(),
            lag_seconds: source.lag().as_secs_f64(),
            server_lsn: lsn(&source.server_lsn),
            received_lsn: lsn(&source.received_lsn),
            durable_lsn: lsn(&source.durable_lsn),
            confirmed_lsn: lsn(&source.confirmed_lsn),
            changes: number(&source.changes),
            transactions: number(&source.transactions),
            bytes: number(&source.bytes),
            open_transactions: number(&source.open_transactions),
            held_bytes: number(&source.held_bytes),
            spilled_bytes: number(&source.spilled_bytes),
            streamed_transactions: number(&source.streamed_transactions),
            tables: source.tables().into_iter().map(table).collect(),
        }
    }

    /// What it is doing, in a word and why.
    pub(crate) fn doing(&self) -> String {
        match (&self.paused, &self.reason) {
            (Some(why), _) if self.phase == "paused" => format!("paused ({why})"),
            (Some(why), _) => format!("{}, about to pause ({why})", self.phase),
            (None, Some(reason)) => format!("{}: {reason}", self.phase),
            (None, None) => self.phase.clone(),
        }
    }

    /// Rows that the snapshot has read and is estimated to read, while it does.
    pub(crate) fn copied(&self) -> (u64, u64) {
        self.tables.iter().fold((0, 0), |(read, all), t| (read + t.snapshot_rows, all + t.estimated_rows.max(t.snapshot_rows)))
    }
}

fn stopped(((source, table), it): ((String, String), StoppedTable)) -> Stopped {
    Stopped {
        source,
        table,
        since: it.since.to_string(),
        discarded_rows: it.discarded_rows,
        code: it.error.code.id.to_owned(),
        reason: it.error.message.clone(),
        hint: it.error.hint.clone(),
    }
}

impl Sink {
    fn of(name: &str, sink: &SinkStatus) -> Self {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Self {
            sink: name.to_owned(),
            rows: number(&sink.rows),
            bytes: number(&sink.bytes),
            pending_rows: sink.pending_rows(),
            freshness_seconds: freshness(sink),
            rejected_rows: number(&sink.rejected_rows),
            dead_letter_rows: number(&sink.dead_letter_rows),
            retries: number(&sink.retries),
            stopped_tables: sink.stopped().into_iter().map(stopped).collect(),
        }
    }
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Seconds for people: `0 s`, `1.5 s`, `3 min`, `2 h`.
pub(crate) fn age(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0 s".into(),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::Phase;

    #[test]
    fn numbers_for_people() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "16777216.0 TiB")] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(0.0, "0 s"), (1.26, "1.3 s"), (180.0, "3 min"), (7_200.0, "2 h")] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn what_is_said_is_read_again() {
        let status = PipelineStatus::default();
        let source = status.source("shop");
        source.set_phase(Phase::Streaming, None);
        source.heard(0x16_0000_0100);
        source.confirmed_lsn.store(0x16_0000_0000, Ordering::Relaxed);
        source.table("public.t", |table| table.snapshot_rows = 3);
        let pending = status.sink("out").writer();
        pending.rows.store(5, Ordering::Relaxed);
        pending.oldest.store(now() - 2_000_000, Ordering::Relaxed);
        let said = Status::of("p", &status);
        let text = serde_json::to_string(&said).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), said);
        let (one, sink) = (&said.sources[0], &said.sinks[0]);
        assert_eq!((one.lag_bytes, one.confirmed_lsn.as_str(), one.copied()), (256, "16/0", (3, 3)));
        assert_eq!((sink.pending_rows, sink.freshness_seconds >= 2.0), (5, true));
        for (paused, phase, expected) in [
            (None, "streaming", "streaming"),
            (Some("asked for"), "paused", "paused (asked for)"),
            (Some("x"), "snapshot", "snapshot, about to pause (x)"),
        ] {
            let one = Source { paused: paused.map(str::to_owned), phase: phase.to_owned(), ..one.clone() };
            assert_eq!(one.doing(), expected);
        }
    }
}
