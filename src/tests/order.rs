//! What PostgreSQL's changes of rows come to: one script of many cases, run while the real binary runs, is killed
//! and runs again, and after it every target held against its table by content.
//!
//! ```text
//! keyed ───┬── files, folded here          primary key or identity index
//!          └── merge, hard and soft
//! bare  ────── files                       whole rows, and what is the same in every sink
//! listed ──┬── files                       a publication with row filter, column list, and leaves of partitions
//!          └── merge, hard
//! ```
//! The merge with soft deletes has all of the first two rounds in one merge; the other merges often.

use crate::harness::{Project, history, signal, wait_for};
use crate::warehouse::{Rows, account, assert_same, in_postgres, in_snowflake, number, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tokio_postgres::Client;

const SCRIPT: &str = include_str!("cases/order.sql");
/// What `%T` stands for.
const TWINS: &[&str] = &["k.items", "k.full_items"];

/// The batches of a section of the script.
fn section(name: &str) -> Vec<String> {
    let text = SCRIPT.split(&format!("-- {name}\n")).nth(1).unwrap_or_else(|| panic!("no section {name}"));
    let text = text.split("\n-- ").next().unwrap();
    let mut batches: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match (line.strip_prefix(' '), batches.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => batches.push(line.to_owned()),
        }
    }
    batches
}

async fn execute(client: &Client, name: &str) {
    for batch in section(name) {
        let tables = if batch.contains("%T") { TWINS } else { &[""] };
        for table in tables {
            let sql = batch.replace("%T", table);
            client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        }
    }
}

/// A table of the source, as a comparison needs it.
struct Table {
    schema: String,
    name: String,
    /// Names of the columns that are published.
    columns: Vec<String>,
    /// Names of the key's columns; none: whole rows are compared.
    key: Vec<String>,
    /// Which rows are published.
    only: &'static str,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name as the Snowflake sink stores it, quoted.
fn stored(name: &str) -> String {
    quoted(&if name.chars().any(char::is_uppercase) { name.to_owned() } else { name.to_ascii_uppercase() })
}

impl Table {
    /// Its folder at the file sink.
    fn folder(&self) -> String {
        let escape = |text: &str| text.replace('%', "%25").replace('/', "%2F").replace('\\', "%5C");
        format!("{}.{}", escape(&self.schema).replace('.', "%2E"), escape(&self.name))
    }

    fn select(&self, name: fn(&str) -> String, from: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|c| name(c)).collect();
        format!("SELECT {} FROM {from}", columns.join(", "))
    }

    fn source(&self) -> String {
        format!("{}.{} t {}", quoted(&self.schema), quoted(&self.name), self.only)
    }

    fn id(&self, row: &Value) -> String {
        self.key.iter().map(|column| row[column].to_string()).collect::<Vec<_>>().join("/")
    }
}

/// The published tables of a schema: what the test does not say of them is asked of the catalog.
async fn tables(client: &Client, schema: &str) -> Vec<Table> {
    let rows = client
        .query(
            "SELECT c.relname::text, c.relkind = 'p' OR NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid),
                    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum),
                    coalesce((SELECT ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (i.indkey))
                              FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), '{}')
             FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
               AND CASE WHEN $1 = 'l' THEN c.relkind = 'r' ELSE NOT c.relispartition END ORDER BY 1",
            &[&schema],
        )
        .await
        .unwrap();
    let table = |row: &tokio_postgres::Row| {
        let (name, alone): (String, bool) = (row.get(0), row.get(1));
        let mut columns: Vec<String> = row.get(2);
        columns.retain(|c| c != "hidden");
        let only = match name.as_str() {
            "rows" => "WHERE n > 0",
            _ if !alone => "WHERE tableoid = 'k.animals'::regclass",
            _ => "",
        };
        Table { schema: schema.into(), name, columns, key: row.get(3), only }
    };
    rows.iter().map(table).collect()
}

