//! Tables that are altered, row by row: nothing lost, nothing under another schema than its own, and what a
//! target has is what PostgreSQL has.

use crate::harness::{Project, RUN, fold, history, signal, source_rows};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, snowflake};
use arrow::util::display::array_value_to_string;
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
    pipeline_with(postgres, slot, sinks, "none")
}

fn pipeline_with(postgres: &Postgres, slot: &str, sinks: &str, server: &str) -> Project {
    Project::new(&format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"public.*\"] }}, slot: {slot}, publication: {slot}, discovery: {{ interval: 200ms }} }}\nsinks:\n{sinks}server: {server}\n",
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
async fn a_table_whose_existing_rows_were_changed_unseen_stops_alone() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE other (id int PRIMARY KEY)").await.unwrap();
    for (at, (name, before, change)) in [
        ("drawn", "", "ALTER TABLE t ADD u uuid DEFAULT gen_random_uuid()"),
        ("counted", "", "ALTER TABLE t ADD c bigserial"),
        ("retyped", "ALTER TABLE t ADD r text", "ALTER TABLE t ALTER r TYPE int USING length(r)"),
    ]
    .into_iter()
    .enumerate()
    {
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); {before}"))
            .await
            .unwrap();
        let files = "  files: { type: file, inputs: [shop], path: out }\n";
        let schema = name.to_uppercase();
        let project = pipeline(&postgres, name, &[&warehouse(&snowflake, &schema, ""), files].concat());
        project.succeeds(&["run", "--until", "caught-up"]);
        client.batch_execute(change).await.unwrap();
        client.batch_execute(&format!("INSERT INTO t (id) VALUES (2); INSERT INTO other VALUES ({at})")).await.unwrap();
        let there = in_postgres(&client, "SELECT pg_current_wal_lsn()").await[0][0].clone();
        // Again and again, also when nothing of it comes.
        for _ in 0..2 {
            let output = project.run(&["run", "--until", "caught-up"]);
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}:\n{log}");
            let last = log.rsplit_once("error[SF0008]").map_or("", |(_, last)| last);
            assert!(last.contains("public.t") && last.contains("resync"), "{name}:\n{log}");
            let moved =
                format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND confirmed_flush_lsn >= '{there}'");
            assert_eq!(in_postgres(&client, &moved).await, [["1"]], "{name}: the slot goes on");
            assert_equal(&client, &snowflake, &schema, "other").await;
            assert_eq!(in_snowflake(&snowflake, &format!("SELECT id FROM RAW.{schema}.T")).await, [["1"]], "{name}");
        }
        // The way out that the error names.
        assert_eq!(project.succeeds(&["resync", "public.t"]), "shop public.t\n");
        project.succeeds(&["run", "--until", "caught-up"]);
        assert_equal(&client, &snowflake, &schema, "t").await;
        let free = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND active");
        while in_postgres(&client, &free).await != [["0"]] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.batch_execute(&format!("SELECT pg_drop_replication_slot('{name}')")).await.unwrap();
    }
}

