//! The demo's two servers, the key that opens one of them, and the pipeline file between them.

use super::DEMO_SERVER;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use etl_stream_operators::contract::CodedError;
use etl_stream_operators::testing::postgres::{Postgres, installations};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long the local Snowflake may take to start. The first time it installs its packages.
const SNOWFLAKE: Duration = Duration::from_secs(300);

pub(super) const ACCOUNT: &str = "LOCAL";
pub(super) const USER: &str = "LOADER";
pub(super) const DATABASE: &str = "RAW";
pub(super) const SCHEMA: &str = "SHOP";

/// The pipeline file's name in the folder.
pub(super) const PIPELINE: &str = "shop.yaml";
/// The private key's name in the folder.
const KEY: &str = "snowflake.p8";

fn server(message: impl Into<String>) -> CodedError {
    CodedError::definite(DEMO_SERVER, message)
}

/// Running servers. They end with the value.
pub(super) struct Servers {
    postgres: Postgres,
    snowflake: Child,
    snowflake_port: u16,
    listen: u16,
}

impl Servers {
    /// Starts both and writes the pipeline file; `keep` puts Snowflake's tables into the folder too.
    pub(super) async fn start(folder: &Path, keep: bool) -> Result<Self, CodedError> {
        if installations().is_empty() {
            return Err(server("no PostgreSQL server is installed here")
                .hint("run `make postgres`, or set ETL_STREAM_PG_BIN to the folder with `postgres` and `initdb`"));
        }
        let snowflake = Snowflake::spawn(folder, keep)?;
        // On this very thread, though it blocks: the server ends with the thread that started it (PR_SET_PDEATHSIG
        // means the thread, not the process), and tokio's own threads for blocking calls end when they are idle.
        let postgres = catch_unwind(Postgres::start).map_err(|_| server("PostgreSQL did not start").hint("the lines above say why"))?;
        let (snowflake, snowflake_port) = snowflake.listening().await?;
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .map_err(|e| server("no port is free for the pipeline's status").caused_by(e))?
            .port();
        let servers = Self { postgres, snowflake, snowflake_port, listen };
        write_key(&folder.join(KEY))
            .map_err(|e| server(format!("the key was not written to {}", folder.join(KEY).display())).caused_by(e))?;
        let file = folder.join(PIPELINE);
        fs::write(&file, servers.pipeline_file())
            .map_err(|e| server(format!("the pipeline was not written to {}", file.display())).caused_by(e))?;
        Ok(servers)
    }

    /// The PostgreSQL server.
    pub(super) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The local Snowflake's port on 127.0.0.1.
    pub(super) fn snowflake_port(&self) -> u16 {
        self.snowflake_port
    }

    /// The port of the pipeline's status on 127.0.0.1.
    pub(super) fn listen(&self) -> u16 {
        self.listen
    }

    /// Puts PostgreSQL's log beside the others.
    pub(super) fn keep_log(&self, folder: &Path) {
        // Only for someone who looks around in the folder: the demo is done without it.
        let _ = fs::write(folder.join("postgres.log"), self.postgres.log());
    }

    fn pipeline_file(&self) -> String {
        let (postgres, snowflake, listen) = (self.postgres.port(), self.snowflake_port, self.listen);
        format!(
            r#"# The demo's pipeline: every table of a shop, kept equal in Snowflake.
name: shop

sources:
  shop:
    type: postgres
    host: 127.0.0.1
    port: {postgres}
    database: shop
    user: postgres
    tables: {{ include: ["public.*"] }}

sinks:
  warehouse:
    type: snowflake
    inputs: [shop]
    account: {ACCOUNT}
    url: http://127.0.0.1:{snowflake}   # the local one; without it, the account's
    user: {USER}
    private_key: {{ file: ./{KEY} }}
    database: {DATABASE}
    schema: {SCHEMA}
    write_mode: merge
    deletes: hard

state: {{ path: ./state.db }}
server: {{ listen: "127.0.0.1:{listen}" }}
"#
        )
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // PostgreSQL ends itself; this one is waited for by the runtime that reaps dropped children.
        let _ = self.snowflake.start_kill();
    }
}

/// The local Snowflake's folder in this repository.
pub(super) fn snowflake_folder() -> Result<PathBuf, CodedError> {
    const PLACE: &str = "operators/testing/local_snowflake";
    let here = std::env::current_dir().unwrap_or_default();
    let found =
        [Path::new(env!("CARGO_MANIFEST_DIR")), &here].map(|root| root.join(PLACE)).into_iter().find(|folder| folder.join("run").exists());
    found.ok_or_else(|| {
        server(format!("the local Snowflake's folder {PLACE} was not found")).hint("run the demo from the repository it was built in")
    })
}

/// The Python that the local Snowflake runs on.
pub(super) fn python(folder: &Path) -> PathBuf {
    let venv = std::env::var_os("ETL_STREAM_VENV").map_or_else(|| folder.join("../../../target/local-snowflake/venv"), PathBuf::from);
    venv.join("bin/python")
}

/// The local Snowflake while it starts.
struct Snowflake {
    child: Child,
    ports: PathBuf,
    log: PathBuf,
}

impl Snowflake {
    fn spawn(folder: &Path, keep: bool) -> Result<Self, CodedError> {
        let (ports, log) = (folder.join("snowflake.port"), folder.join("snowflake.log"));
        let file = fs::File::create(&log).map_err(|e| server(format!("{} was not made", log.display())).caused_by(e))?;
        let mut command = Command::new(snowflake_folder()?.join("run"));
        command.args(["--port", "0", "--parent-pid", &std::process::id().to_string()]).arg("--port-file").arg(&ports);
        if keep {
            command.arg("--data").arg(folder.join("snowflake"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).kill_on_drop(true);
        let child = command.spawn().map_err(|e| server("the local Snowflake was not started").caused_by(e))?;
        Ok(Self { child, ports, log })
    }

    /// Waits until it listens, and says on which port.
    async fn listening(mut self) -> Result<(Child, u16), CodedError> {
        let deadline = Instant::now() + SNOWFLAKE;
        loop {
            if let Some(port) = fs::read_to_string(&self.ports).ok().and_then(|text| text.split_whitespace().next()?.parse().ok()) {
                return Ok((self.child, port));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("did not listen in time"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn failed(&self, how: &str) -> CodedError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n    ");
        server(format!("the local Snowflake {how}")).hint(format!("its log is {} and ends so:\n    {last}", self.log.display()))
    }
}

/// Writes a new private key, PKCS #8 in PEM, that only this user can read.
fn write_key(path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let text = base64::engine::general_purpose::STANDARD.encode(AsDer::as_der(&key)?.as_ref());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "-----BEGIN PRIVATE KEY-----")?;
    for line in text.as_bytes().chunks(64) {
        file.write_all(line)?;
        file.write_all(b"\n")?;
    }
    writeln!(file, "-----END PRIVATE KEY-----")?;
    Ok(())
}
