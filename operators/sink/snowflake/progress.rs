//! `_ETL_STREAM_PROGRESS`: one row for each table, what of it is merged and which snapshot it holds.
//!
//! `FENCE` is the last token merged; it is changed in the transaction of the merge. `SNAPSHOT_LSN` and
//! `SNAPSHOT_DONE` tell a finished snapshot from one to be removed. `CHANNELS` is the number of channels the
//! table's rows are spread over; `REJECTED` is how many rejected rows the user has been told of. `SHAPE` is
//! what the tables were last made for; `STOPPED` says since when and why the table is not taken any more.

use super::names::{TableName, taken};
use super::plan::Places;
use super::shape::Shape;
use super::sql::{Sql, literal};
use super::stop::Stopped;
use crate::contract::{CodedError, TableSchema, Token};

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgressKey {
    /// The pipeline.
    pub(super) pipeline: String,
    /// The source.
    pub(super) source: String,
    /// The table's schema at the source.
    pub(super) schema: String,
    /// The table's name at the source.
    pub(super) table: String,
}

impl ProgressKey {
    /// The condition that selects it.
    pub(super) fn condition(&self) -> String {
        format!(
            "\"PIPELINE\" = {} AND \"SOURCE\" = {} AND \"TABLE_SCHEMA\" = {} AND \"TABLE_NAME\" = {}",
            literal(&self.pipeline),
            literal(&self.source),
            literal(&self.schema),
            literal(&self.table)
        )
    }
}

/// The row's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything up to it is merged.
    pub(super) fence: Token,
    /// LSN of the last snapshot that was begun.
    pub(super) snapshot: Option<u64>,
    /// Whether it was finished.
    pub(super) snapshot_done: bool,
    /// Stored names of the key's columns.
    pub(super) key: Vec<String>,
    /// How many channels.
    pub(super) channels: usize,
    /// Rejected rows that are known of.
    pub(super) rejected: u64,
    /// What the tables were last made for.
    pub(super) shape: Option<Shape>,
    /// Since when and why its rows are not taken.
    pub(super) stopped: Option<Stopped>,
}

const COLUMNS: &str = "\"PIPELINE\", \"SOURCE\", \"TABLE_SCHEMA\", \"TABLE_NAME\", \"FENCE\", \"SNAPSHOT_LSN\", \"SNAPSHOT_DONE\", \
                       \"KEY_COLUMNS\", \"CHANNELS\", \"REJECTED\", \"SHAPE\", \"STOPPED\"";

pub(super) fn read(row: &[Option<String>]) -> (ProgressKey, Progress) {
    let cell = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
    let number = |at: usize| cell(at).parse().unwrap_or(0);
    let key = ProgressKey { pipeline: cell(0).into(), source: cell(1).into(), schema: cell(2).into(), table: cell(3).into() };
    let progress = Progress {
        fence: cell(4).parse().unwrap_or(Token::ZERO),
        snapshot: u64::from_str_radix(cell(5), 16).ok(),
        snapshot_done: cell(6) == "true",
        key: serde_json::from_str(cell(7)).unwrap_or_default(),
        channels: (number(8) as usize).max(1),
        rejected: number(9),
        shape: serde_json::from_str(cell(10)).ok(),
        stopped: Stopped::read(cell(11)),
    };
    (key, progress)
}

/// The text of a snapshot's LSN.
pub(super) fn lsn_text(lsn: u64) -> String {
    format!("{lsn:016x}")
}

/// The bookkeeping table.
pub(super) struct ProgressTable<'a> {
    /// Runs the statements.
    pub(super) sql: &'a Sql,
    /// Its name.
    pub(super) name: &'a TableName,
}

