//! What went wrong in the earlier program and is not covered elsewhere: see `docs/predecessor-defects.md`.

use crate::harness::{Project, fold, history, signal, source_rows, wait_for};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use std::time::Instant;

fn to_files(url: &str, source: &str) -> String {
    format!(
        "sources:\n  shop:\n    type: postgres\n    url: {{ plain: \"{url}\" }}\n{source}sinks:\n  files: {{ type: file, inputs: [shop], path: out, format: ndjson }}\nserver: none\n"
    )
}

async fn same(postgres: &Postgres, project: &Project, tables: &[(&str, &str)]) {
    for (quoted, folder) in tables {
        let source = source_rows(postgres, "shop", quoted, &["id"]).await;
        assert_eq!(fold(&project.path().join("out"), folder, &["id"]), source, "{quoted}");
    }
}

/// Values, names and changes of tables that each stopped a whole pipeline for good.
#[tokio::test]
async fn values_and_names_that_stopped_a_pipeline() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    let special = "infinity,-infinity,0044-03-15 BC,10000-01-01,294276-12-31 23:59:59.999999";
    let rows = format!(
        "SELECT t, t::timestamptz, CASE WHEN t LIKE '294%' THEN '5874897-12-31' ELSE t END::date, '24:00:00', '{{{{1,2}},{{3,NULL}}}}', '[0:1]={{a,\"b,c\"}}'
         FROM (SELECT unnest('{{{special}}}'::text[]) t) x"
    );
    let insert = format!(
        "INSERT INTO special (at, zoned, day, clock, matrix, low) SELECT t.t::timestamp, t.t2, t.t3, t.t4::time, t.t5::int[], t.t6::text[] FROM ({rows}) t(t, t2, t3, t4, t5, t6)"
    );
    client
        .batch_execute(&format!(
            "CREATE TABLE special (id serial PRIMARY KEY, at timestamp, zoned timestamptz, day date, clock time, matrix int[], low text[], n numeric DEFAULT 'NaN');
             {insert};
             CREATE TABLE loose (id int PRIMARY KEY, req text NOT NULL); INSERT INTO loose VALUES (1, 'there');
             CREATE SCHEMA a; CREATE SCHEMA \"b.c\";
             CREATE TABLE a.users (id int PRIMARY KEY, v text); CREATE TABLE \"b.c\".users (id int PRIMARY KEY, v text);
             CREATE TABLE \"order-items\" (id int PRIMARY KEY, \"Select\" text); CREATE TABLE \"Foo\" (id int PRIMARY KEY); CREATE TABLE \"ord.er\" (id int PRIMARY KEY);
             CREATE TABLE bare (v text);
             INSERT INTO a.users VALUES (1, 'a'); INSERT INTO \"b.c\".users VALUES (1, 'b'); INSERT INTO \"order-items\" VALUES (1, 'x'); INSERT INTO bare VALUES ('x'), ('x')"
        ))
        .await
        .unwrap();
    let project = Project::new(&to_files(&postgres.url("shop"), "    tables: { include: [\"*.*\"] }\n"));
    let tables = [
        ("special", "public.special"),
        ("loose", "public.loose"),
        ("a.users", "a.users"),
        ("\"b.c\".users", "b%2Ec.users"),
        ("\"order-items\"", "public.order-items"),
        ("\"Foo\"", "public.Foo"),
        ("\"ord.er\"", "public.ord.er"),
    ];
    project.succeeds(&["run", "--until", "caught-up"]);
    same(&postgres, &project, &tables).await;
    client
        .batch_execute(&format!(
            "{insert}; UPDATE special SET at = '-infinity', matrix = '{{{{{{7}}}}}}', n = 'Infinity' WHERE id = 2;
             ALTER TABLE loose ALTER req DROP NOT NULL; INSERT INTO loose VALUES (2, NULL); UPDATE loose SET req = NULL WHERE id = 1;
             UPDATE a.users SET v = 'changed'; DELETE FROM \"b.c\".users; INSERT INTO \"b.c\".users VALUES (1, 'again'); UPDATE \"order-items\" SET id = 2;
             INSERT INTO \"Foo\" VALUES (1); INSERT INTO \"ord.er\" VALUES (1); INSERT INTO bare VALUES (NULL)"
        ))
        .await
        .unwrap();
    project.succeeds(&["run", "--until", "caught-up"]);
    same(&postgres, &project, &tables).await;
    let bare = history(&project.path().join("out"), "public.bare");
    let bare: Vec<String> = bare.iter().map(|(_, row)| format!("{} {}", row["_op"], row["v"])).collect();
    assert_eq!(bare, ["\"r\" \"x\"", "\"r\" \"x\"", "\"i\" null"], "a table without a key keeps its history");
}

