//! Where dead letters go: a table in Snowflake, a folder, or nowhere, and then a refused row stops the pipeline.
//!
//! # Guarantees
//! When [`DeadLetters::write`] returns, the letters are durable. A letter is there once.

use super::context::Shared;
use super::letter::Letter;
use super::letter_folder::LetterFolder;
use super::letter_table::{Kept, LetterTable};
use super::names::TableName;
use super::progress::ProgressKey;
use super::sql::literal;
use crate::contract::{CodedError, Token, qualified};
use std::collections::{BTreeMap, HashMap};

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum DeadLetters {
    /// A table.
    Table(TableName),
    /// A folder.
    Folder(LetterFolder),
    /// Nowhere.
    Stop,
}

/// Runs what waits for the disk beside the async threads.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T, CodedError> + Send + 'static) -> Result<T, CodedError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|e| CodedError::definite(super::errors::SF_DEAD_LETTER, "dead letters were not handled").caused_by(e))?
}

impl DeadLetters {
    /// Whether a refused row stops the pipeline.
    pub(super) fn stop(&self) -> bool {
        matches!(self, Self::Stop)
    }

    /// The tokens of a table's letters within `[low, high]`, and whether they are in the count of `rejected` rows or have
    /// no place there. Those that are not were written just before an earlier process ended.
    pub(super) async fn known(
        &self,
        shared: &Shared,
        table: &ProgressKey,
        (low, high): (Token, Token),
        rejected: u64,
    ) -> Result<HashMap<Token, bool>, CodedError> {
        match self {
            Self::Table(name) => {
                let known = LetterTable { sql: &shared.sql, name }.known(table, low, high).await?;
                Ok(known.into_iter().map(|token| (token, true)).collect())
            }
            Self::Folder(folder) => {
                let (folder, table) = (folder.clone(), table.clone());
                let known = beside(move || folder.known(&table, low, high)).await?;
                Ok(known.into_iter().map(|(token, count)| (token, count <= rejected)).collect())
            }
            Self::Stop => Ok(HashMap::new()),
        }
    }

    /// Writes a table's letters, in token order, and notes the count of rejected rows: what it was, and what it is
    /// then. Says so to the user, without a value.
    pub(super) async fn write(
        &self,
        shared: &Shared,
        table: &ProgressKey,
        letters: Vec<Letter>,
        rejected: Option<(u64, u64)>,
    ) -> Result<(), CodedError> {
        let name = shared.naming.progress();
        let progress = shared.progress(&name);
        let count = |letters: u64, all: bool| match rejected {
            Some((from, to)) => [("REJECTED", if all { to } else { to.min(from + letters) }.to_string())],
            None => [("REJECTED", "\"REJECTED\"".into())],
        };
        let by_code = letters.iter().fold(BTreeMap::<String, (u64, Token)>::new(), |mut counts, letter| {
            counts.entry(letter.code.clone()).or_insert((0, letter.token)).0 += 1;
            counts
        });
        match self {
            Self::Table(letters_table) => {
                let all = letters.len() as u64;
                // The progress row is changed first, in any case: two writers at once wait for each other there.
                let with = |done| progress.update(table, &count(done, done == all));
                LetterTable { sql: &shared.sql, name: letters_table }.write(table, &letters, with).await?;
            }
            Self::Folder(folder) => {
                let (folder, owner) = (folder.clone(), table.clone());
                beside(move || folder.write(&owner, &letters, rejected.map_or(0, |(_, to)| to))).await?;
                if rejected.is_some() {
                    progress.set(table, &count(0, true)).await?;
                }
            }
            Self::Stop => {}
        }
        let full_name = qualified(&table.schema, &table.table);
        for (code, (rows, first)) in by_code {
            tracing::warn!(table = full_name, code, rows, first = %first, "rows that Snowflake does not take went to the dead letter");
            shared.http.meter.dead_letters(&full_name, &code, rows);
        }
        Ok(())
    }

    /// The statement that removes the letters of an unfinished snapshot. Those in a folder stay: a replay finds that
    /// the next snapshot has superseded them.
    pub(super) fn forget_snapshot(&self, table: &ProgressKey, old: u64, new: u64) -> Option<String> {
        let Self::Table(name) = self else { return None };
        Some(format!(
            "DELETE FROM {} WHERE {} AND \"TOKEN\" >= {} AND \"TOKEN\" < {}",
            name.sql(),
            table.condition(),
            literal(&Token::new(old, 0).to_string()),
            literal(&Token::new(new, 0).to_string())
        ))
    }

    /// Letters of a pipeline; those that became nothing yet, unless `all`.
    pub(super) async fn read(&self, shared: &Shared, pipeline: &str, all: bool) -> Result<Vec<Kept>, CodedError> {
        match self {
            Self::Table(name) => LetterTable { sql: &shared.sql, name }.read(pipeline, all).await,
            Self::Folder(folder) => {
                let (folder, pipeline) = (folder.clone(), pipeline.to_owned());
                beside(move || folder.read(&pipeline, all)).await
            }
            Self::Stop => Ok(Vec::new()),
        }
    }

    /// Notes what became of a letter.
    pub(super) async fn mark(&self, shared: &Shared, table: &ProgressKey, token: Token, outcome: &'static str) -> Result<(), CodedError> {
        match self {
            Self::Table(name) => LetterTable { sql: &shared.sql, name }.mark(table, token, outcome).await,
            Self::Folder(folder) => {
                let (folder, table) = (folder.clone(), table.clone());
                beside(move || folder.mark(&table, token, outcome)).await
            }
            Self::Stop => Ok(()),
        }
    }
}
