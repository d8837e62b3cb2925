//! The demo's two servers, the key that opens one of them, and the pipeline file between them.

use super::DEMO_SERVER;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use etl_stream_operators::contract::CodedError;
use etl_stream_operators::testing::postgres::{Postgres, installations};
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

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
    snowflake: LocalSnowflake,
    listen: u16,
}

impl Servers {
    /// Starts both and writes the pipeline file; `keep` puts Snowflake's tables into the folder too.
    pub(super) async fn start(folder: &Path, keep: bool) -> Result<Self, CodedError> {
        if installations().is_empty() {
            return Err(server("no PostgreSQL server is installed here")
                .hint("run `make postgres`, or set ETL_STREAM_PG_BIN to the folder with `postgres` and `initdb`"));
        }
        // In memory, unless someone wants to look at it afterwards.
        let data = keep.then(|| folder.join("snowflake").display().to_string());
        let snowflake = tokio::task::spawn_blocking(move || {
            LocalSnowflake::start_with(&data.iter().flat_map(|data| ["--data", data.as_str()]).collect::<Vec<_>>())
        });
        // On this very thread, though it blocks: the server ends with the thread that started it (PR_SET_PDEATHSIG
        // means the thread, not the process), and tokio's own threads for blocking calls end when they are idle.
        let postgres = catch_unwind(Postgres::start).map_err(|_| server("PostgreSQL did not start").hint("the lines above say why"))?;
        let snowflake = snowflake.await.map_err(|_| {
            server("the local Snowflake did not start").hint("`operators/testing/local_snowflake/run --port 0` shows what it lacks")
        })?;
        snowflake
            .try_sql(&format!("CREATE DATABASE {DATABASE}"))
            .await
            .map_err(|e| server(format!("the local Snowflake made no database: {e}")))?;
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .map_err(|e| server("no port is free for the pipeline's status").caused_by(e))?
            .port();
        let servers = Self { postgres, snowflake, listen };
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
    pub(super) fn snowflake_port(&self) -> &str {
        self.snowflake.url().rsplit(':').next().unwrap_or_default()
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
        let (postgres, snowflake, listen) = (self.postgres.port(), self.snowflake.url(), self.listen);
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
    url: {snowflake}   # the local one; without it, the account's
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
