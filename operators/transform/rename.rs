//! Renames schemas, tables and columns, and with them what a sink writes to.
//!
//! ```text
//! row batch ──> rename ──> row batch      (same rows, same values, other names)
//! ```
//!
//! # Guarantees
//! Rows are shared, not copied. Two columns of a table never get one name.

use super::CFG_SETTINGS;
use super::scope::{ColumnRef, resolve};
use crate::contract::{BuildContext, CodedError, Findings, NodeConfig, Operator, OperatorConfig, Output, RowBatch, TableSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Renames schemas, tables and columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenameConfig {
    /// New names of schemas; a table under `tables` has its own.
    #[serde(default)]
    schema: BTreeMap<String, String>,
    /// New names of tables, both as `schema.table`.
    #[serde(default)]
    tables: BTreeMap<TableName, TableName>,
    /// New names of columns: `schema.table.column` (with `*`), by the table's name before, or a bare
    /// column name for every table.
    #[serde(default)]
    columns: BTreeMap<ColumnRef, String>,
}

/// One table as `schema.table`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TableName {
    schema: String,
    table: String,
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() && !text.contains('*') => {
                Ok(Self { schema: schema.into(), table: table.into() })
            }
            _ => Err(serde::de::Error::custom(format!("`{text}` is not a table's name; write schema.table, without *"))),
        }
    }
}

impl JsonSchema for TableName {
    fn schema_name() -> Cow<'static, str> {
        "TableName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^.*]+\\.[^*]+$", "description": "One table as schema.table." })
    }
}

impl NodeConfig for RenameConfig {
    const TYPE: &'static str = "rename";
    const SUMMARY: &'static str = "renames schemas, tables and columns";
    const EXAMPLE: &'static str = "tables: { public.orders: public.sales }\ncolumns: { public.orders.note: comment }\n";

    fn check(&self, findings: &mut Findings) {
        if self.schema.is_empty() && self.tables.is_empty() && self.columns.is_empty() {
            findings.push(CFG_SETTINGS, "", "nothing is renamed", Some("give schema, tables or columns".into()));
        }
        let mut names: Vec<&TableName> = self.tables.values().collect();
        names.sort();
        for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
            let message = format!("two tables would be named \"{}.{}\"", pair[0].schema, pair[0].table);
            findings.push(CFG_SETTINGS, "/tables", message, Some("give each its own name".into()));
        }
        if self.schema.values().chain(self.columns.values()).any(String::is_empty) {
            findings.push(CFG_SETTINGS, "", "a new name is empty", None);
        }
    }
}

impl OperatorConfig for RenameConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Rename(self.clone())))
    }
}

struct Rename(RenameConfig);

impl Operator for Rename {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let mut renamed = table.clone();
        for (at, name) in resolve(&self.0.columns, table)? {
            renamed.columns[at].name = name.as_str().into();
        }
        let name = TableName { schema: table.schema.to_string(), table: table.name.to_string() };
        if let Some(new) = self.0.tables.get(&name) {
            renamed.schema = new.schema.as_str().into();
            renamed.name = new.table.as_str().into();
        } else if let Some(schema) = self.0.schema.get(&name.schema) {
            renamed.schema = schema.as_str().into();
        }
        let mut names: Vec<&str> = renamed.columns.iter().map(|c| &*c.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two columns of table \"{}\" would be named \"{}\"", table.full_name(), pair[0]);
            return Err(CodedError::definite(CFG_SETTINGS, message).hint("give each its own name, or drop one with project first"));
        }
        Ok(renamed)
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        self.schema(table).is_ok_and(|renamed| renamed == *table)
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        batch.table = Arc::clone(out_table);
        out.send(batch);
        Ok(())
    }
}
