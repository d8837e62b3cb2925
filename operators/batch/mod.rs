//! Batch: gathers the rows of each table and says when they are sealed.
//!
//! ```text
//! Row batches ──> Batcher ──sealed──> sink        (same rows, same order, larger batches)
//! ```
//!
//! # Guarantees
//! - Order: rows of a table leave in the order they came; a mark leaves after every row before it.
//! - State: rows not yet sealed, each table's with the earliest time among them.
//! - Progress: the earliest time is the batch's time, so no frontier passes a row that waits here.
//! - A batch holds rows of one schema. It is sealed by rows, bytes, age, a mark, a change of schema, a
//!   source that waits for credit, or the end; and where the transaction allows, cut at its boundary.
//!
//! No clock is read here: the caller says what time it is.
//!
//! Hot path: no work per row but the cut at a boundary, which looks at commit LSNs only.

mod gather;
mod limits;
mod pending;

pub use limits::{Limits, SealReason};
pub use pending::{Batcher, Sealed};
