//! A batch as a Parquet file.
//!
//! ```text
//! _op, _seq, _commit_ts, _unchanged, the table's columns, _etl_exact
//! ```
//! Columns have their Arrow types; documents are text. `_etl_exact` is a JSON object of PostgreSQL's exact
//! texts by column, where the column's type cannot hold a value (it is null there) or holds less than the
//! text says. A field's metadata has `postgres.type`.

use super::codes::{ROWS_REFUSED, failed};
use crate::contract::{CodedError, RowBatch};
use crate::sink::json::write_string;
use crate::sink::line::check_columns;
use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a column's dictionary, beyond which its values are written as they are.
const DICTIONARY: usize = 256 << 10;

/// Writes the whole file.
///
/// # Errors
/// `FS0001` when the file cannot be written, `FS0005` when the rows have no Parquet form, `FS0006`.
pub(super) fn write(batch: &RowBatch, level: i32, file: &mut File, path: &Path) -> Result<(), CodedError> {
    check_columns(&batch.table)?;
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        let message = format!("rows of table \"{}\" could not be laid out as Parquet", batch.table.full_name());
        CodedError::definite(ROWS_REFUSED, message).hint("write the table as `ndjson`, and report this").caused_by(error)
    };
    let explained = |error: ParquetError| match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => failed("writing file", path, *error),
            Err(cause) => refused(cause),
        },
        error => refused(error.into()),
    };
    let rows = record_batch(batch).map_err(|e| refused(e.into()))?;
    let level = ZstdLevel::try_new(level).map_err(|e| refused(e.into()))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties(batch, level))).map_err(explained)?;
    writer.write(&rows).map_err(explained)?;
    writer.close().map_err(explained)?;
    Ok(())
}

/// How it is laid out: dictionaries where values come again. In tokens and keys they hardly do, and elsewhere one that
/// grows is given up early: making it costs more than compressing what it would save.
fn properties(batch: &RowBatch, level: ZstdLevel) -> WriterProperties {
    let keys = batch.table.columns.iter().filter(|column| column.key.is_some()).map(|column| &*column.name);
    let start = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("etl-stream".into())
        .set_dictionary_page_size_limit(DICTIONARY);
    let plain =
        |builder: WriterPropertiesBuilder, name: &str| builder.set_column_dictionary_enabled(ColumnPath::new(vec![name.to_owned()]), false);
    keys.chain(["_seq"]).fold(start, plain).build()
}

fn record_batch(batch: &RowBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields = Vec::with_capacity(batch.columns.len() + 5);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.capacity());
    let mut add = |name: &str, nullable: bool, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), nullable));
        columns.push(column);
    };
    add("_op", false, operations(batch));
    add("_seq", false, tokens(batch));
    add("_commit_ts", false, Arc::new(TimestampMicrosecondArray::new(batch.commit_time.clone(), None).with_timezone("UTC")));
    add("_unchanged", true, unchanged(batch));
    for (column, array) in batch.table.columns.iter().zip(&batch.columns) {
        // Nullable whatever the table says: a delete has only the key.
        add(&column.name, true, Arc::clone(array));
    }
    add("_etl_exact", true, exact(batch));
    for (field, column) in fields.iter_mut().skip(4).zip(&batch.table.columns) {
        field.set_metadata(HashMap::from([("postgres.type".to_owned(), column.pg_type.name.to_string())]));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn operations(batch: &RowBatch) -> ArrayRef {
    let mut letters = StringBuilder::with_capacity(batch.len(), batch.len());
    for letter in batch.ops.iter() {
        letters.append_value(char::from(*letter).encode_utf8(&mut [0; 4]));
    }
    Arc::new(letters.finish())
}

fn tokens(batch: &RowBatch) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(batch.len(), batch.len() * 33);
    let mut text = [0; 33];
    for row in 0..batch.len() {
        batch.token(row).write(&mut text);
        texts.append_value(std::str::from_utf8(&text).expect("a token is ASCII"));
    }
    Arc::new(texts.finish())
}

fn unchanged(batch: &RowBatch) -> ArrayRef {
    let mut names = ListBuilder::new(StringBuilder::new());
    for row in 0..batch.len() {
        let mut any = false;
        for (column, ()) in batch.unchanged.row(row) {
            names.values().append_value(&batch.table.columns[column].name);
            any = true;
        }
        names.append(any);
    }
    Arc::new(names.finish())
}

fn exact(batch: &RowBatch) -> ArrayRef {
    if batch.exact.is_empty() {
        return new_null_array(&DataType::Utf8, batch.len());
    }
    let mut texts = StringBuilder::new();
    let mut object = Vec::new();
    for row in 0..batch.len() {
        object.clear();
        for (column, text) in batch.exact.row(row) {
            object.push(if object.is_empty() { b'{' } else { b',' });
            write_string(&batch.table.columns[column].name, &mut object);
            object.push(b':');
            write_string(text, &mut object);
        }
        if object.is_empty() {
            texts.append_null();
        } else {
            object.push(b'}');
            texts.append_value(std::str::from_utf8(&object).expect("JSON of UTF-8 is UTF-8"));
        }
    }
    Arc::new(texts.finish())
}
