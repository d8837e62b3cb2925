//! A target read back: its current rows, and the keys of changes that have landed since a point.
//!
//! Both sides are brought to one spelling. Of a value it keeps what the column's Snowflake type keeps: a number without
//! zeros at its end, a zero without its sign, a document with its members in order and its numbers as doubles, an interval
//! as ISO 8601. A value that stands in `_ETL_EXACT` is the text there, in place.

use super::super::json::{interval_iso8601, write_date, write_string, write_time, write_timestamp, write_timestamptz};
use super::super::line::LineWriter;
use super::super::members::{Members, NoLine};
use super::context::Shared;
use super::ddl::existing;
use super::errors::SF_STATEMENT;
use super::names::{self, quote};
use super::narrow::narrow;
use super::plan::Places;
use super::progress::ProgressKey;
use super::sql::literal;
use crate::contract::{CodedError, ColumnType, Contents, Held, Lsn, RowBatch, TableSchema, TakeLine, Token};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Of a sink's targets, those of one pipeline.
pub(super) struct TargetContents {
    /// What the sink shares.
    pub(super) shared: Arc<Shared>,
    /// The pipeline.
    pub(super) pipeline: String,
}

fn bare(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// A decimal without zeros that say nothing; other texts as they are.
fn decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.bytes().any(|b| b.is_ascii_digit());
    if !plain {
        return text.to_owned();
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A double as text, the same for the same double; zero has no sign.
fn double(text: &str) -> String {
    text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| if number == 0.0 { "0".into() } else { format!("{number:e}") })
}

/// A document with its members in order and its numbers as doubles.
fn document(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => out.extend_from_slice(double(&number.to_string()).as_bytes()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                document(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, item)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                document(item, out);
            }
            out.push(b'}');
        }
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

/// The one spelling of a value that is spelled as NDJSON.
fn canonical(ty: &ColumnType, value: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(bare(value)).unwrap_or_default();
    match ty {
        _ if value == b"null" => out.extend_from_slice(value),
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid | ColumnType::Numeric { .. } => {
            out.extend_from_slice(decimal(text).as_bytes());
        }
        ColumnType::Float4 | ColumnType::Float8 => out.extend_from_slice(double(text).as_bytes()),
        ColumnType::NumericText => out.extend_from_slice(text.as_bytes()),
        ColumnType::Json | ColumnType::Jsonb | ColumnType::Array(_) => match serde_json::from_slice(value) {
            Ok(parsed) => document(&parsed, out),
            Err(_) => out.extend_from_slice(value),
        },
        _ => out.extend_from_slice(value),
    }
}

/// Microseconds of `12.5` or `-0.000001` seconds.
fn micros(seconds: &str) -> Option<i64> {
    let (negative, text) = seconds.strip_prefix('-').map_or((false, seconds), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<6}");
    let micros = whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction.get(..6)?.parse::<i64>().ok()?)?;
    Some(if negative { -micros } else { micros })
}

/// A cell of the SQL API, spelled as NDJSON; `None` when it is not of the type.
fn told(ty: &ColumnType, cell: &str, out: &mut Vec<u8>) -> Option<()> {
    match ty {
        ColumnType::Bool
        | ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Oid
        | ColumnType::Numeric { .. }
        | ColumnType::NumericText
        | ColumnType::Float4
        | ColumnType::Float8
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Array(_) => out.extend_from_slice(cell.as_bytes()),
        ColumnType::Bytea => write_string(&format!("\\x{}", cell.to_ascii_lowercase()), out),
        ColumnType::Date => write_date(cell.parse().ok()?, out),
        ColumnType::Time => write_time(micros(cell)?, out),
        ColumnType::Timestamp => write_timestamp(micros(cell)?, out),
        ColumnType::TimestampTz => write_timestamptz(micros(cell.split(' ').next()?)?, out),
        ColumnType::Text | ColumnType::TimeTz | ColumnType::Interval | ColumnType::Uuid | ColumnType::Other => write_string(cell, out),
    }
    Some(())
}

