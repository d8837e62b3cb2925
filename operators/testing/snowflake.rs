//! A local Snowflake for tests: the program in `testing/local_snowflake`, on a free port of 127.0.0.1.
//!
//! The server ends with the value, and with the process should that be killed. Its first start on a machine
//! makes its Python environment, which takes minutes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a first start may take.
const START: Duration = Duration::from_secs(600);
const REQUEST: Duration = Duration::from_secs(120);

/// A private key whose public half no account has: the local Snowflake takes any.
pub const PRIVATE_KEY: &str = include_str!("../sink/snowflake/tests/test-key.p8");

/// A running server.
pub struct LocalSnowflake {
    server: Child,
    arguments: Vec<String>,
    port: u16,
    tls_port: Option<u16>,
    url: String,
    client: reqwest::Client,
    token: String,
}

fn program() -> PathBuf {
    std::env::var_os("ETL_STREAM_LOCAL_SNOWFLAKE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("testing/local_snowflake/run"), PathBuf::from)
}

impl LocalSnowflake {
    /// Starts a server with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (server, port, tls_port) = spawn(0, &arguments);
        let client = reqwest::Client::builder().timeout(REQUEST).pool_max_idle_per_host(0).build().expect("a client without TLS settings");
        let token = crate::sink::snowflake::jwt_of(PRIVATE_KEY, "LOCAL", "TESTER").expect("the test key signs");
        Self { server, arguments, port, tls_port, url: format!("http://127.0.0.1:{port}"), client, token }
    }

    /// Starts a server that speaks https too, as the official SDK wants it. Its certificate's authority is written to a file.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_tls(ca_file: &Path) -> Self {
        Self::start_with(&["--tls-port", "0", "--ca-file", &ca_file.display().to_string()])
    }

    /// Its https URL; of [`LocalSnowflake::start_tls`] alone.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.tls_port.expect("the server was started with a port for https"))
    }

    /// Ends it at once, as a crash would. Without `--data` everything in it is gone.
    pub fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again after [`LocalSnowflake::kill`], on the same port. Its knobs are those of the start.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        (self.server, _, self.tls_port) = spawn(self.port, &self.arguments);
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one statement through the SQL API; every value is a text or null.
    ///
    /// # Panics
    /// When it fails.
    pub async fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.try_sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"))
    }

    /// Runs one statement, or gives Snowflake's words.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn try_sql(&self, statement: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let body = serde_json::json!({ "statement": statement });
        let mut answer = self.post("/api/v2/statements", &body).await;
        let mut rows = Vec::new();
        loop {
            let status = answer.status().as_u16();
            let value: serde_json::Value = answer.json().await.map_err(|e| e.to_string())?;
            let handle = value["statementHandle"].as_str().unwrap_or_default().to_owned();
            match status {
                200 => {
                    take(&value, &mut rows);
                    let parts = value["resultSetMetaData"]["partitionInfo"].as_array().map_or(1, Vec::len);
                    for part in 1..parts {
                        let url = format!("{}/api/v2/statements/{handle}?partition={part}", self.url);
                        let part = self.client.get(url).bearer_auth(&self.token).send().await.map_err(|e| e.to_string())?;
                        take(&part.json().await.map_err(|e| e.to_string())?, &mut rows);
                    }
                    return Ok(rows);
                }
                202 => {
                    let url = format!("{}/api/v2/statements/{handle}", self.url);
                    answer = self.client.get(url).bearer_auth(&self.token).send().await.map_err(|e| e.to_string())?;
                }
                _ => return Err(value["message"].as_str().unwrap_or("no message").to_owned()),
            }
        }
    }

    /// Turns the server's knobs and plans failures (`POST /_local/faults`).
    ///
    /// # Panics
    /// When there is no such knob.
    pub async fn faults(&self, change: serde_json::Value) {
        let answer = self.post("/_local/faults", &change).await;
        let status = answer.status();
        assert!(status.is_success(), "{change}: {}", answer.text().await.unwrap_or_default());
    }

    /// What the server says of itself (`GET /_local/state`).
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn state(&self) -> serde_json::Value {
        let answer = self.client.get(format!("{}/_local/state?tables=1", self.url)).send().await.expect("the server answers");
        answer.json().await.expect("the state is JSON")
    }

    /// Waits until nothing is left to commit; what `discard: "later"` kept is then counted. Gives the counts.
    ///
    /// # Panics
    /// When that takes longer than half a minute.
    pub async fn settle(&self) -> serde_json::Value {
        let answer = self.post("/_local/settle", &serde_json::Value::Null).await;
        assert!(answer.status().is_success(), "the server is busy for too long");
        answer.json::<serde_json::Value>().await.expect("the answer is JSON")["counted"].take()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        request.header("X-Snowflake-Authorization-Token-Type", "KEYPAIR_JWT").send().await.expect("the server answers")
    }
}

fn take(answer: &serde_json::Value, rows: &mut Vec<Vec<Option<String>>>) {
    for row in answer["data"].as_array().into_iter().flatten() {
        rows.push(row.as_array().into_iter().flatten().map(|cell| cell.as_str().map(str::to_owned)).collect());
    }
}

/// Starts the program and waits for its ports; 0 is any.
fn spawn(port: u16, arguments: &[String]) -> (Child, u16, Option<u16>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port_file = folder.path().join("port");
    let program = program();
    let mut server = Command::new(&program)
        .args(["--port", &port.to_string(), "--parent-pid", &std::process::id().to_string(), "--port-file"])
        .arg(&port_file)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", program.display()));
    let deadline = Instant::now() + START;
    loop {
        let text = std::fs::read_to_string(&port_file).unwrap_or_default();
        let mut ports = text.lines().map(|line| line.parse::<u16>().ok());
        if let Some(port) = ports.next().flatten() {
            return (server, port, ports.next().flatten());
        }
        let ended = server.try_wait().ok().flatten();
        assert!(ended.is_none() && Instant::now() < deadline, "{} did not start: {ended:?}", program.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for LocalSnowflake {
    fn drop(&mut self) {
        self.kill();
    }
}
