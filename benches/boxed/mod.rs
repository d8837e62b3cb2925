//! The reference: the same rows to the same Arrow columns through one boxed value each, as such code is usually
//! written: a `Vec` of an enum for each row, `serde_json::Value` for documents, `Vec<Option<String>>` for arrays,
//! arrow's builders at the end. Buffers have their capacity from the start; nothing is done twice.

use arrow::array::{ArrayRef, BooleanBuilder, Decimal128Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use etl_stream_operators::contract::{ColumnType, RawRows};
use std::sync::Arc;

/// A value that owns what it holds.
pub(crate) enum Value {
    Null,
    Int8(i64),
    Int4(i32),
    Text(String),
    Numeric(i128),
    TimestampTz(i64),
    Bool(bool),
    Json(serde_json::Value),
    Uuid(uuid::Uuid),
    Array(Vec<Option<String>>),
}

/// Decodes each row into values.
pub(crate) fn decode(raw: &RawRows) -> Vec<Vec<Value>> {
    raw.rows.iter().map(|row| tuple(&raw.bytes[row.start as usize..row.end as usize], &raw.table.columns)).collect()
}

fn tuple(message: &[u8], columns: &[etl_stream_operators::contract::Column]) -> Vec<Value> {
    // tag, relation, 'N', column count
    let mut rest = &message[8..];
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let kind = rest[0];
        if kind != b't' {
            rest = &rest[1..];
            values.push(Value::Null);
            continue;
        }
        let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
        let text = std::str::from_utf8(&rest[5..5 + length]).expect("UTF-8");
        rest = &rest[5 + length..];
        values.push(value(&column.ty, text));
    }
    values
}

fn value(ty: &ColumnType, text: &str) -> Value {
    match ty {
        ColumnType::Int8 => Value::Int8(text.parse().expect("int8")),
        ColumnType::Int4 => Value::Int4(text.parse().expect("int4")),
        ColumnType::Numeric { scale, .. } => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let whole: i128 = whole.parse().expect("digits");
            let fraction: i128 = fraction.parse().unwrap_or(0);
            Value::Numeric(whole * 10_i128.pow((*scale).into()) + fraction)
        }
        ColumnType::TimestampTz => {
            let at: jiff::Timestamp = text.parse().expect("timestamptz");
            Value::TimestampTz(at.as_microsecond())
        }
        ColumnType::Bool => Value::Bool(text == "t"),
        ColumnType::Jsonb => Value::Json(serde_json::from_str(text).expect("a document")),
        ColumnType::Uuid => Value::Uuid(text.parse().expect("uuid")),
        ColumnType::Array(_) => Value::Array(array(text)),
        _ => Value::Text(text.to_owned()),
    }
}

/// One dimension of strings in array_out's text.
pub(crate) fn array(text: &str) -> Vec<Option<String>> {
    let (mut items, mut item, mut quoted, mut was_quoted, mut escaped) = (Vec::new(), String::new(), false, false, false);
    for c in text[1..text.len() - 1].chars() {
        match c {
            _ if escaped => {
                item.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            ',' if !quoted => {
                let item = std::mem::take(&mut item);
                items.push((was_quoted || item != "NULL").then_some(item));
                was_quoted = false;
            }
            _ => item.push(c),
        }
    }
    if !item.is_empty() || was_quoted {
        items.push((was_quoted || item != "NULL").then_some(item));
    }
    items
}

/// Builds the columns of decoded rows.
pub(crate) fn encode(raw: &RawRows, rows: &[Vec<Value>]) -> Vec<ArrayRef> {
    let columns = raw.table.columns.iter().enumerate();
    columns.map(|(at, column)| build(&column.ty, rows.len(), rows.iter().map(|row| &row[at]))).collect()
}

fn build<'a>(ty: &ColumnType, rows: usize, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    macro_rules! fixed {
        ($builder:expr, $kind:ident) => {{
            let mut builder = $builder;
            values.for_each(|value| builder.append_option(if let Value::$kind(v) = value { Some(*v) } else { None }));
            Arc::new(builder.finish())
        }};
    }
    match ty {
        ColumnType::Int8 => fixed!(Int64Builder::with_capacity(rows), Int8),
        ColumnType::Int4 => fixed!(Int32Builder::with_capacity(rows), Int4),
        ColumnType::Bool => fixed!(BooleanBuilder::with_capacity(rows), Bool),
        ColumnType::Numeric { .. } => fixed!(Decimal128Builder::with_capacity(rows).with_data_type(ty.arrow()), Numeric),
        ColumnType::TimestampTz => fixed!(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(ty.arrow()), TimestampTz),
        _ => {
            let mut builder = StringBuilder::with_capacity(rows, rows * 32);
            for value in values {
                match value {
                    Value::Text(text) => builder.append_value(text),
                    Value::Json(document) => builder.append_value(document.to_string()),
                    Value::Uuid(id) => builder.append_value(id.hyphenated().to_string()),
                    Value::Array(items) => builder.append_value(serde_json::to_string(items).expect("strings")),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
    }
}
