//! The comparison of both databases and what the user reads of it.
//!
//! `compare.py` of the local Snowflake reads every row of both, by PostgreSQL's and Snowflake's own Python
//! clients: no code of this program is on either side.

use super::servers::{ACCOUNT, DATABASE, PIPELINE, SCHEMA, Servers, python, snowflake_folder};
use super::{DEMO_DIFFERS, Measured, step};
use comfy_table::{CellAlignment, Table, presets};
use etl_stream_operators::contract::CodedError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long the comparison may take.
const COMPARE: Duration = Duration::from_secs(180);

/// What one side has of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Side {
    rows: u64,
    checksum: String,
}

/// How the sides of a table differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Differences {
    only_postgres: u64,
    only_snowflake: u64,
    repeated_keys: u64,
    columns: BTreeMap<String, u64>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Compared {
    table: String,
    postgres: Side,
    snowflake: Option<Side>,
    equal: bool,
    #[serde(default)]
    missing_columns: Vec<String>,
    #[serde(default)]
    differences: Option<Differences>,
}

#[derive(Deserialize)]
struct Answer {
    tables: Vec<Compared>,
}

/// Compares every table of the shop.
pub(super) async fn compare(servers: &Servers, url: &str) -> Result<Vec<Compared>, CodedError> {
    let folder = snowflake_folder()?;
    let mut command = Command::new(python(&folder));
    command
        .args(["-m", "local_snowflake.compare", "--postgres", url, "--port", servers.snowflake_port()])
        .args(["--account", ACCOUNT, "--database", DATABASE, "--schema", SCHEMA])
        .env("PYTHONPATH", &folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(COMPARE, command.output()).await;
    let output = output.map_err(|_| step(format!("the comparison took longer than {} s", COMPARE.as_secs())))?;
    let output = output.map_err(|e| step(format!("the comparison was not started with {}", python(&folder).display())).caused_by(e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().next_back().unwrap_or_default();
        return Err(step(format!("the comparison ended: {}: {last}", output.status)));
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|e| step("the comparison's answer was not understood").caused_by(e))?;
    Ok(answer.tables)
}

impl Compared {
    /// What differs, by names and numbers only.
    fn describe(&self) -> String {
        if self.equal {
            return "yes".into();
        }
        if self.snowflake.is_none() {
            return "no such table".into();
        }
        let mut parts: Vec<String> = self.missing_columns.iter().map(|column| format!("no column {column}")).collect();
        if let Some(found) = &self.differences {
            let mut count = |number: u64, what: &str| {
                if number > 0 {
                    parts.push(format!("{number} {what}"));
                }
            };
            count(found.only_postgres, "rows are missing");
            count(found.only_snowflake, "rows too many");
            count(found.repeated_keys, "rows twice");
            for (column, rows) in &found.columns {
                count(*rows, &format!("rows differ in {column}"));
            }
        }
        format!("NO: {}", parts.join(", "))
    }
}

/// The table, and what was measured.
pub(super) fn render(compared: &[Compared], measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["table", "rows in PostgreSQL", "rows in Snowflake", "checksum PostgreSQL", "checksum Snowflake", "equal"]);
    for one in compared {
        let (rows, checksum) = one.snowflake.as_ref().map_or(("-".into(), "-"), |side| (grouped(side.rows), side.checksum.as_str()));
        table.add_row([&one.table, &grouped(one.postgres.rows), &rows, &one.postgres.checksum, checksum, &one.describe()]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let streaming = measured.workload + measured.caught_up;
    format!(
        "{table}\n\n\
         snapshot   {} rows in {}, {} rows/s\n\
         stream     {} transactions with {} changes in {}, {} changes/s; Snowflake refused {} rows\n\
         workload   {} transactions committed and {} rolled back in {}\n\
         caught up  {} after the last commit; stopped in {}",
        grouped(measured.snapshot_rows),
        seconds(measured.snapshot),
        grouped(rate(measured.snapshot_rows, measured.snapshot)),
        grouped(measured.transactions),
        grouped(measured.changes),
        seconds(streaming),
        grouped(rate(measured.changes, streaming)),
        grouped(measured.rejected),
        grouped(measured.committed),
        grouped(measured.aborted),
        seconds(measured.workload),
        seconds(measured.caught_up),
        seconds(measured.drained),
    )
}

/// Where to look next; `stays` when the servers go on for a while.
pub(super) fn next(folder: &Path, servers: &Servers, keep: bool, stays: bool) -> String {
    let folder = folder.display();
    let mut text = String::new();
    if keep {
        text.push_str(&format!("kept: {folder} with {PIPELINE}, run.log, postgres.log, state.db and Snowflake's tables\n"));
    }
    text.push_str("next: ");
    if stays {
        let url = servers.postgres().url("shop");
        text.push_str(&format!("etl-stream run {folder}/{PIPELINE}\n      psql {url}\n      "));
    } else if !keep {
        text.push_str("`etl-stream demo --keep` leaves the pipeline file, its log and Snowflake's tables for a look\n      ");
    }
    text.push_str("README.md has the way to a pipeline of your own");
    text
}

/// The demo's answer.
pub(super) fn verdict(compared: &[Compared]) -> Result<(), CodedError> {
    let different: Vec<&str> = compared.iter().filter(|one| !one.equal).map(|one| one.table.as_str()).collect();
    if different.is_empty() && !compared.is_empty() {
        return Ok(());
    }
    let message =
        format!("{} of {} tables differ between PostgreSQL and Snowflake: {}", different.len(), compared.len(), different.join(", "));
    Err(CodedError::definite(DEMO_DIFFERS, message)
        .hint("the table above says what differs; run `etl-stream demo --keep` and report it with run.log"))
}

/// With a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn rate(count: u64, time: Duration) -> u64 {
    if time.is_zero() { 0 } else { (count as f64 / time.as_secs_f64()) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_becomes_a_table_and_a_verdict() {
        let side = |rows| format!(r#"{{"rows": {rows}, "checksum": "00ff"}}"#);
        let answer = format!(
            r#"{{"tables": [
                {{"table": "a", "postgres": {0}, "snowflake": {0}, "missing_columns": [], "equal": true}},
                {{"table": "b", "postgres": {0}, "snowflake": null, "equal": false}},
                {{"table": "C", "postgres": {0}, "snowflake": {1}, "missing_columns": ["y"], "equal": false,
                  "differences": {{"only_postgres": 0, "only_snowflake": 2, "repeated_keys": 0, "columns": {{"x": 3}}}}}}
            ], "equal": false}}"#,
            side(1234),
            side(1236)
        );
        let answer: Answer = serde_json::from_str(&answer).unwrap();
        let descriptions: Vec<String> = answer.tables.iter().map(Compared::describe).collect();
        assert_eq!(descriptions, ["yes", "no such table", "NO: no column y, 2 rows too many, 3 rows differ in x"]);
        let text = render(&answer.tables, &Measured { changes: 1_000_000, workload: Duration::from_secs(10), ..Measured::default() });
        assert!(text.contains("1 234") && text.contains("100 000 changes/s"), "{text}");
        let error = verdict(&answer.tables).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (DEMO_DIFFERS, "2 of 3 tables differ between PostgreSQL and Snowflake: b, C"));
        assert!(verdict(answer.tables.get(..1).unwrap()).is_ok());
        assert!(verdict(&[]).is_err(), "nothing compared proves nothing");
    }

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
