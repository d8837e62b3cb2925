//! The WAL monitor: the health of replication slots and their servers, as rows, metrics and values for alerts.
//!
//! ```text
//! schedule ──due──> job ──one statement──> server          (each server once, however many sources read it)
//!                    │
//!                    ├──> status: metrics, alerts
//!                    └──> rows: etl_stream.wal_slots, etl_stream.wal_servers ──Chunk──> dataflow
//! ```
//!
//! # Order
//! A row's token is the number of its check and its place among the check's rows. Numbers rise over restarts: blocks of
//! them are reserved in the state. Never a clock.
//!
//! # Guarantees
//! - A server is checked once a period, at a moment of its own, with one statement on one connection out of the process's
//!   budget. One that does not answer is given up after `timeout`, checked less and less often, and delays nobody else.
//! - Checks wait for no sink: rows for which there is no credit are left out and counted; status, metrics and alerts go on.
//! - Rows come at most once. What was in flight at a crash is not taken again: it was a sample.
//! - Nothing is changed on a server, but by `on_limit: drop_slot`.
//!
//! # Files
//! `config` is the settings, `watched` makes servers of them; `schedule` says when, `job` does one check, `check` is the
//! statement; `monitor` holds it together, `sequence` numbers the checks, `rows` makes the batches, `limit` acts on slots
//! that hold back too much.

mod check;
mod config;
mod job;
mod limit;
mod monitor;
mod rows;
mod schedule;
mod sequence;
#[cfg(test)]
mod tests;
mod watched;

pub(crate) use config::WalMonitorConfig;
