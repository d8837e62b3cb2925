//! The error codes of the source. `docs/errors/<id>.md` has a page for each.

use crate::contract::{Code, Exit};

/// A setting of the source that types cannot express.
pub(super) const CFG_POSTGRES: Code = Code::new("CFG0040", Exit::Usage);
/// `wal_level` is not `logical`.
pub(super) const WAL_LEVEL: Code = Code::new("PG0010", Exit::Environment);
/// The publication is missing or lacks tables, and may not be made or changed.
pub(super) const PUBLICATION: Code = Code::new("PG0011", Exit::Environment);
/// The slot is in use by another connection.
pub(super) const SLOT_IN_USE: Code = Code::new("PG0012", Exit::Environment);
/// The server has removed log that the slot needed.
pub(super) const SLOT_LOST: Code = Code::new("PG0013", Exit::Environment);
/// The server, database or timeline is not the one of the state.
pub(super) const OTHER_SERVER: Code = Code::new("PG0014", Exit::Environment);
/// The slot is there but the state knows nothing of it.
pub(super) const SLOT_WITHOUT_STATE: Code = Code::new("PG0015", Exit::Environment);
/// The state knows the slot but it is gone.
pub(super) const STATE_WITHOUT_SLOT: Code = Code::new("PG0016", Exit::Environment);
/// No table matches.
pub(super) const NO_TABLE: Code = Code::new("PG0017", Exit::Environment);
/// Every replication slot of the server is taken.
pub(super) const NO_SLOT_LEFT: Code = Code::new("PG0018", Exit::Environment);
/// The slot is of another plugin, kind or database.
pub(super) const OTHER_SLOT: Code = Code::new("PG0019", Exit::Environment);
/// The user may not read a table.
pub(super) const NO_SELECT: Code = Code::new("PG0020", Exit::Environment);
/// The replication stream could not be read as pgoutput.
pub(super) const STREAM: Code = Code::new("PG0021", Exit::Failure);
/// The copy of a table could not be read, or ended early.
pub(super) const COPY: Code = Code::new("PG0022", Exit::Failure);
/// The settings name another slot than the state.
pub(super) const SLOT_CHANGED: Code = Code::new("PG0023", Exit::Environment);
/// Somebody else moved the slot past changes that were not delivered.
pub(super) const SLOT_MOVED: Code = Code::new("PG0024", Exit::Environment);
/// The source's state could not be read.
pub(super) const STATE: Code = Code::new("PG0025", Exit::Failure);
/// A key of the settings names a column that the table does not have.
pub(super) const KEY: Code = Code::new("PG0026", Exit::Environment);
/// The pipeline is going away.
pub(super) const CLOSED: Code = Code::new("PG0027", Exit::Failure);
/// The spill of transactions in progress has reached its limit, or the disk is full.
pub(super) const SPILL_FULL: Code = Code::new("PG0030", Exit::Environment);
/// A spill file could not be made, written or read.
pub(super) const SPILL: Code = Code::new("PG0031", Exit::Environment);
/// The process's budget has too few connections for a snapshot.
pub(super) const CONNECTIONS: Code = Code::new("PG0044", Exit::Usage);
/// The slot decodes two-phase transactions at PREPARE.
pub(super) const TWO_PHASE: Code = Code::new("PG0032", Exit::Environment);
