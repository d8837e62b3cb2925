//! `slot`, `status`, `pause`, `resume`, `top`, `tap` and `init`.

use super::*;

#[tokio::test]
async fn slots_are_listed_and_dropped_with_care() {
    let postgres = Postgres::start();
    let client = postgres.database("shop").await;
    for sql in [
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION etl_stream_gone_shop FOR TABLE t",
        "SELECT pg_create_logical_replication_slot('etl_stream_gone_shop', 'pgoutput')",
        "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
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
    // What was written a moment before a stop is the next run's.
    let source = source_rows(&postgres, "shop", "t", &["id"]).await;
    wait_for("the last rows", || fold(&project.path().join("out"), "public.t", &["id"]).len() == source.len());
    ends(child, &project);
    assert_eq!(fold(&project.path().join("out"), "public.t", &["id"]), source);

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
