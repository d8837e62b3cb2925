//! Where a pipeline's state is, and the ways to open it.

use super::SqliteState;
use etl_stream_operators::contract::{CodedError, MemoryState, Secret, StateStore};
use etl_stream_operators::source::{Holder, PostgresState, StateServer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a process that holds the state is waited for: its connection may end a moment after it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a pipeline's state is.
#[derive(Clone, Debug)]
pub enum StateAt {
    /// In a SQLite file, which one process has at a time.
    Sqlite(PathBuf),
    /// In a PostgreSQL database, which several processes share.
    Postgres {
        /// The database.
        url: Secret,
        /// The schema of its table.
        schema: String,
        /// The folder of the pipeline file.
        folder: Arc<Path>,
    },
}

type Opened = Arc<dyn StateStore>;

fn server(url: &Secret, schema: &str, folder: &Path) -> Result<StateServer, CodedError> {
    Ok(StateServer { url: url.read(folder)?, schema: schema.to_owned() })
}

impl StateAt {
    /// Opens it for a process that runs the pipeline. Blocks.
    ///
    /// # Errors
    /// When it is not reached, or another process has it.
    pub fn open(&self, pipeline: &str, process: usize) -> Result<Opened, CodedError> {
        match self {
            Self::Sqlite(path) => Ok(Arc::new(SqliteState::open(path)?)),
            Self::Postgres { url, schema, folder } => {
                let holder = Holder { pipeline: pipeline.to_owned(), process };
                Ok(Arc::new(PostgresState::open(&server(url, schema, folder)?, folder, Some(holder), PATIENCE)?))
            }
        }
    }

    /// Opens it to leave a mark for the next run; where processes share it, for those that run too.
    ///
    /// # Errors
    /// As [`StateAt::open`].
    pub fn open_to_mark(&self) -> Result<Opened, CodedError> {
        match self {
            Self::Sqlite(path) => Ok(Arc::new(SqliteState::open(path)?)),
            Self::Postgres { url, schema, folder } => {
                Ok(Arc::new(PostgresState::open(&server(url, schema, folder)?, folder, None, PATIENCE)?))
            }
        }
    }

    /// Opens it to read it; nothing is made. `None`: there is none yet.
    ///
    /// # Errors
    /// As [`StateAt::open`].
    pub fn open_to_read(&self) -> Result<Option<Opened>, CodedError> {
        match self {
            Self::Sqlite(path) if !path.exists() => Ok(None),
            Self::Sqlite(path) => Ok(Some(Arc::new(SqliteState::open_to_read(path)?))),
            Self::Postgres { .. } => self.open_to_mark().map(Some),
        }
    }

    /// Opens it to read it, empty where there is none yet; `None` when a process that runs the pipeline has it.
    ///
    /// # Errors
    /// When it is not reached.
    pub fn open_unless_in_use(&self, pipeline: &str) -> Result<Option<Opened>, CodedError> {
        match self {
            Self::Sqlite(path) if !path.exists() => Ok(Some(Arc::<MemoryState>::default())),
            Self::Sqlite(path) => Ok(SqliteState::open_unless_in_use(path)?.map(|state| Arc::new(state) as Opened)),
            Self::Postgres { url, schema, folder } => {
                let holder = Holder { pipeline: pipeline.to_owned(), process: 0 };
                match PostgresState::open(&server(url, schema, folder)?, folder, Some(holder), Duration::ZERO) {
                    Ok(state) => Ok(Some(Arc::new(state))),
                    Err(error) if error.code == PostgresState::HELD => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether processes of one pipeline may share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// What no other pipeline may have as well: the file. A table has a row for each pipeline.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres { .. } => None,
        }
    }
}
