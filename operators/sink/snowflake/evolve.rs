//! From what the tables are to what a schema needs: statements, or the reason why there are none.
//!
//! A new column is added to both tables; one that existing rows read a value of is first added under
//! another name, filled, and then renamed, the landing table last. So every step can be taken again after
//! a crash, and a reader never sees the column without its values. A column that the source dropped stays.

use super::ddl::{Columns, create_landing, create_target};
use super::errors::SF_SCHEMA;
use super::missing;
use super::names::{TableName, fold, quote};
use super::plan::{Places, TablePlan};
use super::types::Fit;
use crate::contract::{Class, CodedError};

/// What a column is called while it is filled.
const ADDING: &str = "_ETL_ADDING_";

fn refused(plan: &TablePlan, why: &str, hint: &str) -> CodedError {
    let message = format!("table \"{}\" has changed and Snowflake's cannot follow: {why}", plan.schema.full_name());
    CodedError { class: Class::Definite, ..CodedError::definite(SF_SCHEMA, message) }.hint(hint)
}

/// Steps that make one existing table what the plan needs.
fn alter(plan: &TablePlan, table: &TableName, existing: &Columns, steps: &mut Vec<(u8, String)>) -> Result<(), CodedError> {
    let place = table.sql();
    for column in &plan.columns {
        let name = quote(&column.name);
        match existing.get(&column.name).map(|ty| (ty, ty.fits(&column.ty))) {
            Some((_, Fit::Holds)) => {}
            Some((_, Fit::Widen)) => steps.push((0, format!("ALTER TABLE {place} ALTER COLUMN {name} SET DATA TYPE {}", column.ty))),
            Some((ty, Fit::Never)) => {
                return Err(refused(
                    plan,
                    &format!("column {name} of {place} is {ty} and would have to be {}", column.ty),
                    "rename the old column in Snowflake (ALTER TABLE … RENAME COLUMN) in both tables, so that a new one is made, and fill it with `etl-stream resync`; or cast the column with a `cast` operator",
                ));
            }
            None => {
                let source = plan.schema.columns.iter().find(|c| fold(&c.name) == column.name);
                match source.and_then(|c| Some((c, c.missing.as_deref()?))) {
                    None => steps.push((0, format!("ALTER TABLE {place} ADD COLUMN IF NOT EXISTS {name} {}", column.ty))),
                    Some((source, text)) => {
                        let value = missing::expression(&source.ty, text).ok_or_else(|| {
                            refused(
                                plan,
                                &format!("existing rows read column {name} as a value that {} cannot hold", column.ty),
                                "add the column in Snowflake yourself, in both tables",
                            )
                        })?;
                        let adding = quote(&format!("{ADDING}{}", column.name));
                        steps.push((0, format!("ALTER TABLE {place} ADD COLUMN IF NOT EXISTS {adding} {}", column.ty)));
                        steps.push((1, format!("UPDATE {place} SET {adding} = {value}")));
                        steps.push((2, format!("ALTER TABLE {place} RENAME COLUMN {adding} TO {name}")));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The statements, in order, that make the tables what the plan needs; none when they are.
///
/// # Errors
/// `SF0008` when Snowflake has no such change.
pub(super) fn statements(
    plan: &TablePlan,
    places: &Places,
    (landing, target): (&Columns, &Columns),
    merge: bool,
    soft: bool,
) -> Result<Vec<String>, CodedError> {
    let mut all = Vec::new();
    if merge {
        if target.is_empty() {
            all.push(create_target(plan, &places.target, soft));
        } else {
            let mut steps = Vec::new();
            alter(plan, &places.target, target, &mut steps)?;
            for (own, ty) in [("_ETL_SEQ", "VARCHAR"), ("_ETL_EXACT", "OBJECT")] {
                if !target.contains_key(own) {
                    return Err(refused(
                        plan,
                        &format!("{} was not made by this program: it has no column {own} {ty}", places.target.sql()),
                        "name the target differently with the setting `table`, or rename the existing table",
                    ));
                }
            }
            if soft && !target.contains_key("_ETL_DELETED") {
                steps.push((0, format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS \"_ETL_DELETED\" BOOLEAN", places.target.sql())));
            }
            all.extend(in_order(steps));
        }
    }
    if landing.is_empty() {
        all.push(create_landing(plan, &places.landing));
    } else {
        let mut steps = Vec::new();
        alter(plan, &places.landing, landing, &mut steps)?;
        all.extend(in_order(steps));
    }
    Ok(all)
}

/// Additions, then values, then names.
fn in_order(mut steps: Vec<(u8, String)>) -> impl Iterator<Item = String> {
    steps.sort_by_key(|(stage, _)| *stage);
    steps.into_iter().map(|(_, sql)| sql)
}

#[cfg(test)]
mod tests {
    use super::super::names::Naming;
    use super::super::tests::schema;
    use super::super::types::SfType;
    use super::*;
    use crate::contract::ColumnType;
    use std::sync::Arc;

    #[test]
    fn changes() {
        let columns = [("id", ColumnType::Int8), ("a", ColumnType::Text), ("b", ColumnType::Int4)];
        let mut table = (*schema("pg", "public", "t", &columns, 1)).clone();
        table.columns[2].missing = Some("7".into());
        let plan = TablePlan::new(&Arc::new(table), true, false, None).unwrap();
        let naming = Naming { database: "D".into(), schema: "S".into(), landing_schema: "S".into(), template: "{table}".into() };
        let places = Places::of(&naming, "pg", "public", "t");
        let own = [("_ETL_SEQ", SfType::Varchar(1)), ("_ETL_EXACT", SfType::Plain("OBJECT"))];
        let existing = |columns: &[(&str, SfType)]| -> Columns {
            columns.iter().chain(&own).map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect()
        };
        let text = SfType::Varchar(134_217_728);
        let whole = existing(&[("ID", SfType::Number(19, 0)), ("A", text.clone()), ("B", SfType::Number(10, 0)), ("OLD", text.clone())]);
        assert_eq!(statements(&plan, &places, (&whole, &whole), true, false).unwrap(), Vec::<String>::new());
        let narrow = existing(&[("ID", SfType::Number(10, 0))]);
        let target = statements(&plan, &places, (&whole, &narrow), true, true).unwrap();
        assert_eq!(
            target,
            [
                "ALTER TABLE \"D\".\"S\".\"T\" ALTER COLUMN \"ID\" SET DATA TYPE NUMBER(19,0)",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"A\" VARCHAR(134217728)",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"_ETL_ADDING_B\" NUMBER(10,0)",
                "ALTER TABLE \"D\".\"S\".\"T\" ADD COLUMN IF NOT EXISTS \"_ETL_DELETED\" BOOLEAN",
                "UPDATE \"D\".\"S\".\"T\" SET \"_ETL_ADDING_B\" = 7",
                "ALTER TABLE \"D\".\"S\".\"T\" RENAME COLUMN \"_ETL_ADDING_B\" TO \"B\"",
            ]
        );
        let other = existing(&[("ID", text.clone()), ("A", text), ("B", SfType::Number(10, 0))]);
        assert_eq!(statements(&plan, &places, (&whole, &other), true, false).unwrap_err().code, SF_SCHEMA);
        let foreign = Columns::from([("ID".to_owned(), SfType::Number(19, 0))]);
        assert!(statements(&plan, &places, (&whole, &foreign), true, false).unwrap_err().message.contains("not made by this program"));
        assert_eq!(statements(&plan, &places, (&whole, &foreign), false, false).unwrap(), Vec::<String>::new());
        let created = statements(&plan, &places, (&Columns::new(), &Columns::new()), true, false).unwrap();
        assert_eq!(created.len(), 2);
    }
}
