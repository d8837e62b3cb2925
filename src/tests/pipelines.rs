//! Whole pipelines, run by the real binary: PostgreSQL to files.

use crate::harness::{Project, fold, history, signal, source_rows, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use std::collections::BTreeSet;
use std::net::TcpListener;

fn to_files(url: &str, rest: &str) -> String {
    format!(
        "sources:\n  shop:\n    type: postgres\n    url: {{ plain: \"{url}\" }}\n    tables: {{ include: [\"public.*\"] }}\n{rest}sinks:\n  files:\n    type: file\n    inputs: [shop]\n    path: out\n    format: ndjson\nserver: none\n"
    )
}

const SHOP: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, total numeric(12,2), placed timestamptz, tags text[], detail jsonb, note text);
    CREATE TABLE \"Odd Näme\" (a int, b int, v text, PRIMARY KEY (a, b));
    INSERT INTO orders SELECT i, 'new', i * 1.25, '2024-01-01 12:00+02'::timestamptz + i * interval '1 minute', ARRAY['x', NULL, 'y\"' || i], jsonb_build_object('i', i), repeat(md5(i::text), 200)
        FROM generate_series(1, 2000) i;
    INSERT INTO \"Odd Näme\" SELECT i, i % 7, 'v' || i FROM generate_series(1, 300) i;";

const CHANGES: &str = "
    BEGIN; UPDATE orders SET status = 'paid' WHERE id % 3 = 0; DELETE FROM orders WHERE id % 10 = 0; COMMIT;
    BEGIN; DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (1, 'again', 1, NULL, '{}', 'null', NULL); COMMIT;
    BEGIN; UPDATE orders SET id = -1 WHERE id = 2; UPDATE orders SET id = 2 WHERE id = 3; UPDATE orders SET id = 3 WHERE id = -1; COMMIT;
    BEGIN; INSERT INTO orders VALUES (5000, 'rolled back', 0); ROLLBACK;
    BEGIN; SAVEPOINT a; INSERT INTO orders VALUES (5001, 'undone', 0); ROLLBACK TO a; INSERT INTO orders VALUES (5002, 'kept', 'NaN', 'infinity'); COMMIT;
    UPDATE \"Odd Näme\" SET v = NULL WHERE a < 50;
    TRUNCATE \"Odd Näme\"; INSERT INTO \"Odd Näme\" VALUES (1, 1, 'after');
    ALTER TABLE orders ADD COLUMN extra int; UPDATE orders SET extra = 7 WHERE id < 100;";

async fn assert_equal(postgres: &Postgres, project: &Project) {
    for (table, quoted, folder, key) in
        [("orders", "orders", "public.orders", &["id"][..]), ("odd", "\"Odd Näme\"", "public.Odd Näme", &["a", "b"][..])]
    {
        let source = source_rows(postgres, "shop", quoted, key).await;
        let mut target = fold(&project.path().join("out"), folder, key);
        // Rows written before a column was added do not have it; PostgreSQL reads them as null.
        for (id, row) in &mut target {
            let members = row.as_object_mut().unwrap();
            source.get(id).and_then(|s| s.as_object()).into_iter().flatten().filter(|(_, v)| v.is_null()).for_each(|(name, v)| {
                members.entry(name).or_insert_with(|| v.clone());
            });
        }
        let (have, want): (BTreeSet<_>, BTreeSet<_>) = (target.keys().collect(), source.keys().collect());
        let differ: Vec<_> = have.symmetric_difference(&want).take(5).collect();
        assert!(differ.is_empty(), "{table}: {} keys there, {} wanted, such as {differ:?}", have.len(), want.len());
        for (id, row) in &source {
            assert_eq!(&target[id], row, "{table} {id}");
        }
    }
}

#[tokio::test]
async fn snapshot_then_changes_over_several_runs() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    let project = Project::new(&to_files(&postgres.url("shop"), ""));
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&postgres, &project).await;
    assert!(history(&project.path().join("out"), "public.orders").iter().all(|(_, row)| row["_op"] == "r"));
    client.batch_execute(CHANGES).await.unwrap();
    project.succeeds(&["run", "--until", "caught-up", "--workers", "3"]);
    assert_equal(&postgres, &project).await;
    let before = history(&project.path().join("out"), "public.orders").len();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_eq!(history(&project.path().join("out"), "public.orders").len(), before, "a run without changes writes nothing");
}

#[tokio::test]
async fn killed_at_any_moment_each_change_arrives_once() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    let batch = "    snapshot: { workers: 2 }\n";
    let project = Project::new(
        &to_files(&postgres.url("shop"), batch).replace("format: ndjson", "format: ndjson\n    batch: { max_rows: 37, max_age: 20ms }"),
    );
    let workload = postgres.client("shop").await;
    let writer = tokio::spawn(async move {
        for round in 0..400_i64 {
            let sql = format!(
                "BEGIN; INSERT INTO orders SELECT 10000 + {round} * 20 + i, 'w', i FROM generate_series(1, 20) i; UPDATE orders SET total = total + 1 WHERE id % 100 = {round} % 100; DELETE FROM orders WHERE id = 10000 + {round} * 20 - 5; COMMIT"
            );
            workload.batch_execute(&sql).await.unwrap();
        }
    });
    for round in 0..6_usize {
        let mut child = project.start(&["run"]);
        let out = project.path().join("out/public.orders");
        let files = || -> BTreeSet<_> { std::fs::read_dir(&out).map(|d| d.flatten().map(|f| f.file_name()).collect()).unwrap_or_default() };
        let before = files();
        // The first kills fall into the snapshot, the later ones into the stream.
        wait_for("some progress", || files().difference(&before).count() > 2 + round * 6 || child.try_wait().unwrap().is_some());
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
        signal(&child, "KILL");
        let _ = child.wait();
    }
    writer.await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&postgres, &project).await;
}

#[tokio::test]
async fn sigterm_drains_and_confirms() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(SHOP).await.unwrap();
    let project =
        Project::new(&to_files(&postgres.url("shop"), "").replace("format: ndjson", "format: ndjson\n    batch: { max_age: 1h }"));
    let mut child = project.start(&["run"]);
    let out = project.path().join("out");
    wait_for("the snapshot", || history(&out, "public.orders").len() == 2000 || child.try_wait().unwrap().is_some());
    client.batch_execute("UPDATE orders SET status = 'last' WHERE id = 7").await.unwrap();
    let lsn: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    wait_for("the change to be received", || {
        let _ = &lsn;
        project.log().contains("streaming") || child.try_wait().unwrap().is_some()
    });
    signal(&child, "TERM");
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", project.log());
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_equal(&postgres, &project).await;
}

#[test]
fn a_signal_that_comes_before_the_pipeline_is_up_ends_it_well() {
    // A Snowflake that is reached and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let sink = format!(
        "sinks:\n  warehouse: {{ type: snowflake, inputs: [shop], account: LOCAL, url: \"http://{}\", user: LOADER, private_key: {{ file: ./snowflake.p8 }}, database: RAW, schema: SHOP }}\nserver: none\n",
        silent.local_addr().unwrap()
    );
    let pipeline = to_files("postgres://u@127.0.0.1:1/shop", "");
    let project = Project::new(&format!("{}{sink}", &pipeline[..pipeline.find("sinks:").unwrap()]));
    for name in ["TERM", "INT"] {
        let mut child = project.start(&["run"]);
        let mut reached = None;
        wait_for("Snowflake to be reached", || {
            reached = silent.accept().ok();
            reached.is_some() || child.try_wait().unwrap().is_some()
        });
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}:\n{}", project.log());
    }
}
