//! Connections to PostgreSQL, as libpq's users know them.
//!
//! ```text
//! ConnectSettings ──resolve──> Endpoint ──query──────> tokio_postgres::Client    (statements, COPY)
//!  (URL, file, .pgpass)           │
//!                                 └──replicate──> Replication ──start──> ReplicationStream
//!                                                  (walsender)             reader │ writer
//! ```
//!
//! Both kinds of connection share one way in: hosts in order, addresses in order, TCP or a unix socket,
//! TLS by [`TlsMode`], then the same session settings, so that values are spelled alike everywhere:
//! `DateStyle` ISO, `IntervalStyle` postgres, `extra_float_digits` 3, UTC, UTF8, `search_path` pg_catalog.
//!
//! Guarantees: no password, key or row value in an error, a log or `Debug` output. Bytes of a server
//! never panic. The process's default TLS provider is neither used nor set.

mod authentication;
mod certificate;
mod conninfo;
mod ending;
mod endpoint;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod low_water;
mod options;
mod passfile;
mod replication;
mod session;
mod settings;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod wire;
mod writer;

pub(crate) use endpoint::Endpoint;
pub(crate) use error::{
    PG_AUTHENTICATION, PG_BUSY, PG_DATABASE, PG_LOST, PG_QUERY, PG_REPLICATION_ROLE, PG_SETTINGS, PG_TLS, PG_UNREACHABLE, classify,
    sqlstate,
};
pub(crate) use replication::Replication;
pub(crate) use settings::{ConnectSettings, TargetSession, TlsMode, TlsSettings};
pub(crate) use stream::{ReadChunk, ReplicationReader, ReplicationStream};
pub(crate) use writer::ReplicationWriter;