/// The rows that a table's files leave, with how often each is there. With a key, a row replaces the one of its
/// key; without, an update is the old row's delete and the new one's insert.
fn current(table: &Table, folder: &Path) -> Vec<Value> {
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut last, mut gone) = (String::new(), None);
    for (token, mut row) in history(folder, &table.folder()) {
        assert!(token > last, "{}: token {token} after {last}", table.name);
        last = token;
        let op = row["_op"].as_str().unwrap().to_owned();
        let unsent: Vec<String> = row["_unchanged"].as_array().into_iter().flatten().map(|n| n.as_str().unwrap().to_owned()).collect();
        row.as_object_mut().unwrap().retain(|name, _| !matches!(name.as_str(), "_op" | "_seq" | "_commit_ts" | "_unchanged"));
        let id = if table.key.is_empty() { row.to_string() } else { table.id(&row) };
        match op.as_str() {
            "t" => rows.clear(),
            "d" => {
                gone = rows.get_mut(&id).and_then(Vec::pop);
                assert!(gone.is_some() || table.name == "rows", "{}: nothing to delete", table.name);
                rows.retain(|_, same| !same.is_empty());
            }
            _ => {
                // A value that was not sent is the row's own or, for a changed key, that of the row just deleted.
                let before = if op == "i" { gone.clone() } else { rows.get(&id).and_then(|same| same.last().cloned()) };
                for name in unsent {
                    row[&name] = before.as_ref().expect("there is a row that has the value")[&name].clone();
                }
                let same = rows.entry(id).or_default();
                if !table.key.is_empty() {
                    assert_eq!(same.is_empty(), op != "u", "{}: {op} of a row", table.name);
                    same.clear();
                }
                same.push(row);
            }
        }
        if op != "d" {
            gone = None;
        }
    }
    rows.into_values().flatten().collect()
}

/// A document's text, its members by name.
fn canonical(row: &Value) -> String {
    let members: BTreeMap<&String, &Value> = row.as_object().into_iter().flatten().collect();
    serde_json::to_string(&members).unwrap()
}

/// One side of a comparison, sorted.
fn sorted(mut rows: Vec<String>) -> Rows {
    rows.sort();
    rows.into_iter().map(|row| vec![row]).collect()
}

struct Stage {
    postgres: Postgres,
    client: Client,
    snowflake: LocalSnowflake,
    project: Project,
}

impl Stage {
    async fn compare(&self, when: &str) {
        for (schema, sinks) in [("k", &["HARD", "SOFT"][..]), ("Zwölf Ünï.k", &["HARD", "SOFT"]), ("b", &[]), ("l", &["LISTED"])] {
            for table in tables(&self.client, schema).await {
                self.compare_table(when, &table, sinks).await;
            }
        }
    }

    async fn compare_table(&self, when: &str, table: &Table, sinks: &[&str]) {
        let what = format!("{when}, {}.{}", table.schema, table.name);
        let out = self.project.path().join("out");
        let documents = if table.columns.is_empty() {
            format!("SELECT '{{}}' FROM {}", table.source())
        } else {
            format!("SELECT to_jsonb(whole) FROM ({}) whole", table.select(quoted, &table.source()))
        };
        let there = self.client.simple_query(&documents).await.unwrap();
        let there = there.iter().filter_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(canonical(&serde_json::from_str(row.get(0).unwrap()).unwrap())),
            _ => None,
        });
        let files = current(table, &out).iter().map(canonical).collect();
        assert_same(&format!("{what}, files"), &sorted(files), &sorted(there.collect()));
        // The target's name has the schema in it, for there are tables of the same name in two.
        let target = stored(&format!("{}.{}", table.schema, table.name));
        let landing = format!("{}__CHANGES\"", target.trim_end_matches('"'));
        if !sinks.is_empty() {
            let wanted = in_postgres(&self.client, &table.select(quoted, &table.source())).await;
            for sink in sinks {
                let soft = if *sink == "SOFT" { " WHERE NOT _ETL_DELETED" } else { "" };
                let query = table.select(stored, &format!("RAW.{sink}.{target}{soft}"));
                assert_same(&format!("{what}, {sink}"), &in_snowflake(&self.snowflake, &query).await, &wanted);
            }
        }
        let history = history(&out, &table.folder());
        let Some(landed) = sinks.first().filter(|_| !history.is_empty()) else { return };
        let lines: Vec<String> = history.iter().map(|(token, row)| format!("{token} {}", row["_op"].as_str().unwrap())).collect();
        let query = format!("SELECT _SEQ || ' ' || _OP FROM RAW.{landed}.{landing}");
        assert_same(&format!("{what}, history"), &in_snowflake(&self.snowflake, &query).await, &sorted(lines));
        if sinks.contains(&"SOFT") {
            let keys: Vec<String> = table.key.iter().map(|c| stored(c)).collect();
            let ever = format!("SELECT COUNT(*) FROM (SELECT DISTINCT {} FROM RAW.{landed}.{landing} WHERE _OP <> 't') x", keys.join(", "));
            let kept = format!("SELECT COUNT(*) FROM RAW.SOFT.{target}");
            assert_eq!(number(&self.snowflake, &kept).await, number(&self.snowflake, &ever).await, "{what}: deleted rows stay, marked");
        }
    }

    /// Waits until a round's last change has landed everywhere.
    async fn landed(&self, round: u32) {
        for sink in ["HARD", "SOFT"] {
            let query = format!("SELECT COUNT(*) FROM RAW.{sink}.\"K.MARK__CHANGES\" WHERE id = {round}");
            crate::warehouse::until("the round's mark", &self.snowflake, &query, |n| n == 1).await;
        }
        let out = self.project.path().join("out");
        wait_for("the round's mark in files", || history(&out, "k.mark").iter().any(|(_, row)| row["id"] == round));
    }
}

