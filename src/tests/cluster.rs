//! Two processes that run one pipeline: killed at any moment, each row arrives once.

use crate::harness::{Project, RUN, fold, history, signal, source_rows, wait_for};
use crate::warehouse::{account, assert_same, in_postgres, in_snowflake, number, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::random::Random;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Child;
use std::time::{Duration, Instant};

/// Databases, each a source.
const SOURCES: [&str; 4] = ["a", "b", "c", "d"];
const TABLES: [&str; 3] = ["orders", "lines", "notes"];

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How often a process is killed.
fn rounds() -> u32 {
    std::env::var("CLUSTER_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6)
}

/// Two processes of one pipeline.
struct Two {
    project: Project,
    listen: [u16; 2],
}

impl Two {
    fn new(postgres: &Postgres) -> Self {
        Self::with(postgres, |name| {
            format!(
                "files_{name}: {{ type: file, inputs: [{name}], path: out/{name}, format: ndjson, batch: {{ max_rows: 40, max_age: 20ms }} }}"
            )
        })
    }

    /// A sink for each source.
    fn with(postgres: &Postgres, sink: impl Fn(&str) -> String) -> Self {
        let node = |name: &str| {
            let url = postgres.url(name);
            format!("  {name}: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.*\"] }} }}\n")
        };
        let sink = |name: &str| format!("  {}\n", sink(name));
        let text = format!(
            "sources:\n{}sinks:\n{}state: {{ type: postgres, url: {{ plain: \"{}\" }} }}\nserver: none\n",
            SOURCES.map(node).concat(),
            SOURCES.map(sink).concat(),
            postgres.url("state")
        );
        let project = Project::new(&text);
        fs::write(project.path().join("hosts"), format!("127.0.0.1:{}\n127.0.0.1:{} # the second\n", free_port(), free_port())).unwrap();
        Self { project, listen: [free_port(), free_port()] }
    }

    fn start(&self, process: usize, more: &[&str]) -> Child {
        let (index, listen) = (process.to_string(), format!("127.0.0.1:{}", self.listen[process]));
        let own = ["run", "--processes", "2", "--process", &index, "--hostfile", "hosts", "--listen", &listen];
        self.project.start(&[&own[..], more].concat())
    }

    fn both(&self, more: &[&str]) -> [Child; 2] {
        [self.start(0, more), self.start(1, more)]
    }

    /// How often a process has said that it reached the other.
    fn met(&self) -> usize {
        self.project.log().matches("all processes are there").count()
    }

    fn rows(&self) -> usize {
        let all = SOURCES.iter().flat_map(|source| TABLES.iter().map(move |table| (source, table)));
        all.map(|(source, table)| history(&self.project.path().join("out").join(source), &format!("public.{table}")).len()).sum()
    }

    async fn equal(&self, postgres: &Postgres) {
        for source in SOURCES {
            for table in TABLES {
                let target = fold(&self.project.path().join("out").join(source), &format!("public.{table}"), &["id"]);
                assert_eq!(target, source_rows(postgres, source, table, &["id"]).await, "{source} {table}");
            }
        }
    }

    /// What a process says of its sources.
    async fn sources(&self, process: usize) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/status", self.listen[process]);
        let Ok(answer) = reqwest::get(url).await else { return Vec::new() };
        let status: Value = serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
        status["sources"].as_array().cloned().unwrap_or_default()
    }
}

async fn shops() -> Postgres {
    let postgres = Postgres::start();
    let _ = postgres.database("state").await;
    for source in SOURCES {
        let client = postgres.database(source).await;
        for table in TABLES {
            let sql = format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, v text); INSERT INTO {table} SELECT i, md5(i::text) FROM generate_series(1, 300) i"
            );
            client.batch_execute(&sql).await.unwrap();
        }
    }
    postgres
}

/// Changes every table of every source until told to stop.
fn change(postgres: &Postgres, stop: &tokio::sync::watch::Sender<bool>) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for source in SOURCES {
        // What comes while many rounds last must be read in the end all the same.
        let (url, stop, pause) = (postgres.url(source), stop.subscribe(), Duration::from_millis(u64::from(rounds().pow(2)) / 12));
        tasks.spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            for round in 0_i32.. {
                if *stop.borrow() {
                    return;
                }
                let id = 1000 + round;
                for table in TABLES {
                    let sql = format!(
                        "BEGIN; INSERT INTO {table} VALUES ({id}, md5('{id}')); UPDATE {table} SET v = v || '+' WHERE id % 50 = {id} % 50 AND id > {id} - 500; \
                         DELETE FROM {table} WHERE id = {id} - 7; COMMIT"
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
                tokio::time::sleep(pause).await;
            }
        });
    }
    tasks
}

