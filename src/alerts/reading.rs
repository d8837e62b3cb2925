//! The values that alerts are about, read from the pipeline's status.
//!
//! # Guarantees
//! A value that is not known now (the server's last check failed, or the monitor has not looked yet) is visited as not
//! known; what is not there any more is not visited.

use super::Reach;
use crate::config::{Metric, Reading, SubjectKind};
use crate::server::status::freshness;
use etl_stream_operators::contract::{PipelineStatus, SinkStatus, SourceStatus, WalServer, WalSlot};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the status says at one moment.
pub(super) struct Snapshot {
    sources: BTreeMap<String, Arc<SourceStatus>>,
    sinks: BTreeMap<String, Arc<SinkStatus>>,
    servers: BTreeMap<Arc<str>, Arc<WalServer>>,
    /// Seconds since 1970-01-01 00:00:00 UTC.
    now: f64,
}

/// One subject of a metric, and its value.
pub(super) struct Found<'a> {
    /// The source, sink or server; the slot's server.
    pub(super) name: &'a str,
    /// The slot, where a slot is what it is about.
    pub(super) slot: Option<&'a str>,
    /// What is known of the slot behind the value.
    pub(super) detail: Option<&'a WalSlot>,
    /// The server behind the value.
    pub(super) server: Option<&'a WalServer>,
    /// The value; `None` where it is not known.
    pub(super) reading: Option<Reading>,
}

fn number(value: i64) -> Reading {
    Reading::Number(value as f64)
}

fn count(value: u64) -> Reading {
    Reading::Number(value as f64)
}

fn yes(value: bool) -> Reading {
    Reading::Word(if value { "true" } else { "false" }.into())
}

impl Snapshot {
    /// Of a status.
    pub(super) fn of(status: &PipelineStatus, now: f64) -> Self {
        Self { sources: status.sources(), sinks: status.sinks(), servers: status.servers(), now }
    }

    /// Age of the oldest change that a source's sinks do not all have, in seconds.
    fn lag(&self, source: &str) -> f64 {
        self.sources.get(source).map_or(0.0, |source| source.lag().as_secs_f64())
    }

    /// Whether a server has been checked.
    pub(super) fn has(&self, server: &str) -> bool {
        self.servers.contains_key(server)
    }

    /// Visits every subject of a metric.
    pub(super) fn visit<'a>(&'a self, metric: &Metric, reach: &Reach, mut visit: impl FnMut(Found<'a>)) {
        let found = |name: &'a str, reading: Option<Reading>| Found { name, slot: None, detail: None, server: None, reading };
        match metric.subject {
            SubjectKind::Source if metric.monitored => {
                for server in self.servers.values() {
                    for (source, _) in &server.sources {
                        let detail = server.slot_of(source);
                        let known = server.failed_checks == 0;
                        let reading = match detail {
                            _ if !known => None,
                            Some(slot) => self.slot(metric, slot),
                            None if metric.name == "source.wal_status" => Some(Reading::Word("missing".into())),
                            // There is no slot that could hold back anything.
                            None => continue,
                        };
                        visit(Found { detail, server: Some(server), ..found(source, reading) });
                    }
                }
            }
            SubjectKind::Source => {
                for (name, source) in &self.sources {
                    let reading = match metric.name {
                        "source.phase" => Reading::Word(source.phase().0.word().into()),
                        "source.lag" => count(source.lag_bytes()),
                        _ => Reading::Number(self.lag(name)),
                    };
                    visit(found(name, Some(reading)));
                }
            }
            SubjectKind::Sink => {
                for (name, sink) in &self.sinks {
                    let reading = match metric.name {
                        "sink.rejected_rows" => count(sink.rejected_rows.load(Ordering::Relaxed)),
                        "sink.dead_letter_rows" => count(sink.dead_letter_rows.load(Ordering::Relaxed)),
                        "sink.stopped_tables" => count(sink.stopped().len() as u64),
                        "sink.retries" => count(sink.retries.load(Ordering::Relaxed)),
                        _ => {
                            // What it has been given and has not written, and what has not come so far.
                            let lags = reach.get(name).into_iter().flatten().map(|source| self.lag(source));
                            Reading::Number(lags.fold(freshness(sink), f64::max))
                        }
                    };
                    visit(found(name, Some(reading)));
                }
            }
            SubjectKind::Server => {
                for (name, server) in &self.servers {
                    let reading = self.server(metric, server);
                    visit(Found { server: Some(server), ..found(name, reading) });
                }
            }
            SubjectKind::Slot => {
                for (name, server) in &self.servers {
                    for slot in &server.slots {
                        let reading = if server.failed_checks == 0 { self.slot(metric, slot) } else { None };
                        visit(Found { slot: Some(&slot.name), detail: Some(slot), server: Some(server), ..found(name, reading) });
                    }
                }
            }
        }
    }

    fn server(&self, metric: &Metric, server: &WalServer) -> Option<Reading> {
        if metric.name == "server.failed_checks" {
            return Some(number(i64::from(server.failed_checks)));
        }
        if server.failed_checks > 0 {
            return None;
        }
        let free = |most: Option<i64>, used: Option<i64>| most.zip(used).map(|(most, used)| number(most - used));
        match metric.name {
            "server.free_slots" => free(server.slots_max, server.slots_used),
            "server.free_walsenders" => free(server.senders_max, server.senders_used),
            "server.free_connections" => free(server.connections_max, server.connections_used),
            "server.wal_rate" => server.wal_rate.map(Reading::Number),
            _ => server.replay_lag.map(Reading::Number),
        }
    }

    fn slot(&self, metric: &Metric, slot: &WalSlot) -> Option<Reading> {
        let (_, field) = metric.name.split_once('.')?;
        match field {
            "retained_wal" => slot.retained_bytes.map(number),
            "safe_wal" => slot.safe_wal_size.map(number),
            "wal_status" => slot.wal_status.clone().map(|status| Reading::Word(status.into())),
            "active" | "slot_active" => Some(yes(slot.active)),
            "inactive_for" => Some(Reading::Number(match slot.inactive_since {
                Some(since) if !slot.active => (self.now - since as f64 / 1e6).max(0.0),
                _ => 0.0,
            })),
            _ => Some(yes(slot.over_limit)),
        }
    }
}
