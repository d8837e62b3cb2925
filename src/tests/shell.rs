//! Commands that look at a pipeline and steer it: against real servers, with and without a process that runs it.

use crate::harness::{Project, RUN, fold, signal, source_rows, wait_for};
use crate::warehouse::{account, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pipeline(url: &str, source: &str, sinks: &str, port: u16) -> String {
    format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, {source} }}\nsinks:\n{sinks}\nserver: {{ listen: \"127.0.0.1:{port}\" }}\n"
    )
}

const TABLES: &str = "tables: { include: [\"public.*\"] }";
const FILES: &str = "  files: { type: file, inputs: [shop], path: out, format: ndjson, batch: { max_age: 20ms } }";

/// The findings of `check`, as `severity code node: message`, and its exit code.
fn check(project: &Project) -> (Option<i32>, Vec<String>) {
    let output = project.run(&["check", "--format", "json"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let answer: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(answer["ok"], output.status.code() == Some(0));
    let finding = |f: &Value| {
        let word = |name: &str| f[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}: {}", word("severity"), word("code"), word("node"), word("message"))
    };
    (output.status.code(), answer["findings"].as_array().unwrap().iter().map(finding).collect())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn status(project: &Project) -> Value {
    let output = project.run(&["status", "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn ends(mut child: Child, project: &Project) {
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
}

#[tokio::test]
async fn check_finds_everything_at_once_and_changes_nothing() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    let project = Project::new(&pipeline(&postgres.url("shop"), TABLES, FILES, free_port()));
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (v int); CREATE VIEW v AS SELECT 1").await.unwrap();
    let there = async || -> Vec<i64> {
        let sql = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication)";
        let row = client.query_one(sql, &[]).await.unwrap();
        vec![row.get(0), row.get(1)]
    };
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().any(|f| f.starts_with("warning - shop: table \"public.keyless\" has no primary key")), "{findings:#?}");
    assert!(findings.iter().any(|f| f.contains("`run` makes it for 2 tables")), "{findings:#?}");
    assert_eq!(there().await, [0, 0]);
    assert!(!project.path().join("out").exists() && !project.path().join(".etl-stream").exists(), "nothing is made");

    // A user who may do little, tables that are not there, a folder that is none: all of it is said in one run.
    client
        .batch_execute(
            "CREATE ROLE plain LOGIN; CREATE TABLE secret (id int PRIMARY KEY, _op text); CREATE TABLE taken (id int PRIMARY KEY);
             ALTER TABLE taken REPLICA IDENTITY NOTHING; GRANT SELECT ON t, taken, keyless TO plain; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             CREATE PUBLICATION theirs FOR TABLE t, secret, taken WITH (publish = 'insert')",
        )
        .await
        .unwrap();
    fs::write(project.path().join("out"), "a file").unwrap();
    let source =
        "publication: theirs, tables: { include: [\"public.*\", \"public.v\", \"public.nope\", \"other.*\"] }, keys: { public.t2: [a] }";
    let url = postgres.url("shop").replace("postgres@", "plain@");
    fs::write(project.path().join("pipeline.yaml"), pipeline(&url, source, FILES, free_port())).unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(3), "{findings:#?}");
    for expected in [
        "error PG0008 shop: ",
        "error PG0020 shop: user \"plain\" may not read table \"public.secret\"",
        "error PG0020 shop: row level security hides rows of table \"public.t\"",
        "warning - shop: selected tables are not in publication \"theirs\" and do not come: \"public\".\"keyless\"",
        "warning - shop: `include: other.*` fits no table",
        "warning - shop: a table that `tables` names does not come: public.v: it is a view",
        "warning - shop: a table that `tables` names does not come: public.nope: there is no such relation",
        "warning - shop: publication \"theirs\" leaves out updates, deletes, truncates",
        "warning - shop: table \"public.taken\" has REPLICA IDENTITY NOTHING",
        "warning - shop: `keys` names \"public.t2\"",
        "error FS0002 files: ",
        "error FS0006 files: column \"_op\" of table \"public.secret\"",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    assert_eq!(there().await, [0, 1]);

    // Without a server nothing else of the source can be seen, and the sink is looked at all the same.
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", free_port());
    fs::write(project.path().join("pipeline.yaml"), pipeline(&url, TABLES, FILES, free_port())).unwrap();
    let (code, findings) = check(&project);
    assert_eq!((code, findings.iter().filter(|f| f.starts_with("error")).count()), (Some(3), 2), "{findings:#?}");
    fs::write(project.path().join("pipeline.yaml"), "sources: {}").unwrap();
    assert_eq!(project.run(&["check"]).status.code(), Some(2));
    let human = {
        fs::write(project.path().join("pipeline.yaml"), pipeline(&url, TABLES, FILES, free_port())).unwrap();
        project.run(&["check"])
    };
    assert!(
        human.status.code() == Some(3) && said(&human).contains("source shop (postgres)") && said(&human).contains("error    [PG0001]"),
        "{}",
        said(&human)
    );
}

#[tokio::test]
async fn check_compares_slot_and_state_and_knows_a_running_pipeline() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let project = Project::new(&pipeline(&postgres.url("shop"), TABLES, FILES, free_port()));
    project.succeeds(&["run", "--until", "caught-up"]);
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().any(|f| f.contains("is this source's, and stands at")), "{findings:#?}");

    let child = project.start(&["run"]);
    wait_for("streaming", || status(&project)["sources"][0]["phase"] == "streaming");
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    assert!(findings.iter().filter(|f| f.contains("the pipeline runs")).count() == 2, "{findings:#?}");
    ends(child, &project);

    let slot = "etl_stream_pipeline_shop";
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}'); DROP PUBLICATION {slot}")).await.unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(3), "{findings:#?}");
    for expected in ["error PG0016 shop: ", "error PG0011 shop: "] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    client
        .batch_execute(&format!("CREATE PUBLICATION {slot} FOR TABLE t; SELECT pg_create_physical_replication_slot('{slot}')"))
        .await
        .unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error PG0019 shop: ")), "{findings:#?}");
}

