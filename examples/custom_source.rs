//! A binary with a source of its own: `lines` gives the lines of a text file as rows of a table `files.lines`.
//!
//! ```text
//! file ──line by line──> (number bigint, line text)      token: the byte where the line ends
//! ```
//! A line's token is its place in the file, the same whenever it is read again. A run goes on behind the last line of the one
//! before; after a crash what that one read comes again, and a sink drops what it has. Lines may be added between two runs.

use etl_stream::arrow::array::{Int64Array, StringArray};
use etl_stream::{
    BuildContext, Cells, Chunk, Code, CodedError, Column, ColumnType, Exit, Item, NodeConfig, Op, PgType, Phase, RawItem, Registry,
    ReplicaIdentity, RowBatch, Source, SourceConfig, SourceContext, StateKey, TableSchema, Ts, async_trait,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

const NOT_READ: Code = Code::new("LINES1", Exit::Environment);

/// Lines in a chunk.
const CHUNK: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinesConfig {
    /// The file; a relative one starts at the pipeline file's folder.
    path: PathBuf,
}

impl NodeConfig for LinesConfig {
    const TYPE: &'static str = "lines";
    const SUMMARY: &'static str = "gives the lines of a text file";
    const EXAMPLE: &'static str = "path: ./app.log\n";
}

impl SourceConfig for LinesConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Lines { path: cx.path(&self.path), table: Arc::new(table(&cx.node)) }))
    }
}

/// How far the file is durable: what the state keeps.
#[derive(Clone, Copy, Default, Deserialize, Serialize)]
struct Read {
    bytes: u64,
    lines: u64,
}

struct Lines {
    path: PathBuf,
    table: Arc<TableSchema>,
}

fn table(source: &Arc<str>) -> TableSchema {
    let column = |name: &str, ty, oid, pg: &str, key| Column {
        name: name.into(),
        ty,
        pg_type: PgType { oid, modifier: -1, name: pg.into() },
        nullable: false,
        key,
        missing: None,
        number: None,
        filled: false,
    };
    TableSchema {
        source: Arc::clone(source),
        id: 1,
        schema: "files".into(),
        name: "lines".into(),
        columns: vec![column("number", ColumnType::Int8, 20, "bigint", Some(0)), column("line", ColumnType::Text, 25, "text", None)],
        identity: ReplicaIdentity::Default,
        storage: None,
    }
}

impl Lines {
    fn failed(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CodedError {
        CodedError::definite(NOT_READ, format!("file \"{}\" was not read", self.path.display())).caused_by(error)
    }

    /// The next lines as rows, and where they end; a last line without its end is left for the next run.
    fn next(&self, file: &mut BufReader<File>, from: Read) -> Result<(RowBatch, Read), CodedError> {
        let (mut texts, mut ends, mut at) = (Vec::new(), Vec::<Read>::new(), from);
        while texts.len() < CHUNK {
            let mut line = String::new();
            let length = file.read_line(&mut line).map_err(|error| self.failed(error))?;
            if !line.ends_with('\n') {
                break;
            }
            at = Read { bytes: at.bytes + length as u64, lines: at.lines + 1 };
            ends.push(at);
            texts.push(line.trim_end().to_owned());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64);
        let batch = RowBatch {
            table: Arc::clone(&self.table),
            columns: vec![
                Arc::new(ends.iter().map(|end| end.lines as i64).collect::<Int64Array>()),
                Arc::new(texts.iter().map(Some).collect::<StringArray>()),
            ],
            ops: ends.iter().map(|_| Op::Insert.letter()).collect(),
            commit_lsn: ends.iter().map(|end| end.bytes).collect(),
            ordinal: ends.iter().map(|_| 0).collect(),
            commit_time: ends.iter().map(|_| now).collect(),
            unchanged: Cells::default(),
            exact: Cells::default(),
        };
        Ok((batch, at))
    }
}

#[async_trait]
impl Source for Lines {
    async fn run(self: Box<Self>, mut cx: SourceContext) -> Result<(), CodedError> {
        let key = StateKey::node(&cx.pipeline, &cx.source);
        let kept = cx.state.load(&key)?.map(serde_json::from_value::<Read>);
        let mut at = kept.transpose().map_err(|error| self.failed(error))?.unwrap_or_default();
        let mut file = BufReader::new(File::open(&self.path).map_err(|error| self.failed(error))?);
        file.seek(SeekFrom::Start(at.bytes)).map_err(|error| self.failed(error))?;
        cx.source_status.set_phase(Phase::Streaming, None);
        while !*cx.stop.borrow() {
            let (batch, end) = self.next(&mut file, at)?;
            if batch.is_empty() {
                break;
            }
            let credit = u32::try_from(end.bytes - at.bytes).map_err(|error| self.failed(error))?.min(1 << 20);
            // Before it goes on: bytes in flight are bounded by this alone.
            cx.credits.take(credit).await;
            cx.source_status.changes.fetch_add(batch.len() as u64, Ordering::Relaxed);
            cx.source_status.bytes.fetch_add(end.bytes - at.bytes, Ordering::Relaxed);
            at = end;
            if cx.out.send(Chunk { items: vec![RawItem::Ready(Item::Rows(batch))], upper: Ts::after(at.bytes), credit }).is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // No more comes; when all of it is durable in every sink, and only then, the next run goes on behind it.
        drop(cx.out);
        match cx.durable.wait_for(|durable| durable.finished).await {
            Ok(_) => cx.state.store(&[(key, Some(serde_json::json!(at)))]),
            Err(_) => Ok(()),
        }
    }
}

pub(crate) fn registry() -> Registry {
    Registry::builtin().source::<LinesConfig>()
}

fn main() -> ExitCode {
    etl_stream::cli::main(registry())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream::Kind;
    use etl_stream::testing::comply::Subject;
    use std::io::Write;

    #[test]
    fn complies() {
        let folder = tempfile::tempdir().expect("a folder of the test");
        let path = folder.path().join("app.log");
        let add = || {
            let mut file = File::options().create(true).append(true).open(&path).expect("a file of the test");
            (0..2_500).for_each(|line| writeln!(file, "line {line}").expect("room on the disk"));
        };
        add();
        Subject::of(&registry(), Kind::Source, "lines").folder(folder.path()).changes(add).comply();
    }
}
