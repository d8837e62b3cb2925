//! State in one SQLite file: a document for each pipeline, node and table.
//!
//! # Guarantees
//! A store is durable on return (`synchronous = FULL`) and all or nothing. One process has the file at a
//! time: a second is refused, as two writers of one pipeline's state would each undo the other.

use etl_stream_operators::contract::{Code, CodedError, Exit, StateKey, StateStore};
use etl_stream_operators::failpoint;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde_json::Value;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The state file cannot be opened.
pub(crate) const STATE_OPEN: Code = Code::new("RUN0010", Exit::Environment);
/// The state file cannot be read or written.
pub(crate) const STATE_IO: Code = Code::new("RUN0011", Exit::Failure);

/// The newest layout of the file, in `PRAGMA user_version`.
const VERSION: i64 = 1;

/// An open state file.
pub struct SqliteState {
    connection: Mutex<Connection>,
    path: String,
}

impl SqliteState {
    /// Opens the file, and makes it and its folder if they are not there.
    ///
    /// # Errors
    /// `RUN0010` when it cannot be made, is in use, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, CodedError> {
        let shown = path.display().to_string();
        let failed = |why: String| {
            CodedError::definite(STATE_OPEN, format!("state file \"{shown}\" was not opened: {why}"))
                .hint("check the folder's permissions and that no other etl-stream uses this file, or set `state: { path: … }`")
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        }
        let connection = Connection::open(path).map_err(|e| failed(e.to_string()))?;
        // Plans that do not hang on bound values, or each statement is prepared anew whenever it is bound.
        let stable = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
        let version: i64 = stable
            .and_then(|_| {
                connection.execute_batch(
                    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; COMMIT;",
                )
            })
            .and_then(|()| connection.query_row("PRAGMA user_version", [], |row| row.get(0)))
            .map_err(|e| failed(e.to_string()))?;
        if version > VERSION {
            return Err(failed(format!("it has layout {version}, and this version knows {VERSION}")));
        }
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS progress (
                     pipeline TEXT NOT NULL, node TEXT NOT NULL, tbl TEXT NOT NULL,
                     document TEXT NOT NULL, updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
                     PRIMARY KEY (pipeline, node, tbl)) WITHOUT ROWID;
                 PRAGMA user_version = {VERSION};"
            ))
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { connection: Mutex::new(connection), path: shown })
    }

    /// Opens a file that exists, to read it only.
    ///
    /// # Errors
    /// `RUN0010` when it cannot be read, or is in use.
    pub fn open_to_read(path: &Path) -> Result<Self, CodedError> {
        let in_use = || {
            CodedError::definite(STATE_OPEN, format!("state file \"{}\" is in use by another process", path.display()))
                .hint("a process that runs the pipeline answers for it: look where it listens (`server` in the file, or --listen)")
        };
        Self::open_unless_in_use(path)?.ok_or_else(in_use)
    }

    /// Opens a file that exists, to read it only; `None` when another process has it.
    ///
    /// # Errors
    /// `RUN0010` when it cannot be read.
    pub fn open_unless_in_use(path: &Path) -> Result<Option<Self>, CodedError> {
        let shown = path.display().to_string();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            // A process that has the file keeps it for as long as it runs.
            connection.busy_timeout(std::time::Duration::from_millis(200))?;
            connection.query_row("SELECT count(*) FROM progress", [], |_| Ok(())).map(|()| connection)
        });
        match opened {
            Ok(connection) => Ok(Some(Self { connection: Mutex::new(connection), path: shown })),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(None),
            Err(error) => Err(CodedError::definite(STATE_OPEN, format!("state file \"{shown}\" was not read"))
                .caused_by(error)
                .hint("check the file's permissions, or set `state: { path: … }`")),
        }
    }

    fn failed(&self, doing: &str, error: rusqlite::Error) -> CodedError {
        CodedError::definite(STATE_IO, format!("state file \"{}\" was not {doing}", self.path))
            .caused_by(error)
            .hint("check that its disk is not full")
    }

    fn document(&self, text: &str) -> Result<Value, CodedError> {
        serde_json::from_str(text).map_err(|e| {
            CodedError::definite(STATE_IO, format!("state file \"{}\" holds a document that is not JSON", self.path)).caused_by(e)
        })
    }
}

