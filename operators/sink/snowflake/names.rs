//! Names: the one place where a PostgreSQL name becomes a Snowflake one.
//!
//! A name without upper-case letters is folded to upper case, any other stays as it is; in SQL it is always
//! quoted. So `orders` is `ORDERS`, as a Snowflake user types it, and `Orders` is `"Orders"`.
//!
//! # Guarantees
//! Two tables, or two columns of a table, that would get one name are refused before anything is written,
//! as are columns that would be taken for this sink's own, and a target that would be a landing table.

use super::errors::SF_NAMES;
use super::plan::Places;
use crate::contract::{CodedError, TableSchema};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the landing table is called after its target.
const LANDING: &str = "__CHANGES";
/// Snowflake's limit, in characters.
const LONGEST: usize = 255;
/// Columns of this sink; a column of the source must not be called so.
pub(super) const OWN_COLUMNS: &[&str] = &["_OP", "_SEQ", "_COMMIT_TS", "_UNCHANGED"];
/// Columns with this beginning are this sink's too.
pub(super) const OWN_PREFIX: &str = "_ETL_";

/// A PostgreSQL name as Snowflake stores it.
pub(super) fn fold(name: &str) -> String {
    if name.chars().any(char::is_uppercase) { name.to_owned() } else { name.to_ascii_uppercase() }
}

/// A stored name in SQL.
pub(super) fn quote(stored: &str) -> String {
    format!("\"{}\"", stored.replace('"', "\"\""))
}

/// A table of Snowflake, by its stored names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableName {
    /// Database.
    pub(super) database: String,
    /// Schema.
    pub(super) schema: String,
    /// Table.
    pub(super) table: String,
}

impl TableName {
    /// Quoted, for SQL.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}.{}", quote(&self.database), quote(&self.schema), quote(&self.table))
    }
}

/// Where the tables go.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// Stored name of the database.
    pub(super) database: String,
    /// Stored name of the targets' schema.
    pub(super) schema: String,
    /// Stored name of the landing tables' schema.
    pub(super) landing_schema: String,
    /// The target's name, with `{source}`, `{schema}` and `{table}` in it.
    pub(super) template: String,
}

/// Placeholders of a template that there are not.
pub(super) fn template_problem(template: &str) -> Option<String> {
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let end = rest[start..].find('}').map(|at| start + at);
        let word = end.map(|end| &rest[start..=end]);
        if !matches!(word, Some("{source}" | "{schema}" | "{table}")) {
            return Some(format!("`{}` is not a placeholder", word.unwrap_or(&rest[start..])));
        }
        rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
    }
    (!template.contains("{table}")).then(|| "every table would get the same name".into())
}

impl Naming {
    /// The target of a source's table.
    pub(super) fn target(&self, source: &str, schema: &str, table: &str) -> TableName {
        // One pass, so that a placeholder inside a name stays what it is.
        let mut name = String::new();
        let mut rest = self.template.as_str();
        while let Some(start) = rest.find('{') {
            name.push_str(&rest[..start]);
            rest = &rest[start..];
            let found = [("{source}", source), ("{schema}", schema), ("{table}", table)].into_iter().find(|(p, _)| rest.starts_with(p));
            let (text, length) = found.map_or(("{", 1), |(p, value)| (value, p.len()));
            name.push_str(text);
            rest = &rest[length..];
        }
        name.push_str(rest);
        TableName { database: self.database.clone(), schema: self.schema.clone(), table: fold(&name) }
    }

    /// The landing table of a target.
    pub(super) fn landing(&self, target: &TableName) -> TableName {
        TableName { database: self.database.clone(), schema: self.landing_schema.clone(), table: format!("{}{LANDING}", target.table) }
    }

    /// A table beside the landing tables, by its name as the user writes it.
    pub(super) fn beside_landing(&self, name: &str) -> TableName {
        TableName { database: self.database.clone(), schema: self.landing_schema.clone(), table: fold(name) }
    }

    /// The bookkeeping table.
    pub(super) fn progress(&self) -> TableName {
        TableName { database: self.database.clone(), schema: self.landing_schema.clone(), table: "_ETL_STREAM_PROGRESS".into() }
    }
}

/// The target's name of a landing table's.
pub(super) fn unlanded(table: &str) -> Option<&str> {
    table.strip_suffix(LANDING)
}

