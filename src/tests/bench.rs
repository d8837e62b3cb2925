//! `etl-stream bench` and its sources, by the real binary.

use crate::harness::{Project, history, signal, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

const SCENARIOS: &str = "narrow_insert,wide_update,toast_update,many_tables,large_transaction,snapshot,mask_filter";

fn read(project: &Project, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(project.path().join(file)).unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn each_scenario_runs_and_its_report_has_what_the_schema_says() {
    let project = Project::new("");
    let out = project.succeeds(&["bench", "--scenario", SCENARIOS, "--rows", "3000", "--runs", "1", "--warmup", "0", "--html", "r.html"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(keys(&report), ["build", "machine", "partial", "results", "schema", "started", "valid", "version"]);
    assert_eq!((&report["schema"], &report["valid"], &report["partial"]), (&json!("etl-stream.bench/1"), &json!(true), &json!(false)));
    assert_eq!(keys(&report["machine"]), ["cores", "cpu", "kernel", "memory_bytes"]);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|r| r["scenario"].as_str().unwrap()).collect::<Vec<_>>().join(","), SCENARIOS);
    for result in results {
        assert_eq!(keys(result), ["mode", "offered_rate", "rows", "runs", "scenario", "seed", "sink", "source", "warmup", "workers"]);
        let run = &result["runs"][0];
        assert_eq!(
            keys(run),
            [
                "achieved_rate",
                "allocations_per_change",
                "changes",
                "check_cpu_seconds",
                "cpu_seconds",
                "cpu_seconds_per_million",
                "latency",
                "nodes",
                "partial",
                "peak_rss_bytes",
                "problems",
                "saturated",
                "seconds",
                "sink_bytes",
                "sinks",
                "source_bytes",
                "timeline",
                "valid"
            ]
        );
        assert_eq!((&run["changes"], &run["valid"], &run["latency"]), (&json!(3000), &json!(true), &Value::Null), "{result}");
        assert_eq!(run["sinks"][0]["order"], run["sinks"][0]["expected"], "{result}");
        for number in ["seconds", "cpu_seconds", "allocations_per_change", "peak_rss_bytes", "source_bytes", "sink_bytes"] {
            assert!(run[number].as_f64().unwrap() > 0.0, "{number} in {result}");
        }
    }
    let page = fs::read_to_string(project.path().join("r.html")).unwrap();
    assert_eq!(page.matches("<svg class=\"timeline\"").count(), 7);
    assert_eq!(page.matches("<svg class=\"nodes\"").count(), 7);
}

#[test]
fn an_open_loop_measures_latency_and_files_keep_every_run() {
    let project = Project::new("");
    let open =
        ["bench", "run", "--rate", "4000", "--rows", "1000", "--runs", "2", "--warmup", "1", "--sink", "ndjson", "out", "--json", "a.json"];
    let mut arguments = open.to_vec();
    arguments.extend(["--html", "a.html"]);
    project.succeeds(&arguments);
    let report = read(&project, "a.json");
    let result = &report["results"][0];
    assert_eq!((&result["mode"], &result["offered_rate"], result["runs"].as_array().unwrap().len()), (&json!("open"), &json!(4000), 2));
    for run in result["runs"].as_array().unwrap() {
        let latency = &run["latency"];
        assert_eq!(keys(latency), ["count", "curve", "max", "mean", "p50", "p90", "p99", "p99_9", "p99_99"]);
        assert_eq!(latency["count"], 1000);
        let of = |name: &str| latency[name].as_u64().unwrap();
        assert!(of("p50") <= of("p90") && of("p90") <= of("p99") && of("p99_99") <= of("max"), "{latency}");
    }
    assert!(fs::read_to_string(project.path().join("a.html")).unwrap().contains("<svg class=\"latency\""));
    // Three runs wrote into one folder, each later in the log than the one before.
    let rows = history(&project.path().join("out"), "bench.narrow_insert");
    assert_eq!(rows.len(), 3000);
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
    // Again, closed: the folder is no hindrance.
    project.succeeds(&["bench", "--rows", "1000", "--runs", "1", "--warmup", "0", "--sink", "ndjson", "out"]);
    assert_eq!(history(&project.path().join("out"), "bench.narrow_insert").len(), 4000);
}

#[test]
fn a_pipeline_files_operators_and_sinks_are_measured() {
    let project = Project::new(
        "sources: { shop: { type: postgres, host: 127.0.0.1, user: nobody } }\n\
         operators: { few: { type: filter, inputs: [shop], where: \"quantity = 7\" } }\n\
         sinks: { all: { type: blackhole, inputs: [shop] }, some: { type: blackhole, inputs: [few] } }\n",
    );
    let out = project.succeeds(&["bench", "--pipeline", "pipeline.yaml", "--rows", "5000", "--runs", "2", "--warmup", "0"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    for run in report["results"][0]["runs"].as_array().unwrap() {
        let sink = |name: &str| run["sinks"].as_array().unwrap().iter().find(|sink| sink["sink"] == name).unwrap().clone();
        assert_eq!((&sink("all")["check"], &sink("all")["rows"]), (&json!("expected"), &json!(5000)));
        assert_eq!(sink("some")["check"], "repeat");
        assert!(sink("some")["rows"].as_u64().unwrap() < 500);
    }
}

#[test]
fn ctrl_c_ends_a_run_with_a_partial_report() {
    let project = Project::new("");
    let mut child =
        project.start(&["bench", "--rate", "2000", "--duration", "1h", "--sink", "ndjson", "out", "--json", "p.json", "--html", "p.html"]);
    let out = project.path().join("out");
    wait_for("rows", || history(&out, "bench.narrow_insert").len() > 200 || child.try_wait().unwrap().is_some());
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
    let report = read(&project, "p.json");
    assert_eq!((&report["partial"], &report["valid"]), (&json!(true), &json!(true)), "{}", project.log());
    let runs = report["results"][0]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0]["partial"], &runs[0]["valid"]), (&json!(true), &json!(true)));
    assert_eq!(runs[0]["changes"].as_u64().unwrap(), history(&out, "bench.narrow_insert").len() as u64);
    assert!(fs::read_to_string(project.path().join("p.html")).unwrap().contains("PARTIAL"));
}

#[test]
fn a_closed_loop_ends_when_its_time_is_up() {
    let project = Project::new("");
    let out =
        project.succeeds(&["bench", "--duration", "500ms", "--runs", "1", "--warmup", "0", "--scenario", "narrow_insert,many_tables"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["valid"], &report["partial"]), (&json!(true), &json!(false)));
    for result in report["results"].as_array().unwrap() {
        let run = &result["runs"][0];
        assert!(run["changes"].as_u64().unwrap() > 0 && run["sinks"][0]["rows"] == run["changes"], "{run}");
        assert_eq!(run["sinks"][0]["check"], "expected");
    }
}

#[test]
fn compare_exits_4_on_a_regression() {
    let project = Project::new("");
    project.succeeds(&["bench", "--rows", "500", "--runs", "5", "--warmup", "0", "--json", "a.json"]);
    let mut report = read(&project, "a.json");
    let mut cpu = |factor: f64, file: &str| {
        for (at, run) in report["results"][0]["runs"].as_array_mut().unwrap().iter_mut().enumerate() {
            run["cpu_seconds_per_million"] = json!((10.0 + at as f64 * 0.01) * factor);
        }
        fs::write(project.path().join(file), report.to_string()).unwrap();
    };
    cpu(1.0, "a.json");
    cpu(1.5, "worse.json");
    cpu(0.5, "better.json");
    report["schema"] = json!("etl-stream.bench/2");
    fs::write(project.path().join("later.json"), report.to_string()).unwrap();
    for (a, b, code, says) in [
        ("a.json", "a.json", 0, "no difference"),
        ("a.json", "worse.json", 4, "regression"),
        ("a.json", "better.json", 0, "improvement"),
        ("a.json", "later.json", 2, "etl-stream.bench/2"),
        ("a.json", "nowhere.json", 2, "BEN0003"),
    ] {
        let output = project.run(&["bench", "compare", a, b]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{a} {b}: {text}");
        assert!(text.contains(says), "{a} {b}: {text}");
    }
    let answer: Value = serde_json::from_slice(&project.run(&["bench", "compare", "a.json", "worse.json", "--json"]).stdout).unwrap();
    assert!(answer["comparisons"].as_array().unwrap().iter().any(|c| c["verdict"] == "regression"), "{answer}");
}

const TABLES: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric(12,2), placed timestamptz, tags text[], detail jsonb, note text);
    CREATE TABLE \"Odd Näme\" (a int, b int, v text, PRIMARY KEY (a, b));
    CREATE PUBLICATION p FOR TABLE orders, \"Odd Näme\";";

/// 400 + 200 + 40 + 10 + 1 + 3 + 41 changes in seven transactions.
const CHANGES: [&str; 9] = [
    "INSERT INTO orders SELECT i, 'new', i * 1.25, '2024-01-01 12:00+02'::timestamptz + i * interval '1 minute', ARRAY['x', NULL, 'y\"' || i], jsonb_build_object('i', i), (SELECT string_agg(md5(i::text || n), '') FROM generate_series(1, 200) n) FROM generate_series(1, 400) i",
    "BEGIN; INSERT INTO \"Odd Näme\" SELECT i, i % 7, 'v' || i FROM generate_series(1, 100) i; UPDATE orders SET status = 'paid' WHERE id <= 100; COMMIT",
    "DELETE FROM orders WHERE id % 10 = 0",
    "UPDATE \"Odd Näme\" SET b = 100 + b WHERE a <= 10",
    "BEGIN; INSERT INTO orders VALUES (5000, 'rolled back', 0); ROLLBACK",
    "TRUNCATE \"Odd Näme\"",
    "BEGIN; INSERT INTO \"Odd Näme\" VALUES (1, 1, 'after'), (2, 2, NULL); INSERT INTO orders VALUES (5001, NULL, 'NaN', 'infinity'); COMMIT",
    "ALTER TABLE orders ADD COLUMN extra int",
    "UPDATE orders SET extra = id, status = 'late' WHERE id % 10 = 1",
];

#[tokio::test]
async fn a_capture_gives_what_the_live_stream_gave() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    client.batch_execute(TABLES).await.unwrap();
    let url = postgres.url("shop");
    let live = Project::new(&format!(
        "sources: {{ shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, publication: p, snapshot: {{ mode: never }} }} }}\n\
         sinks: {{ files: {{ type: file, inputs: [shop], path: out }} }}\nserver: none\n"
    ));
    let replay = Project::new(
        "sources: { shop: { type: replay, path: shop.capture } }\nsinks: { files: { type: file, inputs: [shop], path: out } }\nserver: none\n",
    );
    let mut running = live.start(&["run"]);
    let mut recording = replay.start(&["bench", "capture", &url, "shop.capture", "--publication", "p", "--rows", "695"]);
    wait_for("both to listen", || {
        assert!(recording.try_wait().unwrap().is_none(), "{}", replay.log());
        live.log().contains("streaming") && replay.log().contains("recording")
    });
    for sql in CHANGES {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(recording.wait().unwrap().code(), Some(0), "{}", replay.log());
    assert!(replay.log().contains("695 changes in 7 transactions"), "{}", replay.log());
    signal(&running, "TERM");
    assert_eq!(running.wait().unwrap().code(), Some(0), "{}", live.log());
    live.succeeds(&["run", "--until", "caught-up"]);
    // It ends by itself, and a second run has nothing left to give.
    replay.succeeds(&["run"]);
    replay.succeeds(&["run", "--until", "caught-up"]);
    for (table, rows) in [("public.orders", 582), ("public.Odd Näme", 123)] {
        let (was, is) = (history(&live.path().join("out"), table), history(&replay.path().join("out"), table));
        assert_eq!(was.len(), rows, "{table}");
        assert!(was == is, "{table}: {} rows live, {} of the capture", was.len(), is.len());
    }
    // The same bytes measured: the runs repeat each other, and with a rate there is a latency.
    for arguments in [&["--workers", "2"][..], &["--rate", "5000"]] {
        let mut all = vec!["bench", "--source", "replay", "shop.capture", "--runs", "2", "--warmup", "0"];
        all.extend(arguments);
        let report: Value = serde_json::from_str(&replay.succeeds(&all)).unwrap();
        for run in report["results"][0]["runs"].as_array().unwrap() {
            assert_eq!((&run["changes"], &run["sinks"][0]["check"]), (&json!(695), &json!("repeat")), "{run}");
            assert_eq!(run["latency"].is_null(), arguments[0] != "--rate", "{run}");
        }
    }
    // What is not whole is refused, and nothing is written over.
    let whole = fs::read(replay.path().join("shop.capture")).unwrap();
    fs::write(replay.path().join("cut.capture"), &whole[..whole.len() - 1]).unwrap();
    for (arguments, code) in [
        (vec!["bench", "--source", "replay", "cut.capture"], "REC0002"),
        (vec!["bench", "--source", "replay", "nowhere.capture"], "REC0001"),
        (vec!["bench", "capture", &url, "shop.capture", "--publication", "p"], "REC0003"),
        (vec!["bench", "capture", &url, "other.capture", "--publication", "nobody"], "PG0011"),
    ] {
        let output = replay.run(&arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(fs::read(replay.path().join("shop.capture")).unwrap(), whole);
    let left: i64 =
        client.query_one("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%capture%'", &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "the recording's slot ended with it");
}

#[tokio::test]
async fn a_live_snapshot_is_made_measured_and_removed() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    let project = Project::new("");
    let url = postgres.url("shop");
    let out = project.succeeds(&[
        "bench",
        "--scenario",
        "snapshot",
        "--source",
        "postgres",
        &url,
        "--rows",
        "20000",
        "--runs",
        "2",
        "--warmup",
        "0",
    ]);
    let report: Value = serde_json::from_str(&out).unwrap();
    for run in report["results"][0]["runs"].as_array().unwrap() {
        let sink = &run["sinks"][0];
        assert_eq!((&run["changes"], &sink["check"], &sink["rows"]), (&json!(20_000), &json!("content"), &json!(20_000)), "{run}");
        assert_eq!(sink["content"], sink["expected"]);
    }
    for left in ["pg_namespace WHERE nspname LIKE '%bench%'", "pg_replication_slots", "pg_publication"] {
        let count: i64 = client.query_one(&format!("SELECT count(*) FROM {left}"), &[]).await.unwrap().get(0);
        assert_eq!(count, 0, "{left}");
    }
    // Changes of a live server are recorded first.
    let output = project.command(&["bench", "--source", "postgres", &url]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bench capture"));
}

#[test]
fn a_synthetic_source_stands_in_any_pipeline() {
    let project = Project::new(
        "sources: { made: { type: synthetic, scenario: mask_filter, rows: 1000, seed: 5 } }\n\
         sinks: { files: { type: file, inputs: [made], path: out } }\nserver: none\n",
    );
    // It ends at its end, and a second run goes on there.
    project.succeeds(&["run"]);
    let rows = history(&project.path().join("out"), "bench.mask_filter");
    assert_eq!(rows.len(), 1000);
    project.succeeds(&["run", "--until", "caught-up"]);
    fs::remove_dir_all(project.path().join(".etl-stream")).unwrap();
    project.succeeds(&["run"]);
    assert!(history(&project.path().join("out"), "bench.mask_filter") == rows, "from the start, the same tokens: each row once");
}

#[test]
fn a_synthetic_source_that_was_killed_gives_each_row_once() {
    let project = Project::new(
        "sources: { made: { type: synthetic, scenario: many_tables, tables: 3, rows: 6000, rate: 2000 } }\n\
         sinks: { files: { type: file, inputs: [made], path: out, batch: { max_age: 50ms } } }\nserver: none\n",
    );
    let out = project.path().join("out");
    let tables = ["bench.many_tables_000", "bench.many_tables_001", "bench.many_tables_002"];
    let rows = || tables.map(|table| history(&out, table));
    let mut child = project.start(&["run"]);
    wait_for("rows of two seconds", || rows().iter().map(Vec::len).sum::<usize>() > 4000 || child.try_wait().unwrap().is_some());
    signal(&child, "KILL");
    let _ = child.wait();
    project.succeeds(&["run"]);
    let rows = rows();
    assert!(rows.iter().all(|rows| rows.len() == 2000 && rows.windows(2).all(|pair| pair[0].0 < pair[1].0)));
}