/// Pipelines share nothing: neither state nor slots, and one that is in the other's place is refused.
#[tokio::test]
async fn pipelines_leave_each_other_alone() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client
        .batch_execute("CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY); INSERT INTO one VALUES (1); INSERT INTO two VALUES (1)")
        .await
        .unwrap();
    let url = postgres.url("shop");
    let one = Project::new(&to_files(&url, "    tables: { include: [\"public.one\"] }\n"));
    one.succeeds(&["run", "--until", "caught-up"]);
    // the same names, another folder: it would take the first one's changes
    let thief = Project::new(&to_files(&url, "    tables: { include: [\"public.two\"] }\n"));
    let refused = thief.run(&["run", "--until", "caught-up"]);
    assert!(!refused.status.success(), "a second pipeline took the slot of the first");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PG00"), "{}", String::from_utf8_lossy(&refused.stderr));
    let two = Project::new(&to_files(&url, "    tables: { include: [\"public.two\"] }\n    slot: second\n    publication: second\n"));
    client.batch_execute("INSERT INTO one VALUES (2)").await.unwrap();
    two.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("INSERT INTO one VALUES (3); INSERT INTO two VALUES (2)").await.unwrap();
    let mut running = one.start(&["run"]);
    wait_for("the first pipeline's change", || history(&one.path().join("out"), "public.one").len() == 3);
    // a second process of the same pipeline is refused, and the first goes on
    let again = one.run(&["run", "--until", "caught-up"]);
    assert!(!again.status.success(), "two processes ran one pipeline");
    two.succeeds(&["run", "--until", "caught-up"]);
    client.batch_execute("INSERT INTO one VALUES (4)").await.unwrap();
    wait_for("what came after the refusal", || history(&one.path().join("out"), "public.one").len() == 4);
    assert!(running.try_wait().unwrap().is_none(), "{}", one.log());
    signal(&running, "TERM");
    assert_eq!(running.wait().unwrap().code(), Some(0), "{}", one.log());
    same(&postgres, &one, &[("one", "public.one")]).await;
    same(&postgres, &two, &[("two", "public.two")]).await;
    let slots = in_postgres(&client, "SELECT slot_name FROM pg_replication_slots").await;
    assert_eq!(slots.len(), 2, "no slot is left over: {slots:?}");
}

