//! A binary with an operator that has a state: `enrich` adds to each row of a fact table a text of the dimension row that its
//! key names, as that row stood just before.
//!
//! ```text
//! items ──┬────────────────────────────────────────────> enrich ──> items; facts with one more column
//!         └─dimension, to the worker of the facts──> versions
//! ```
//! # Guarantees
//! - A fact with token T has the dimension's text of the greatest token below T; a fact of a copy has it as of the copy. So it is
//!   whatever is replayed, and in whatever batches.
//! - A fact waits until time has passed its token where the dimension comes in; it keeps its capability and its order.
//! - State: the versions, in memory and, before their capability is dropped, in the pipeline's state; older ones than
//!   what is durable are let go. The whole document is written for each container that changes it: for a small dimension.
//! - Facts wait for a copy of the dimension that is in progress. When more of them wait than `join::MOST_WAITING`, it fails and
//!   says so: their credit would never come back.

mod join;
#[cfg(test)]
mod tests;
mod versions;

use etl_stream::{
    BuildContext, Code, CodedError, Column, ColumnType, Exit, Item, NodeConfig, PgType, Registry, Render, RenderConfig, TableSchema,
};
use join::Enrich;
use schemars::JsonSchema;
use serde::Deserialize;
use std::process::ExitCode;

/// A column that the settings name is not there, or is no text.
const COLUMN: Code = Code::new("ENRICH1", Exit::Usage);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EnrichConfig {
    /// The fact table, as `schema.table`.
    facts: String,
    /// Its column that holds the dimension's key.
    by: String,
    /// The dimension, as `schema.table`; its key is one column.
    dimension: String,
    /// The dimension's text column that is added.
    take: String,
    /// The added column's name.
    name: String,
}

impl NodeConfig for EnrichConfig {
    const TYPE: &'static str = "enrich";
    const SUMMARY: &'static str = "adds a text of a small table to the rows of another";
    const EXAMPLE: &'static str = "facts: public.orders\nby: customer_id\ndimension: public.customers\ntake: name\nname: customer_name\n";
}

impl RenderConfig for EnrichConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Render>, CodedError> {
        Ok(Box::new(Enrich(self.clone())))
    }
}

fn no_column(table: &TableSchema, column: &str, wanted: &str) -> CodedError {
    CodedError::definite(COLUMN, format!("table \"{}\" has no {wanted} \"{column}\"", table.full_name()))
}

impl EnrichConfig {
    fn is_dimension(&self, item: &Item) -> bool {
        item.table().full_name() == self.dimension
    }

    /// What facts look like behind it.
    fn out_table(&self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let mut out = table.clone();
        if table.full_name() == self.facts {
            table.column(&self.by).ok_or_else(|| no_column(table, &self.by, "column"))?;
            out.columns.push(Column {
                name: self.name.as_str().into(),
                ty: ColumnType::Text,
                pg_type: PgType { oid: 25, modifier: -1, name: "text".into() },
                nullable: true,
                key: None,
                missing: None,
                number: None,
                filled: false,
            });
        } else if table.full_name() == self.dimension {
            let is_text = |at: &usize| table.columns[*at].ty == ColumnType::Text;
            table.column(&self.take).filter(is_text).ok_or_else(|| no_column(table, &self.take, "text column"))?;
            key_of(table)?;
        }
        Ok(out)
    }
}

/// The column of a table's key.
fn key_of(table: &TableSchema) -> Result<usize, CodedError> {
    let [key] = table.key()[..] else { return Err(no_column(table, "", "key of one column")) };
    Ok(key)
}

pub(crate) fn registry() -> Registry {
    Registry::builtin().render::<EnrichConfig>()
}

fn main() -> ExitCode {
    etl_stream::cli::main(registry())
}
