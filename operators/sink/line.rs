//! Lines of NDJSON: a row's metadata and its columns in one object.
//!
//! ```text
//! {"_op":"u","_seq":"0000000001a2b3c8/0000000000000000","_commit_ts":"2024-01-31T12:34:56+00:00","_unchanged":["body"],"id":1}
//! ```
//!
//! `_unchanged` is there only when it names a column; the columns it names are not. So is `_etl_exact`: PostgreSQL's
//! texts of values that their JSON says less of (an array's lower bounds, a document that is null). Hot path: no
//! allocation per row.

use super::json::{BoundRows, Dialect, RowWriter, write_string, write_timestamptz};
use crate::contract::{Code, CodedError, Exit, RowBatch, TableSchema};
use arrow::array::Array;

/// A column has the name of a metadata member.
pub const RESERVED_COLUMN: Code = Code::new("FS0006", Exit::Usage);

/// Names of the members that are not columns.
const RESERVED: [&str; 6] = ["_table", "_op", "_seq", "_commit_ts", "_unchanged", "_etl_exact"];

/// Refuses a table with a column that a metadata member would hide.
///
/// # Errors
/// `FS0006`, naming the column.
pub fn check_columns(table: &TableSchema) -> Result<(), CodedError> {
    let taken = table.columns.iter().find(|column| RESERVED.contains(&&*column.name));
    taken.map_or(Ok(()), |column| {
        let message = format!("column \"{}\" of table \"{}\" has the name of a metadata member", column.name, table.full_name());
        Err(CodedError::definite(RESERVED_COLUMN, message).hint("rename the column on its way with an operator of type `rename`"))
    })
}

/// Writes the lines of one table's schema.
#[derive(Clone, Debug)]
pub struct LineWriter {
    /// `{` and, if the lines name it, the table.
    start: Vec<u8>,
    rows: RowWriter,
    /// Column names as JSON strings.
    names: Vec<Vec<u8>>,
}

impl LineWriter {
    /// Prepares a table's lines; `with_table` puts its name into each.
    ///
    /// # Errors
    /// As [`check_columns`].
    pub fn new(table: &TableSchema, with_table: bool) -> Result<Self, CodedError> {
        check_columns(table)?;
        let mut start = b"{".to_vec();
        if with_table {
            start.extend_from_slice(b"\"_table\":");
            write_string(&table.full_name(), &mut start);
            start.push(b',');
        }
        start.extend_from_slice(b"\"_op\":\"");
        let names: Vec<String> = table.columns.iter().map(|column| column.name.to_string()).collect();
        let string = |name: &String| {
            let mut text = Vec::new();
            write_string(name, &mut text);
            text
        };
        Ok(Self { start, rows: RowWriter::new(table, &names, Dialect::Postgres), names: names.iter().map(string).collect() })
    }

    /// Takes a batch of the table's schema.
    #[must_use]
    pub fn bind<'a>(&'a self, batch: &'a RowBatch) -> BoundLines<'a> {
        BoundLines { writer: self, batch, rows: self.rows.bind(batch) }
    }
}

/// The lines of one batch.
#[derive(Debug)]
pub struct BoundLines<'a> {
    writer: &'a LineWriter,
    batch: &'a RowBatch,
    rows: BoundRows<'a>,
}

impl BoundLines<'_> {
    /// Appends one row's line, its line break included.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.writer.start);
        out.push(self.batch.ops[row]);
        out.extend_from_slice(b"\",\"_seq\":\"");
        let mut token = [0; 33];
        self.batch.token(row).write(&mut token);
        out.extend_from_slice(&token);
        out.extend_from_slice(b"\",\"_commit_ts\":");
        write_timestamptz(self.batch.commit_time[row], out);
        if !self.batch.unchanged.is_empty() {
            self.write_unchanged(row, out);
        }
        if !self.batch.exact.is_empty() {
            self.write_exact(row, out);
        }
        out.push(b',');
        if !self.rows.write_columns(row, out) {
            out.pop();
        }
        out.extend_from_slice(b"}\n");
    }

    /// Texts of values that are there; those that are not have theirs in place.
    fn write_exact(&self, row: usize, out: &mut Vec<u8>) {
        let mut opening: &[u8] = b",\"_etl_exact\":{";
        let mut any = false;
        for (column, text) in self.batch.exact.row(row).filter(|(column, _)| self.batch.columns[*column].is_valid(row)) {
            out.extend_from_slice(opening);
            out.extend_from_slice(&self.writer.names[column]);
            out.push(b':');
            write_string(text, out);
            opening = b",";
            any = true;
        }
        if any {
            out.push(b'}');
        }
    }

    fn write_unchanged(&self, row: usize, out: &mut Vec<u8>) {
        let mut opening: &[u8] = b",\"_unchanged\":[";
        let mut any = false;
        for (column, ()) in self.batch.unchanged.row(row) {
            out.extend_from_slice(opening);
            out.extend_from_slice(&self.writer.names[column]);
            opening = b",";
            any = true;
        }
        if any {
            out.push(b']');
        }
    }
}