#[tokio::test]
async fn check_asks_snowflake() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (v int); CREATE TABLE \"T\" (id int PRIMARY KEY)")
        .await
        .unwrap();
    let sink = |rest: &str| format!("  warehouse: {{ inputs: [shop], {}, {rest} }}", account(&snowflake));
    let only = |table: &str| format!("tables: {{ include: [\"public.{table}\"] }}");
    let project = Project::new(&pipeline(&postgres.url("shop"), &only("t"), &sink("schema: SHOP"), free_port()));
    let (code, findings) = check(&project);
    assert_eq!(code, Some(0), "{findings:#?}");
    for expected in [
        "ok - warehouse: the key is accepted",
        "ok - warehouse: Snowpipe Streaming can be reached",
        "ok - warehouse: schema \"RAW\".\"SHOP\" does not exist; `run` makes it",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }
    let schemas = snowflake.sql("SELECT COUNT(*) FROM RAW.INFORMATION_SCHEMA.SCHEMATA WHERE SCHEMA_NAME = 'SHOP'").await;
    assert_eq!(schemas[0][0].as_deref(), Some("0"), "nothing is made");

    project.succeeds(&["run", "--until", "caught-up"]);
    let (code, findings) = check(&project);
    assert!(code == Some(0) && findings.iter().any(|f| f.contains("1 tables are there and this pipeline's")), "{findings:#?}");

    snowflake.sql("CREATE TABLE RAW.SHOP.OTHER (ID NUMBER)").await;
    client.batch_execute("CREATE TABLE other (id int PRIMARY KEY)").await.unwrap();
    fs::write(
        project.path().join("pipeline.yaml"),
        format!("name: second\n{}", pipeline(&postgres.url("shop"), TABLES, &sink("schema: SHOP"), free_port())),
    )
    .unwrap();
    let (code, findings) = check(&project);
    assert_eq!(code, Some(2), "names and keys are the file's: {findings:#?}");
    for expected in [
        "error SF0006 warehouse: table \"public.keyless\"",
        "error SF0005 warehouse: table \"public.T\"",
        "error SF0005 warehouse: table \"public.t\" of source \"shop\" was not created",
        "warning - warehouse: table \"RAW\".\"SHOP\".\"OTHER\" exists",
    ] {
        assert!(findings.iter().any(|f| f.starts_with(expected)), "{expected}: {findings:#?}");
    }

    fs::write(
        project.path().join("pipeline.yaml"),
        pipeline(&postgres.url("shop"), &only("t"), &sink("schema: NONE, create_schema: false"), free_port()),
    )
    .unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error SF0004 warehouse: schema \"RAW\".\"NONE\"")), "{findings:#?}");
    fs::write(project.path().join("snowflake.p8"), "no key").unwrap();
    let (code, findings) = check(&project);
    assert!(code == Some(3) && findings.iter().any(|f| f.starts_with("error SF0001 warehouse: ")), "{findings:#?}");
}

