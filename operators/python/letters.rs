//! Dead letters of the operator: batches of rows that the user's code did not take, in a folder.
//!
//! ```text
//! <folder>/<source>.<schema>.<table>/<first token>-<last token>.arrow     the rows, an Arrow IPC file
//!                                                             .json      why: code, place in the code, the exception
//! ```
//! # Guarantees
//! Both files are durable before the rows pass, so before they are acknowledged. A row that comes again after a crash may
//! stand in two files: `_commit_lsn` and `_ordinal` tell. The files hold values, and the folder is the user's alone.

use super::errors::PY_DEAD_LETTER;
use super::rows::record_batch;
use super::told::Told;
use crate::contract::{CodedError, RowBatch};
use arrow::ipc::writer::FileWriter;
use metrics::counter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What may stand in a file's name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Letters(pub(super) PathBuf);

impl Letters {
    /// Writes rows of one batch.
    ///
    /// # Errors
    /// `PY0008` when they are not durable.
    pub(super) fn write(&self, node: &str, rows: &RowBatch, error: &CodedError, told: Option<&Told>) -> Result<(), CodedError> {
        let (Some(first), Some(last)) = (rows.first_token(), rows.last_token()) else { return Ok(()) };
        let table = &rows.table;
        let part = |name: &str| utf8_percent_encode(name, NAME).to_string();
        let folder = self.0.join(format!("{}.{}.{}", part(&table.source), part(&table.schema), part(&table.name)));
        let name = format!("{first}-{last}").replace('/', "_");
        let written = (|| -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let batch = record_batch(rows).map_err(io::Error::other)?;
            let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).map_err(io::Error::other)?;
            file.write(&batch).map_err(io::Error::other)?;
            let bytes = file.into_inner().map_err(io::Error::other)?;
            durable(&folder, &format!("{name}.arrow"), &bytes)?;
            let exact: Vec<_> = rows.exact.iter().map(|(row, at, text)| json!([row, table.columns[at].name, text])).collect();
            let unchanged: Vec<_> = rows.unchanged.iter().map(|(row, at, ())| json!([row, table.columns[at].name])).collect();
            let why = json!({
                "node": node, "source": table.source, "table": table.full_name(), "rows": rows.len(), "code": error.code.id,
                "message": error.message, "exception": told.map(|t| &t.words), "traceback": told.map(|t| &t.trace),
                "exact": exact, "unchanged": unchanged,
            });
            durable(&folder, &format!("{name}.json"), why.to_string().as_bytes())?;
            File::open(&folder)?.sync_all()
        })();
        written.map_err(|error| {
            CodedError::transient(PY_DEAD_LETTER, format!("dead letters of node \"{node}\" were not written to {}", folder.display()))
                .hint("make the folder writable, and free space where it is")
                .caused_by(error)
        })?;
        counter!("etl_stream_python_dead_letter_rows_total", "node" => node.to_owned()).increment(rows.len() as u64);
        tracing::warn!(node, table = table.full_name(), rows = rows.len(), code = error.code.id, "rows went to the dead letters");
        Ok(())
    }
}

/// Writes a file beside, and renames it when it is whole.
fn durable(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!(".{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(name))
}
