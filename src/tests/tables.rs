//! Tables that join and leave while pipelines run by the real binary, and those that are copied anew.

use crate::harness::{Project, RUN, fold, history, signal, source_rows, wait_for};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, number, snowflake, until};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// A table with rows, large enough that its copy can be met in the middle.
const NEW: &str = "CREATE TABLE n (id int PRIMARY KEY, v int, note text); ALTER TABLE n ALTER note SET STORAGE EXTERNAL;
    INSERT INTO n SELECT i, 0, repeat(md5(i::text), 80) FROM generate_series(1, 4000) i";

/// Transactions over both tables, until told to stop. Values of over 2 kB are not sent with updates that leave them.
fn workload(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut round = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let base = 100_000 + round * 5;
            let sql = format!(
                "BEGIN; INSERT INTO n SELECT {base} + i, 1, repeat('n', 3000) FROM generate_series(1, 5) i;
                 UPDATE n SET v = v + 1 WHERE id % 400 = {round} % 400; DELETE FROM n WHERE id = {base} - 3;
                 UPDATE n SET id = -id WHERE id = {base} + 1; INSERT INTO t VALUES ({base}, 'w'); UPDATE t SET v = 'r{round}' WHERE id = 1; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            round += 1;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    })
}

fn source(postgres: &Postgres) -> String {
    format!(
        "sources:
  shop:
    type: postgres
    url: {{ plain: \"{}\" }}
    tables: {{ include: [\"public.*\"] }}
    snapshot: {{ workers: 2 }}
    discovery: {{ interval: 200ms }}
",
        postgres.url("shop")
    )
}

fn kill(mut child: Child, project: &Project) {
    assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
    signal(&child, "KILL");
    let _ = child.wait();
}

async fn assert_folds(postgres: &Postgres, out: &Path) {
    for table in ["t", "n"] {
        let (have, want) = (fold(out, &format!("public.{table}"), &["id"]), source_rows(postgres, "shop", table, &["id"]).await);
        let differ: Vec<_> = want.iter().filter(|(id, row)| have.get(*id) != Some(*row)).map(|(id, _)| id).take(5).collect();
        assert!(have == want, "{table}: {} rows there, {} wanted; differing {differ:?}", have.len(), want.len());
    }
}

// The workload goes on while the test waits for files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_joins_files_over_kills_and_is_copied_anew() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let sink = "sinks:\n  files: { type: file, inputs: [shop], path: out, format: ndjson, batch: { max_rows: 97, max_age: 20ms } }\nserver: none\n";
    let project = Project::new(&format!("{}{sink}", source(&postgres)));
    let out = project.path().join("out");
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute(NEW).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = workload(postgres.client("shop").await, Arc::clone(&stop));
    let files = || -> BTreeSet<_> {
        std::fs::read_dir(out.join("public.n")).map(|d| d.flatten().map(|f| f.file_name()).collect()).unwrap_or_default()
    };
    for round in 0..4_usize {
        let mut child = project.start(&["run"]);
        let before = files();
        // The first kills fall into the copy, the last one behind it.
        wait_for("some of the new table", || files().difference(&before).count() > 3 + round * 12 || child.try_wait().unwrap().is_some());
        kill(child, &project);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_folds(&postgres, &out).await;
    let snapshots = || -> BTreeSet<String> {
        let read = history(&out, "public.n").into_iter().filter(|(_, row)| row["_op"] == "r");
        read.map(|(token, _)| token[..16].to_owned()).collect()
    };
    let first = snapshots();
    assert_eq!(first.len(), 1, "attempts are replaced as a whole");
    assert!(history(&out, "public.t").iter().filter(|(_, row)| row["_op"] == "r").count() == 1, "the other table is not copied again");

    // Files are lost, and the table is copied anew.
    // The last: what follows a hole may leave values unchanged that nobody has any more.
    let lost = files().into_iter().filter(|name| name.to_string_lossy().ends_with(".ndjson")).max().unwrap();
    std::fs::remove_file(out.join("public.n").join(lost)).unwrap();
    let wrong = project.run(&["resync", "public.m"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && said.contains("RUN0012") && said.contains("public.n"), "{said}");
    assert_eq!(project.succeeds(&["resync", "public.n"]), "shop public.n\n");
    client.batch_execute("UPDATE n SET v = -1 WHERE id < 10").await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_folds(&postgres, &out).await;
    // The earlier one is gone where no change had followed it.
    let second = snapshots();
    assert_eq!(second.difference(&first).count(), 1);
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_eq!(snapshots(), second, "once");

    // Dropped and made anew, between two runs.
    client
        .batch_execute("DROP TABLE n; CREATE TABLE n (id int PRIMARY KEY, v int, note text); INSERT INTO n VALUES (1, 1, 'anew')")
        .await
        .unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_folds(&postgres, &out).await;
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const THERE: &str = "SELECT id, v, note FROM RAW.SHOP.N";

/// Waits until the target is what the source has, which nobody changes.
async fn arrives(what: &str, client: &Client, snowflake: &LocalSnowflake) {
    let want = in_postgres(client, "SELECT id, v, note FROM n").await;
    let deadline = Instant::now() + RUN;
    loop {
        let have = in_snowflake(snowflake, THERE).await;
        if have == want {
            return;
        }
        if Instant::now() > deadline {
            assert_same(what, &have, &want);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_table_joins_snowflake_over_kills_and_is_copied_anew() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let port = free_port();
    let project = Project::new(&format!(
        "{}sinks:
  warehouse: {{ inputs: [shop], {}, schema: SHOP, batch: {{ max_rows: 97, max_age: 20ms }}, merge: {{ interval: 100ms }} }}
server: {{ listen: \"127.0.0.1:{port}\" }}
",
        source(&postgres),
        account(&snowflake)
    ));
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute(NEW).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = workload(postgres.client("shop").await, Arc::clone(&stop));
    let landed = "SELECT COUNT(*) FROM RAW.SHOP.N__CHANGES";
    let streamed = "SELECT COUNT(*) FROM RAW.SHOP.N__CHANGES WHERE _OP <> 'r'";
    for round in 0..3_u64 {
        let child = project.start(&["run"]);
        let before = number(&snowflake, streamed).await;
        if round < 2 {
            until("some of the copy", &snowflake, landed, |n| (300 + round * 500..4000).contains(&n)).await;
            let merged = number(&snowflake, "SELECT COUNT(*) FROM RAW.SHOP.N").await;
            assert_eq!(merged, 0, "nobody sees half of a copy");
        } else {
            until("changes", &snowflake, streamed, |n| n > before + 50).await;
        }
        kill(child, &project);
    }
    let child = project.start(&["run"]);
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    arrives("joined", &client, &snowflake).await;
    let counts = in_snowflake(&snowflake, "SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.SHOP.N__CHANGES").await;
    assert_eq!(counts[0][0], counts[0][1], "tokens land once");

    // Someone damages the target, and has it copied anew while the pipeline runs.
    snowflake.sql("DELETE FROM RAW.SHOP.N WHERE id % 2 = 0").await;
    snowflake.sql("UPDATE RAW.SHOP.N SET v = 99 WHERE id < 100").await;
    let wrong = project.run(&["resync", "public.nn"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && said.contains("RUN0013") && said.contains("public.n"), "{said}");
    assert_eq!(project.succeeds(&["resync", "*.n", "--source", "shop"]), "shop public.n\n");
    arrives("copied anew", &client, &snowflake).await;

    // Dropped and made anew while it runs.
    client.batch_execute("DROP TABLE n; CREATE TABLE n (id int PRIMARY KEY, v int, note text); INSERT INTO n SELECT i, i, 'x' FROM generate_series(1, 500) i").await.unwrap();
    arrives("made anew", &client, &snowflake).await;
    client.batch_execute("UPDATE n SET v = -v WHERE id % 3 = 0; DELETE FROM n WHERE id % 7 = 0").await.unwrap();
    arrives("changed after that", &client, &snowflake).await;
    let mut child = child;
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
    let same = in_snowflake(&snowflake, "SELECT id, v FROM RAW.SHOP.T").await;
    assert_same("t", &same, &in_postgres(&client, "SELECT id, v FROM t").await);
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_said_when_all_else_is_done() {
    let postgres = Postgres::start_with(&["max_replication_slots=2"]);
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let project =
        Project::new(&format!("{}sinks:\n  files: {{ type: file, inputs: [shop], path: out }}\nserver: none\n", source(&postgres)));
    project.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("SELECT pg_create_physical_replication_slot('in_the_way')").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE n (id int PRIMARY KEY, v int, note text); INSERT INTO n VALUES (1, 1, 'x'); INSERT INTO t VALUES (2, 'b')",
        )
        .await
        .unwrap();
    let output = project.run(&["run", "--until", "caught-up"]);
    let log = String::from_utf8_lossy(&output.stderr);
    let last = log.rsplit_once("error[PG").map_or("", |(_, last)| last);
    assert!(last.contains("public.n") && last.contains("max_replication_slots"), "{log}");
    assert_eq!(output.status.code(), Some(3), "a setting is missing:\n{log}");
    let out = project.path().join("out");
    assert_eq!(fold(&out, "public.t", &["id"]), source_rows(&postgres, "shop", "t", &["id"]).await);
    assert!(history(&out, "public.n").is_empty());
    client.batch_execute("SELECT pg_drop_replication_slot('in_the_way')").await.unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    assert_folds(&postgres, &out).await;
}