fn pipeline(postgres: &Postgres, snowflake: &LocalSnowflake) -> Project {
    let url = postgres.url("shop");
    let account = format!("{}, table: \"{{schema}}.{{table}}\", landing_retention: 30d", account(snowflake));
    Project::new(&format!(
        "sources:
  keyed: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"k.*\", \"Zwölf*.*\"] }}, snapshot: {{ workers: 2 }} }}
  bare: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"b.*\"] }}, snapshot: {{ workers: 1 }} }}
  listed:
    type: postgres
    url: {{ plain: \"{url}\" }}
    publication: listed
    tables: {{ include: [l.cols, l.rows, l.parts_eu, l.parts_us, k.seen, k.stored, k.unlogged, k.absent, k.parts_eu] }}
sinks:
  files: {{ type: file, inputs: [keyed, bare, listed], path: out, batch: {{ max_age: 50ms }} }}
  hard: {{ inputs: [keyed], schema: HARD, {account}, batch: {{ max_age: 50ms }}, merge: {{ interval: 300ms }} }}
  soft: {{ inputs: [keyed], schema: SOFT, {account}, channels: 2, deletes: soft, merge: {{ interval: 1h }} }}
  listed_hard: {{ inputs: [listed], schema: LISTED, {account} }}
server: none
"
    ))
}

#[tokio::test]
async fn every_case_arrives_as_it_is() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    execute(&client, "setup").await;
    execute(&client, "to files alone").await;
    execute(&client, "listed").await;
    let project = pipeline(&postgres, &snowflake);
    let stage = Stage { postgres, client, snowflake, project };
    let output = stage.project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for (table, reason) in [
        ("k.seen", "a view"),
        ("k.stored", "a materialized view"),
        ("k.unlogged", "unlogged"),
        ("k.absent", "no such relation"),
        ("k.parts_eu", "a partition"),
    ] {
        assert!(log.lines().any(|line| line.contains(table) && line.contains(reason)), "{table}: {log}");
    }
    stage.compare("the snapshot").await;
    let mut child = stage.project.start(&["run"]);
    execute(&stage.client, "round 1").await;
    for refused in ["UPDATE b.nothing SET a = 'x'", "DELETE FROM b.nothing", "UPDATE b.plain SET v = 'x'"] {
        let error = stage.client.batch_execute(refused).await.unwrap_err();
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("55000"), "the server refuses {refused}");
    }
    stage.landed(1).await;
    assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", stage.project.log());
    signal(&child, "KILL");
    let _ = child.wait();
    execute(&stage.client, "round 2").await;
    stage.project.succeeds(&["run", "--until", "caught-up"]);
    stage.compare("round 2").await;
    execute(&stage.client, "round 3").await;
    stage.project.succeeds(&["run", "--until", "caught-up"]);
    stage.compare("round 3").await;
    let _ = &stage.postgres;
}
