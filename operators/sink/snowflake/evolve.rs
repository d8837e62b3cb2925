//! From what the tables are to what a schema needs: statements, or the reason why there are none.
//!
//! A new column is added to both tables. In the target, one that existing rows read a value of (a default, or
//! what the column was called before) is first added under another name, filled, and then renamed, so that
//! every step can be taken again after a crash, and a reader never sees the column without its values. Where
//! the name is taken, by a column that is gone or one it was swapped with, the values are set in one statement,
//! in the transaction that notes the new shape. The landing table keeps what its rows said: what is not merged
//! yet is, before. A column that the source dropped stays.

use super::ddl::{Columns, create_landing, create_target};
use super::errors::SF_SCHEMA;
use super::missing;
use super::names::{TableName, fold, quote};
use super::plan::{Places, PlanColumn, TablePlan};
use super::shape::{Origin, Shape};
use super::sql::literal;
use super::types::Fit;
use crate::contract::CodedError;

/// What a column is called while it is filled.
const ADDING: &str = "_ETL_ADDING_";

/// The refusal of a change.
pub(super) fn refused(plan: &TablePlan, why: &str, hint: &str) -> CodedError {
    let message = format!("table \"{}\" has changed and Snowflake's cannot follow: {why}", plan.schema.full_name());
    CodedError::definite(SF_SCHEMA, message).hint(hint)
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// What the tables are needed for.
    pub(super) plan: &'a TablePlan,
    /// The tables.
    pub(super) places: &'a Places,
    /// What they were made for, as far as that is known.
    pub(super) shape: Option<&'a Shape>,
    /// Whether all rows are about to be replaced, by a snapshot.
    pub(super) replaced: bool,
    /// Whether there is a target.
    pub(super) merge: bool,
    /// Whether deleted rows stay in it, marked.
    pub(super) soft: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Changes of the tables, in order.
    pub(super) tables: Vec<String>,
    /// An update of the target, for the transaction that notes the shape; all but its condition.
    pub(super) values: Option<String>,
}

impl Work {
    /// Whether existing rows get values.
    pub(super) fn fills(&self) -> bool {
        self.values.is_some() || self.tables.iter().any(|sql| sql.starts_with("UPDATE"))
    }
}

/// Where a column's value in existing rows is taken from: SQL, and the column whose exact text goes with it.
type Value = (String, Option<String>);

impl Wanted<'_> {
    fn origin(&self, column: &PlanColumn) -> Origin {
        let source = self.plan.schema.columns.iter().find(|c| fold(&c.name) == column.name);
        source.zip(self.shape).map_or(Origin::New, |(source, shape)| shape.origin(source, &column.name))
    }

    /// The value that existing rows of the target have in a column that was not there.
    fn value(&self, column: &PlanColumn, existing: &Columns) -> Result<Option<Value>, CodedError> {
        if self.replaced {
            return Ok(None);
        }
        if let Origin::Renamed(from) = self.origin(column)
            && let Some(ty) = existing.get(&from)
        {
            if ty.fits(&column.ty) == Fit::Never {
                let why = format!("column {} was {} of type {ty} and would have to be {}", quote(&column.name), quote(&from), column.ty);
                return Err(refused(self.plan, &why, COPY));
            }
            return Ok(Some((quote(&from), Some(from))));
        }
        let source = self.plan.schema.columns.iter().find(|c| fold(&c.name) == column.name);
        let Some((source, text)) = source.and_then(|c| Some((c, c.missing.as_deref()?))) else { return Ok(None) };
        let value = missing::expression(&source.ty, text).ok_or_else(|| {
            let why = format!("existing rows read column {} as a value that {} cannot hold", quote(&column.name), column.ty);
            refused(self.plan, &why, "add the column in Snowflake yourself, in both tables, then run `etl-stream resync` for the table")
        })?;
        Ok(Some((value, None)))
    }

    /// Steps that make one existing table what the plan needs; `fill` for the target.
    fn alter(&self, table: &TableName, existing: &Columns, fill: bool, work: &mut Work) -> Result<(), CodedError> {
        let place = table.sql();
        let mut steps: Vec<(u8, String)> = Vec::new();
        let mut values: Vec<(&str, Value)> = Vec::new();
        for column in &self.plan.columns {
            let name = quote(&column.name);
            let add = |name: &str| format!("ALTER TABLE {place} ADD COLUMN IF NOT EXISTS {name} {}", column.ty);
            let Some(ty) = existing.get(&column.name) else {
                match self.value(column, existing)?.filter(|_| fill) {
                    None => steps.push((0, add(&name))),
                    Some((value, from)) => {
                        let adding = quote(&format!("{ADDING}{}", column.name));
                        let exact = from.map_or(String::new(), |from| exact(&[(&column.name, Some(from))]));
                        steps.push((0, add(&adding)));
                        steps.push((1, format!("UPDATE {place} SET {adding} = {value}{exact}")));
                        steps.push((2, format!("ALTER TABLE {place} RENAME COLUMN {adding} TO {name}")));
                    }
                }
                continue;
            };
            match ty.fits(&column.ty) {
                Fit::Holds => {}
                Fit::Widen => steps.push((0, format!("ALTER TABLE {place} ALTER COLUMN {name} SET DATA TYPE {}", column.ty))),
                Fit::Never if self.replaced && self.merge => {
                    steps.push((0, format!("ALTER TABLE {place} DROP COLUMN {name}")));
                    steps.push((0, add(&name)));
                }
                Fit::Never => {
                    let why = format!("column {name} of {place} is {ty} and would have to be {}", column.ty);
                    let hint = if self.origin(column) == Origin::Again || !self.merge { RENAME } else { COPY };
                    return Err(refused(self.plan, &why, hint));
                }
            }
            if fill && !self.replaced && matches!(self.origin(column), Origin::Again | Origin::Renamed(_)) {
                values.push((&column.name, self.value(column, existing)?.unwrap_or_else(|| ("NULL".into(), None))));
            }
        }
        steps.sort_by_key(|(stage, _)| *stage);
        work.tables.extend(steps.into_iter().map(|(_, sql)| sql));
        if !values.is_empty() {
            let set: Vec<String> = values.iter().map(|(name, (value, _))| format!("{} = {value}", quote(name))).collect();
            let from: Vec<(&str, Option<String>)> = values.into_iter().map(|(name, (_, from))| (name, from)).collect();
            work.values = Some(format!("UPDATE {place} SET {}{}", set.join(", "), exact(&from)));
        }
        Ok(())
    }
}

