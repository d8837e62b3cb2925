//! A binary with a sink of its own: `ledger` appends a line for each row to one file, exactly once.
//!
//! ```text
//! Delivery ──> ledger      public.orders u 0000000001a2b3c4/0000000000000002
//! ```
//! The file itself says how far each table has come, so that what comes again after a crash is left out. A line that a crash
//! cut is cut off at the start.

use etl_stream::{
    BatchSettings, BuildContext, ByteSize, Code, CodedError, Deliveries, Delivery, Exit, NodeConfig, Period, Registry, Sink, SinkConfig,
    Tally, Token, Writer, WriterContext, async_trait, batch_limits,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// A code of your own: letters that the program itself does not use.
const NOT_WRITTEN: Code = Code::new("LEDGER1", Exit::Failure);

const BATCH: BatchSettings = BatchSettings::new(10_000, ByteSize::mib(8), Period::millis(500));

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LedgerConfig {
    /// The file; a relative one starts at the pipeline file's folder.
    path: PathBuf,
    /// When a batch is sealed.
    #[serde(default)]
    batch: Option<BatchSettings>,
}

impl NodeConfig for LedgerConfig {
    const TYPE: &'static str = "ledger";
    const SUMMARY: &'static str = "appends a line for each row to one file";
    const EXAMPLE: &'static str = "path: ./ledger.txt\n";
}

impl SinkConfig for LedgerConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Ledger { path: cx.path(&self.path), batch: batch_limits(self.batch, BATCH), book: Arc::default() }))
    }
}

/// The file, and the last token of each table in it. Shared by the writers of all sources and workers.
#[derive(Default)]
struct Book(Option<File>, HashMap<String, Token>);

struct Ledger {
    path: PathBuf,
    batch: BatchSettings,
    book: Arc<Mutex<Book>>,
}

impl Ledger {
    fn failed(&self, error: io::Error) -> CodedError {
        CodedError::definite(NOT_WRITTEN, format!("ledger \"{}\" was not written", self.path.display())).caused_by(error)
    }
}

fn open(path: &Path) -> io::Result<Book> {
    let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    let mut last = HashMap::new();
    for line in text[..whole].lines() {
        if let [table, _, token] = line.rsplitn(3, ' ').collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>()[..] {
            last.insert(table.to_owned(), token.parse().map_err(io::Error::other)?);
        }
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(whole as u64)?;
    Ok(Book(Some(file), last))
}

#[async_trait]
impl Sink for Ledger {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        *self.book.lock().unwrap_or_else(PoisonError::into_inner) = open(&self.path).map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        let same = Self { path: self.path.clone(), batch: self.batch, book: Arc::clone(&self.book) };
        Box::new(Clerk { tally: Tally::new(&cx), ledger: same })
    }
}

struct Clerk {
    tally: Tally,
    ledger: Ledger,
}

#[async_trait]
impl Writer for Clerk {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        while let Some(delivery) = deliveries.recv().await {
            match delivery {
                Delivery::Rows { batch, ack } => {
                    let mut book = self.ledger.book.lock().unwrap_or_else(PoisonError::into_inner);
                    let Book(Some(file), last) = &mut *book else { continue };
                    let table = batch.table.full_name();
                    let new = last.get(&table).map_or_else(|| batch.clone(), |last| batch.after(*last));
                    let line = |row: usize| format!("{table} {} {}\n", char::from(new.op(row).letter()), new.token(row));
                    let text: String = (0..new.len()).map(line).collect();
                    // On the disk first; acknowledged then, and never otherwise.
                    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
                    written.map_err(|error| self.ledger.failed(error))?;
                    new.last_token().map(|token| last.insert(table, token));
                    self.tally.committed(batch.len() as u64, text.len() as u64);
                    ack.durable();
                }
                // A copy of a table: the lines before it stay, as history.
                Delivery::Mark { ack, .. } => ack.durable(),
                Delivery::Upper(_) => {}
            }
        }
        Ok(())
    }
}

pub(crate) fn registry() -> Registry {
    Registry::builtin().sink::<LedgerConfig>()
}

fn main() -> ExitCode {
    etl_stream::cli::main(registry())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream::Kind;
    use etl_stream::testing::comply::{Held, Subject};

    #[test]
    fn complies() {
        let folder = tempfile::tempdir().expect("a folder of the test");
        let path = folder.path().join("ledger.txt");
        let held = move || {
            let mut held = Held::new();
            for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
                let (table, token) = (line.split(' ').next().unwrap_or_default(), line.rsplit(' ').next().unwrap_or_default());
                held.entry(table.to_owned()).or_default().push(token.parse().expect("a token"));
            }
            held
        };
        Subject::of(&registry(), Kind::Sink, "ledger").folder(folder.path()).held(held).comply();
    }
}