/// A channel's name: `<pipeline>.<source>.<table>.<shard>`.
pub(super) fn channel(pipeline: &str, source: &str, table: &str, shard: usize) -> String {
    format!("{pipeline}.{source}.{table}.{shard}")
}

/// The stored names of a table's columns, in their order.
///
/// # Errors
/// `SF0005` when two fold together, one is this sink's, or one is too long.
pub(super) fn columns(table: &TableSchema) -> Result<Vec<String>, CodedError> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut names = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let name = fold(&column.name);
        let refused = |why: String, hint: &str| {
            Err(CodedError::definite(SF_NAMES, format!("table \"{}\" was not created in Snowflake: {why}", table.full_name())).hint(hint))
        };
        if OWN_COLUMNS.contains(&name.as_str()) || name.starts_with(OWN_PREFIX) {
            let why = format!("column \"{}\" would be called \"{name}\", which is a column of this sink", column.name);
            return refused(why, "rename the column with a `rename` operator, or leave it out with `project`");
        }
        if name.chars().count() > LONGEST || name.contains('\0') {
            return refused(
                format!("column \"{}\" has a name that Snowflake does not take", column.name),
                "rename the column with a `rename` operator",
            );
        }
        if let Some(other) = seen.insert(name.clone(), &column.name) {
            let why = format!("columns \"{other}\" and \"{}\" would both be called \"{name}\"", column.name);
            return refused(why, "rename one of them with a `rename` operator");
        }
        names.push(name);
    }
    Ok(names)
}

/// A source's table, as its owner in the registry.
pub(super) type Owner = (Arc<str>, Arc<str>, Arc<str>);

/// Which table owns which target and which landing table, for the whole sink.
#[derive(Debug, Default)]
pub(super) struct Targets {
    owners: Mutex<HashMap<TableName, Owner>>,
}

/// The refusal of a target that another table has.
pub(super) fn taken(target: &TableName, table: &TableSchema, by: (&str, &str, &str)) -> CodedError {
    let (source, schema, name) = by;
    let advice = match (source == &*table.source, schema == &*table.schema) {
        (true, false) => "set `table: \"{schema}_{table}\"`",
        (false, _) => "set `table: \"{source}_{table}\"`, or give each source a sink with a schema of its own",
        (true, true) => "rename one of the tables with a `rename` operator, or set `landing_schema`",
    };
    CodedError::definite(
        SF_NAMES,
        format!(
            "table \"{}\" of source \"{}\" was not created: its place {} is that of table \"{schema}.{name}\" of source \"{source}\"",
            table.full_name(),
            table.source,
            target.sql()
        ),
    )
    .hint(advice)
}

