//! A folder read back: every change of a table, in order, whatever the files' format.

use super::codes::{FOLDER_OF_ANOTHER, failed};
use super::{Settings, names};
use crate::contract::{Cells, CodedError, Contents, Held, Lsn, RowBatch, TableSchema, TakeLine, Token};
use crate::sink::line::LineWriter;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use async_trait::async_trait;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// See the module.
pub(super) struct FolderContents(pub(super) Arc<Settings>);

/// A file that this program did not write, or that was changed.
fn changed(path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CodedError {
    CodedError::definite(FOLDER_OF_ANOTHER, format!("file \"{}\" holds what was not written as it is", path.display()))
        .caused_by(cause)
        .hint("it was changed or damaged; `etl-stream resync` writes the table's rows anew")
}

#[async_trait]
impl Contents for FolderContents {
    fn held(&self) -> Held {
        Held::Changes
    }

    fn spell(&self, batch: &RowBatch, lines: &mut Vec<u8>) -> Result<(), CodedError> {
        spell(batch, lines)
    }

    async fn read(&self, table: &Arc<TableSchema>, _: Lsn, take: &mut TakeLine<'_>) -> Result<(), CodedError> {
        // Nothing else runs in the process of the command that reads: its thread may wait for the disk.
        let folder = self.0.root.join(names::folder(&table.schema, &table.name));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("listing folder", &folder, error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| failed("listing folder", &folder, e))?.file_name();
            files.extend(name.into_string().ok().and_then(|name| names::tokens(&name).map(|(first, _)| (first, name))));
        }
        files.sort_unstable();
        for (_, name) in &files {
            let path = folder.join(name);
            let file = File::open(&path).map_err(|e| failed("opening file", &path, e))?;
            if name.ends_with(".parquet") { read_parquet(file, &path, table, take)? } else { read_lines(file, &path, take)? }
        }
        Ok(())
    }
}

fn spell(batch: &RowBatch, lines: &mut Vec<u8>) -> Result<(), CodedError> {
    let writer = LineWriter::new(&batch.table, false)?;
    let bound = writer.bind(batch);
    (0..batch.len()).for_each(|row| bound.write(row, lines));
    Ok(())
}

fn read_lines(file: File, path: &Path, take: &mut TakeLine<'_>) -> Result<(), CodedError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(|e| failed("reading file", path, e))? > 0 {
        take(&line)?;
        line.clear();
    }
    Ok(())
}

fn read_parquet(file: File, path: &Path, table: &Arc<TableSchema>, take: &mut TakeLine<'_>) -> Result<(), CodedError> {
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
    let mut lines = Vec::new();
    for rows in batches.map_err(|e| changed(path, e))? {
        let rows = rows.map_err(|e| changed(path, e))?;
        let batch = batch(&rows, table).ok_or_else(|| changed(path, "its columns are not those of a table's rows"))?;
        lines.clear();
        spell(&batch, &mut lines)?;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            take(line)?;
        }
    }
    Ok(())
}

/// The rows of a file, with those of its columns that the table has now, of the type it has now.
fn batch(rows: &RecordBatch, table: &Arc<TableSchema>) -> Option<RowBatch> {
    let texts = |name: &str| rows.column_by_name(name)?.as_string_opt::<i32>();
    let (ops, tokens, exacts) = (texts("_op")?, texts("_seq")?, texts("_etl_exact")?);
    let times = rows.column_by_name("_commit_ts")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let unchanged = rows.column_by_name("_unchanged")?.as_list_opt::<i32>()?;
    let mut kept = TableSchema { columns: Vec::new(), ..(**table).clone() };
    let mut columns = Vec::new();
    for column in &table.columns {
        if let Some(array) = rows.column_by_name(&column.name).filter(|array| same(array.data_type(), &column.ty.arrow())) {
            kept.columns.push(column.clone());
            columns.push(Arc::clone(array));
        }
    }
    let tokens: Vec<Token> = tokens.iter().map(|text| text?.parse().ok()).collect::<Option<_>>()?;
    let (mut marks, mut exact) = (Cells::default(), Cells::default());
    for row in 0..rows.num_rows() {
        if unchanged.is_valid(row) {
            let list = unchanged.value(row);
            let mut at: Vec<usize> = list.as_string_opt::<i32>()?.iter().flatten().filter_map(|name| kept.column(name)).collect();
            at.sort_unstable();
            at.into_iter().for_each(|column| marks.push(row, column, ()));
        }
        if exacts.is_valid(row) {
            let texts: Map<String, Value> = serde_json::from_str(exacts.value(row)).ok()?;
            let mut at: Vec<(usize, &str)> = texts.iter().filter_map(|(name, text)| Some((kept.column(name)?, text.as_str()?))).collect();
            at.sort_unstable();
            at.into_iter().for_each(|(column, text)| exact.push(row, column, text.into()));
        }
    }
    let ops = ops.iter().map(|letter| letter?.bytes().next()).collect::<Option<Vec<u8>>>()?;
    Some(RowBatch {
        table: Arc::new(kept),
        columns,
        ops: ops.into(),
        commit_lsn: tokens.iter().map(|token| token.commit_lsn).collect(),
        ordinal: tokens.iter().map(|token| token.ordinal).collect(),
        commit_time: times.values().clone(),
        unchanged: marks,
        exact,
    })
}

/// Whether a file's column is of a type, whose zone Parquet may spell another way.
fn same(file: &DataType, wanted: &DataType) -> bool {
    match (file, wanted) {
        (DataType::Timestamp(unit, zone), DataType::Timestamp(other, wanted)) => unit == other && zone.is_some() == wanted.is_some(),
        _ => file == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileFormat, RetrySettings, encode::Encoder, folder::TableFolder};
    use super::*;
    use crate::sink::testing;

    #[tokio::test]
    async fn both_formats_give_the_lines_that_were_written() {
        for format in [FileFormat::Ndjson, FileFormat::Parquet] {
            let root = tempfile::tempdir().unwrap();
            let table = testing::table("public", "t");
            let settings = Settings { root: root.path().into(), format, level: 3, retry: RetrySettings::default() };
            let contents = FolderContents(Arc::new(settings));
            let mut lines = Vec::new();
            let mut take = |line: &[u8]| {
                lines.extend_from_slice(line);
                Ok(())
            };
            contents.read(&table, Lsn(9), &mut take).await.unwrap();
            let mut folder = TableFolder::open(root.path(), &table, "p/s", Encoder::new(format, 3)).unwrap();
            let mut rows = testing::batch("public", "t", 8, 0..3);
            rows.unchanged.push(1, 1, ());
            rows.exact.push(2, 0, "0x1f40".into());
            let mut expected = Vec::new();
            for batch in [testing::batch("public", "t", 7, 0..2), rows] {
                folder.write(&batch).unwrap();
                contents.spell(&batch, &mut expected).unwrap();
            }
            contents.read(&table, Lsn(9), &mut take).await.unwrap();
            assert_eq!(String::from_utf8(lines).unwrap(), String::from_utf8(expected).unwrap(), "{format:?}");
        }
    }
}