#[tokio::test]
async fn slots_are_listed_and_dropped_with_care() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); SELECT pg_create_logical_replication_slot('etl_stream_gone_shop', 'pgoutput');
             SELECT pg_create_logical_replication_slot('theirs', 'pgoutput'); CREATE PUBLICATION etl_stream_gone_shop FOR TABLE t",
        )
        .await
        .unwrap();
    let project = Project::new(&pipeline(&postgres.url("shop"), TABLES, FILES, free_port()));
    let child = project.start(&["run"]);
    wait_for("streaming", || status(&project)["sources"][0]["phase"] == "streaming");
    let listed = || -> Vec<(String, Value, bool)> {
        let lines = project.succeeds(&["slot", "list", "--format", "json"]);
        let slot = |line: &str| {
            let slot: Value = serde_json::from_str(line).unwrap();
            assert!(slot["wal_status"] == "reserved" && slot["retained_bytes"].is_u64() && slot["confirmed_lsn"].is_string(), "{slot}");
            (slot["slot"].as_str().unwrap().to_owned(), slot["source"].clone(), slot["active"].as_bool().unwrap())
        };
        lines.lines().map(slot).collect()
    };
    let slot = |name: &str, source: Value, active| (name.to_owned(), source, active);
    let both = vec![slot("etl_stream_gone_shop", Value::Null, false), slot("etl_stream_pipeline_shop", "shop".into(), true)];
    assert_eq!(listed(), both);
    assert!(project.succeeds(&["slot", "list"]).contains("(none of this file)"));
    for (arguments, code, words) in [
        (&["slot", "drop", "shop", "--yes"][..], 3, "PG0012"),
        (&["slot", "drop", "etl_stream_pipeline_shop", "--yes"], 3, "PG0012"),
        (&["slot", "drop", "theirs", "--yes"], 2, "--force"),
        (&["slot", "drop", "etl_stream_none", "--yes"], 2, "there is no replication slot"),
        (&["slot", "drop", "etl_stream_gone_shop", "--publication"], 2, "would be dropped, and its publication"),
    ] {
        let output = project.run(arguments);
        assert!(
            output.status.code() == Some(code) && said(&output).contains(words),
            "{arguments:?}: {:?} {}",
            output.status,
            said(&output)
        );
    }
    assert_eq!(
        project.succeeds(&["slot", "drop", "etl_stream_gone_shop", "--publication", "--yes"]),
        "dropped slot etl_stream_gone_shop\ndropped publication etl_stream_gone_shop\n"
    );
    assert_eq!(project.succeeds(&["slot", "drop", "theirs", "--force", "--yes"]), "dropped slot theirs\n");
    ends(child, &project);
    assert_eq!(
        project.succeeds(&["slot", "drop", "shop", "--publication", "--yes"]),
        "dropped slot etl_stream_pipeline_shop\ndropped publication etl_stream_pipeline_shop\n"
    );
    assert!(listed().is_empty());
    let again = project.run(&["slot", "drop", "shop", "--yes"]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&project.run(&["run", "--until", "caught-up"])).contains("PG0016"));
}

