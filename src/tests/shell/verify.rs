//! `verify`: what is equal, what differs, what cannot be told.

use super::*;

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
            // A steady load, and no backlog that the comparison would have to wait for.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
