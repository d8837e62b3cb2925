//! Tables that are altered while nobody reads: every row comes under the columns, types and key of its time,
//! although the catalog has moved on.

use super::driver::{Replica, Setup, rows, until};
use crate::contract::Phase;
use crate::testing::postgres::Postgres;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_has_the_schema_of_its_time() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN small AS int CHECK (VALUE < 100);
             CREATE TABLE t (id int PRIMARY KEY, a text, b int); INSERT INTO t VALUES (1, 'x', 1);
             CREATE TABLE gone (id small PRIMARY KEY, m mood);
             CREATE TABLE whole (id int PRIMARY KEY, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
             CREATE TABLE lists (id int PRIMARY KEY, hidden text, v text)",
        )
        .await
        .unwrap();
    let setup = Setup::new(&server, "shop", json!({}));
    let source = setup.start();
    source.until("copied", |replica| replica.log.iter().filter(|l| l.starts_with("end")).count() == 4).await;
    // Stopped before that is noted, the next run would copy again.
    until("it streams", || async { source.status.phase().0 == Phase::Streaming }).await;
    let _ = source.stop().await;
    // Each on its own: statements of one batch are one transaction.
    for sql in [
        "INSERT INTO t VALUES (2, 'y', 2)",
        "ALTER TABLE t ADD c int DEFAULT 7",
        "INSERT INTO t (id) VALUES (3)",
        "ALTER TABLE t RENAME a TO aa",
        "INSERT INTO t VALUES (4, 'z', 4, 4)",
        "BEGIN; INSERT INTO t VALUES (5, 'w'); ALTER TABLE t DROP b; UPDATE t SET aa = 'ww' WHERE id = 5; ALTER TABLE t ADD b bigint;
         INSERT INTO t VALUES (6, 'v', 1, 60); COMMIT",
        "ALTER TABLE t ADD m mood, ADD d small",
        "INSERT INTO t (id, m, d) VALUES (7, 'good', 3)",
        "ALTER TYPE mood ADD VALUE 'bad'",
        "INSERT INTO t (id, m) VALUES (8, 'bad')",
        "ALTER TABLE t DROP m, DROP d",
        "DELETE FROM t WHERE id = 8",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (c, id)",
        "DELETE FROM t WHERE id = 7",
        "ALTER TABLE t ALTER c TYPE bigint",
        "INSERT INTO t (id) VALUES (9)",
        "UPDATE t SET aa = 'set' WHERE aa IS NULL",
        "ALTER TABLE t ALTER aa SET NOT NULL, ALTER aa SET DEFAULT ''",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    for sql in [
        "INSERT INTO gone VALUES (1, 'bad')",
        "DROP TABLE gone; DROP TYPE mood; DROP DOMAIN small",
        "UPDATE whole SET v = 'none'; INSERT INTO whole VALUES (1, 'a')",
        "ALTER TABLE whole RENAME v TO w",
        "UPDATE whole SET w = 'b'",
        "INSERT INTO lists VALUES (1, 'h', 'v')",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let source = setup.start();
    source.caught_up(&client).await;
    let Replica { seen, log, .. } = source.stop().await;
    assert!(!log.iter().any(|line| line.starts_with("begin")), "{log:?}");
    assert_eq!(
        seen,
        [
            // Its third column may be the one that is dropped now, or `c` under an older name.
            "I t id#1*Int4=2 a#2:Text=y b#?:Int4=2",
            "I t id#1*Int4=3 a#2:Text=∅ b#3:Int4=∅ c#4:Int4=7",
            "I t id#1*Int4=4 aa#2:Text=z b#3:Int4=4 c#4:Int4=4",
            "I t id#1*Int4=5 aa#2:Text=w b#3:Int4=∅ c#4:Int4=7",
            "U t id#1*Int4=5 aa#2:Text=ww c#4:Int4=7",
            "I t id#1*Int4=6 aa#2:Text=v c#4:Int4=1 b#5:Int8=60",
            "I t id#1*Int4=7 aa#2:Text=∅ c#4:Int4=7 b#5:Int8=∅ m#6:Other=good d#7:Int4=3",
            "I t id#1*Int4=8 aa#2:Text=∅ c#4:Int4=7 b#5:Int8=∅ m#6:Other=bad d#7:Int4=∅",
            "D t id#1*Int4=8 aa#2:Text=∅ c#4:Int4=∅ b#5:Int8=∅",
            "D t id#1*Int4=7 aa#2:Text=∅ c#4*Int4=7 b#5:Int8=∅",
            "I t id#1*Int4=9 aa#2:Text=∅ c#4*Int8=7 b#5:Int8=∅",
            "U t id#1*Int4=3 aa#2:Text=set c#4*Int8=7 b#5:Int8=∅",
            "U t id#1*Int4=9 aa#2:Text=set c#4*Int8=7 b#5:Int8=∅",
            "I gone id#?*Int4=1 m#?:Other=bad",
            "I whole id#1*Int4=1 v#2:Text=a",
            "U whole id#1*Int4=1 w#2:Text=b",
            "I lists id#1*Int4=1 hidden#2:Text=h v#3:Text=v",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_existing_rows_read_is_known_or_said_not_to_be() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE part_a PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE part_b PARTITION OF parts FOR VALUES FROM (10) TO (20)",
        )
        .await
        .unwrap();
    let setup = Setup::new(&server, "shop", json!({}));
    let source = setup.start();
    source.until("copied", |replica| replica.log.iter().filter(|l| l.starts_with("end")).count() == 2).await;
    let file = |source: &super::driver::Driver| source.replica(|r| r.schemas["public.t"].storage.map(|s| (s.file, s.current)));
    let first = file(&source);
    assert!(first.is_some_and(|(_, current)| current));
    client
        .batch_execute("ALTER TABLE t ADD plain int, ADD fixed text DEFAULT 'x', ADD late int; ALTER TABLE t ALTER late SET DEFAULT 3; INSERT INTO t (id) VALUES (2)")
        .await
        .unwrap();
    client.batch_execute("ALTER TABLE parts ADD n int DEFAULT 7; INSERT INTO parts (id) VALUES (1)").await.unwrap();
    source.caught_up(&client).await;
    assert_eq!(file(&source), first, "not rewritten");
    let parts = source.replica(|r| r.schemas["public.parts"].columns[1].clone());
    assert_eq!((parts.missing.as_deref(), parts.filled), (Some("7"), false), "a partitioned table's default is its partitions'");
    client
        .batch_execute("ALTER TABLE t ADD drawn uuid DEFAULT gen_random_uuid(), ADD counted int GENERATED ALWAYS AS IDENTITY")
        .await
        .unwrap();
    client.batch_execute("INSERT INTO t (id) VALUES (3)").await.unwrap();
    source.caught_up(&client).await;
    assert!(file(&source).is_some_and(|now| Some(now) != first), "rewritten");
    let columns = source.replica(|r| r.schemas["public.t"].columns.clone());
    let said: Vec<(&str, Option<&str>, bool)> = columns.iter().skip(1).map(|c| (&*c.name, c.missing.as_deref(), c.filled)).collect();
    // The rewrite has filled in `fixed` for good: what it was is no longer known, and was said before.
    assert_eq!(said, [("plain", None, false), ("fixed", None, true), ("late", None, true), ("drawn", None, true), ("counted", None, true)]);
    let _ = source.stop().await;
}

/// Alters, rewrites, truncates and writes a table until told to stop. Its first three columns stay.
async fn alter(client: tokio_postgres::Client, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let wide = if round % 2 == 0 { "bigint" } else { "int" };
        for sql in [
            format!("INSERT INTO t (id, v, w) SELECT {round} * 100 + i, 'v' || i, i FROM generate_series(1, 20) i"),
            format!("ALTER TABLE t ADD x{round} int DEFAULT {round}"),
            format!(
                "BEGIN; UPDATE t SET v = 'u{round}' WHERE id % 7 = 0; ALTER TABLE t ALTER w TYPE {wide}; UPDATE t SET w = {round} WHERE id % 5 = 0; COMMIT"
            ),
            format!("ALTER TABLE t DROP x{round}; DELETE FROM t WHERE id % 11 = {round} % 11"),
            if round % 5 == 4 { "TRUNCATE t".to_owned() } else { "SELECT".to_owned() },
        ] {
            client.batch_execute(&sql).await.unwrap();
            // Making a slot and locking the tables must fit in between now and then.
            tokio::time::sleep(Duration::from_millis(if round % 3 == 0 { 400 } else { 20 })).await;
        }
        round += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_altered_while_its_snapshot_is_taken() {
    let server = Postgres::start();
    let client = server.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text, w int)").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(alter(server.client("shop").await, Arc::clone(&stop)));
    let sources: Vec<_> =
        (0..2).map(|n| Setup::new(&server, "shop", json!({ "slot": format!("s{n}"), "publication": format!("s{n}") })).start()).collect();
    for source in &sources {
        source.until("streaming", |replica| replica.rows > 0 && replica.log.iter().any(|l| l.starts_with("U "))).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let expected = rows(&client, "t", &["id", "v", "w"]).await;
    for source in sources {
        source.caught_up(&client).await;
        let mut found = source.stop().await.tables.remove("public.t").unwrap_or_default();
        found.values_mut().for_each(|row| row.truncate(3));
        assert_eq!(found, expected);
    }
}