/// A line of the source in the one spelling.
fn respell(table: &TableSchema, line: &[u8], out: &mut Vec<u8>) -> Result<(), NoLine> {
    let mut columns = table.columns.iter();
    let mut next = columns.next();
    let mut name = Vec::new();
    for (at, member) in Members::of(line)?.enumerate() {
        let (member, value) = member?;
        out.push(if at == 0 { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(member);
        out.extend_from_slice(b"\":");
        // A line has the table's columns in their order, and leaves out some.
        let mut ahead = (next, columns.clone());
        let found = loop {
            let Some(column) = ahead.0 else { break None };
            name.clear();
            write_string(&column.name, &mut name);
            ahead.0 = ahead.1.next();
            if bare(&name) == member {
                break Some(column);
            }
        };
        match found {
            Some(column) => {
                (next, columns) = ahead;
                let mut iso = Vec::new();
                let interval = column.ty == ColumnType::Interval
                    && std::str::from_utf8(bare(value)).is_ok_and(|text| interval_iso8601(text, &mut iso));
                let spelled = String::from_utf8_lossy(&iso).into_owned();
                if interval { write_string(&spelled, out) } else { canonical(&column.ty, value, out) }
            }
            None => out.extend_from_slice(value),
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn not_understood(table: &TableSchema) -> CodedError {
    CodedError::definite(
        SF_STATEMENT,
        format!("a row of table \"{}\" in Snowflake has a value that its column's type has not", table.full_name()),
    )
    .hint("compare the target's column types with the source's; `etl-stream resync` makes the rows anew")
}

impl TargetContents {
    fn places(&self, table: &TableSchema) -> (Places, ProgressKey) {
        let places = Places::of(&self.shared.naming, &table.source, &table.schema, &table.name);
        let key = ProgressKey {
            pipeline: self.pipeline.clone(),
            source: table.source.to_string(),
            schema: table.schema.to_string(),
            table: table.name.to_string(),
        };
        (places, key)
    }
}

/// Rows of a query as lines: `_OP`, `_SEQ`, `_ETL_EXACT`, then columns.
fn lines(
    table: &TableSchema,
    stored: &[String],
    columns: &[usize],
    rows: Vec<Vec<Option<String>>>,
    take: &mut TakeLine<'_>,
) -> Result<(), CodedError> {
    let (mut line, mut value) = (Vec::new(), Vec::new());
    for row in rows {
        let cell = |at: usize| row.get(at).and_then(Option::as_deref);
        let exact: Map<String, Value> = cell(2).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        line.clear();
        line.extend_from_slice(b"{\"_op\":");
        write_string(cell(0).unwrap_or_default(), &mut line);
        line.extend_from_slice(b",\"_seq\":");
        write_string(cell(1).unwrap_or_default(), &mut line);
        for (at, column) in columns.iter().enumerate() {
            let Some((column, stored)) = table.columns.get(*column).zip(stored.get(*column)) else { continue };
            line.push(b',');
            write_string(&column.name, &mut line);
            line.push(b':');
            value.clear();
            match (cell(at + 3), exact.get(stored).and_then(Value::as_str)) {
                (Some(text), _) => told(&column.ty, text, &mut value).ok_or_else(|| not_understood(table))?,
                (None, Some(text)) => write_string(text, &mut value),
                (None, None) => value.extend_from_slice(b"null"),
            }
            canonical(&column.ty, &value, &mut line);
        }
        line.extend_from_slice(b"}\n");
        take(&line)?;
    }
    Ok(())
}

#[async_trait]
impl Contents for TargetContents {
    fn held(&self) -> Held {
        Held::Rows
    }

    fn spell(&self, batch: &RowBatch, out: &mut Vec<u8>) -> Result<(), CodedError> {
        let batch = narrow(batch.clone());
        let writer = LineWriter::new(&batch.table, false)?;
        let bound = writer.bind(&batch);
        let mut line = Vec::new();
        for row in 0..batch.len() {
            line.clear();
            bound.write(row, &mut line);
            respell(&batch.table, &line, out).map_err(|_| not_understood(&batch.table))?;
        }
        Ok(())
    }

    async fn settled(&self, table: &TableSchema, point: Lsn) -> Result<bool, CodedError> {
        let (places, key) = self.places(table);
        let name = self.shared.naming.progress();
        let Some(progress) = self.shared.progress(&name).read(&key).await? else { return Ok(true) };
        let query = format!("SELECT COUNT(*) FROM {} WHERE \"_SEQ\" > ? AND \"_SEQ\" < ?", places.landing.sql());
        let doing = format!("looking for rows of table \"{}\" that are not merged", table.full_name());
        let (fence, end) = (progress.fence.to_string(), Token::new(point.0, 0).to_string());
        let rows = self.shared.sql.query(&doing, &query, &[&fence, &end]).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Option::as_deref) == Some("0"))
    }

    async fn read(&self, table: &Arc<TableSchema>, point: Lsn, take: &mut TakeLine<'_>) -> Result<(), CodedError> {
        let (places, _) = self.places(table);
        let (landing, target) = existing(&self.shared.sql, &places).await?;
        if target.is_empty() {
            return Ok(());
        }
        let stored = names::columns(table)?;
        let doing = format!("reading the rows of table \"{}\"", table.full_name());
        let list = |columns: &[usize]| -> String {
            columns.iter().filter_map(|at| stored.get(*at)).map(|name| format!(", {}", quote(name))).collect()
        };
        let there: Vec<usize> = (0..stored.len()).filter(|at| stored.get(*at).is_some_and(|name| target.contains_key(name))).collect();
        let live = if target.contains_key("_ETL_DELETED") { " WHERE NOT COALESCE(\"_ETL_DELETED\", FALSE)" } else { "" };
        let query = format!("SELECT 'r', \"_ETL_SEQ\", \"_ETL_EXACT\"{} FROM {}{live}", list(&there), places.target.sql());
        lines(table, &stored, &there, self.shared.sql.query(&doing, &query, &[]).await?, take)?;
        if landing.is_empty() {
            return Ok(());
        }
        let key = table.key();
        let since = literal(&Token::new(point.0, 0).to_string());
        let query =
            format!("SELECT \"_OP\", \"_SEQ\", \"_ETL_EXACT\"{} FROM {} WHERE \"_SEQ\" >= {since}", list(&key), places.landing.sql());
        lines(table, &stored, &key, self.shared.sql.query(&doing, &query, &[]).await?, take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_meet_in_one_spelling() {
        let number = ColumnType::Numeric { precision: 12, scale: 2 };
        let array = ColumnType::Array(Box::new(ColumnType::Int4));
        for (ty, here, there, same) in [
            (ColumnType::Int8, "\"9007199254740993\"", "9007199254740993", true),
            (ColumnType::Int4, "7", "7", true),
            (ColumnType::Int4, "7", "8", false),
            (number.clone(), "12.50", "12.5", true),
            (number.clone(), "0.00", "0", true),
            (number.clone(), "-100.00", "-100", true),
            (number, "-0.10", "-.1", true),
            (ColumnType::Float8, "-0.0", "0", true),
            (ColumnType::Float8, "1e+30", "1000000000000000019884624838656", true),
            (ColumnType::Float8, "\"-Infinity\"", "-inf", true),
            (ColumnType::Float8, "\"NaN\"", "NaN", true),
            (ColumnType::Float4, "0.1", "0.1", true),
            (ColumnType::NumericText, "\"1.500\"", "1.500", true),
            (ColumnType::NumericText, "1.50", "1.5", false),
            (ColumnType::Bool, "true", "true", true),
            (ColumnType::Date, "\"2024-01-31\"", "19753", true),
            (ColumnType::Time, "\"12:34:56.789\"", "45296.789000000", true),
            (ColumnType::Timestamp, "\"2024-01-31T12:34:56.789\"", "1706704496.789000000", true),
            (ColumnType::TimestampTz, "\"2024-01-31T12:34:56+00:00\"", "1706704496.000000000 1440", true),
            (ColumnType::Timestamp, "\"1969-12-31T23:59:59.5\"", "-0.500000000", true),
            (ColumnType::Bytea, "\"\\\\x0aff\"", "0AFF", true),
            (ColumnType::Text, "\"a\\\"b\"", "a\"b", true),
            (ColumnType::Jsonb, "{\"b\":[1.0,2],\"a\":null}", "{\n  \"a\": null,\n  \"b\": [1, 2e0]\n}", true),
            (ColumnType::Jsonb, "{\"a\":1}", "{\"a\":\"1\"}", false),
            (array, "[1,null,3]", "[1,null,3]", true),
        ] {
            let (mut one, mut cell, mut other) = (Vec::new(), Vec::new(), Vec::new());
            canonical(&ty, here.as_bytes(), &mut one);
            told(&ty, there, &mut cell).unwrap();
            canonical(&ty, &cell, &mut other);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(one == other, same, "{ty:?}: {} {}", text(&one), text(&other));
        }
        for (ty, cell) in [(ColumnType::Date, "x"), (ColumnType::Time, ""), (ColumnType::Timestamp, "9223372036854775807")] {
            assert_eq!(told(&ty, cell, &mut Vec::new()), None, "{cell}");
        }
    }
}