const COPY: &str = "run `etl-stream resync` for the table, which copies it anew; a `cast` operator may convert the column before that, or `project` leave it out";
const RENAME: &str = "rename the column in Snowflake (ALTER TABLE … RENAME COLUMN) in both tables, so that a new one is made, then run `etl-stream resync` for the table";

/// The assignment that moves exact texts along with values, after a comma.
fn exact(moved: &[(&str, Option<String>)]) -> String {
    let mut all = "\"_ETL_EXACT\"".to_owned();
    for (name, from) in moved {
        let name = literal(name);
        all = match from {
            Some(from) => {
                // Without a text nothing is inserted.
                format!("OBJECT_INSERT(OBJECT_DELETE({all}, {name}), {name}, GET(\"_ETL_EXACT\", {}), TRUE)", literal(from))
            }
            None => format!("OBJECT_DELETE({all}, {name})"),
        };
    }
    format!(", \"_ETL_EXACT\" = IFF(\"_ETL_EXACT\" IS NULL, NULL, {all})")
}

/// What makes the tables what is wanted; nothing when they are.
///
/// # Errors
/// `SF0008` when Snowflake has no such change.
pub(super) fn work(wanted: Wanted<'_>, (landing, target): (&Columns, &Columns)) -> Result<Work, CodedError> {
    let Wanted { plan, places, merge, soft, .. } = wanted;
    let mut work = Work::default();
    if merge {
        if target.is_empty() {
            work.tables.push(create_target(plan, &places.target, soft));
        } else {
            wanted.alter(&places.target, target, true, &mut work)?;
            for (own, ty) in [("_ETL_SEQ", "VARCHAR"), ("_ETL_EXACT", "OBJECT")] {
                if !target.contains_key(own) {
                    return Err(refused(
                        plan,
                        &format!("{} was not made by this program: it has no column {own} {ty}", places.target.sql()),
                        "name the target differently with the setting `table`, or rename the existing table, then run `etl-stream resync` for the table",
                    ));
                }
            }
            if soft && !target.contains_key("_ETL_DELETED") {
                work.tables.push(format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS \"_ETL_DELETED\" BOOLEAN", places.target.sql()));
            }
        }
    }
    if landing.is_empty() {
        work.tables.push(create_landing(plan, &places.landing));
    } else {
        wanted.alter(&places.landing, landing, false, &mut work)?;
    }
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::super::names::Naming;
    use super::super::tests::schema;
    use super::super::types::SfType;
    use super::*;
    use crate::contract::{ColumnType, TableSchema, Token};
    use std::sync::Arc;

    fn plan(table: &TableSchema) -> TablePlan {
        TablePlan::new(&Arc::new(table.clone()), true, false, None).unwrap()
    }

    #[test]
    fn changes() {
        let columns = [("id", ColumnType::Int8), ("a", ColumnType::Text), ("b", ColumnType::Int4)];
        let mut table = (*schema("pg", "public", "t", &columns, 1)).clone();
        let before = Shape::next(None, &table, &["ID".into(), "A".into(), "B".into()], Token::ZERO);
        table.columns[2].missing = Some("7".into());
        let naming = Naming { database: "D".into(), schema: "S".into(), landing_schema: "S".into(), template: "{table}".into() };
        let places = Places::of(&naming, "pg", "public", "t");
        let own = [("_ETL_SEQ", SfType::Varchar(1)), ("_ETL_EXACT", SfType::Plain("OBJECT"))];
        let existing = |columns: &[(&str, SfType)]| -> Columns {
            columns.iter().chain(&own).map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect()
        };
        let text = SfType::Varchar(134_217_728);
        let number = SfType::Number;
        let whole = existing(&[("ID", number(19, 0)), ("A", text.clone()), ("B", number(10, 0)), ("OLD", text.clone())]);
        let plain = plan(&table);
        let wanted = Wanted { plan: &plain, places: &places, shape: None, replaced: false, merge: true, soft: false };
        assert_eq!(work(wanted, (&whole, &whole)).unwrap(), Work::default());
        let narrow = existing(&[("ID", number(10, 0))]);
        assert_eq!(
            work(Wanted { soft: true, ..wanted }, (&narrow, &narrow)).unwrap().tables,
            [
                "ALTER TABLE \"D\".\"S\".\"T\" ALTER COLUMN \"ID\" SET DATA TYPE NUMBER(19,0)",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"A\" VARCHAR(134217728)",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"_ETL_ADDING_B\" NUMBER(10,0)",
                "UPDATE \"D\".\"S\".\"T\" SET \"_ETL_ADDING_B\" = 7",
                "ALTER TABLE \"D\".\"S\".\"T\" RENAME COLUMN \"_ETL_ADDING_B\" TO \"B\"",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"_ETL_DELETED\" BOOLEAN",
                "ALTER TABLE \"D\".\"S\".\"T__CHANGES\" ALTER COLUMN \"ID\" SET DATA TYPE NUMBER(19,0)",
                "ALTER TABLE \"D\".\"S\".\"T__CHANGES\" ADD COLUMN IF NOT EXISTS \"A\" VARCHAR(134217728)",
                "ALTER TABLE \"D\".\"S\".\"T__CHANGES\" ADD COLUMN IF NOT EXISTS \"B\" NUMBER(10,0)",
            ]
        );
        // A renamed column takes its values along.
        let mut renamed = table.clone();
        renamed.columns[1].name = "c".into();
        renamed.columns[2].number = Some(9);
        renamed.columns[2].missing = None;
        let renamed = plan(&renamed);
        let with = Wanted { plan: &renamed, shape: Some(&before), ..wanted };
        let exact = "OBJECT_INSERT(OBJECT_DELETE(\"_ETL_EXACT\", 'C'), 'C', GET(\"_ETL_EXACT\", 'A'), TRUE)";
        assert_eq!(
            work(with, (&whole, &whole)).unwrap(),
            Work {
                tables: vec![
                    "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"_ETL_ADDING_C\" VARCHAR(134217728)".into(),
                    format!("UPDATE \"D\".\"S\".\"T\" SET \"_ETL_ADDING_C\" = \"A\", \"_ETL_EXACT\" = IFF(\"_ETL_EXACT\" IS NULL, NULL, {exact})"),
                    "ALTER TABLE \"D\".\"S\".\"T\" RENAME COLUMN \"_ETL_ADDING_C\" TO \"C\"".into(),
                    "ALTER TABLE \"D\".\"S\".\"T__CHANGES\" ADD COLUMN IF NOT EXISTS \"C\" VARCHAR(134217728)".into(),
                ],
                values: Some(
                    "UPDATE \"D\".\"S\".\"T\" SET \"B\" = NULL, \"_ETL_EXACT\" = IFF(\"_ETL_EXACT\" IS NULL, NULL, OBJECT_DELETE(\"_ETL_EXACT\", 'B'))".into()
                ),
            }
        );
        let other = existing(&[("ID", text.clone()), ("A", text.clone()), ("B", number(10, 0))]);
        assert_eq!(work(wanted, (&whole, &other)).unwrap_err().code, SF_SCHEMA);
        let replaced = work(Wanted { replaced: true, ..wanted }, (&whole, &other)).unwrap();
        assert_eq!(
            replaced.tables,
            [
                "ALTER TABLE \"D\".\"S\".\"T\" DROP COLUMN \"ID\"",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"ID\" NUMBER(19,0)"
            ]
        );
        let foreign = Columns::from([("ID".to_owned(), number(19, 0))]);
        assert!(work(wanted, (&whole, &foreign)).unwrap_err().message.contains("not made by this program"));
        let append = Wanted { merge: false, ..wanted };
        assert_eq!(work(append, (&whole, &foreign)).unwrap(), Work::default());
        assert_eq!(work(wanted, (&Columns::new(), &Columns::new())).unwrap().tables.len(), 2);
    }
}
