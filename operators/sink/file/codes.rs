//! Error codes of the `file` sink.

use crate::contract::{Code, CodedError, Exit};
use std::io;
use std::path::Path;

/// A file or folder of the sink could not be written, read or renamed.
pub const FILE_FAILED: Code = Code::new("FS0001", Exit::Failure);

/// The sink's folder cannot be made or written.
pub const FOLDER_UNUSABLE: Code = Code::new("FS0002", Exit::Environment);

/// Another pipeline or process writes the folder.
pub const FOLDER_LOCKED: Code = Code::new("FS0003", Exit::Environment);

/// A table's folder belongs to another table, source or database.
pub const FOLDER_OF_ANOTHER: Code = Code::new("FS0004", Exit::Failure);

/// Rows came out of order, or could not be laid out as files.
pub const ROWS_REFUSED: Code = Code::new("FS0005", Exit::Failure);

/// A setting is out of its range.
pub const SETTING: Code = Code::new("FS0007", Exit::Usage);

/// An operation on a path that failed and may succeed later.
pub(super) fn failed(attempt: &str, path: &Path, error: io::Error) -> CodedError {
    let message = format!("{attempt} \"{}\" failed", path.display());
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space; the pipeline goes on by itself",
        io::ErrorKind::PermissionDenied => "let the pipeline's user write there; the pipeline goes on by itself",
        io::ErrorKind::InvalidFilename => {
            return CodedError::definite(FILE_FAILED, message)
                .hint("the file system takes no name of that length; give the table a shorter one with `rename`")
                .caused_by(error);
        }
        _ => "look at the disk and the folder's permissions",
    };
    CodedError::transient(FILE_FAILED, message).hint(hint).caused_by(error)
}