#[tokio::test]
async fn status_pause_resume_top_and_tap() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let port = free_port();
    let operators = "operators:\n  kept: { type: filter, inputs: [shop], where: \"id > 0\" }\n";
    let project =
        Project::new(&format!("{operators}{}", pipeline(&postgres.url("shop"), TABLES, &FILES.replace("[shop]", "[kept]"), port)));

    // Nothing runs, and nothing ever has.
    let before = project.run(&["status", "--format", "json"]);
    assert!(before.status.code() == Some(3) && said(&before).contains("RUN0031"), "{}", said(&before));
    for arguments in [&["top"][..], &["tap", "kept"]] {
        let output = project.run(arguments);
        assert!(output.status.code() == Some(3) && said(&output).contains("RUN0031"), "{arguments:?}: {}", said(&output));
    }
    assert!(!project.path().join(".etl-stream").exists(), "looking makes nothing");

    let child = project.start(&["run"]);
    wait_for("the copy", || {
        let said = status(&project);
        said["sources"][0]["phase"] == "streaming" && said["sinks"][0]["rows"] == 1 && said["sinks"][0]["pending_rows"] == 0
    });
    let now = status(&project);
    assert_eq!((&now["running"], &now["sources"][0]["tables"][0]["table"]), (&true.into(), &"public.t".into()));
    assert!(now["sources"][0]["paused"].is_null() && now["sinks"][0]["freshness_seconds"] == 0.0, "{now}");
    for arguments in [&["status"][..], &["top"]] {
        let text = project.succeeds(arguments);
        assert!(text.contains("streaming") && text.contains("public.t") && text.contains("files"), "{text}");
    }
    let get = async |path: &str| reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap();
    let page = get("/").await;
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let page = page.text().await.unwrap();
    assert!(page.contains("<svg") && page.contains("public.t") && !page.contains("<script"), "{page}");

    // Paused, nothing arrives, also not after a restart.
    let wrong = project.run(&["pause", "shp"]);
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains("did you mean `shop`"), "{}", said(&wrong));
    let paused = project.run(&["pause"]);
    assert!(
        paused.status.success() && said(&paused).contains("shop paused") && said(&paused).contains("the disk fills"),
        "{}",
        said(&paused)
    );
    wait_for("paused", || status(&project)["sources"][0]["phase"] == "paused");
    assert_eq!(get("/ready").await.status(), 200, "a pause is no fault");
    client.batch_execute("INSERT INTO t VALUES (2, 'b')").await.unwrap();
    let held = project.succeeds(&["slot", "list", "--format", "json"]);
    assert!(held.contains("\"active\":true"), "{held}");
    ends(child, &project);
    let stopped = project.run(&["status", "--format", "json"]);
    let text: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!((stopped.status.code(), &text["running"], &text["sources"][0]["paused"]), (Some(3), &false.into(), &"asked for".into()));
    assert_eq!((&text["sources"][0]["stage"], &text["sources"][0]["tables"][0]["stage"]), (&"streaming".into(), &"streaming".into()));
    assert!(said(&project.run(&["status"])).contains("paused (asked for)"));
    let child = project.start(&["run"]);
    wait_for("paused again", || status(&project)["sources"][0]["phase"] == "paused");
    assert_eq!(fold(&project.path().join("out"), "public.t", &["id"]).len(), 1);

    // Rows are shown to whoever may see them.
    let refused = project.run(&["tap", "kept", "--limit", "1"]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("not shown unasked"), "{}", said(&refused));
    let refused = project.run(&["tap", "nothing", "--show-values"]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("valid here: kept, shop"), "{}", said(&refused));
    let mut tap = project.command(&["tap", "kept", "--limit", "2", "--show-values"]).stdout(Stdio::piped()).spawn().unwrap();
    assert!(project.succeeds(&["resume", "shop"]).contains("shop resumed"));
    let mut lines = BufReader::new(tap.stdout.take().unwrap()).lines();
    // The listener may come after the first row: there are more until it has seen two.
    let (mut id, deadline) = (3, std::time::Instant::now() + RUN);
    while tap.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for two rows");
        client.batch_execute(&format!("INSERT INTO t VALUES ({id}, 'c')")).await.unwrap();
        id += 1;
    }
    let rows: Vec<Value> = lines.by_ref().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["_table"] == "public.t" && row["_op"] == "i" && row["v"].is_string()), "{rows:?}");
    ends(child, &project);
    assert_eq!(fold(&project.path().join("out"), "public.t", &["id"]), source_rows(&postgres, "shop", "t", &["id"]).await);

    // Told while nothing runs.
    assert_eq!(project.succeeds(&["pause", "shop"]), "shop paused\n");
    let child = project.start(&["run"]);
    wait_for("paused by the state", || status(&project)["sources"][0]["phase"] == "paused");
    ends(child, &project);
    assert_eq!(project.succeeds(&["resume"]), "shop resumed\n");
    project.succeeds(&["run", "--until", "caught-up"]);
}

