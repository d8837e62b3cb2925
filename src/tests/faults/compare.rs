//! Whether every sink has what PostgreSQL committed: content, order, and each change once.

use super::workload::TABLES;
use crate::harness::history;
use crate::warehouse::{in_postgres, in_snowflake};
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokio_postgres::Client;

/// A change of one key: how many truncates came before, what it was, and the row it left.
type Change = (usize, &'static str, Value);
/// The changes of a table by key, and how many truncates it has seen.
type Changes = (BTreeMap<String, Vec<Change>>, usize);

fn key(row: &Value, columns: &[&str]) -> String {
    columns.iter().map(|column| row[*column].to_string()).collect::<Vec<_>>().join("/")
}

/// What the audit says of a table, without what the snapshot has seen.
fn committed(audit: &[(String, String, i64, Value, Value)], table: &str, columns: &[&str], seen: &BTreeSet<i64>) -> Changes {
    let (mut changes, mut truncates): Changes = Default::default();
    for (_, op, _, before, after) in audit.iter().filter(|(tab, _, tx, ..)| tab == table && !seen.contains(tx)) {
        let mut add = |row: &Value, op, after: Value| changes.entry(key(row, columns)).or_default().push((truncates, op, after));
        match op.as_str() {
            "i" => add(after, "i", after.clone()),
            "d" => add(before, "d", Value::Null),
            "u" if key(before, columns) == key(after, columns) => add(after, "u", after.clone()),
            "u" => {
                add(before, "d", Value::Null);
                add(after, "i", after.clone());
            }
            _ => truncates += 1,
        }
    }
    (changes, truncates)
}

/// A table's files, replayed.
struct Replayed {
    /// What came after the snapshot.
    changes: Changes,
    /// The rows that are left.
    rows: BTreeMap<String, Value>,
    /// The rows of the snapshot.
    snapshot: Vec<Value>,
    /// Every token with its operation.
    tokens: BTreeMap<String, String>,
}

/// Replays a table's history. A problem is a token out of order, or a value that nothing has told.
fn replay(folder: &Path, table: &str, columns: &[&str], problems: &mut Vec<String>) -> Replayed {
    let mut all = Replayed { changes: Changes::default(), rows: BTreeMap::new(), snapshot: Vec::new(), tokens: BTreeMap::new() };
    let (mut last, mut left) = (String::new(), None);
    for (token, mut row) in history(folder, &format!("public.{table}")) {
        if token <= last {
            problems.push(format!("{table}: token {token} after {last}"));
        }
        let op = row["_op"].as_str().unwrap().to_owned();
        all.tokens.insert(token.clone(), op.clone());
        last = token;
        let unchanged: Vec<String> = row["_unchanged"].as_array().into_iter().flatten().map(|n| n.as_str().unwrap().to_owned()).collect();
        row.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
        let id = key(&row, columns);
        let before = all.rows.get(&id).cloned().or_else(|| left.take());
        for name in unchanged {
            match &before {
                Some(before) => row[&name] = before[&name].clone(),
                None => problems.push(format!("{table} {id}: `{name}` is unchanged at {last}, and was never told")),
            }
        }
        left = None;
        let truncates = all.changes.1;
        let mut add = |op, row| all.changes.0.entry(id.clone()).or_default().push((truncates, op, row));
        match op.as_str() {
            "r" => {
                all.snapshot.push(row.clone());
                all.rows.insert(id, row);
            }
            "i" => {
                add("i", row.clone());
                all.rows.insert(id, row);
            }
            "u" => {
                add("u", row.clone());
                all.rows.insert(id, row);
            }
            "d" => {
                add("d", Value::Null);
                left = all.rows.remove(&id);
            }
            _ => {
                all.changes.1 += 1;
                all.rows.clear();
            }
        }
    }
    all
}

/// Shortens long values.
fn short(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    if text.len() > 600 { format!("{}…", text.chars().take(600).collect::<String>()) } else { text }
}

/// Compares the files with the audit and with the source's rows. Gives each table's tokens.
pub(super) async fn files(client: &Client, folder: &Path, problems: &mut Vec<String>) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let rows = client.query("SELECT tab, op, tx, before::text, after::text FROM audit.log ORDER BY id", &[]).await.unwrap();
    let json = |text: Option<String>| text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    let audit: Vec<_> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2), json(r.get(3)), json(r.get(4)))).collect();
    let marks = replay(folder, "marks", &["tx"], problems);
    let seen: BTreeSet<i64> = marks.snapshot.iter().map(|row| row["tx"].as_i64().unwrap()).collect();
    let mut tokens = BTreeMap::new();
    for table in TABLES {
        let name = table.name;
        let replayed = replay(folder, name, table.key, problems);
        let wanted = committed(&audit, name, table.key, &seen);
        if replayed.changes.1 != wanted.1 {
            problems.push(format!("{name}: {} truncates in the files, {} committed", replayed.changes.1, wanted.1));
        }
        let keys: BTreeSet<&String> = replayed.changes.0.keys().chain(wanted.0.keys()).collect();
        let none = Vec::new();
        for key in keys {
            let (have, want) = (replayed.changes.0.get(key).unwrap_or(&none), wanted.0.get(key).unwrap_or(&none));
            if have != want {
                let at = have.iter().zip(want).position(|(a, b)| a != b).unwrap_or(have.len().min(want.len()));
                problems.push(format!(
                    "{name} {key}: {} changes in the files, {} committed; the first that differs is number {at}: {} instead of {}",
                    have.len(),
                    want.len(),
                    short(&have.get(at)),
                    short(&want.get(at))
                ));
            }
        }
        let rows = client.query(&format!("SELECT to_jsonb(t)::text FROM {name} t"), &[]).await.unwrap();
        let source: BTreeMap<String, Value> =
            rows.iter().map(|row| serde_json::from_str::<Value>(row.get(0)).unwrap()).map(|row| (key(&row, table.key), row)).collect();
        let ids: BTreeSet<&String> = source.keys().chain(replayed.rows.keys()).collect();
        for id in ids.into_iter().filter(|id| source.get(*id) != replayed.rows.get(*id)) {
            problems.push(format!(
                "{name} {id}: the files leave {}, PostgreSQL has {}",
                short(&replayed.rows.get(id)),
                short(&source.get(id))
            ));
        }
        tokens.insert(name, replayed.tokens);
    }
    tokens
}

