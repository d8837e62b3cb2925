//! For tests of nodes of your own: real servers in private folders, rows of made-up tables, an operator run on rows at times,
//! and everything that a node must keep to.
//!
//! ```no_run
//! # let registry = etl_stream::Registry::builtin();
//! use etl_stream::Kind;
//! use etl_stream::testing::comply::Subject;
//!
//! Subject::of(&registry, Kind::Operator, "my_operator").comply();
//! ```

pub mod comply;
pub mod flow;

pub use etl_stream_operators::testing::*;
