//! The tables' definitions, and what of them is there already.
//!
//! Landing columns are nullable and there is no key: Snowflake drops rows that a constraint refuses.

use super::names::{TableName, quote};
use super::plan::{Places, TablePlan};
use super::sql::{Rows, Sql};
use super::types::SfType;
use crate::contract::CodedError;
use std::collections::HashMap;

/// The columns of an existing table, by stored name.
pub(super) type Columns = HashMap<String, SfType>;

/// Metadata of a landing row.
const LANDING: &str = "\"_OP\" VARCHAR, \"_SEQ\" VARCHAR, \"_COMMIT_TS\" TIMESTAMP_TZ(6), \"_UNCHANGED\" ARRAY, \"_ETL_EXACT\" OBJECT";

fn columns(plan: &TablePlan) -> String {
    let columns: Vec<String> = plan.columns.iter().map(|c| format!("{} {}", quote(&c.name), c.ty)).collect();
    columns.join(", ")
}

fn with(columns: String, own: &str) -> String {
    if columns.is_empty() { own.to_owned() } else { format!("{columns}, {own}") }
}

/// Creates a landing table.
pub(super) fn create_landing(plan: &TablePlan, landing: &TableName) -> String {
    format!("CREATE TABLE IF NOT EXISTS {} ({})", landing.sql(), with(columns(plan), LANDING))
}

/// Creates a target.
pub(super) fn create_target(plan: &TablePlan, target: &TableName, soft: bool) -> String {
    let deleted = if soft { ", \"_ETL_DELETED\" BOOLEAN" } else { "" };
    let own = format!("\"_ETL_SEQ\" VARCHAR{deleted}, \"_ETL_EXACT\" OBJECT");
    format!("CREATE TABLE IF NOT EXISTS {} ({})", target.sql(), with(columns(plan), &own))
}

/// Creates the bookkeeping table.
pub(super) fn create_progress(progress: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\"PIPELINE\" VARCHAR, \"SOURCE\" VARCHAR, \"TABLE_SCHEMA\" VARCHAR, \"TABLE_NAME\" VARCHAR, \
         \"TARGET\" VARCHAR, \"FENCE\" VARCHAR, \"SNAPSHOT_LSN\" VARCHAR, \"SNAPSHOT_DONE\" BOOLEAN, \"KEY_COLUMNS\" VARCHAR, \
         \"CHANNELS\" NUMBER(5,0), \"REJECTED\" NUMBER(19,0), \"UPDATED_AT\" TIMESTAMP_TZ(6), \"SHAPE\" VARCHAR, \"STOPPED\" VARCHAR)",
        progress.sql()
    )
}

/// Adds what a bookkeeping table of an earlier version lacks.
pub(super) fn complete_progress(progress: &TableName) -> String {
    format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS \"STOPPED\" VARCHAR", progress.sql())
}

/// What is there of the two tables: the landing table's columns, then the target's; empty when there is none.
pub(super) async fn existing(sql: &Sql, places: &Places) -> Result<(Columns, Columns), CodedError> {
    let doing = format!("reading the columns of table \"{}\"", places.target.table);
    let statement = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE, CHARACTER_MAXIMUM_LENGTH, \
         DATETIME_PRECISION FROM {}.INFORMATION_SCHEMA.COLUMNS \
         WHERE (TABLE_SCHEMA = ? AND TABLE_NAME = ?) OR (TABLE_SCHEMA = ? AND TABLE_NAME = ?)",
        quote(&places.target.database)
    );
    let (landing, target) = (&places.landing, &places.target);
    let binds = [landing.schema.as_str(), &landing.table, &target.schema, &target.table];
    let rows = sql.query(&doing, &statement, &binds).await?;
    Ok((of_table(&rows, landing), of_table(&rows, target)))
}

fn of_table(rows: &Rows, table: &TableName) -> Columns {
    let mut columns = Columns::new();
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Option::as_deref);
        if cell(0) == Some(&table.schema) && cell(1) == Some(&table.table) {
            let ty = SfType::described(cell(3).unwrap_or_default(), cell(4), cell(5), cell(6), cell(7));
            columns.insert(cell(2).unwrap_or_default().to_owned(), ty);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::super::names::Naming;
    use super::super::tests::schema;
    use super::*;
    use crate::contract::ColumnType;

    #[test]
    fn definitions() {
        let table = schema("pg", "public", "orders", &[("id", ColumnType::Int8), ("Note", ColumnType::Text)], 1);
        let plan = TablePlan::new(&table, true, false, None).unwrap();
        let naming = Naming { database: "RAW".into(), schema: "SHOP".into(), landing_schema: "LAND".into(), template: "{table}".into() };
        let places = Places::of(&naming, "pg", "public", "orders");
        assert_eq!(
            create_landing(&plan, &places.landing),
            "CREATE TABLE IF NOT EXISTS \"RAW\".\"LAND\".\"ORDERS__CHANGES\" (\"ID\" NUMBER(19,0), \"Note\" VARCHAR(134217728), \
             \"_OP\" VARCHAR, \"_SEQ\" VARCHAR, \"_COMMIT_TS\" TIMESTAMP_TZ(6), \"_UNCHANGED\" ARRAY, \"_ETL_EXACT\" OBJECT)"
        );
        assert_eq!(
            create_target(&plan, &places.target, true),
            "CREATE TABLE IF NOT EXISTS \"RAW\".\"SHOP\".\"ORDERS\" (\"ID\" NUMBER(19,0), \"Note\" VARCHAR(134217728), \
             \"_ETL_SEQ\" VARCHAR, \"_ETL_DELETED\" BOOLEAN, \"_ETL_EXACT\" OBJECT)"
        );
    }
}
