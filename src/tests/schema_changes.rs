//! Tables that are altered, row by row: nothing lost, nothing under another schema than its own, and what a
//! target has is what PostgreSQL has.

use crate::harness::{Project, RUN, history, signal};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, snowflake};
use arrow::util::display::array_value_to_string;
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

const ITEMS: &str = "CREATE TYPE mood AS ENUM ('good');
    CREATE TABLE items (id int PRIMARY KEY, a text, n int, price numeric(8,2), v varchar(4)); ALTER TABLE items ALTER a SET STORAGE EXTERNAL;
    INSERT INTO items SELECT i, repeat('a' || i, 2000), i, i * 1.25, 'v' || i FROM generate_series(1, 20) i";

/// Each is a transaction.
const CHANGES: &[&str] = &[
    "INSERT INTO items (id, a, n) VALUES (101, 'before', 1)",
    "ALTER TABLE items ADD plain text",
    "INSERT INTO items (id, plain) VALUES (102, 'p')",
    "ALTER TABLE items ALTER n TYPE bigint, ALTER price TYPE numeric(12,2), ALTER v TYPE varchar(20)",
    "INSERT INTO items (id, n, price, v) VALUES (106, 5000000000, 1234567890.12, 'longer than four')",
    "ALTER TABLE items ADD fixed int NOT NULL DEFAULT 7",
    "INSERT INTO items (id, fixed) VALUES (103, 8); UPDATE items SET n = -n WHERE id = 1",
    "ALTER TABLE items RENAME a TO body",
    "INSERT INTO items (id, body) VALUES (104, 'b'); UPDATE items SET n = 0 WHERE id BETWEEN 2 AND 4",
    "BEGIN; UPDATE items SET plain = 'q' WHERE id = 5; ALTER TABLE items DROP plain; UPDATE items SET n = 99 WHERE id = 6;
     ALTER TABLE items ADD plain text; INSERT INTO items (id, plain) VALUES (105, '5'); COMMIT",
    "ALTER TABLE items ADD m mood",
    "ALTER TYPE mood ADD VALUE 'bad'",
    "INSERT INTO items (id, m) VALUES (107, 'bad')",
    "UPDATE items SET n = 0 WHERE n IS NULL",
    "ALTER TABLE items ALTER n SET NOT NULL",
    "INSERT INTO items (id, n) VALUES (108, 1)",
    "ALTER TABLE items ALTER n DROP NOT NULL; ALTER TABLE items RENAME body TO w; ALTER TABLE items RENAME v TO body; ALTER TABLE items RENAME w TO v",
    "INSERT INTO items (id, v, body) VALUES (109, 'was a', 'was v'); DELETE FROM items WHERE id = 7",
    "BEGIN; DELETE FROM items WHERE id = 8; ALTER TABLE items DROP CONSTRAINT items_pkey; ALTER TABLE items ADD PRIMARY KEY (id, fixed);
     DELETE FROM items WHERE id = 9; UPDATE items SET fixed = 70 WHERE id = 10; COMMIT",
    "INSERT INTO items (id) VALUES (110); UPDATE items SET n = 1 WHERE id = 11",
];

fn pipeline(postgres: &Postgres, slot: &str, sinks: &str) -> Project {
    Project::new(&format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }}, slot: {slot}, publication: {slot} }}\nsinks:\n{sinks}server: none\n",
        postgres.url("shop")
    ))
}

fn warehouse(snowflake: &LocalSnowflake, schema: &str, more: &str) -> String {
    format!("  {}: {{ inputs: [shop], {}, schema: {schema}{more} }}\n", schema.to_lowercase(), account(snowflake))
}

/// The columns that the source has, in the target and in PostgreSQL.
async fn assert_equal(client: &Client, snowflake: &LocalSnowflake, schema: &str, table: &str) {
    let columns = format!(
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    );
    let columns = in_postgres(client, &columns).await[0][0].clone();
    let target = in_snowflake(snowflake, &format!("SELECT {columns} FROM RAW.{schema}.{table}")).await;
    assert_same(&format!("{schema}.{table}"), &target, &in_postgres(client, &format!("SELECT {columns} FROM {table}")).await);
}

