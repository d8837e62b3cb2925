//! Dead letters in a Snowflake table: `_ETL_STREAM_DEAD_LETTER`, through the SQL API.
//!
//! A letter's line is cut into parts, a row each, since a statement's text may have 1 MB; `PART` counts from 1 to
//! `PARTS`. A letter whose last part is there is whole: parts are written in order.
//!
//! # Guarantees
//! A part is written once, however often it is tried: its table, token and number say which it is. The count of
//! rejected rows is written in the same transaction: a whole letter is counted, and none is twice.

use super::letter::Letter;
use super::names::TableName;
use super::progress::ProgressKey;
use super::sql::{Sql, literal};
use crate::contract::{CodedError, Token};
use std::collections::HashSet;

/// Bytes of one part. Quoting may double them.
const PART: usize = 150_000;
/// Bytes of one statement's values.
const STATEMENT: usize = 300_000;
/// Rows of one statement.
const ROWS: usize = 1_000;

/// A letter as it is read back.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Whose it is.
    pub(super) table: ProgressKey,
    /// What it says.
    pub(super) letter: Letter,
    /// What became of it; empty until it was sent again.
    pub(super) outcome: String,
}

/// See the module.
pub(super) struct LetterTable<'a> {
    /// Runs the statements.
    pub(super) sql: &'a Sql,
    /// Its name.
    pub(super) name: &'a TableName,
}

/// Creates the table.
pub(super) fn create(name: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\"PIPELINE\" VARCHAR, \"SOURCE\" VARCHAR, \"TABLE_SCHEMA\" VARCHAR, \"TABLE_NAME\" VARCHAR, \
         \"TOKEN\" VARCHAR, \"OP\" VARCHAR, \"KEY\" VARCHAR, \"CODE\" VARCHAR, \"REASON\" VARCHAR, \"PART\" NUMBER(9,0), \
         \"PARTS\" NUMBER(9,0), \"ROW\" VARCHAR, \"WRITTEN_AT\" TIMESTAMP_TZ(6), \"OUTCOME\" VARCHAR, \"REPLAYED_AT\" TIMESTAMP_TZ(6))",
        name.sql()
    )
}

