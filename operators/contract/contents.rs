//! What a sink holds, read back to be compared with the source's rows.
//!
//! Rows are lines, as `sink::line` writes them: `_op`, `_seq`, `_unchanged` where it says something, then columns. Both
//! sides of a comparison are spelled by the sink, which knows what its types keep of a value.

use super::{CodedError, Lsn, RowBatch, TableSchema};
use async_trait::async_trait;
use std::sync::Arc;

/// Takes lines, each with its line break.
pub type TakeLine<'a> = dyn FnMut(&[u8]) -> Result<(), CodedError> + Send + 'a;

/// Says which tables are wanted.
pub type WantTable<'a> = dyn Fn(&TableSchema) -> bool + Sync + 'a;

/// What the lines of a sink are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Every change, in order.
    Changes,
    /// Current rows, as `r`; then the changes whose transactions committed at or after the point, by their keys alone.
    Rows,
}

/// A sink that can be read back.
#[async_trait]
pub trait Contents: Send + Sync {
    /// What it gives.
    fn held(&self) -> Held;

    /// Spells rows of the source.
    ///
    /// # Errors
    /// When the table has no such form.
    fn spell(&self, batch: &RowBatch, lines: &mut Vec<u8>) -> Result<(), CodedError>;

    /// Whether everything that committed before the point is where [`Contents::read`] reads, given that it is durable.
    ///
    /// # Errors
    /// When the place cannot be asked.
    async fn settled(&self, table: &TableSchema, point: Lsn) -> Result<bool, CodedError> {
        let _ = (table, point);
        Ok(true)
    }

    /// Reads a table; one that was never written has no lines.
    ///
    /// # Errors
    /// When it cannot be read; what `take` gives.
    async fn read(&self, table: &Arc<TableSchema>, point: Lsn, take: &mut TakeLine<'_>) -> Result<(), CodedError>;
}

/// What a source copied.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Every transaction that committed before it is in the copy, and no other.
    pub point: Lsn,
    /// The tables.
    pub tables: Vec<Arc<TableSchema>>,
}
