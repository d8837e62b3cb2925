//! What arrived, as one JSON object a row that PostgreSQL reads back with `json_populate_record`.
//!
//! ```text
//! NDJSON     the lines as they are
//! Parquet    read with the parquet crate ──> values as strings, documents and arrays spliced in
//! Snowflake  read through the SQL API    ──> likewise
//! ```

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Time64MicrosecondArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row's lines, from its first that has values to its last.
pub(crate) type Lines = Vec<String>;

/// The lines of the rows that are there in the end, whose keys are told apart by `key`.
#[derive(Default)]
pub(crate) struct Arrived {
    rows: BTreeMap<String, Lines>,
    /// The row that was deleted last: a row of a changed key goes on with values that were not sent.
    deleted: Lines,
}

impl Arrived {
    fn add(&mut self, op: &str, key: String, line: String, goes_on: bool) {
        if op == "d" {
            self.deleted = self.rows.remove(&key).unwrap_or_else(|| panic!("a delete finds its row {key}"));
            return;
        }
        let before = if op == "i" && goes_on { std::mem::take(&mut self.deleted) } else { Lines::new() };
        self.rows.entry(key).or_insert(before).push(line);
    }

    /// The rows.
    pub(crate) fn rows(self) -> impl Iterator<Item = Lines> {
        self.rows.into_values()
    }
}

/// A line without its values, some of which are numbers beyond a double's range.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    #[serde(rename = "_op")]
    op: String,
    #[serde(rename = "_unchanged")]
    unchanged: Value,
    #[serde(rename = "_etl_exact")]
    exact: Value,
    id: Value,
    k: Value,
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension) && !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    files.sort();
    files
}

/// Of a folder of NDJSON.
pub(crate) fn ndjson(folder: &Path, key: &str) -> Arrived {
    let mut arrived = Arrived::default();
    for file in files(folder, "ndjson") {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let row: Line = serde_json::from_str(line).unwrap();
            // with the exact text a key is told from one whose JSON says less
            let id = format!("{} {} {}", row.id, row.k, row.exact[key]);
            arrived.add(&row.op, id, line.to_owned(), row.unchanged.is_array());
        }
    }
    arrived
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A value of a column as JSON: a string that the column's PostgreSQL type reads, or a document.
fn json(array: &ArrayRef, row: usize, document: bool) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    let text = match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Binary => format!("\\x{}", array.as_binary::<i32>().value(row).iter().map(|b| format!("{b:02x}")).collect::<String>()),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time64(_) => time(array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(_, zone) => {
            timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)) + if zone.is_some() { "+00" } else { "" }
        }
        DataType::Utf8 if document => return array.as_string::<i32>().value(row).to_owned(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        other => panic!("a column of {other}"),
    };
    quoted(&text)
}

fn date(days: i32) -> String {
    array_value_to_string(&Date32Array::from(vec![days]), 0).unwrap()
}

fn time(micros: i64) -> String {
    array_value_to_string(&Time64MicrosecondArray::from(vec![micros]), 0).unwrap()
}

fn timestamp(micros: i64) -> String {
    array_value_to_string(&TimestampMicrosecondArray::from(vec![micros]), 0).unwrap()
}

/// Of a folder of Parquet, and each column's Arrow type. `documents` are the columns that hold JSON.
pub(crate) fn parquet(folder: &Path, key: &str, documents: &[String]) -> (Arrived, HashMap<String, DataType>) {
    let (mut arrived, mut types) = (Arrived::default(), HashMap::new());
    for file in files(folder, "parquet") {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let schema = batch.schema();
            let named = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
            let (ops, exact, unchanged) = (named("_op"), named("_etl_exact"), named("_unchanged"));
            for row in 0..batch.num_rows() {
                let left_out: Vec<String> = match unchanged.as_list::<i32>() {
                    names if names.is_null(row) => Vec::new(),
                    names => names.value(row).as_string::<i32>().iter().flatten().map(str::to_owned).collect(),
                };
                let texts: serde_json::Map<String, Value> = match exact.as_string::<i32>() {
                    texts if texts.is_null(row) => serde_json::Map::new(),
                    texts => serde_json::from_str(texts.value(row)).unwrap(),
                };
                let mut members = vec![format!("\"_etl_exact\":{}", Value::from(texts.clone()))];
                for (field, column) in schema.fields().iter().zip(batch.columns()).filter(|(field, _)| !field.name().starts_with('_')) {
                    types.insert(field.name().clone(), column.data_type().clone());
                    if !left_out.contains(field.name()) {
                        members.push(format!("{}:{}", quoted(field.name()), json(column, row, documents.contains(field.name()))));
                    }
                }
                let id = format!("{} {:?}", json(&named(key), row, false), texts.get(key));
                arrived.add(ops.as_string::<i32>().value(row), id, format!("{{{}}}", members.join(",")), !left_out.is_empty());
            }
        }
    }
    (arrived, types)
}

/// `12.5` seconds as microseconds.
fn micros(seconds: &str) -> i64 {
    let (negative, text) = seconds.strip_prefix('-').map_or((false, seconds), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<6}");
    let micros = whole.parse::<i64>().unwrap() * 1_000_000 + fraction[..6].parse::<i64>().unwrap();
    assert!(fraction[6..].bytes().all(|b| b == b'0'), "{seconds} has more than microseconds");
    if negative { -micros } else { micros }
}

/// Of a target in the local Snowflake, and each column's type there. `columns` are PostgreSQL's names.
pub(crate) async fn snowflake(
    server: &LocalSnowflake,
    schema: &str,
    table: &str,
    columns: &[String],
) -> (Vec<Lines>, HashMap<String, String>) {
    let sql = format!(
        "SELECT COLUMN_NAME, DATA_TYPE FROM RAW.INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = '{schema}' AND TABLE_NAME = '{}'",
        table.to_uppercase()
    );
    let types: HashMap<String, String> =
        server.sql(&sql).await.into_iter().map(|row| (row[0].clone().unwrap().to_lowercase(), row[1].clone().unwrap())).collect();
    let list: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.to_uppercase())).collect();
    let sql = format!("SELECT \"_ETL_EXACT\", {} FROM RAW.{schema}.{}", list.join(", "), table.to_uppercase());
    let rows = server.sql(&sql).await.into_iter().map(|row| {
        let mut cells = row.into_iter();
        let exact: serde_json::Map<String, Value> =
            cells.next().flatten().map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
        let exact: serde_json::Map<String, Value> = exact.into_iter().map(|(name, text)| (name.to_lowercase(), text)).collect();
        let mut members = vec![format!("\"_etl_exact\":{}", Value::from(exact))];
        for (name, cell) in columns.iter().zip(cells) {
            let value = match (cell, types[name].as_str()) {
                (None, _) => "null".into(),
                (Some(text), "VARIANT" | "ARRAY" | "OBJECT") => text,
                (Some(text), "DATE") => quoted(&date(text.parse().unwrap())),
                (Some(text), "TIME") => quoted(&time(micros(&text))),
                (Some(text), "TIMESTAMP_NTZ") => quoted(&timestamp(micros(&text))),
                (Some(text), "TIMESTAMP_TZ") => quoted(&(timestamp(micros(text.split(' ').next().unwrap())) + "+00")),
                (Some(text), "BINARY") => quoted(&format!("\\x{text}")),
                (Some(text), _) => quoted(&text),
            };
            members.push(format!("{}:{value}", quoted(name)));
        }
        vec![format!("{{{}}}", members.join(","))]
    });
    (rows.collect(), types)
}
