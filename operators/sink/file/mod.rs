//! Rows as files of a folder, each row in one file.
//!
//! ```text
//! Delivery ──> lane of its table ──> <path>/<schema>.<table>/<first token>-<last token>.ndjson | .parquet
//! ```
//!
//! # Guarantees
//! Exactly once: a reader of `*.ndjson` sees each change once, whatever crashed. A file appears when it is
//! complete and on disk, and does not change; what starts with a dot is not for readers. Files of a table
//! sort by name in the order of its changes; the folders of two tables know nothing of each other. One
//! process at a time writes a folder.
//!
//! A file takes any row, so there are no dead letters here. What can fail is a whole file (the disk, the folder): that is
//! tried again and then ends the run, and nothing is acknowledged.

mod codes;
mod contents;
mod encode;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod names;
mod owner;
mod parquet;
#[cfg(test)]
mod tests;
mod writer;

pub use codes::{FILE_FAILED, FOLDER_LOCKED, FOLDER_OF_ANOTHER, FOLDER_UNUSABLE, ROWS_REFUSED, SETTING};

use super::{batch_limits, line::check_columns};
use crate::contract::{
    BatchSettings, BuildContext, ByteSize, CheckContext, Checks, CodedError, Contents, Findings, NodeConfig, Period, RetrySettings, Sink,
    SinkConfig, TableSchema, Writer, WriterContext,
};
use crate::writable::writable;
use async_trait::async_trait;
use contents::FolderContents;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use writer::{Claims, FileWriter};

const BATCH: BatchSettings = BatchSettings::new(100_000, ByteSize::mib(16), Period::millis(1_000));

/// The zstd level of Parquet pages: beyond it, time grows faster than files shrink.
const COMPRESSION_LEVEL: i32 = 3;

/// Levels that zstd has.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

/// The file in the sink's folder that is locked while a pipeline writes there.
const LOCK: &str = ".lock";

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// A JSON object a line, values as PostgreSQL's `to_jsonb` spells them.
    #[default]
    Ndjson,
    /// Apache Parquet, compressed with zstd.
    Parquet,
}

/// Settings of the `file` sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The folder, made if absent; a relative one starts at the pipeline file's.
    pub path: PathBuf,
    /// What a file holds.
    #[serde(default)]
    pub format: FileFormat,
    /// zstd level of Parquet files, 1 to 22. Default: 3.
    #[serde(default)]
    pub compression_level: Option<i32>,
    /// When a batch is sealed; each makes a file.
    #[serde(default)]
    pub batch: Option<BatchSettings>,
    /// How a full disk and the like are met.
    #[serde(default)]
    pub retry: RetrySettings,
}

impl NodeConfig for FileConfig {
    const TYPE: &'static str = "file";
    const SUMMARY: &'static str = "Writes rows to NDJSON or Parquet files, each row once";
    const EXAMPLE: &'static str = "path: ./out\nformat: parquet\nbatch: { max_bytes: 64MiB, max_age: 1m }\n";

    fn check(&self, findings: &mut Findings) {
        if let Some(level) = self.compression_level {
            if !COMPRESSION_LEVELS.contains(&level) {
                findings.push(SETTING, "/compression_level", format!("{level} is no zstd level"), Some("write one from 1 to 22".into()));
            }
            if self.format == FileFormat::Ndjson {
                let help = Some("write `format: parquet`, or leave the level out".into());
                findings.push(SETTING, "/compression_level", "NDJSON files are not compressed", help);
            }
        }
        if self.path.as_os_str().is_empty() {
            findings.push(SETTING, "/path", "the path is empty", Some("write a folder, such as ./out".into()));
        }
    }
}

impl SinkConfig for FileConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(FileSink {
            settings: Arc::new(Settings {
                root: cx.path(&self.path),
                format: self.format,
                level: self.compression_level.unwrap_or(COMPRESSION_LEVEL),
                retry: self.retry,
            }),
            batch: batch_limits(self.batch, BATCH),
            claims: Arc::default(),
            lock: Mutex::default(),
        }))
    }
}

/// What the writers share.
struct Settings {
    root: PathBuf,
    format: FileFormat,
    level: i32,
    retry: RetrySettings,
}

struct FileSink {
    settings: Arc<Settings>,
    batch: BatchSettings,
    claims: Arc<Claims>,
    /// Locked while the sink lives; the system unlocks it however the process ends.
    lock: Mutex<Vec<File>>,
}

fn unusable(root: &Path, error: std::io::Error) -> CodedError {
    CodedError::definite(FOLDER_UNUSABLE, format!("folder \"{}\" could not be made or written", root.display()))
        .hint("let the pipeline's user write there, or give the sink another `path`")
        .caused_by(error)
}

/// Makes the folder and locks it.
///
/// The processes of one pipeline share the folder, each with tables of its own: all hold the lock with the others, and each
/// one beside it that is its own.
fn lock(root: &Path, place: Option<usize>) -> Result<Vec<File>, CodedError> {
    fs::create_dir_all(root).map_err(|e| unusable(root, e))?;
    let open = |name: &str| File::options().create(true).truncate(false).write(true).open(root.join(name)).map_err(|e| unusable(root, e));
    let all = open(LOCK)?;
    let Some(process) = place else { return hold(root, &all).map(|()| vec![all]) };
    taken(root, all.try_lock_shared())?;
    let own = open(&format!("{LOCK}-{process}"))?;
    hold(root, &own).map(|()| vec![all, own])
}

fn hold(root: &Path, file: &File) -> Result<(), CodedError> {
    taken(root, file.try_lock())
}

fn taken(root: &Path, lock: Result<(), TryLockError>) -> Result<(), CodedError> {
    match lock {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) => Err(unusable(root, error)),
        Err(TryLockError::WouldBlock) => {
            let message = format!("folder \"{}\" is being written by another pipeline or process", root.display());
            Err(CodedError::definite(FOLDER_LOCKED, message).hint("stop the other one, or give this sink another `path`"))
        }
    }
}

/// Whether the folder could be made, written and locked; true: a process of the pipeline has it.
fn free(root: &Path, runs: bool) -> Result<bool, CodedError> {
    writable(root).map_err(|e| unusable(root, e))?;
    match File::options().write(true).open(root.join(LOCK)) {
        Ok(file) => match hold(root, &file) {
            Err(error) if runs && error.code == FOLDER_LOCKED => Ok(true),
            held => held.map(|()| false),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(root, error)),
    }
}

#[async_trait]
impl Sink for FileSink {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    async fn prepare(&self, cx: &WriterContext) -> Result<(), CodedError> {
        let (root, place) = (self.settings.root.clone(), (cx.processes > 1).then_some(cx.process));
        let locked = tokio::task::spawn_blocking(move || lock(&root, place)).await;
        let locked = locked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = locked;
        Ok(())
    }

    async fn check(&self, cx: &CheckContext, tables: &[Arc<TableSchema>], checks: &mut Checks) {
        let root = &self.settings.root;
        match free(root, cx.state.is_none()) {
            Ok(true) => checks.fine(format!("folder \"{}\" is being written: the pipeline runs", root.display())),
            Ok(false) => checks.fine(format!("folder \"{}\" can be written", root.display())),
            Err(error) => checks.wrong(error),
        }
        for table in tables {
            checks.take(check_columns(table));
        }
    }

    fn contents(&self, _: &str) -> Option<Box<dyn Contents>> {
        Some(Box::new(FolderContents(Arc::clone(&self.settings))))
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        Box::new(FileWriter::new(Arc::clone(&self.settings), Arc::clone(&self.claims), cx))
    }
}