/// What the running pipeline's server answers.
fn asked(port: u16, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
    }
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_refused_change_stops_its_table_alone_over_kills_and_resync_takes_it_up() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    let tables = ["t", "other"].map(|name| {
        format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} SELECT i, 'v' || i FROM generate_series(1, 50) i;")
    });
    client.batch_execute(&tables.concat()).await.unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refuses = ", schema_changes: refuse, batch: { max_rows: 7, max_age: 20ms }";
    let sinks = [
        warehouse(&snowflake, "CURRENT_ROWS", &format!("{refuses}, merge: {{ interval: 50ms }}")),
        warehouse(&snowflake, "HISTORY", &format!("{refuses}, write_mode: append")),
        "  files: { type: file, inputs: [shop], path: out }\n".into(),
    ];
    let mut project = pipeline_with(&postgres, "refused", &sinks.concat(), &format!("{{ listen: \"127.0.0.1:{port}\" }}"));
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("INSERT INTO t VALUES (100, 'before'); BEGIN; UPDATE t SET v = 'in the middle' WHERE id = 1; ALTER TABLE t ADD c int DEFAULT 7; UPDATE t SET c = id; INSERT INTO other VALUES (100, 'same'); COMMIT").await.unwrap();
    // Killed when one of the sinks has noted its stop, when the other has, and when what they leave out is acknowledged.
    for (at, point) in ["snowflake.stopped=kill@1", "snowflake.stopped=kill@1", "sink.ack=kill@3", "confirm.send=kill@2"].iter().enumerate()
    {
        project.env = vec![("ETL_STREAM_FAILPOINTS".into(), (*point).into())];
        let mut child = project.start(&["run"]);
        client.batch_execute("UPDATE t SET c = c + 1 WHERE id % 5 = 0").await.unwrap();
        let mut rounds = 0;
        while child.try_wait().unwrap().is_none() && (at == 0 || rounds < 200) {
            client.batch_execute("INSERT INTO other SELECT max(id) + 1, 'more' FROM other").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            rounds += 1;
            assert!(rounds < 6000, "{point} is not reached:\n{}", project.log());
        }
        // The other may have noted its stop before the first kill.
        let _ = child.kill();
        assert_eq!(child.wait().unwrap().code(), None, "{point}: it was killed\n{}", project.log());
    }
    project.env.clear();
    let mut child = project.start(&["run"]);
    confirmed(&client, "refused", &project).await;
    let status: Value = serde_json::from_str(&asked(port, "/api/v1/status")).unwrap();
    for sink in status["sinks"].as_array().unwrap() {
        let stopped = sink["stopped_tables"].as_array().unwrap();
        if sink["sink"] == "files" {
            assert!(stopped.is_empty());
            continue;
        }
        let [stopped] = &stopped[..] else { panic!("{status}") };
        assert_eq!(["source", "table", "code"].map(|name| stopped[name].as_str()), ["shop", "public.t", "SF0008"].map(Some));
        assert!(stopped["hint"].as_str().unwrap().contains("resync") && stopped["discarded_rows"].as_u64().is_some(), "{stopped}");
    }
    client.batch_execute("UPDATE t SET c = 0 WHERE id < 9").await.unwrap();
    confirmed(&client, "refused", &project).await;
    let metrics = asked(port, "/metrics");
    let line = |text: &str| metrics.lines().any(|line| text.split(' ').all(|part| line.contains(part)));
    assert!(line("etl_stream_sink_stopped_tables sink=\"current_rows\" 1"), "{metrics}");
    assert!(line("etl_stream_sink_discarded_rows_total sink=\"history\" table=\"public.t\""), "{metrics}");
    // What stands before the change is there, and nothing after it.
    let before = in_postgres(&client, "SELECT i, CASE i WHEN 1 THEN 'in the middle' WHEN 100 THEN 'before' ELSE 'v' || i END FROM (SELECT generate_series(1, 50) UNION SELECT 100) AS s(i)").await;
    assert_same("at the stop", &in_snowflake(&snowflake, "SELECT id, v FROM RAW.CURRENT_ROWS.T").await, &before);
    // Copied anew while it runs, and followed from there on.
    assert_eq!(project.succeeds(&["resync", "public.t"]), "shop public.t\n");
    client.batch_execute("UPDATE t SET v = 'later' WHERE id = 3; DELETE FROM t WHERE id = 4").await.unwrap();
    let deadline = Instant::now() + RUN;
    let want = in_postgres(&client, "SELECT id, v, c FROM t").await;
    while snowflake.try_sql("SELECT C FROM RAW.CURRENT_ROWS.T").await.is_err()
        || in_snowflake(&snowflake, "SELECT id, v, c FROM RAW.CURRENT_ROWS.T").await != want
    {
        assert!(Instant::now() < deadline, "it is not copied anew:\n{}", project.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client
        .batch_execute("UPDATE t SET v = 'last' WHERE id = 5; DELETE FROM t WHERE id = 6; INSERT INTO other VALUES (-1, 'last')")
        .await
        .unwrap();
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
    project.succeeds(&["run", "--until", "caught-up"]);
    for table in ["t", "other"] {
        assert_equal(&client, &snowflake, "CURRENT_ROWS", table).await;
    }
    let (have, want) = (fold(&project.path().join("out"), "public.t", &["id"]), source_rows(&postgres, "shop", "t", &["id"]).await);
    assert!(have == want, "the file sink follows");
    // The history has what came before the stop once, then a new snapshot and what followed it.
    let landed = in_snowflake(&snowflake, "SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.HISTORY.T__CHANGES").await;
    assert_eq!(landed[0][0], landed[0][1], "tokens land once");
    let history = snowflake.sql("SELECT _OP, _SEQ, ID, V FROM RAW.HISTORY.T__CHANGES ORDER BY _SEQ").await;
    let cell = |row: &Vec<Option<String>>, at: usize| row[at].clone().unwrap_or_default();
    let snapshots: BTreeSet<String> = history.iter().filter(|row| cell(row, 0) == "r").map(|row| cell(row, 1)[..16].to_owned()).collect();
    assert_eq!(snapshots.len(), 2, "{history:?}");
    let first: Vec<_> = history.iter().filter(|row| cell(row, 1) < *snapshots.last().unwrap()).collect();
    assert_eq!(first.len(), 52, "{first:?}");
    assert_eq!((cell(first[50], 2), cell(first[51], 3)), ("100".into(), "in the middle".into()));
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
