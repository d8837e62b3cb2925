//! The codes of pipeline file problems. Each has a page in `docs/errors/`.

use crate::{Code, Exit};

/// The file was not read, or is not YAML.
pub(super) const SYNTAX: Code = Code::new("CFG0001", Exit::Usage);
/// A value does not fit its field.
pub(super) const VALUE: Code = Code::new("CFG0002", Exit::Usage);
/// A field that nothing reads.
pub(super) const UNKNOWN_FIELD: Code = Code::new("CFG0003", Exit::Usage);
/// An input that nothing gives.
pub(super) const UNKNOWN_INPUT: Code = Code::new("CFG0004", Exit::Usage);
/// Nodes that read from each other.
pub(super) const CYCLE: Code = Code::new("CFG0005", Exit::Usage);
/// A node type that the binary does not have.
pub(super) const UNKNOWN_TYPE: Code = Code::new("CFG0006", Exit::Usage);
/// It is not clear what a node reads.
pub(super) const INPUTS: Code = Code::new("CFG0007", Exit::Usage);
/// A `${…}` without a value.
pub(super) const VARIABLE: Code = Code::new("CFG0008", Exit::Usage);
/// A secret in the wrong form.
pub(super) const SECRET_FORM: Code = Code::new("CFG0009", Exit::Usage);
/// A secret written into the file.
pub(super) const PLAIN_SECRET: Code = Code::new("CFG0010", Exit::Usage);
/// A key or name given twice.
pub(super) const DUPLICATE: Code = Code::new("CFG0011", Exit::Usage);
/// A name that cannot be one.
pub(super) const NAME: Code = Code::new("CFG0012", Exit::Usage);
/// No source or no sink.
pub(super) const NOTHING_TO_DO: Code = Code::new("CFG0013", Exit::Usage);
/// Rows that reach no sink.
pub(super) const NOT_READ: Code = Code::new("CFG0015", Exit::Usage);
/// A required field that is not there.
pub(super) const MISSING_FIELD: Code = Code::new("CFG0016", Exit::Usage);
/// An alert that names no notifier.
pub(super) const UNKNOWN_NOTIFIER: Code = Code::new("CFG0017", Exit::Usage);
/// Rows that reach a sink twice.
pub(super) const TWO_PATHS: Code = Code::new("CFG0018", Exit::Usage);
/// A node that watches what is not there to be watched.
pub(super) const WATCH: Code = Code::new("CFG0061", Exit::Usage);
/// An alert that cannot be evaluated or told as it is written.
pub(super) const ALERT: Code = Code::new("CFG0062", Exit::Usage);