/// Waits until everything committed so far is confirmed on a slot.
async fn confirmed(client: &Client, slot: &str, project: &Project) {
    let there: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let sql = format!("SELECT confirmed_flush_lsn >= '{there}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let deadline = Instant::now() + RUN;
    while !client.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "waited in vain for the slot:\n{}", project.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_target_follows_change_by_change_and_all_at_once() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(ITEMS).await.unwrap();
    let sinks = [warehouse(&snowflake, "EACH", ", channels: 2"), warehouse(&snowflake, "HISTORY", ", write_mode: append")].concat();
    let each = pipeline(&postgres, "each", &sinks);
    // It reads all changes at the end, when the catalog has moved on.
    let late = pipeline(&postgres, "late", &warehouse(&snowflake, "LATE", ""));
    each.succeeds(&["run", "--until", "caught-up"]);
    late.succeeds(&["run", "--until", "caught-up"]);
    let mut child = each.start(&["run"]);
    for (at, sql) in CHANGES.iter().enumerate() {
        client.batch_execute(sql).await.unwrap();
        // Some are read together.
        if at % 3 == 0 {
            confirmed(&client, "each", &each).await;
        }
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", each.log());
    each.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&client, &snowflake, "EACH", "items").await;
    late.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&client, &snowflake, "LATE", "items").await;
    // The history is the same however late it was read.
    let history = |schema: &str| format!("SELECT _OP, ID, N, FIXED, A, V FROM RAW.{schema}.ITEMS__CHANGES WHERE _OP <> 'r' ORDER BY _SEQ");
    let expected = snowflake.sql(&history("EACH")).await;
    assert!(expected.len() > 20, "{expected:?}");
    assert_eq!(snowflake.sql(&history("LATE")).await, expected);
    assert_eq!(snowflake.sql(&history("HISTORY")).await, expected);
}

#[tokio::test]
async fn a_table_whose_existing_rows_were_changed_unseen_stops() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    for (name, before, change) in [
        ("drawn", "", "ALTER TABLE t ADD u uuid DEFAULT gen_random_uuid()"),
        ("counted", "", "ALTER TABLE t ADD c bigserial"),
        ("retyped", "ALTER TABLE t ADD r text", "ALTER TABLE t ALTER r TYPE int USING length(r)"),
    ] {
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); {before}"))
            .await
            .unwrap();
        let files = "  files: { type: file, inputs: [shop], path: out }\n";
        let project = pipeline(&postgres, name, &[&warehouse(&snowflake, &name.to_uppercase(), ""), files].concat());
        project.succeeds(&["run", "--until", "caught-up"]);
        client.batch_execute(change).await.unwrap();
        client.batch_execute("INSERT INTO t (id) VALUES (2)").await.unwrap();
        let output = project.run(&["run", "--until", "caught-up"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}:\n{log}");
        assert!(log.contains("SF0008") && log.contains("public.t") && log.contains("resync"), "{name}:\n{log}");
        let held = in_postgres(
            &client,
            &format!("SELECT confirmed_flush_lsn < pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = '{name}'"),
        )
        .await;
        assert_eq!(held, [["t"]], "{name}: nothing is acknowledged and lost");
        // The way out that the error names.
        assert_eq!(project.succeeds(&["resync", "public.t"]), "shop public.t\n");
        project.succeeds(&["run", "--until", "caught-up"]);
        let columns = in_postgres(
            &client,
            "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped",
        )
        .await;
        let columns = columns[0][0].clone();
        let there = in_postgres(&client, &format!("SELECT {columns} FROM t")).await;
        let arrived = in_snowflake(&snowflake, &format!("SELECT {} FROM RAW.{}.T", columns.to_uppercase(), name.to_uppercase())).await;
        assert_same(name, &arrived, &there);
        let free = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND active");
        while in_postgres(&client, &free).await != [["0"]] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        client.batch_execute(&format!("SELECT pg_drop_replication_slot('{name}')")).await.unwrap();
    }
}

/// What PostgreSQL says of each change when it is made: `to_jsonb` of the row, in the columns of its time.
const AUDIT: &str = "CREATE SCHEMA audit; CREATE TABLE audit.log (seq bigserial, op text, row jsonb);
    CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit.log (op, row) VALUES (lower(left(TG_OP, 1)), CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END);
        RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit.note()";