impl ProgressTable<'_> {
    /// Reads a table's row, or makes it.
    ///
    /// # Errors
    /// `SF0005` when the target, or the landing table, is another table's.
    pub(super) async fn open(
        &self,
        key: &ProgressKey,
        table: &TableSchema,
        places: &Places,
        key_columns: &[String],
        channels: usize,
        merge: bool,
    ) -> Result<Progress, CodedError> {
        let doing = format!("reading the progress of table \"{}\"", table.full_name());
        let target = places.target.sql();
        // The tables that would meet this one: with the same target, and with a target where one of us lands.
        let lands = places.landing.sql();
        let landed = places.lands_at().map_or_else(|| target.clone(), |other| other.sql());
        let query = format!("SELECT {COLUMNS}, \"TARGET\" FROM {} WHERE \"TARGET\" IN (?, ?, ?)", self.name.sql());
        let rows = self.sql.query(&doing, &query, &[&target, &lands, &landed]).await?;
        let mut own = None;
        for row in &rows {
            let (other, progress) = read(row);
            let same = row.last().and_then(Option::as_deref) == Some(&target);
            if !same && (!merge || (&other.source, &other.schema, &other.table) == (&key.source, &key.schema, &key.table)) {
                continue;
            }
            if other == *key {
                own = Some(progress);
            } else if (&other.source, &other.schema, &other.table) != (&key.source, &key.schema, &key.table) {
                return Err(taken(&places.target, table, (&other.source, &other.schema, &other.table)));
            } else {
                let pipeline = format!("{} (pipeline \"{}\")", other.source, other.pipeline);
                return Err(taken(&places.target, table, (&pipeline, &other.schema, &other.table)));
            }
        }
        let names = serde_json::Value::from(key_columns.to_vec()).to_string();
        if let Some(progress) = own {
            return Ok(progress);
        }
        let insert = format!(
            "INSERT INTO {name} ({COLUMNS}, \"TARGET\", \"UPDATED_AT\") SELECT {}, {}, {}, {}, {}, NULL, FALSE, {}, {channels}, 0, NULL, NULL, {}, CURRENT_TIMESTAMP() \
             WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE {})",
            literal(&key.pipeline),
            literal(&key.source),
            literal(&key.schema),
            literal(&key.table),
            literal(&Token::ZERO.to_string()),
            literal(&names),
            literal(&target),
            key.condition(),
            name = self.name.sql(),
        );
        self.sql.run_all(&doing, &[insert]).await?;
        Ok(Progress {
            fence: Token::ZERO,
            snapshot: None,
            snapshot_done: false,
            key: key_columns.to_vec(),
            channels,
            rejected: 0,
            shape: None,
            stopped: None,
        })
    }

    /// Every row of a source.
    pub(super) async fn of_source(&self, pipeline: &str, source: &str) -> Result<Vec<(ProgressKey, Progress)>, CodedError> {
        let query = format!("SELECT {COLUMNS} FROM {} WHERE \"PIPELINE\" = ? AND \"SOURCE\" = ?", self.name.sql());
        let rows = self.sql.query(&format!("reading the progress of source \"{source}\""), &query, &[pipeline, source]).await?;
        Ok(rows.iter().map(|row| read(row)).collect())
    }

    /// Which table has which target, over all pipelines.
    pub(super) async fn owners(&self) -> Result<Vec<(ProgressKey, String)>, CodedError> {
        let query = format!("SELECT {COLUMNS}, \"TARGET\" FROM {}", self.name.sql());
        let rows = self.sql.query("reading the bookkeeping table", &query, &[]).await?;
        Ok(rows.iter().map(|row| (read(row).0, row.last().cloned().flatten().unwrap_or_default())).collect())
    }

    /// Reads a row again.
    pub(super) async fn read(&self, key: &ProgressKey) -> Result<Option<Progress>, CodedError> {
        let query = format!("SELECT {COLUMNS} FROM {} WHERE {}", self.name.sql(), key.condition());
        let rows = self.sql.query(&format!("reading the progress of table \"{}.{}\"", key.schema, key.table), &query, &[]).await?;
        Ok(rows.first().map(|row| read(row).1))
    }

    /// The statement that sets columns of a row, given as SQL.
    pub(super) fn update(&self, key: &ProgressKey, values: &[(&str, String)]) -> String {
        let set: Vec<String> = values.iter().map(|(column, value)| format!("\"{column}\" = {value}")).collect();
        format!("UPDATE {} SET {}, \"UPDATED_AT\" = CURRENT_TIMESTAMP() WHERE {}", self.name.sql(), set.join(", "), key.condition())
    }

    /// Sets columns of a row.
    pub(super) async fn set(&self, key: &ProgressKey, values: &[(&str, String)]) -> Result<(), CodedError> {
        let doing = format!("writing the progress of table \"{}.{}\"", key.schema, key.table);
        self.sql.run_all(&doing, &[self.update(key, values)]).await.map(|_| ())
    }
}
