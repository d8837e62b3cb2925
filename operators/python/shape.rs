//! Tables as pyarrow sees them, and what it says of what leaves as a table.
//!
//! ```text
//! TableSchema ──> pyarrow.Schema ──> the user's `schema` ──> pyarrow.Schema ──> TableSchema
//! ```
//! A field that has the name and type of a column is that column, with its PostgreSQL type and its place in the key. Any
//! other becomes a column of the PostgreSQL type that its Arrow type stands for.

use super::errors::PY_RESULT;
use crate::contract::{CodedError, Column, ColumnType, PgType, TableSchema};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::HashMap;

/// Which row of the batch a row is: what is kept of a batch is told by it.
pub(super) const ROW: &str = "_row";
/// The columns of a batch that are the log's, not the table's.
pub(super) const SYSTEM: [&str; 5] = ["_op", "_commit_lsn", "_ordinal", "_commit_ts", ROW];

/// A table's columns as Arrow fields, its names as metadata.
pub(super) fn arrow_schema(table: &TableSchema) -> Schema {
    let field = |column: &Column| {
        let mut said = HashMap::from([("pg_type".to_owned(), column.pg_type.name.to_string())]);
        if let Some(key) = column.key {
            said.insert("key".into(), key.to_string());
        }
        Field::new(&*column.name, column.ty.arrow(), true).with_metadata(said)
    };
    let named = [("source", &table.source), ("schema", &table.schema), ("table", &table.name)];
    let metadata: HashMap<String, String> = named.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    Schema::new_with_metadata(table.columns.iter().map(field).collect::<Vec<_>>(), metadata)
}

/// The type that a new column gets.
fn column_type(ty: &DataType) -> Option<(ColumnType, u32, &'static str)> {
    Some(match ty {
        DataType::Boolean => (ColumnType::Bool, 16, "boolean"),
        DataType::Int16 => (ColumnType::Int2, 21, "smallint"),
        DataType::Int32 => (ColumnType::Int4, 23, "integer"),
        DataType::Int64 => (ColumnType::Int8, 20, "bigint"),
        DataType::Float32 => (ColumnType::Float4, 700, "real"),
        DataType::Float64 => (ColumnType::Float8, 701, "double precision"),
        DataType::Decimal128(precision, scale @ 0..=37) => {
            (ColumnType::Numeric { precision: *precision, scale: *scale as u8 }, 1700, "numeric")
        }
        DataType::Utf8 => (ColumnType::Text, 25, "text"),
        DataType::Binary => (ColumnType::Bytea, 17, "bytea"),
        DataType::Date32 => (ColumnType::Date, 1082, "date"),
        DataType::Time64(TimeUnit::Microsecond) => (ColumnType::Time, 1083, "time"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => (ColumnType::Timestamp, 1114, "timestamp"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => (ColumnType::TimestampTz, 1184, "timestamptz"),
        _ => return None,
    })
}

fn column(field: &Field, table: &TableSchema) -> Result<Column, CodedError> {
    let before = table.column(field.name()).map(|at| &table.columns[at]);
    if let Some(before) = before.filter(|before| before.ty.arrow() == *field.data_type()) {
        return Ok(before.clone());
    }
    let (ty, oid, name) = column_type(field.data_type()).ok_or_else(|| {
        refused(table, &format!("column \"{}\" is of type {}, which no PostgreSQL type stands for", field.name(), field.data_type())).hint(
            "cast it to bool_, int16, int32, int64, float32, float64, decimal128(p, s), string, binary, date32, time64('us'), timestamp('us') or timestamp('us', 'UTC')",
        )
    })?;
    let (modifier, name) = match ty {
        // `numeric.c`, `make_numeric_typmod`.
        ColumnType::Numeric { precision, scale } => {
            ((i32::from(precision) << 16 | i32::from(scale)) + 4, format!("numeric({precision},{scale})").into())
        }
        _ => (-1, name.into()),
    };
    let key = before.and_then(|before| before.key);
    let pg_type = PgType { oid, modifier, name };
    Ok(Column { name: field.name().as_str().into(), ty, pg_type, nullable: key.is_none(), key, missing: None, number: None, filled: false })
}

/// The table that leaves under a schema.
///
/// # Errors
/// `PY0005` when the schema has no such types, a name twice or one of the log's, or lacks the table's key.
pub(super) fn table_of(schema: &Schema, table: &TableSchema) -> Result<TableSchema, CodedError> {
    let columns: Vec<Column> = schema.fields().iter().map(|field| column(field, table)).collect::<Result<_, _>>()?;
    if let Some(name) = schema.fields().iter().map(|f| f.name()).find(|name| SYSTEM.contains(&name.as_str())) {
        return Err(refused(table, &format!("column \"{name}\" has a name that is the log's own")).hint("name it differently"));
    }
    if let Some(twice) = columns.iter().enumerate().find(|(at, c)| columns[..*at].iter().any(|b| b.name == c.name)) {
        return Err(refused(table, &format!("column \"{}\" stands twice in its schema", twice.1.name)));
    }
    if let Some(lost) = table.columns.iter().find(|c| c.key.is_some() && !columns.iter().any(|kept| kept.name == c.name)) {
        return Err(refused(table, &format!("column \"{}\" of its key does not leave", lost.name)).hint("keep the columns of the key"));
    }
    Ok(TableSchema { columns, ..table.clone() })
}

/// The error of what came back.
pub(super) fn refused(table: &TableSchema, why: &str) -> CodedError {
    CodedError::definite(PY_RESULT, format!("what the Python operator gave for table \"{}\" was not taken: {why}", table.full_name()))
}
