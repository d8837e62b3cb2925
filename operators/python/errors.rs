//! The codes of what runs in Python. Each has a page in `docs/errors/`.

use crate::contract::{Code, Exit};

/// A setting of the operator contradicts another or lacks a part.
pub(super) const CFG_PYTHON: Code = Code::new("CFG0070", Exit::Usage);
/// No Python process came up.
pub(crate) const PY_START: Code = Code::new("PY0001", Exit::Environment);
/// pyarrow is missing or too old.
pub(super) const PY_PYARROW: Code = Code::new("PY0002", Exit::Environment);
/// The user's module, class or function is not there.
pub(super) const PY_MODULE: Code = Code::new("PY0003", Exit::Usage);
/// The user's code raised an exception.
pub(super) const PY_RAISED: Code = Code::new("PY0004", Exit::Failure);
/// What the user's code gave has another schema or number of rows.
pub(super) const PY_RESULT: Code = Code::new("PY0005", Exit::Failure);
/// A Python process did not answer in time.
pub(crate) const PY_TIMEOUT: Code = Code::new("PY0006", Exit::Failure);
/// A Python process ended before it answered.
pub(crate) const PY_DIED: Code = Code::new("PY0007", Exit::Failure);
/// A dead letter of the operator was not written.
pub(super) const PY_DEAD_LETTER: Code = Code::new("PY0008", Exit::Failure);
