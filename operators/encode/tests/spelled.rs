//! An encoded value back as PostgreSQL's text, for comparing.

use crate::contract::calendar::{DAY, write_date, write_time};
use crate::contract::{ColumnType, RowBatch};
use crate::encode::{bytea, float};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};

/// The text of a batch's only column: the exact one where there is one.
pub(super) fn spelled(batch: &RowBatch, row: usize) -> Option<String> {
    if let Some(exact) = batch.exact.get(row, 0) {
        return Some(exact.to_string());
    }
    let column = &batch.columns[0];
    if column.is_null(row) {
        return None;
    }
    let mut out = Vec::new();
    match &batch.table.columns[0].ty {
        ColumnType::Bool => out.push(if column.as_boolean().value(row) { b't' } else { b'f' }),
        ColumnType::Int2 => out.extend(column.as_primitive::<Int16Type>().value(row).to_string().bytes()),
        ColumnType::Int4 => out.extend(column.as_primitive::<Int32Type>().value(row).to_string().bytes()),
        ColumnType::Int8 | ColumnType::Oid => out.extend(column.as_primitive::<Int64Type>().value(row).to_string().bytes()),
        ColumnType::Float4 => float::write_text(&column.as_primitive::<Float32Type>().value(row).to_be_bytes(), &mut out).unwrap(),
        ColumnType::Float8 => float::write_text(&column.as_primitive::<Float64Type>().value(row).to_be_bytes(), &mut out).unwrap(),
        ColumnType::Numeric { .. } => out.extend(column.as_primitive::<Decimal128Type>().value_as_string(row).bytes()),
        ColumnType::Bytea => bytea::write(column.as_binary::<i32>().value(row), &mut out),
        ColumnType::Date => {
            assert!(!write_date(column.as_primitive::<Date32Type>().value(row).into(), &mut out));
        }
        ColumnType::Time => write_time(column.as_primitive::<Time64MicrosecondType>().value(row).unsigned_abs(), &mut out),
        ty @ (ColumnType::Timestamp | ColumnType::TimestampTz) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            assert!(!write_date(micros.div_euclid(DAY), &mut out));
            out.push(b' ');
            write_time(micros.rem_euclid(DAY).unsigned_abs(), &mut out);
            if *ty == ColumnType::TimestampTz {
                out.extend(b"+00");
            }
        }
        _ => out.extend(column.as_string::<i32>().value(row).bytes()),
    }
    Some(String::from_utf8(out).unwrap())
}