/// Waits until the server has noticed that both are gone: what holds the state is a session of theirs.
async fn nobody(postgres: &Postgres) {
    let client = postgres.client("state").await;
    let gone = async {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'etl-stream%'";
        while client.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("sessions of processes that were killed end");
}

/// Runs both while everything changes and kills one of them, again and again; then both until they have caught up.
async fn killed(postgres: &Postgres, two: &Two, rounds: u32, rows: impl AsyncFn() -> usize) {
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut changes = change(postgres, &stop);
    let seed = std::env::var("CLUSTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_128);
    let (mut random, mut ended) = (Random::new(seed), 0);
    for round in 0..rounds {
        let (before, met) = (rows().await, two.met());
        let mut processes = two.both(&[]);
        if !random.below(4).is_multiple_of(4) {
            let began = Instant::now();
            while rows().await <= before + 30 && processes.iter_mut().all(|process| process.try_wait().unwrap().is_none()) {
                assert!(began.elapsed() < RUN, "waited in vain for rows: {}", two.project.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        let victim = random.below(2) as usize;
        assert!(processes.iter_mut().all(|process| process.try_wait().unwrap().is_none()), "round {round}: {}", two.project.log());
        processes[victim].kill().unwrap();
        processes[victim].wait().unwrap();
        let other = &mut processes[1 - victim];
        if two.met() == met {
            // It waits for the one that is gone to be started again; here both begin anew.
            assert!(other.try_wait().unwrap().is_none(), "round {round}: {}", two.project.log());
            other.kill().unwrap();
            other.wait().unwrap();
            nobody(postgres).await;
            continue;
        }
        let killed = Instant::now();
        wait_for("the end of the other", || other.try_wait().unwrap().is_some());
        println!("round {round}: process {victim} was killed, the other ended after {:.1} s", killed.elapsed().as_secs_f32());
        let code = other.wait().unwrap().code().unwrap_or(-1);
        assert!((1..=3).contains(&code), "seed {seed}, round {round}: {code}");
        ended += 1;
    }
    assert!(ended > 0, "seed {seed}: no process was killed that the other had met");
    stop.send_replace(true);
    while changes.join_next().await.is_some() {}
    for mut process in two.both(&["--until", "caught-up"]) {
        assert_eq!(process.wait().unwrap().code(), Some(0), "{}", two.project.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_both_end_and_each_change_arrives_once() {
    let postgres = shops().await;
    let two = Two::new(&postgres);
    killed(&postgres, &two, rounds(), async || two.rows()).await;
    two.equal(&postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_each_change_lands_in_snowflake_once() {
    let (postgres, snowflake) = (shops().await, snowflake().await);
    let two = Two::with(&postgres, |name| {
        let account = account(&snowflake);
        format!(
            "to_{name}: {{ inputs: [{name}], {account}, schema: {}, batch: {{ max_age: 20ms }}, merge: {{ interval: 100ms }} }}",
            name.to_uppercase()
        )
    });
    let schemas = SOURCES.map(str::to_uppercase);
    let landed = async || {
        let mut rows = 0;
        for schema in &schemas {
            for table in TABLES.map(str::to_uppercase) {
                rows += number(&snowflake, &format!("SELECT COUNT(*) FROM RAW.{schema}.{table}__CHANGES")).await as usize;
            }
        }
        rows
    };
    killed(&postgres, &two, rounds().min(4), landed).await;
    for (source, schema) in SOURCES.iter().zip(&schemas) {
        let client = postgres.client(source).await;
        for table in TABLES {
            let (name, what) = (table.to_uppercase(), format!("{source} {table}"));
            let target = in_snowflake(&snowflake, &format!("SELECT id, v FROM RAW.{schema}.{name}")).await;
            assert_same(&what, &target, &in_postgres(&client, &format!("SELECT id, v FROM {table}")).await);
            let counts =
                in_snowflake(&snowflake, &format!("SELECT COUNT(*), COUNT(DISTINCT _SEQ) FROM RAW.{schema}.{name}__CHANGES")).await;
            assert_eq!(counts[0][0], counts[0][1], "{what}: tokens land once");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_of_one_both_do_it() {
    let postgres = shops().await;
    let two = Two::new(&postgres);
    let mut processes = two.both(&["--workers", "2"]);
    let streaming = |sources: &[Value]| sources.iter().filter(|source| source["phase"] == "streaming").count();
    let mut spread = [0, 0];
    while spread.iter().sum::<usize>() < SOURCES.len() {
        spread = [streaming(&two.sources(0).await), streaming(&two.sources(1).await)];
        assert!(processes.iter_mut().all(|process| process.try_wait().unwrap().is_none()), "{}", two.project.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(spread.iter().all(|count| *count > 0), "sources are in both processes: {spread:?}");
    // A source that runs in the other process is paused by way of this one.
    let elsewhere = two.sources(1).await[0]["source"].as_str().unwrap().to_owned();
    let listen = format!("127.0.0.1:{}", two.listen[0]);
    two.project.succeeds(&["pause", &elsewhere, "--listen", &listen]);
    while two.sources(1).await[0]["phase"] != "paused" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    two.project.succeeds(&["resume", &elsewhere]);
    while two.sources(1).await[0]["phase"] != "streaming" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = postgres.client(&elsewhere).await;
    client.batch_execute("INSERT INTO orders SELECT i, 'late' FROM generate_series(5000, 5400) i").await.unwrap();
    // A third process that is not one of them, and one that runs something else, are sent away.
    let single = two.project.run(&["run", "--until", "caught-up"]);
    assert_eq!(single.status.code(), Some(3), "{}", String::from_utf8_lossy(&single.stderr));
    wait_for("its rows", || fold(&two.project.path().join("out").join(&elsewhere), "public.orders", &["id"]).len() == 701);
    signal(&processes[1], "TERM");
    for process in &mut processes {
        assert_eq!(process.wait().unwrap().code(), Some(0), "{}", two.project.log());
    }
    two.equal(&postgres).await;
    // What two have begun one goes on with.
    client.batch_execute("DELETE FROM orders WHERE id > 5100").await.unwrap();
    two.project.succeeds(&["run", "--until", "caught-up"]);
    two.equal(&postgres).await;
}

#[test]
fn what_cannot_be_run_by_several_is_refused() {
    let project = Project::new("sources: { s: { type: postgres, host: none } }\nsinks: { b: { type: blackhole } }\nserver: none\n");
    fs::write(project.path().join("hosts"), "127.0.0.1:1\n127.0.0.1:2\n").unwrap();
    fs::write(project.path().join("one"), "127.0.0.1:1\n").unwrap();
    for (arguments, code, words) in [
        (&["--processes", "2", "--process", "0", "--hostfile", "hosts"][..], 2, "RUN0053"),
        (&["--processes", "2", "--process", "2", "--hostfile", "hosts"], 2, "RUN0054"),
        (&["--processes", "2", "--process", "0", "--hostfile", "one"], 2, "RUN0054"),
        (&["--processes", "2", "--process", "0"], 2, "RUN0054"),
        (&["--processes", "2"], 2, "--process"),
    ] {
        let output = project.run(&[&["run"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {:?} {said}", output.status);
    }
}

/// The processes of a command line that names this file.
fn running(file: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|program| program.ends_with(b"/etl-stream")) && words.contains(&file.as_bytes())
    };
    all.filter(ours).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_s_supervisor_starts_them_again() {
    let postgres = shops().await;
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster");
    let mut project = Project::new("");
    let file = project.path().join("pipeline.yaml").display().to_string();
    fs::copy(examples.join("pipeline.yaml"), &file).unwrap();
    project.env =
        [("EU_PG_URL", "a"), ("US_PG_URL", "b"), ("STATE_URL", "state")].map(|(name, db)| (name.into(), postgres.url(db))).to_vec();
    let log = fs::File::create(project.path().join("run.log")).unwrap();
    let mut supervisor = std::process::Command::new(examples.join("supervise.sh"))
        .args([&file, "2", &free_port().to_string()])
        .envs(project.env.iter().cloned())
        .env("ETL_STREAM", env!("CARGO_BIN_EXE_etl-stream"))
        .current_dir(project.path())
        .stderr(log)
        .spawn()
        .unwrap();
    let rows = |source: &str| fold(&project.path().join("out").join(source), "public.orders", &["id"]).len();
    wait_for("the first rows", || rows("eu") == 300 && rows("us") == 300);
    let first = running(&file);
    assert_eq!(first.len(), 2, "{}", project.log());
    assert!(std::process::Command::new("kill").args(["-9", &first[1].to_string()]).status().unwrap().success());
    wait_for("both again", || {
        let now = running(&file);
        now.len() == 2 && now.iter().all(|pid| !first.contains(pid))
    });
    for (source, database) in [("eu", "a"), ("us", "b")] {
        postgres
            .client(database)
            .await
            .batch_execute("INSERT INTO orders SELECT i, 'after' FROM generate_series(9001, 9100) i")
            .await
            .unwrap();
        wait_for("rows after the restart", || rows(source) == 400);
    }
    signal(&supervisor, "TERM");
    assert_eq!(supervisor.wait().unwrap().code(), Some(0), "{}", project.log());
    assert!(running(&file).is_empty());
}