#[tokio::test]
async fn files_have_each_change_in_the_columns_of_its_time() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(ITEMS).await.unwrap();
    client.batch_execute(AUDIT).await.unwrap();
    let sinks =
        "  lines: { type: file, inputs: [shop], path: lines }\n  columns: { type: file, inputs: [shop], path: columns, format: parquet }\n";
    let project = pipeline(&postgres, "files", sinks);
    project.succeeds(&["run", "--until", "caught-up"]);
    for sql in CHANGES {
        client.batch_execute(sql).await.unwrap();
    }
    project.succeeds(&["run", "--until", "caught-up"]);
    let written: Vec<(String, Value)> =
        history(&project.path().join("lines"), "public.items").into_iter().filter(|(_, row)| row["_op"] != "r").collect();
    let said = client.query("SELECT op, row::text FROM audit.log ORDER BY seq", &[]).await.unwrap();
    let mut rows = written.iter().map(|(_, row)| row).peekable();
    for said in &said {
        let (op, expected): (&str, Value) = (said.get(0), serde_json::from_str(said.get(1)).unwrap());
        let mut row = rows.next().unwrap_or_else(|| panic!("missing: {op} {expected}"));
        if op == "u" && row["_op"] == "d" {
            // A changed key: the old one's delete, then the new one.
            row = rows.next().unwrap();
        } else {
            assert_eq!(row["_op"], op, "{expected}");
        }
        assert_eq!(row["id"], expected["id"]);
        if op == "d" {
            continue;
        }
        let unchanged: Vec<&str> = row["_unchanged"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect();
        let names =
            |row: &Value| -> BTreeSet<String> { row.as_object().unwrap().keys().filter(|k| !k.starts_with('_')).cloned().collect() };
        let mut wanted = names(&expected);
        wanted.retain(|name| !unchanged.contains(&name.as_str()) || row.get(name).is_some());
        assert_eq!(names(row), wanted, "the columns of its time");
        for name in wanted.iter().filter(|name| !unchanged.contains(&name.as_str())) {
            assert_eq!(row[name], expected[name], "{name} of {expected}");
        }
    }
    assert!(rows.next().is_none(), "more than was said");
    let columnar = parquet_rows(&project.path().join("columns/public.items"));
    for (token, row) in &written {
        let found = columnar.get(token).unwrap_or_else(|| panic!("{token} is not in Parquet"));
        for (name, value) in row.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with('_')) {
            let text = found.get(name).unwrap_or_else(|| panic!("{token} has no column {name}"));
            match value {
                Value::Null => assert_eq!(text, "", "{token} {name}"),
                Value::String(value) => assert_eq!(text, value, "{token} {name}"),
                value => assert_eq!(text.parse::<f64>().ok(), value.as_f64(), "{token} {name}"),
            }
        }
        assert_eq!(found.keys().filter(|k| !k.starts_with('_')).count(), names_of(row, found), "{token}: columns of another time");
    }
}

/// How many columns a row of a file of lines has; the values that were not sent stand in Parquet as null.
fn names_of(row: &Value, found: &BTreeMap<String, String>) -> usize {
    let named: BTreeSet<&String> = row.as_object().unwrap().keys().filter(|k| !k.starts_with('_')).collect();
    let unsent = row["_op"] == "d" || row["_unchanged"].is_array();
    if unsent { found.keys().filter(|k| !k.starts_with('_')).count() } else { named.len() }
}

/// Every row of a table's Parquet files by its token: texts by column, null as nothing.
fn parquet_rows(folder: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut rows = BTreeMap::new();
    let files = fs::read_dir(folder).unwrap().flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "parquet"));
    for file in files {
        for batch in ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap()).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let schema = batch.schema();
            for at in 0..batch.num_rows() {
                let cell = |column: usize| array_value_to_string(batch.column(column), at).unwrap();
                // Times of commits are not looked at.
                let fields =
                    schema.fields().iter().enumerate().filter(|(_, field)| !field.name().starts_with('_') || field.name() == "_seq");
                let row: BTreeMap<String, String> = fields.map(|(column, field)| (field.name().clone(), cell(column))).collect();
                rows.insert(row["_seq"].clone(), row);
            }
        }
    }
    rows
}
