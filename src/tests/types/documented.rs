//! What `docs/types.md` says of a type is what came.

use crate::types::columns::Column;
use arrow::datatypes::DataType;

const DOCS: &str = include_str!("../../../docs/types.md");

/// The words of an Arrow type in the table.
fn parquet(ty: &DataType) -> &'static str {
    match ty {
        DataType::Boolean => "BOOLEAN",
        DataType::Int16 => "INT16",
        DataType::Int32 => "INT32",
        DataType::Int64 => "INT64",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal128(..) => "DECIMAL(p,s)",
        DataType::Binary => "BYTE_ARRAY",
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME(µs)",
        DataType::Timestamp(_, None) => "TIMESTAMP(µs)",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP(µs, UTC)",
        DataType::Utf8 => "string",
        _ => "nothing that is documented",
    }
}

/// The name a type's row has: without modifiers, but for numerics that a decimal holds.
fn row_name(ty: &str) -> String {
    if ty == "\"Odd schéma\".mood" {
        return "enum".into();
    }
    let Some((name, rest)) = ty.split_once('(') else {
        return match ty {
            _ if ty.starts_with("interval ") => "interval".into(),
            _ => ty.into(),
        };
    };
    let (modifier, after) = rest.split_once(')').unwrap_or((rest, ""));
    let numbers: Vec<i32> = modifier.split(',').filter_map(|n| n.parse().ok()).collect();
    match (name, numbers.as_slice()) {
        ("numeric", [p @ ..=38, s @ 0..=37]) if s <= p => "numeric(p,s)".into(),
        _ if name.starts_with("interval") => "interval".into(),
        ("time" | "timestamp", _) if after.is_empty() => format!("{name} without time zone"),
        _ => format!("{name}{after}"),
    }
}

/// How the documented row of a column's type differs from what came, if it does.
pub(crate) fn differs(column: &Column, arrow: &DataType, snowflake: &str) -> Option<String> {
    let name = row_name(&column.documented);
    let rows: Vec<Vec<&str>> = DOCS
        .lines()
        .filter(|line| line.starts_with("| ") && line.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{name}`"))))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let [row] = rows.as_slice() else { return Some(format!("docs/types.md has {} rows for {name}", rows.len())) };
    let snowflake = if snowflake == "TEXT" { "VARCHAR" } else { snowflake };
    let word = |cell: &str, word: &str| cell.split([',', ' ', '(']).any(|part| part == word);
    if !word(row[2], snowflake) {
        return Some(format!("docs/types.md: {name} is {snowflake} in Snowflake"));
    }
    let said = row[3].split(", ").any(|part| part == parquet(arrow)) || row[3] == parquet(arrow);
    (!said).then(|| format!("docs/types.md: {name} is {} in Parquet", parquet(arrow)))
}