#[tokio::test]
async fn init_writes_what_validates_and_runs() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client
        .batch_execute("CREATE TABLE \"odd: #name\" (id int PRIMARY KEY); CREATE TABLE keyless (v int); INSERT INTO keyless VALUES (1)")
        .await
        .unwrap();
    let mut project = Project::new("");
    let there = project.run(&["init"]);
    assert!(there.status.code() == Some(2) && said(&there).contains("RUN0036"), "{}", said(&there));
    assert_eq!(fs::read_to_string(project.path().join("pipeline.yaml")).unwrap(), "", "left as it was");
    project.succeeds(&["init", "--force"]);
    project.succeeds(&["validate"]);
    project.succeeds(&["init", "--sink", "snowflake", "--file", "sf.yaml"]);
    project.succeeds(&["validate", "sf.yaml", "--deny-warnings"]);
    project.succeeds(&["init", &postgres.url("shop"), "--force"]);
    let text = fs::read_to_string(project.path().join("pipeline.yaml")).unwrap();
    assert!(
        text.contains("\"public.odd: #name\" # key \"id\"")
            && text.contains("\"public.keyless\" # no key")
            && !text.contains(&postgres.port().to_string()),
        "{text}"
    );
    project.env.push(("PG_URL".into(), postgres.url("shop")));
    project.succeeds(&["validate", "--deny-warnings"]);
    project.succeeds(&["run", "--until", "caught-up", "--listen", "none"]);
    assert!(project.path().join("out/public.keyless").exists());
    let unreachable = format!("postgres://postgres@127.0.0.1:{}/shop", free_port());
    assert_eq!(project.run(&["init", &unreachable, "--file", "new.yaml"]).status.code(), Some(3));
    assert!(!project.path().join("new.yaml").exists());
}