/// A pipeline that loses its connection again and again goes on by itself, does not spin, and leaves no connection
/// and no busy slot behind.
#[tokio::test]
async fn lost_connections_do_not_add_up() {
    const OURS: &str = "SELECT pid::text FROM pg_stat_activity WHERE application_name LIKE 'etl-stream%'";
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (0)").await.unwrap();
    let project = Project::new(&to_files(&postgres.url("shop"), "    tables: { include: [\"public.one\"] }\n"));
    let mut most = 0;
    for start in 0..2_usize {
        let mut child = project.start(&["run"]);
        for round in 0..4_usize {
            let id = 1 + start * 4 + round;
            client.batch_execute(&format!("INSERT INTO one VALUES ({id})")).await.unwrap();
            wait_for("the change", || {
                assert!(child.try_wait().unwrap().is_none(), "the run ended by itself:\n{}", project.log());
                history(&project.path().join("out"), "public.one").len() == id + 1
            });
            most = most.max(in_postgres(&client, OURS).await.len());
            client.batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'").await.unwrap();
        }
        signal(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
        let deadline = Instant::now() + crate::harness::RUN;
        while !in_postgres(&client, OURS).await.is_empty() {
            assert!(Instant::now() < deadline, "a connection outlives its process");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert!((1..=6).contains(&most), "{most} connections for one source");
    assert!(project.log().lines().count() < 1000, "{} lines of log for ten lost connections", project.log().lines().count());
    same(&postgres, &project, &[("one", "public.one")]).await;
}

/// The target is keyed as the table is, whatever the replica identity; nothing of the source's constraints hinders a
/// merge; the same name in two schemas is two tables.
#[tokio::test]
async fn replica_identities_and_constraints() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE whole (id int PRIMARY KEY, v text, big text, n numeric(8,2), tags text[]); ALTER TABLE whole REPLICA IDENTITY FULL;
             CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key;
             CREATE TABLE made (id int PRIMARY KEY, a int NOT NULL, twice int GENERATED ALWAYS AS (a * 2) STORED NOT NULL);
             CREATE TABLE loose (id int PRIMARY KEY, req text NOT NULL DEFAULT 'x');
             CREATE SCHEMA other; CREATE TABLE other.loose (id int PRIMARY KEY, v text);
             ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
             INSERT INTO whole SELECT i, NULLIF(i % 3, 0)::text, repeat('b', 3000), i, NULL FROM generate_series(1, 30) i;
             INSERT INTO indexed SELECT i, 'c' || i, NULL FROM generate_series(1, 30) i;
             INSERT INTO made (id, a) VALUES (1, 1); INSERT INTO loose VALUES (1); INSERT INTO other.loose VALUES (1, 'other')",
        )
        .await
        .unwrap();
    let project = Project::new(&format!(
        "sources:
  shop: {{ type: postgres, url: {{ plain: \"{}\" }}, tables: {{ include: [\"*.*\"] }} }}
sinks:
  warehouse: {{ inputs: [shop], {}, schema: SHOP, table: \"{{schema}}_{{table}}\" }}
server: none
",
        postgres.url("shop"),
        account(&snowflake)
    ));
    let changes = [
        "",
        "UPDATE whole SET v = NULL, n = NULL WHERE id % 2 = 0; UPDATE whole SET tags = '{a}' WHERE id = 3; DELETE FROM whole WHERE id % 5 = 0; UPDATE whole SET id = 100 WHERE id = 1;
         UPDATE indexed SET v = 'set' WHERE id < 10; UPDATE indexed SET code = 'moved' WHERE id = 20; UPDATE indexed SET id = 99 WHERE id = 21; DELETE FROM indexed WHERE id > 25 AND id < 31;
         UPDATE made SET a = 5; INSERT INTO made (id, a) VALUES (2, 2);
         ALTER TABLE loose ALTER req DROP NOT NULL; INSERT INTO loose VALUES (2, NULL); UPDATE loose SET req = NULL WHERE id = 1;
         UPDATE other.loose SET v = NULL; INSERT INTO other.loose VALUES (2, 'two')",
        "BEGIN; DELETE FROM whole WHERE id = 2; INSERT INTO whole VALUES (2, 'again'); UPDATE whole SET v = 'last' WHERE id = 2; COMMIT; DELETE FROM made",
    ];
    for changes in changes {
        client.batch_execute(changes).await.unwrap();
        project.succeeds(&["run", "--until", "caught-up"]);
        for (source, target, columns, theirs) in [
            ("whole", "PUBLIC_WHOLE", "id, v, big, n, to_jsonb(tags)", "id, v, big, n, tags"),
            ("indexed", "PUBLIC_INDEXED", "id, code, v", "id, code, v"),
            ("made", "PUBLIC_MADE", "id, a", "id, a"),
            ("loose", "PUBLIC_LOOSE", "id, req", "id, req"),
            ("other.loose", "OTHER_LOOSE", "id, v", "id, v"),
        ] {
            let there = in_snowflake(&snowflake, &format!("SELECT {theirs} FROM RAW.SHOP.{target}")).await;
            assert_same(source, &there, &in_postgres(&client, &format!("SELECT {columns} FROM {source}")).await);
        }
    }
}
