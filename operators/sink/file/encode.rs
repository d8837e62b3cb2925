//! What a file of rows holds: lines of NDJSON, or Parquet.
//!
//! Hot path: no allocation per row. NDJSON goes to the file a few hundred KiB at a time, from one buffer.

use super::FileFormat;
use super::codes::failed;
use super::parquet;
use crate::contract::{CodedError, RowBatch, TableSchema};
use crate::sink::line::LineWriter;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// How much NDJSON is gathered for one write.
const BUFFER: usize = 256 << 10;

/// Writes the batches of one table to files.
pub(super) struct Encoder {
    format: FileFormat,
    /// zstd level of Parquet pages.
    level: i32,
    /// The lines of the latest schema.
    lines: Option<(Arc<TableSchema>, LineWriter)>,
}

impl Encoder {
    pub(super) const fn new(format: FileFormat, level: i32) -> Self {
        Self { format, level, lines: None }
    }

    /// How its files' names end.
    pub(super) const fn extension(&self) -> &'static str {
        match self.format {
            FileFormat::Ndjson => "ndjson",
            FileFormat::Parquet => "parquet",
        }
    }

    /// Writes a batch as the content of a file.
    ///
    /// # Errors
    /// `FS0001` when the file cannot be written, `FS0005` and `FS0006` when the rows cannot be.
    pub(super) fn write(&mut self, batch: &RowBatch, file: &mut File, path: &Path) -> Result<(), CodedError> {
        match self.format {
            FileFormat::Ndjson => self.write_lines(batch, file).and_then(|written| written.map_err(|e| failed("writing file", path, e))),
            FileFormat::Parquet => parquet::write(batch, self.level, file, path),
        }
    }

    fn write_lines(&mut self, batch: &RowBatch, file: &mut File) -> Result<std::io::Result<()>, CodedError> {
        if !self.lines.as_ref().is_some_and(|(table, _)| Arc::ptr_eq(table, &batch.table)) {
            self.lines = Some((Arc::clone(&batch.table), LineWriter::new(&batch.table, false)?));
        }
        let (_, writer) = self.lines.as_ref().expect("made just above");
        let lines = writer.bind(batch);
        let mut text = Vec::with_capacity(BUFFER + BUFFER / 4);
        for row in 0..batch.len() {
            lines.write(row, &mut text);
            if text.len() >= BUFFER {
                if let Err(error) = file.write_all(&text) {
                    return Ok(Err(error));
                }
                text.clear();
            }
        }
        Ok(file.write_all(&text))
    }
}
