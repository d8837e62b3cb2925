//! Plays a recorded stream: the bytes that a server sent once.
//!
//! ```text
//! slot ──record──> file ──reader──> payloads and schemas ──postgres::Player: frame, assemble──> dataflow
//! ```
//! # Guarantees
//! Rows, tokens and schemas are those that the running source gave, or would have given; so are the commit times, unless
//! there is a `rate`. The stream ends, and is caught up, with the file. A run goes on where what is durable ends. A file
//! that is not whole is refused before its first row.

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod paced;
mod reader;
mod record;

pub use file::Captured;
pub use record::{Capture, record};

use super::postgres::{Player, Relation};
use crate::contract::{BuildContext, Code, CodedError, Exit, Findings, Lsn, NodeConfig, Source, SourceConfig, SourceContext};
use async_trait::async_trait;
use file::{CaptureError, END_BYTES};
use paced::Paced;
use reader::CaptureReader;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file cannot be read.
pub(crate) const NOT_READ: Code = Code::new("REC0001", Exit::Environment);
/// The file is not a whole capture.
pub(crate) const NOT_A_CAPTURE: Code = Code::new("REC0002", Exit::Environment);
/// The file cannot be written.
pub(crate) const NOT_WRITTEN: Code = Code::new("REC0003", Exit::Environment);
/// A setting that cannot work.
pub(crate) const CFG_REPLAY: Code = Code::new("CFG0042", Exit::Usage);

fn file_error(code: Code, path: &Path, what: &str, error: io::Error) -> CodedError {
    CodedError::definite(code, format!("capture \"{}\" {what}", path.display())).caused_by(error)
}

fn broken(path: &Path, error: CaptureError) -> CodedError {
    CodedError::definite(NOT_A_CAPTURE, format!("\"{}\" is not a whole capture: {error}", path.display()))
        .hint("record one with `etl-stream bench capture`")
}

/// A relation's message without its schema before it.
fn undescribed(relation: &Relation) -> CodedError {
    let message = format!("the capture has no schema of table \"{}.{}\" before its description", relation.schema, relation.name);
    CodedError::definite(NOT_A_CAPTURE, message).hint("record it again with `etl-stream bench capture`")
}

/// Settings of the `replay` source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// The file, recorded by `etl-stream bench capture`; a relative one starts at the pipeline file's folder.
    pub path: PathBuf,
    /// Changes a second; a transaction's commit time is then the moment it was due. Default: as fast as they are taken, with
    /// the commit times of the recording.
    #[serde(default)]
    pub rate: Option<u32>,
}

impl NodeConfig for ReplayConfig {
    const TYPE: &'static str = "replay";
    const SUMMARY: &'static str = "plays a stream that was recorded from a PostgreSQL slot";
    const EXAMPLE: &'static str = "path: ./orders.capture\n";

    fn check(&self, findings: &mut Findings) {
        if self.rate == Some(0) {
            findings.push(CFG_REPLAY, "/rate", "0 gives nothing", Some("write 1 or more".into()));
        }
        if self.path.as_os_str().is_empty() {
            findings.push(CFG_REPLAY, "/path", "the path is empty", Some("write a file, such as ./orders.capture".into()));
        }
    }
}

impl SourceConfig for ReplayConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Replay { path: cx.path(&self.path), rate: self.rate, name: Arc::clone(&cx.node) }))
    }
}

struct Replay {
    path: PathBuf,
    rate: Option<u32>,
    name: Arc<str>,
}

/// Reads what a capture has, from its end.
///
/// # Errors
/// `REC0001` and `REC0002`.
pub fn inspect(path: &Path) -> Result<Captured, CodedError> {
    let end = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES as u64)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    let end = end().map_err(|e| file_error(NOT_READ, path, "was not read", e))?;
    file::last(&end).map_err(|e| broken(path, e))
}

#[async_trait]
impl Source for Replay {
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<(), CodedError> {
        let captured = inspect(&self.path)?;
        let title =
            format!("a capture of {} changes in {} transactions up to {}", captured.changes, captured.transactions, Lsn(captured.end_lsn));
        let mut player = Player::start(cx, title, Some(captured.end_lsn))?;
        player.stream()?;
        let failed = |e: io::Error| file_error(NOT_READ, &self.path, "was not read", e);
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut reader = CaptureReader::default();
        let mut piece = vec![0; Player::ROOM];
        let mut paced = Paced::new(Arc::clone(&self.name), self.rate);
        loop {
            let held = player.room().await?;
            // Short and from the page cache, as a benchmark wants it; otherwise no slower than a socket's reader is.
            let read = file.read(&mut piece).map_err(failed)?;
            if read == 0 {
                break;
            }
            let records = reader.push(piece.get(..read).unwrap_or_default()).map_err(|e| broken(&self.path, e))?;
            if !paced.play(&mut player, records, held).await? {
                return player.finish().await;
            }
        }
        reader.end().map_err(|e| broken(&self.path, e))?;
        player.finish().await
    }
}
