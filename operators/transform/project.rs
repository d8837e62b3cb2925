//! Keeps or drops columns.
//!
//! ```text
//! row batch ──> project ──> row batch      (fewer columns, same rows, same tokens)
//! ```
//!
//! # Guarantees
//! Columns keep the table's order. A key column cannot be dropped. Arrays are shared, not copied.

use super::scope::{Plans, acts_on, missing, names_one, pointer};
use super::{CFG_SETTINGS, OP_KEY};
use crate::contract::{
    BuildContext, CodedError, Findings, NodeConfig, Operator, OperatorConfig, Output, RowBatch, TablePattern, TableSchema,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps or drops columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectConfig {
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables pass.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// For tables, as `schema.table` with `*`, the columns to keep or to drop. Where several entries
    /// mean a table, a column stays that all of them leave.
    columns: BTreeMap<TablePattern, Projection>,
}

/// Columns to keep, or columns to drop: one of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Projection {
    /// The columns to keep; they must include the key.
    #[serde(default)]
    keep: Option<Vec<String>>,
    /// The columns to drop; none may be of the key.
    #[serde(default)]
    drop: Option<Vec<String>>,
}

impl NodeConfig for ProjectConfig {
    const TYPE: &'static str = "project";
    const SUMMARY: &'static str = "keeps or drops columns";
    const EXAMPLE: &'static str = "columns:\n  public.orders: { keep: [id, status, total] }\n  public.customers: { drop: [note] }\n";

    fn check(&self, findings: &mut Findings) {
        for (pattern, projection) in &self.columns {
            let listed = [&projection.keep, &projection.drop].into_iter().flatten().filter(|list| !list.is_empty()).count();
            if listed != 1 || (projection.keep.is_some() && projection.drop.is_some()) {
                let help = "write { keep: [column, …] } or { drop: [column, …] }";
                findings.push(
                    CFG_SETTINGS,
                    pointer("columns", pattern),
                    "keep or drop must list columns, and only one of them",
                    Some(help.into()),
                );
            }
        }
    }
}

impl OperatorConfig for ProjectConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Project { config: self.clone(), plans: Plans::default() }))
    }
}

struct Project {
    config: ProjectConfig,
    plans: Plans<Vec<usize>>,
}

impl ProjectConfig {
    /// The columns that stay.
    fn plan(&self, table: &TableSchema) -> Result<Vec<usize>, CodedError> {
        let mut stays = vec![true; table.columns.len()];
        let entries =
            self.columns.iter().filter(|(pattern, _)| acts_on(&self.tables, table) && pattern.matches(&table.schema, &table.name));
        for (pattern, projection) in entries {
            let (names, keep) = match (&projection.keep, &projection.drop) {
                (Some(names), _) => (names, true),
                (None, Some(names)) => (names, false),
                (None, None) => continue,
            };
            if let Some(name) = names.iter().find(|name| names_one(pattern) && table.column(name).is_none()) {
                return Err(missing(table, name));
            }
            for (column, stays) in table.columns.iter().zip(&mut stays) {
                let listed = names.iter().any(|name| **name == *column.name);
                *stays = *stays && listed == keep;
            }
        }
        if let Some((column, _)) = table.columns.iter().zip(&stays).find(|(column, stays)| column.key.is_some() && !**stays) {
            let message = format!("column \"{}\" is of the key of table \"{}\" and cannot be dropped", column.name, table.full_name());
            return Err(CodedError::definite(OP_KEY, message).hint("keep it; to hide its values use mask with hmac_sha256"));
        }
        if !table.columns.is_empty() && !stays.contains(&true) {
            let message = format!("no column of table \"{}\" would be left", table.full_name());
            return Err(CodedError::definite(CFG_SETTINGS, message).hint("keep a column, or exclude the table at the source"));
        }
        Ok((0..table.columns.len()).filter(|at| stays[*at]).collect())
    }
}

impl Operator for Project {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let kept = self.config.plan(table)?;
        Ok(TableSchema { columns: kept.iter().map(|at| table.columns[*at].clone()).collect(), ..table.clone() })
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        self.config.plan(table).is_ok_and(|kept| kept.len() == table.columns.len())
    }

    fn apply(&mut self, batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let config = &self.config;
        let kept = self.plans.get(&batch.table, |table| config.plan(table))?;
        if kept.len() == batch.columns.len() {
            out.send(RowBatch { table: Arc::clone(out_table), ..batch });
        } else {
            out.send(batch.project(Arc::clone(out_table), kept));
        }
        Ok(())
    }
}
