//! The PostgreSQL source: the rows that tables have, then every change, exactly once and in commit order.
//!
//! ```text
//!              ┌── setup: server, slot, publication ──┐
//! PostgreSQL ──┼── snapshot: COPY by ranges of ctid ──┼──Chunk──> dataflow
//!              └── stream: pgoutput, framed only ─────┘
//!      ^                                                   │
//!      └── status: confirmed_flush_lsn <── confirm <── Durable
//! ```
//!
//! # Order
//! A row's token is its transaction's commit LSN and 2n for the transaction's nth change. Snapshot rows
//! carry the LSN just below the slot's consistent point, so that every change sorts above them: a commit
//! record may start exactly at the consistent point.
//!
//! # Guarantees
//! The slot is confirmed up to what every sink has made durable, and no further; a snapshot counts as done
//! only when all of it is durable. After a lost connection the stream goes on where it was, and what was sent
//! is not sent again. A slot that does not fit the state is refused, never guessed about. Reading waits for
//! credit; status goes out regardless, so that a stalled sink does not cost the connection.
//!
//! Tables that are new while the source runs are copied beside the stream, and join it
//! (`docs/adr/0003-tables-join-beside-the-stream.md`).
//!
//! # Files
//! `connect` reaches the server; `setup` and `publication` see to what is needed there, `advice` says what will not come; `catalog`, `facts`, `numbers` and
//! `types` describe tables; `snapshot` and `stream` read; `frame` and `assemble` make chunks of the stream's bytes;
//! `hold`, `spill`, `replay` and `streamed` keep large transactions until they commit; `confirm` and `report` answer the
//! server; `state` survives restarts; `begin` is the first start, `run` holds it together. `survey` notices new tables,
//! `side` copies them and follows them, `join` hands them over to the stream. `check`, `slots` and `copy` look without
//! running. `play` is for sources without a server, and `capture` records a stream for them.

mod advice;
mod assemble;
mod begin;
mod capture;
mod catalog;
mod check;
mod codes;
mod config;
mod confirm;
#[allow(dead_code, unused_imports, reason = "the source and the monitor use parts of it each")]
pub(crate) mod connect;
mod control;
mod copy;
mod credit;
mod facts;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hold;
mod join;
mod numbers;
mod play;
mod publication;
pub(crate) mod quote;
mod replay;
mod report;
mod run;
mod session;
mod setup;
mod shared_state;
mod side;
mod slots;
mod snapshot;
mod spill;
mod stamp;
mod state;
mod stream;
mod streamed;
mod survey;
#[cfg(test)]
mod tests;
mod types;

pub use capture::Capture;
pub(crate) use capture::{Record, capture};
pub(crate) use config::PostgresConfig;
pub(crate) use connect::{ConnectSettings, classify};
pub(crate) use credit::Held;
pub(crate) use frame::Relation;
pub(crate) use play::{Payloads, Player};
pub(crate) use quote::identifier;
pub(crate) use session::session;
pub use shared_state::{Holder, PostgresState, StateServer};
pub(crate) use stamp::{Part, part, stamp};
