//! Which tables and columns a setting means, and what an operator remembers of each table.

use super::{CFG_COLUMN, CFG_SETTINGS};
use crate::contract::{CodedError, TableId, TablePattern, TableSchema};
use hashbrown::HashMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{Error as TextError, StrDeserializer};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Whether an operator acts on a table: an empty list means every table.
pub(crate) fn acts_on(tables: &[TablePattern], table: &TableSchema) -> bool {
    tables.is_empty() || tables.iter().any(|p| p.matches(&table.schema, &table.name))
}

/// A finding's pointer to an entry of a map (RFC 6901).
pub(crate) fn pointer(map: &str, entry: &impl fmt::Display) -> String {
    format!("/{map}/{}", entry.to_string().replace('~', "~0").replace('/', "~1"))
}

/// A table pattern from its text.
pub(crate) fn pattern(text: &str) -> Result<TablePattern, String> {
    TablePattern::deserialize(StrDeserializer::<TextError>::new(text)).map_err(|e| e.to_string())
}

/// A column as a key of a setting: `schema.table.column`, `*` allowed in schema and table, or a bare
/// name for that column of every table. The column's name stands after the last dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ColumnRef {
    table: Option<TablePattern>,
    column: String,
}

impl ColumnRef {
    fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a column; write schema.table.column, or a bare column name for every table");
        let made = match text.rsplit_once('.') {
            None => Self { table: None, column: text.into() },
            Some((table, column)) => Self { table: Some(pattern(table).map_err(|_| form())?), column: column.into() },
        };
        if made.column.is_empty() { Err(form()) } else { Ok(made) }
    }

    /// The column's name.
    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    /// Whether it means a column of this table.
    pub(crate) fn means(&self, table: &TableSchema) -> bool {
        self.table.as_ref().is_none_or(|p| p.matches(&table.schema, &table.name))
    }

    /// How closely it says which table: 0 none, 1 a pattern, 2 one table.
    pub(crate) fn rank(&self) -> u8 {
        self.table.as_ref().map_or(0, |p| if names_one(p) { 2 } else { 1 })
    }
}

/// Whether a pattern is one table's name.
pub(crate) fn names_one(pattern: &TablePattern) -> bool {
    !pattern.to_string().contains('*')
}

impl fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            Some(table) => write!(f, "{table}.{}", self.column),
            None => f.write_str(&self.column),
        }
    }
}

impl<'de> Deserialize<'de> for ColumnRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ColumnRef {
    fn schema_name() -> Cow<'static, str> {
        "ColumnRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([^.]+\\..+\\.)?[^.]+$", "description": "A column as schema.table.column, or a bare column name for every table." })
    }
}

/// The error for a column that the table does not have.
pub(crate) fn missing(table: &TableSchema, column: &str) -> CodedError {
    let mut names: Vec<(f64, &str)> =
        table.columns.iter().map(|c| (strsim::jaro_winkler(&c.name.to_lowercase(), &column.to_lowercase()), &*c.name)).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let help = match names.first() {
        Some((score, name)) if *score > 0.8 => format!("did you mean \"{name}\"?"),
        _ if names.len() <= 12 => {
            format!("its columns are {}", table.columns.iter().map(|c| &*c.name).collect::<Vec<_>>().join(", "))
        }
        _ => "compare the setting with the table's columns".into(),
    };
    CodedError::definite(CFG_COLUMN, format!("table \"{}\" has no column \"{column}\"", table.full_name())).hint(help)
}

/// The rules that hold for a table, by column index: the most specific one of each column.
///
/// # Errors
/// `CFG0031` when a rule names this very table and a column it lacks, `CFG0034` when two rules of the
/// same weight mean one column.
pub(crate) fn resolve<'a, R>(rules: &'a BTreeMap<ColumnRef, R>, table: &TableSchema) -> Result<Vec<(usize, &'a R)>, CodedError> {
    let mut found: BTreeMap<usize, (&ColumnRef, &R)> = BTreeMap::new();
    for (key, rule) in rules.iter().filter(|(key, _)| key.means(table)) {
        let Some(at) = table.column(key.column()) else {
            if key.rank() == 2 {
                return Err(missing(table, key.column()));
            }
            continue;
        };
        match found.get(&at) {
            Some((other, _)) if other.rank() > key.rank() => continue,
            Some((other, _)) if other.rank() == key.rank() => {
                let message =
                    format!("column \"{}\" of table \"{}\" is meant by both \"{other}\" and \"{key}\"", key.column(), table.full_name());
                return Err(CodedError::definite(CFG_SETTINGS, message).hint("name the column once as schema.table.column"));
            }
            _ => found.insert(at, (key, rule)),
        };
    }
    Ok(found.into_iter().map(|(at, (_, rule))| (at, rule)).collect())
}

/// What an operator worked out for each table, made again when the table's schema changes.
pub(crate) struct Plans<P> {
    known: HashMap<(u64, TableId), (Arc<TableSchema>, P)>,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<P> Plans<P> {
    /// The plan for a batch's table.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn get(
        &mut self,
        table: &Arc<TableSchema>,
        make: impl FnOnce(&TableSchema) -> Result<P, CodedError>,
    ) -> Result<&mut P, CodedError> {
        let key = (table.route(), table.id);
        let known = self.known.get(&key).is_some_and(|(seen, _)| Arc::ptr_eq(seen, table) || seen == table);
        if !known {
            self.known.insert(key, (Arc::clone(table), make(table)?));
        }
        Ok(&mut self.known.get_mut(&key).expect("the plan was found or made above").1)
    }
}
