//! One schema of one table as it goes into Snowflake: its names, its types, and how its rows are written.

use super::super::json::{Dialect, RowWriter};
use super::errors::SF_NO_KEY;
use super::names::{self, Naming, TableName};
use super::narrow::narrow;
use super::types::{SfType, may_be_exact, may_be_left_out};
use crate::contract::{CodedError, RowBatch, TableSchema};
use std::sync::Arc;

/// A column of the source, as Snowflake has it.
#[derive(Clone, Debug)]
pub(super) struct PlanColumn {
    /// Its stored name.
    pub(super) name: String,
    /// Its type.
    pub(super) ty: SfType,
}

/// What is written for one schema of a table.
#[derive(Debug)]
pub(super) struct TablePlan {
    /// The schema.
    pub(super) schema: Arc<TableSchema>,
    /// The columns that are written, in the schema's order.
    pub(super) columns: Vec<PlanColumn>,
    /// The key's columns, as indices of the schema.
    pub(super) key: Vec<usize>,
    /// Stored names of all columns of the schema.
    pub(super) names: Vec<String>,
    /// The schema without the columns that are not written, and their indices in the whole one.
    written: Option<(Arc<TableSchema>, Vec<usize>)>,
    /// Writes rows as NDJSON.
    pub(super) rows: RowWriter,
    /// The stored names as JSON strings, for the metadata of a row.
    pub(super) json_names: Vec<Box<[u8]>>,
    /// Whether a row with a value that its column cannot hold is refused.
    pub(super) strict: bool,
}

impl TablePlan {
    /// Plans a schema. `known` are the columns of an existing landing table that must not change.
    ///
    /// # Errors
    /// `SF0005` for names, `SF0006` when a key is needed and there is none.
    pub(super) fn new(schema: &Arc<TableSchema>, merge: bool, strict: bool, known: Option<&[String]>) -> Result<Self, CodedError> {
        let names = names::columns(schema)?;
        // In the order of the columns, whatever order the key's index has: a table whose key is said in another
        // order, by a catalog that has moved on, stays in its channels.
        let mut key = schema.key();
        key.sort_unstable();
        if merge && key.is_empty() {
            let message = format!("table \"{}\" of source \"{}\" has no key to merge by", schema.full_name(), schema.source);
            return Err(CodedError::definite(SF_NO_KEY, message).hint(
                "give it a primary key that is not deferrable, or set REPLICA IDENTITY FULL and name the columns under `keys:` of the source, or write it with `write_mode: append`",
            ));
        }
        let kept: Vec<usize> = (0..names.len()).filter(|at| known.is_none_or(|known| known.contains(&names[*at]))).collect();
        let written = (kept.len() < names.len()).then(|| {
            let mut less = (**schema).clone();
            less.columns = kept.iter().map(|at| schema.columns[*at].clone()).collect();
            (Arc::new(less), kept.clone())
        });
        let columns: Vec<PlanColumn> =
            kept.iter().map(|at| PlanColumn { name: names[*at].clone(), ty: SfType::of(&schema.columns[*at].ty) }).collect();
        let stored: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let json_names = stored.iter().map(|name| {
            let mut text = Vec::new();
            super::super::json::write_string(name, &mut text);
            text.into_boxed_slice()
        });
        let json_names = json_names.collect();
        let rows = RowWriter::new(written.as_ref().map_or(schema, |(less, _)| less), &stored, Dialect::Snowflake);
        Ok(Self { schema: Arc::clone(schema), columns, key, names, written, rows, json_names, strict })
    }

    /// The batch as it lands: the columns that are written, as Snowflake's types can hold them.
    pub(super) fn landed(&self, batch: RowBatch) -> RowBatch {
        narrow(match &self.written {
            Some((less, kept)) => batch.project(Arc::clone(less), kept),
            None => batch,
        })
    }

    /// Stored names of the key's columns.
    pub(super) fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|at| self.names[*at].clone()).collect()
    }

    /// Stored names of the key's columns whose value may stand in `_ETL_EXACT`.
    pub(super) fn beyond_names(&self) -> Vec<String> {
        let beyond = self.key.iter().filter(|at| may_be_exact(&self.schema.columns[**at].ty));
        beyond.map(|at| self.names[*at].clone()).collect()
    }

    /// Stored names of columns whose unchanged values PostgreSQL may leave out.
    pub(super) fn leaves_out(&self, column: usize) -> bool {
        self.schema.columns.get(column).is_some_and(|c| may_be_left_out(&c.ty))
    }
}

/// The tables of one table of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Where current rows are.
    pub(super) target: TableName,
    /// Where changes land.
    pub(super) landing: TableName,
}

impl Places {
    /// Of a table by its names at the source.
    pub(super) fn of(naming: &Naming, source: &str, schema: &str, table: &str) -> Self {
        let target = naming.target(source, schema, table);
        let landing = naming.landing(&target);
        Self { target, landing }
    }

    /// The target whose changes would land where this table's target is.
    pub(super) fn lands_at(&self) -> Option<TableName> {
        let table = names::unlanded(&self.target.table).filter(|_| self.landing.schema == self.target.schema)?;
        Some(TableName { table: table.to_owned(), ..self.target.clone() })
    }
}