fn verified(project: &Project, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = project.run(&[&["verify", "--format", "json"], arguments].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    assert_eq!(answer["equal"], output.status.code() == Some(0));
    (output.status.code(), answer["tables"].as_array().unwrap().clone())
}

/// Each table's result in a sink, in the order of their names.
fn results(tables: &[Value]) -> Vec<String> {
    let result = |t: &Value| match t["reason"].as_str() {
        Some(reason) => format!("{} {}: {reason}", t["sink"].as_str().unwrap(), t["table"].as_str().unwrap()),
        None => format!("{} {}: {}", t["sink"].as_str().unwrap(), t["table"].as_str().unwrap(), t["result"].as_str().unwrap()),
    };
    tables.iter().map(result).collect()
}

/// Every kind of value that is spelled in a way of its own.
const VALUES: &str = "
    CREATE TABLE t (id bigint, k text, n numeric(20,4), x numeric, f float8, r real, b bytea, d date, c time, ts timestamp, tz timestamptz,
        i interval, j jsonb, a int[], u uuid, big text, late int, PRIMARY KEY (id, k));
    ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
    INSERT INTO t SELECT 9007199254740990 + g, 'k\"' || g, g * 1.25, 1.500, g / 3.0, g / 7.0, decode('00ff', 'hex'), '2024-01-31', '12:34:56.789',
        '2024-01-31 12:34:56.5', '1969-12-31 23:59:59.5+00', '1 mon -2 days 03:04:05', jsonb_build_object('b', 1.0, 'a', g), ARRAY[g, NULL],
        '00000000-0000-0000-0000-000000000001', repeat(md5(g::text), 100) FROM generate_series(1, 500) g;
    INSERT INTO t (id, k, n, x, f, d, c, ts, tz) VALUES (1, 'odd', 'NaN', 'NaN', '-0', 'infinity', '24:00', '-infinity', '0044-03-15 BC');
    CREATE TABLE masked (id int PRIMARY KEY, v text); INSERT INTO masked VALUES (1, 'x'); CREATE TABLE keyless (v int); INSERT INTO keyless VALUES (1);";

const CHANGES: &str = "
    UPDATE t SET n = -n, late = 7 WHERE id % 3 = 0; DELETE FROM t WHERE id % 10 = 0; UPDATE t SET id = -id WHERE id % 17 = 0;
    BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t (id, k) VALUES (1, 'odd'); COMMIT; INSERT INTO t (id, k, d) VALUES (2, 'odd', '0044-03-15 BC')";

#[tokio::test]
async fn verify_compares_files_stopped_and_running() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(VALUES).await.unwrap();
    let sinks = "  files: { type: file, inputs: [hide], path: out, format: ndjson, batch: { max_age: 20ms } }
  columns: { type: file, inputs: [shop], path: columns, format: parquet, batch: { max_age: 20ms } }
  nowhere: { type: blackhole, inputs: [shop] }";
    let operators = "operators:\n  hide: { type: mask, inputs: [shop], tables: [public.masked], columns: { v: { with: nullify } } }\n";
    let project = Project::new(&format!("{operators}{}", pipeline(&postgres.url("shop"), TABLES, sinks, free_port())));
    project.succeeds(&["run", "--until", "caught-up"]);
    let good = [
        "files public.keyless: it has no key",
        "files public.masked: it passes operator \"hide\"",
        "files public.t: equal",
        "columns public.keyless: it has no key",
        "columns public.masked: equal",
        "columns public.t: equal",
        "nowhere *: a blackhole sink with these settings cannot be read back",
    ];
    let (code, tables) = verified(&project, &[]);
    assert_eq!((code, results(&tables)), (Some(0), good.map(str::to_owned).to_vec()), "{tables:#?}");
    assert_eq!((&tables[2]["rows"], &tables[2]["checksum"]), (&501.into(), &tables[2]["sink_checksum"]));

    // What has not been read is a difference, and says nothing of values.
    client.batch_execute(CHANGES).await.unwrap();
    let behind = project.run(&["verify", "pipeline.yaml", "public.t", "--sink", "files"]);
    let text = said(&behind);
    assert!(
        behind.status.code() == Some(4)
            && text.contains("DIFFERENT: ")
            && text.contains("column n: ")
            && text.contains("does not run here"),
        "{text}"
    );
    assert!(!text.contains("90071992547") && text.contains("--show-keys"), "{text}");
    let (code, tables) = verified(&project, &["pipeline.yaml", "public.t", "--sink", "columns", "--show-keys", "--keys", "3"]);
    let keys = tables[0]["keys"].as_array().unwrap();
    assert!(
        code == Some(4) && tables.len() == 1 && keys.len() == 3 && keys.iter().all(|key| key.as_str().unwrap().contains(": ")),
        "{tables:#?}"
    );

    // While the pipeline runs and the tables change.
    let child = project.start(&["run"]);
    wait_for("streaming", || status(&project)["sources"][0]["phase"] == "streaming");
    let writer = postgres.client("shop").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let busy = tokio::spawn(async move {
        for round in 0.. {
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let sql = format!(
                "UPDATE t SET f = {round} WHERE id % 5 = {round} % 5; INSERT INTO t (id, k) VALUES ({round}, 'new'); DELETE FROM t WHERE id = {round} - 3 AND k = 'new'"
            );
            writer.batch_execute(&sql).await.unwrap();
        }
    });
    let checked = tokio::task::spawn_blocking(move || {
        let (code, tables) = verified(&project, &[]);
        (project, code, tables)
    });
    let (project, code, tables) = checked.await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.await.unwrap();
    assert_eq!((code, results(&tables)), (Some(0), good.map(str::to_owned).to_vec()), "{tables:#?}");
    ends(child, &project);

    // A file that is lost, and one that is damaged.
    let last = |folder: &str| {
        let files = fs::read_dir(project.path().join(folder)).unwrap().flatten().map(|file| file.path());
        files.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).max().unwrap()
    };
    fs::remove_file(last("columns/public.t")).unwrap();
    fs::write(last("out/public.t"), "not a line\n").unwrap();
    let (code, tables) = verified(&project, &["pipeline.yaml", "public.t", "--sink", "columns"]);
    assert_eq!((code, results(&tables)), (Some(4), vec!["columns public.t: different".to_owned()]));
    let damaged = project.run(&["verify", "pipeline.yaml", "public.t", "--sink", "files"]);
    assert!(damaged.status.code() == Some(1) && said(&damaged).contains("RUN0034"), "{}", said(&damaged));
    assert_eq!(project.run(&["verify", "pipeline.yaml", "public.none"]).status.code(), Some(4), "nothing compared proves nothing");
    drop(postgres);
    assert_eq!(project.run(&["verify"]).status.code(), Some(3));
}

