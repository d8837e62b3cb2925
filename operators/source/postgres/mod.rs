//! The PostgreSQL source.

#[allow(dead_code, unused_imports, reason = "the source and the monitor use parts of it each")]
pub(crate) mod connect;