impl Targets {
    /// Takes a table's places, once and for all: its landing table and, where it has one, its target.
    ///
    /// # Errors
    /// `SF0005` when another table or the bookkeeping has one of them, or a name is too long.
    pub(super) fn claim(&self, naming: &Naming, places: &Places, merge: bool, table: &TableSchema) -> Result<(), CodedError> {
        let refused = |message: String| CodedError::definite(SF_NAMES, message).hint("set `table`, or rename it with a `rename` operator");
        if places.landing.table.chars().count() > LONGEST {
            return Err(refused(format!(
                "table \"{}\" was not created: its name in Snowflake is longer than it may be",
                table.full_name()
            )));
        }
        let owner = (Arc::clone(&table.source), Arc::clone(&table.schema), Arc::clone(&table.name));
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let mine: Vec<&TableName> = [&places.landing].into_iter().chain(merge.then_some(&places.target)).collect();
        for place in &mine {
            if **place == naming.progress() {
                let message = format!("table \"{}\" was not created: {} is this sink's bookkeeping", table.full_name(), place.sql());
                return Err(refused(message));
            }
            if let Some(other) = owners.get(place).filter(|other| **other != owner) {
                return Err(taken(place, table, (&other.0, &other.1, &other.2)));
            }
        }
        owners.extend(mine.into_iter().map(|place| (place.clone(), owner.clone())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::*;
    use crate::contract::ColumnType;

    #[test]
    fn folding_and_quoting() {
        for (name, stored, sql) in [
            ("orders", "ORDERS", "\"ORDERS\""),
            ("Orders", "Orders", "\"Orders\""),
            ("ORDERS", "ORDERS", "\"ORDERS\""),
            ("order items", "ORDER ITEMS", "\"ORDER ITEMS\""),
            ("a\"b", "A\"B", "\"A\"\"B\""),
            ("größe", "GRößE", "\"GRößE\""),
            ("Ärger", "Ärger", "\"Ärger\""),
            ("1st$x", "1ST$X", "\"1ST$X\""),
        ] {
            assert_eq!((fold(name).as_str(), quote(&fold(name)).as_str()), (stored, sql), "{name}");
        }
    }

    #[test]
    fn templates() {
        let naming = |template: &str| Naming {
            database: "RAW".into(),
            schema: "SHOP".into(),
            landing_schema: "LAND".into(),
            template: template.into(),
        };
        for (template, table, landing) in [
            ("{table}", "T{schema}", "\"RAW\".\"LAND\".\"T{SCHEMA}__CHANGES\""),
            ("{schema}_{table}", "t", "\"RAW\".\"LAND\".\"PUBLIC_T__CHANGES\""),
            ("{source}-{schema}_{table}", "Tt", "\"RAW\".\"LAND\".\"pg-public_Tt__CHANGES\""),
        ] {
            let table = if table.starts_with("T{") { "t{schema}" } else { table };
            let naming = naming(template);
            assert_eq!(naming.landing(&naming.target("pg", "public", table)).sql(), landing);
        }
        for (template, fine) in [("{table}", true), ("x", false), ("{table}{nope}", false), ("{table", false), ("{table}}", true)] {
            assert_eq!(template_problem(template).is_none(), fine, "{template}");
        }
    }

    #[test]
    fn collisions() {
        let targets = Targets::default();
        let naming = Naming { database: "D".into(), schema: "S".into(), landing_schema: "S".into(), template: "{table}".into() };
        let claim = |schema_name: &str, name: &str| {
            let table = schema("pg", schema_name, name, &[("id", ColumnType::Int4)], 1);
            let places = Places::of(&naming, "pg", schema_name, name);
            targets.claim(&naming, &places, true, &table).map_err(|e| e.hint.unwrap_or_default())
        };
        assert_eq!(claim("public", "orders"), Ok(()));
        assert_eq!(claim("public", "orders"), Ok(()));
        assert_eq!(claim("public", "Orders"), Ok(()));
        assert!(claim("other", "orders").unwrap_err().contains("{schema}_{table}"));
        assert!(claim("public", "ORDERS").unwrap_err().contains("rename"));
        assert!(claim("public", &"x".repeat(250)).is_err());
        assert!(claim("public", "orders__changes").unwrap_err().contains("landing_schema"));
        assert_eq!(claim("public", "lines__changes"), Ok(()));
        assert!(claim("public", "lines").is_err());
        assert!(claim("public", "_etl_stream_progress").is_err());
        let apart = Naming { landing_schema: "L".into(), ..naming.clone() };
        let lines = schema("pg", "public", "items__changes", &[("id", ColumnType::Int4)], 1);
        assert!(targets.claim(&apart, &Places::of(&apart, "pg", "public", "items__changes"), true, &lines).is_ok());
        let items = schema("pg", "public", "items", &[("id", ColumnType::Int4)], 1);
        assert!(targets.claim(&apart, &Places::of(&apart, "pg", "public", "items"), true, &items).is_ok());
        for (names, why) in [
            (["a", "b"], None),
            (["id", "ID"], Some("both be called")),
            (["id", "Id"], None),
            (["id", "_op"], Some("a column of this sink")),
            (["id", "_etl_seq"], Some("a column of this sink")),
            (["id", "_Op"], None),
        ] {
            let table = schema("pg", "public", "t", &names.map(|n| (n, ColumnType::Int4)), 1);
            match (columns(&table), why) {
                (Ok(_), None) => {}
                (Err(error), Some(why)) => {
                    assert_eq!(error.code.id, "SF0005");
                    assert!(error.message.contains(why), "{error}");
                }
                (got, _) => panic!("{names:?}: {got:?}"),
            }
        }
        assert_eq!(channel("p", "s", "public.t", 1), "p.s.public.t.1");
    }
}