#[tokio::test]
async fn verify_compares_snowflake() {
    let (snowflake, postgres) = (snowflake().await, Postgres::start());
    let client = postgres.database("shop").await;
    client.batch_execute(VALUES).await.unwrap();
    let sinks =
        format!("  warehouse: {{ inputs: [shop], {}, schema: SHOP, deletes: soft, merge: {{ interval: 100ms }} }}", account(&snowflake));
    let source = "tables: { include: [\"public.*\"], exclude: [public.keyless] }";
    let project = Project::new(&pipeline(&postgres.url("shop"), source, &sinks, free_port()));
    project.succeeds(&["run", "--until", "caught-up"]);
    let good = vec!["warehouse public.masked: equal".to_owned(), "warehouse public.t: equal".to_owned()];
    let (code, tables) = verified(&project, &[]);
    assert_eq!((code, results(&tables)), (Some(0), good.clone()), "{tables:#?}");
    client.batch_execute(CHANGES).await.unwrap();
    let child = project.start(&["run"]);
    wait_for("streaming", || status(&project)["sources"][0]["phase"] == "streaming");
    let (code, tables) = verified(&project, &[]);
    assert_eq!((code, results(&tables)), (Some(0), good.clone()), "{tables:#?}");
    ends(child, &project);
    snowflake.sql("DELETE FROM RAW.SHOP.MASKED").await;
    snowflake.sql("UPDATE RAW.SHOP.T SET N = 0 WHERE ID % 7 = 0").await;
    let (code, tables) = verified(&project, &[]);
    assert_eq!((code, &tables[0]["missing"], tables[1]["columns"]["n"].as_u64() > Some(0)), (Some(4), &1.into(), true), "{tables:#?}");
    let append = fs::read_to_string(project.path().join("pipeline.yaml")).unwrap().replace("deletes: soft", "write_mode: append");
    fs::write(project.path().join("pipeline.yaml"), append).unwrap();
    let (code, tables) = verified(&project, &[]);
    assert_eq!(
        (code, results(&tables)),
        (Some(4), vec!["warehouse *: a snowflake sink with these settings cannot be read back".to_owned()])
    );
}