/// Cuts a text into pieces of at most `limit` bytes, at characters; one piece at least.
fn pieces(text: &str, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > limit {
        let at = (1..=limit).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// A part of a letter as a row of values.
fn value(letter: &Letter, part: usize, parts: usize, row: &str) -> String {
    let token = letter.token.to_string();
    let op = letter.op.to_string();
    let texts = [&token, &op, &letter.key, &letter.code, &letter.reason].map(|text| literal(text)).join(", ");
    format!("({texts}, {part}, {parts}, {})", literal(row))
}

impl LetterTable<'_> {
    /// The tokens of a table's letters within `[low, high]`.
    pub(super) async fn known(&self, table: &ProgressKey, low: Token, high: Token) -> Result<HashSet<Token>, CodedError> {
        let query = format!(
            "SELECT \"TOKEN\" FROM {} WHERE {} AND \"PART\" = \"PARTS\" AND \"TOKEN\" >= ? AND \"TOKEN\" <= ?",
            self.name.sql(),
            table.condition()
        );
        let rows = self.sql.query("reading the dead letters", &query, &[&low.to_string(), &high.to_string()]).await?;
        Ok(rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect())
    }

    /// Writes letters that are not there. `with` gives the statement that notes that so many
    /// of them are.
    pub(super) async fn write(&self, table: &ProgressKey, letters: &[Letter], with: impl Fn(u64) -> String) -> Result<(), CodedError> {
        let doing = format!("writing dead letters of table \"{}.{}\"", table.schema, table.table);
        let mut values: Vec<String> = Vec::new();
        let mut size = 0;
        for (whole, letter) in (0..).zip(letters) {
            let parts = pieces(&letter.row, PART);
            for (at, part) in parts.iter().enumerate() {
                let value = value(letter, at + 1, parts.len(), part);
                if size + value.len() > STATEMENT && !values.is_empty() || values.len() >= ROWS {
                    let insert = self.insert(table, &values);
                    self.sql.transaction(&doing, vec![with(whole), insert]).await?;
                    values.clear();
                    size = 0;
                }
                size += value.len();
                values.push(value);
            }
        }
        let insert = (!values.is_empty()).then(|| self.insert(table, &values));
        let last = std::iter::once(with(letters.len() as u64)).chain(insert).collect();
        self.sql.transaction(&doing, last).await.map(|_| ())
    }

    fn insert(&self, table: &ProgressKey, values: &[String]) -> String {
        let name = self.name.sql();
        let whose = [&table.pipeline, &table.source, &table.schema, &table.table].map(|text| literal(text)).join(", ");
        format!(
            "INSERT INTO {name} (\"PIPELINE\", \"SOURCE\", \"TABLE_SCHEMA\", \"TABLE_NAME\", \"TOKEN\", \"OP\", \"KEY\", \"CODE\", \
             \"REASON\", \"PART\", \"PARTS\", \"ROW\", \"WRITTEN_AT\") \
             SELECT {whose}, v.T, v.O, v.K, v.C, v.R, v.P, v.N, v.W, CURRENT_TIMESTAMP() FROM (VALUES {}) AS v (T, O, K, C, R, P, N, W) \
             WHERE NOT EXISTS (SELECT 1 FROM {name} AS d WHERE d.\"PIPELINE\" = {} AND d.\"SOURCE\" = {} AND d.\"TABLE_SCHEMA\" = {} \
             AND d.\"TABLE_NAME\" = {} AND d.\"TOKEN\" = v.T AND d.\"PART\" = v.P)",
            values.join(", "),
            literal(&table.pipeline),
            literal(&table.source),
            literal(&table.schema),
            literal(&table.table),
        )
    }

    /// Whole letters of a pipeline, in the order of tables and tokens; those that became nothing yet, unless `all`.
    pub(super) async fn read(&self, pipeline: &str, all: bool) -> Result<Vec<Kept>, CodedError> {
        let open = if all { "" } else { " AND \"OUTCOME\" IS NULL" };
        let query = format!(
            "SELECT \"SOURCE\", \"TABLE_SCHEMA\", \"TABLE_NAME\", \"TOKEN\", \"OP\", \"KEY\", \"CODE\", \"REASON\", \"PART\", \"PARTS\", \
             \"ROW\", \"OUTCOME\" FROM {} WHERE \"PIPELINE\" = ?{open} ORDER BY \"SOURCE\", \"TABLE_SCHEMA\", \"TABLE_NAME\", \"TOKEN\", \"PART\"",
            self.name.sql()
        );
        let mut kept: Vec<Kept> = Vec::new();
        let mut text = String::new();
        for row in self.sql.query("reading the dead letters", &query, &[pipeline]).await? {
            let cell = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let Ok(token) = cell(3).parse() else { continue };
            if cell(8) == "1" {
                text.clear();
            }
            text.push_str(cell(10));
            if cell(8) != cell(9) {
                continue;
            }
            let table = ProgressKey { pipeline: pipeline.into(), source: cell(0).into(), schema: cell(1).into(), table: cell(2).into() };
            let letter = Letter {
                token,
                op: cell(4).chars().next().unwrap_or('?'),
                key: cell(5).into(),
                code: cell(6).into(),
                reason: cell(7).into(),
                row: std::mem::take(&mut text),
            };
            kept.push(Kept { table, letter, outcome: cell(11).into() });
        }
        Ok(kept)
    }

    /// The statement that notes what became of a letter.
    pub(super) async fn mark(&self, table: &ProgressKey, token: Token, outcome: &str) -> Result<(), CodedError> {
        let statement = format!(
            "UPDATE {} SET \"OUTCOME\" = {}, \"REPLAYED_AT\" = CURRENT_TIMESTAMP() WHERE {} AND \"TOKEN\" = {}",
            self.name.sql(),
            literal(outcome),
            table.condition(),
            literal(&token.to_string())
        );
        self.sql.run_all("marking a dead letter", &[statement]).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces() {
        for (text, limit, expected) in [
            ("", 3, vec![""]),
            ("abc", 3, vec!["abc"]),
            ("abcd", 3, vec!["abc", "d"]),
            ("aéé", 2, vec!["a", "é", "é"]),
            ("éé", 3, vec!["é", "é"]),
        ] {
            assert_eq!(pieces(text, limit), expected, "{text} {limit}");
        }
    }
}
