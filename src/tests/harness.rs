//! Runs the real binary against real servers, and folds what a file sink wrote.

use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::PRIVATE_KEY;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long one run of the binary may take before the test fails.
pub(crate) const RUN: Duration = Duration::from_secs(120);

/// A folder with a pipeline file and the local Snowflake's key, `snowflake.p8`.
pub(crate) struct Project {
    folder: TempDir,
    /// Environment of every run.
    pub(crate) env: Vec<(String, String)>,
    /// Processes that a test started and may leave behind when it fails.
    started: Mutex<Vec<u32>>,
}

impl Drop for Project {
    fn drop(&mut self) {
        for pid in self.started.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Those that were waited for are gone, and their numbers may be others' by now.
            if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == self.folder.path()) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
    }
}

impl Project {
    /// A new folder with `pipeline.yaml` and the key.
    pub(crate) fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pipeline.yaml"), pipeline).unwrap();
        fs::write(folder.path().join("snowflake.p8"), PRIVATE_KEY).unwrap();
        Self { folder, env: Vec::new(), started: Mutex::default() }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The binary, about to run here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etl-stream"));
        command.args(arguments).current_dir(self.path()).env("RUST_BACKTRACE", "1").envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, arguments)
    }

    /// Runs it to its end and expects success.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts it, its log going to `run.log`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path().join("run.log")).unwrap();
        let child = self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.started.lock().unwrap().push(child.id());
        child
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("run.log")).unwrap_or_default()
    }
}

fn finish(mut child: Child, arguments: &[&str]) -> Output {
    // Reads both pipes while waiting, so that neither fills up.
    fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    }
    let (out, err) = (read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    let deadline = Instant::now() + RUN;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?} did not end:\n{}", String::from_utf8_lossy(&err.join().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Waits until `met` says so.
pub(crate) fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + RUN;
    while !met() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

/// Every line of a table's NDJSON files, in file order, each with its token.
pub(crate) fn history(folder: &Path, table: &str) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join(table)).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|e| e == "ndjson") && !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    files.sort();
    // A file that was listed and is gone was of a snapshot that is taken anew.
    let text = |file: &PathBuf| match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.unwrap(),
    };
    let lines = files.iter().flat_map(|file| text(file).lines().map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| serde_json::from_str::<Value>(&line).unwrap()).map(|row| (row["_seq"].as_str().unwrap().to_owned(), row)).collect()
}

/// The rows that a table's history leaves, by key. A snapshot starts the table anew. Panics when a token comes twice or out of order.
pub(crate) fn fold(folder: &Path, table: &str, key: &[&str]) -> BTreeMap<String, Value> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    let mut last = String::new();
    let mut snapshot = String::new();
    for (token, mut row) in history(folder, table) {
        assert!(token > last, "{table}: token {token} after {last}");
        if row["_op"] == "r" && snapshot != token[..16] {
            token[..16].clone_into(&mut snapshot);
            rows.clear();
        }
        last = token;
        let id = key.iter().map(|column| row[*column].to_string()).collect::<Vec<_>>().join("/");
        let op = row["_op"].as_str().unwrap().to_owned();
        let unchanged: Vec<String> =
            row["_unchanged"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect();
        let members = row.as_object_mut().unwrap();
        members.retain(|name, _| !name.starts_with('_'));
        match op.as_str() {
            "t" => rows.clear(),
            "d" => drop(rows.remove(&id)),
            _ => {
                for name in unchanged {
                    let kept = rows.get(&id).map(|row| row[&name].clone());
                    members.insert(name, kept.expect("an unchanged column was sent before"));
                }
                rows.insert(id, row);
            }
        }
    }
    rows
}

/// The rows a table has in PostgreSQL, by key, as `to_jsonb` spells them.
pub(crate) async fn source_rows(postgres: &Postgres, database: &str, table: &str, key: &[&str]) -> BTreeMap<String, Value> {
    let client = postgres.client(database).await;
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let rows = client.query(&format!("SELECT to_jsonb(t)::text FROM {table} t"), &[]).await.unwrap();
    let rows = rows.iter().map(|row| serde_json::from_str::<Value>(row.get(0)).unwrap());
    rows.map(|row| (key.iter().map(|column| row[*column].to_string()).collect::<Vec<_>>().join("/"), row)).collect()
}