/// A failpoint of the state's disk.
fn disk(name: &'static str) -> rusqlite::Result<()> {
    failpoint::fails(name).map_err(|_| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None))
}

impl StateStore for SqliteState {
    fn load(&self, key: &StateKey) -> Result<Option<Value>, CodedError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let text: Option<String> = connection
            .query_row(
                "SELECT document FROM progress WHERE pipeline = ?1 AND node = ?2 AND tbl = ?3",
                params![key.pipeline, key.node, key.table],
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| self.failed("read", e))?;
        text.map(|text| self.document(&text)).transpose()
    }

    fn list(&self, pipeline: &str, node: &str) -> Result<Vec<(StateKey, Value)>, CodedError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection
            .prepare_cached("SELECT tbl, document FROM progress WHERE pipeline = ?1 AND node = ?2 ORDER BY tbl")
            .map_err(|e| self.failed("read", e))?;
        let rows: Vec<(String, String)> = statement
            .query_map(params![pipeline, node], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(|e| self.failed("read", e))?;
        rows.into_iter().map(|(table, text)| Ok((StateKey::table(pipeline, node, &table), self.document(&text)?))).collect()
    }

    fn store(&self, changes: &[(StateKey, Option<Value>)]) -> Result<(), CodedError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let write = || {
            disk("state.store")?;
            let transaction = connection.transaction()?;
            for (key, value) in changes {
                match value {
                    Some(value) => transaction
                        .prepare_cached(
                            "INSERT INTO progress (pipeline, node, tbl, document) VALUES (?1, ?2, ?3, ?4)
                             ON CONFLICT DO UPDATE SET document = excluded.document, updated_at = CURRENT_TIMESTAMP",
                        )?
                        .execute(params![key.pipeline, key.node, key.table, value.to_string()])?,
                    None => transaction
                        .prepare_cached("DELETE FROM progress WHERE pipeline = ?1 AND node = ?2 AND tbl = ?3")?
                        .execute(params![key.pipeline, key.node, key.table])?,
                };
            }
            disk("state.commit")?;
            transaction.commit()
        };
        let mut write = write;
        write().map_err(|e| self.failed("written", e))?;
        failpoint::reach("state.stored");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_survive_and_a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state.db");
        let (source, table) = (StateKey::node("p", "s"), StateKey::table("p", "s", "public.t"));
        let state = SqliteState::open(&path).unwrap();
        state.store(&[(source.clone(), Some(json!({"lsn": 1}))), (table.clone(), Some(json!("x")))]).unwrap();
        state.store(&[(source.clone(), Some(json!({"lsn": 2}))), (StateKey::node("p", "other"), Some(json!(0)))]).unwrap();
        let second = SqliteState::open(&path).err().expect("the file is locked");
        assert_eq!(second.code, STATE_OPEN);
        assert!(SqliteState::open_unless_in_use(&path).unwrap().is_none());
        assert_eq!(SqliteState::open_to_read(&path).err().map(|e| e.code), Some(STATE_OPEN));
        drop(state);
        let before = std::fs::read(&path).unwrap();
        let read = SqliteState::open_to_read(&path).unwrap();
        assert_eq!(read.load(&source).unwrap(), Some(json!({"lsn": 2})));
        assert!(read.store(&[(source.clone(), None)]).is_err());
        drop(read);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let state = SqliteState::open(&path).unwrap();
        assert_eq!(state.list("p", "s").unwrap(), [(source.clone(), json!({"lsn": 2})), (table.clone(), json!("x"))]);
        state.store(&[(table.clone(), None)]).unwrap();
        assert_eq!((state.load(&table).unwrap(), state.load(&source).unwrap()), (None, Some(json!({"lsn": 2}))));
        std::fs::write(folder.path().join("not.db"), "this is no database, and long enough to have a header of one").unwrap();
        assert_eq!(SqliteState::open(&folder.path().join("not.db")).err().map(|e| e.code), Some(STATE_OPEN));
    }
}