/// Compares the targets with the source's rows, and the landing tables with the files' tokens.
pub(super) async fn warehouse(
    client: &Client,
    server: &LocalSnowflake,
    tokens: &BTreeMap<&'static str, BTreeMap<String, String>>,
    problems: &mut Vec<String>,
) {
    for table in TABLES {
        let name = table.name;
        let target = in_snowflake(server, &format!("SELECT {} FROM RAW.SHOP.{name}", table.there)).await;
        let source = in_postgres(client, &format!("SELECT {} FROM {name}", table.here)).await;
        if target != source {
            let extra = target.iter().find(|row| source.binary_search(row).is_err());
            let missing = source.iter().find(|row| target.binary_search(row).is_err());
            problems.push(format!(
                "{name}: {} rows in Snowflake, {} in PostgreSQL; not wanted {}, missing {}",
                target.len(),
                source.len(),
                short(&extra),
                short(&missing)
            ));
        }
        let landed = in_snowflake(server, &format!("SELECT _SEQ, _OP FROM RAW.SHOP.{name}__CHANGES")).await;
        let wanted: Vec<Vec<String>> = tokens[name].iter().map(|(token, op)| vec![token.clone(), op.clone()]).collect();
        if landed != wanted {
            let extra = landed.iter().find(|row| wanted.binary_search(row).is_err());
            let missing = wanted.iter().find(|row| landed.binary_search(row).is_err());
            let twice = landed.windows(2).find(|pair| pair[0][0] == pair[1][0]);
            problems.push(format!(
                "{name}: {} rows landed, {} in files; not wanted {extra:?}, missing {missing:?}, twice {twice:?}",
                landed.len(),
                wanted.len()
            ));
        }
    }
}
