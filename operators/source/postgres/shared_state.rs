//! State in a PostgreSQL table, for processes that share it: a document for each pipeline, node and table.
//!
//! ```text
//! load, list, store ──request──> a thread with its own connection ──statement──> <schema>.progress
//!   (block the caller)  <──answer──┘  connects again, and takes its lock again, when the connection is lost
//! ```
//!
//! # Guarantees
//! - A store is durable on return (`synchronous_commit` is on, whatever the role says) and all or nothing. Repeated after a
//!   lost connection it comes to the same.
//! - Who holds a pipeline has it alone: process I of a pipeline takes an advisory lock, which PostgreSQL gives back when the
//!   process is gone, however it ended. Who looks, or leaves a mark for the sources, holds nothing.

use super::connect::{ConnectSettings, classify};
use super::quote::identifier;
use crate::contract::{Code, CodedError, Exit, SecretString, StateKey, StateStore};
use serde_json::Value;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Another process holds the pipeline, or the state's table is not usable.
const STATE_HELD: Code = Code::new("PG0045", Exit::Environment);

/// How long a server that is gone is waited for, by each request.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Where the state is.
#[derive(Clone, Debug)]
pub struct StateServer {
    /// The database, as a URL.
    pub url: SecretString,
    /// The schema of its table.
    pub schema: String,
}

/// Which process of a pipeline holds it.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The pipeline.
    pub pipeline: String,
    /// The process, from 0.
    pub process: usize,
}

/// State in PostgreSQL.
pub struct PostgresState {
    requests: Mutex<Sender<Request>>,
}

enum Asked {
    List { pipeline: String, node: String, table: Option<String> },
    Store(Vec<(StateKey, Option<String>)>),
}

type Rows = Vec<(StateKey, String)>;

struct Request {
    asked: Asked,
    answer: Sender<Result<Rows, CodedError>>,
}

impl PostgresState {
    /// The code of the error that says that another process holds the pipeline.
    pub const HELD: Code = STATE_HELD;

    /// Connects, makes the table if it is not there, and takes the lock if there is a holder, for which another one's end is
    /// waited for `patience`. Blocks.
    ///
    /// # Errors
    /// `PG0001` to `PG0007` when the server is not reached, `PG0045` when another process holds the pipeline.
    pub fn open(server: &StateServer, folder: &Path, holder: Option<Holder>, patience: Duration) -> Result<Self, CodedError> {
        let keeper = Keeper { server: server.clone(), folder: folder.into(), holder, client: None, patience };
        let (requests, to_do) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        let failed = |e: std::io::Error| CodedError::definite(STATE_HELD, "the thread of the state was not started").caused_by(e);
        std::thread::Builder::new().name("etl-stream-state".into()).spawn(move || keeper.live(&opened, &to_do)).map_err(failed)?;
        is_open.recv().map_err(|_| ended())??;
        Ok(Self { requests: Mutex::new(requests) })
    }

    fn ask(&self, asked: Asked) -> Result<Rows, CodedError> {
        let (answer, answered) = mpsc::channel();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.send(Request { asked, answer }).map_err(|_| ended())?;
        drop(requests);
        answered.recv().map_err(|_| ended())?
    }
}

fn ended() -> CodedError {
    CodedError::definite(STATE_HELD, "the thread of the state has ended").hint("this is a defect: please report it with the log")
}

fn document(text: &str) -> Result<Value, CodedError> {
    serde_json::from_str(text).map_err(|e| CodedError::definite(STATE_HELD, "the state holds a document that is not JSON").caused_by(e))
}

impl StateStore for PostgresState {
    fn load(&self, key: &StateKey) -> Result<Option<Value>, CodedError> {
        let asked = Asked::List { pipeline: key.pipeline.clone(), node: key.node.clone(), table: Some(key.table.clone()) };
        self.ask(asked)?.first().map(|(_, text)| document(text)).transpose()
    }

    fn list(&self, pipeline: &str, node: &str) -> Result<Vec<(StateKey, Value)>, CodedError> {
        let rows = self.ask(Asked::List { pipeline: pipeline.to_owned(), node: node.to_owned(), table: None })?;
        rows.into_iter().map(|(key, text)| Ok((key, document(&text)?))).collect()
    }

    fn store(&self, changes: &[(StateKey, Option<Value>)]) -> Result<(), CodedError> {
        let changes = changes.iter().map(|(key, value)| (key.clone(), value.as_ref().map(Value::to_string))).collect();
        self.ask(Asked::Store(changes)).map(drop)
    }
}

/// The thread's own.
struct Keeper {
    server: StateServer,
    folder: Box<Path>,
    holder: Option<Holder>,
    client: Option<Client>,
    /// How long the lock is waited for.
    patience: Duration,
}

impl Keeper {
    fn live(mut self, opened: &Sender<Result<(), CodedError>>, to_do: &Receiver<Request>) {
        let failed = |e| CodedError::definite(STATE_HELD, "the thread of the state was not started").caused_by(e);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(failed(error)))),
        };
        let first = runtime.block_on(self.connect());
        // From here on it is this process's own last connection that is waited for.
        self.patience = PATIENCE;
        let there = first.is_ok();
        // Whoever opens it waits for this.
        let _ = opened.send(first);
        while there && let Ok(Request { asked, answer }) = to_do.recv() {
            // A caller that has gone away wants no answer.
            let _ = answer.send(runtime.block_on(self.answer(&asked)));
        }
    }

    /// Does what is asked, again after a lost connection, until its time is over.
    async fn answer(&mut self, asked: &Asked) -> Result<Rows, CodedError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.attempt(asked).await {
                Ok(rows) => return Ok(rows),
                Err(error) if error.is_transient() && Instant::now() + PAUSE < deadline => {
                    self.client = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&mut self, asked: &Asked) -> Result<Rows, CodedError> {
        if self.client.is_none() {
            self.connect().await?;
        }
        let Some(client) = &self.client else { return Err(silent()) };
        tokio::time::timeout(PATIENCE, run(client, &self.server.schema, asked)).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn connect(&mut self) -> Result<(), CodedError> {
        let settings = ConnectSettings { url: Some(self.server.url.clone()), ..ConnectSettings::default() };
        let endpoint = settings.resolve(&self.folder)?;
        let client = endpoint.query("state").await?;
        let schema = identifier(&self.server.schema);
        let doing = format!("opening the state in schema \"{}\" of {}", self.server.schema, endpoint.host_label());
        client.batch_execute("SET synchronous_commit = on; SET statement_timeout = '15s'").await.map_err(|e| classify(&e, &doing))?;
        let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{schema}.progress")]).await;
        if !there.map_err(|e| classify(&e, &doing))?.get::<_, bool>(0) {
            // Two processes may do so at once: one waits for the other.
            let make = format!(
                "BEGIN; SELECT pg_advisory_xact_lock({LAYOUT}); CREATE SCHEMA IF NOT EXISTS {schema};
                 CREATE TABLE IF NOT EXISTS {schema}.progress (
                     pipeline text NOT NULL, node text NOT NULL, tbl text NOT NULL, document text NOT NULL,
                     updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (pipeline, node, tbl)); COMMIT"
            );
            client.batch_execute(&make).await.map_err(|e| {
                classify(&e, &doing).hint(format!("let the user make schema {schema}, or make it and give the user CREATE on it"))
            })?;
        }
        if let Some(Holder { pipeline, process }) = &self.holder {
            let key = hash(&format!("etl-stream\0{}\0{pipeline}\0{process}", self.server.schema));
            let deadline = Instant::now() + self.patience;
            loop {
                let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await.map_err(|e| classify(&e, &doing))?;
                if row.get::<_, bool>(0) {
                    break;
                }
                if Instant::now() >= deadline {
                    let message = format!(
                        "process {process} of pipeline \"{pipeline}\" runs elsewhere: it holds the state in {}",
                        endpoint.host_label()
                    );
                    return Err(CodedError::definite(STATE_HELD, message)
                        .hint("stop it first, or give this process another index with --process; pg_locks has its advisory lock"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.client = Some(client);
        Ok(())
    }
}

/// Locks of the layout.
const LAYOUT: i64 = 0x6574_6c5f_7374_7265;

fn silent() -> CodedError {
    CodedError::transient(super::connect::PG_LOST, format!("the server of the state has been silent for {} s", PATIENCE.as_secs()))
}

/// FNV-1a: the same in every process and version.
fn hash(text: &str) -> i64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)).cast_signed()
}

async fn run(client: &Client, schema: &str, asked: &Asked) -> Result<Rows, CodedError> {
    let table = format!("{}.progress", identifier(schema));
    match asked {
        Asked::List { pipeline, node, table: only } => {
            let sql = format!(
                "SELECT tbl, document FROM {table} WHERE pipeline = $1 AND node = $2 AND tbl = coalesce($3, tbl) ORDER BY tbl COLLATE \"C\""
            );
            let rows = client.query(&sql, &[pipeline, node, only]).await.map_err(|e| classify(&e, "reading the state"))?;
            Ok(rows.iter().map(|row| (StateKey::table(pipeline, node, row.get(0)), row.get(1))).collect())
        }
        Asked::Store(changes) => {
            let column = |part: fn(&StateKey) -> &String| changes.iter().map(|(key, _)| part(key).as_str()).collect::<Vec<_>>();
            let (pipelines, nodes, tables) = (column(|k| &k.pipeline), column(|k| &k.node), column(|k| &k.table));
            let documents: Vec<Option<&str>> = changes.iter().map(|(_, document)| document.as_deref()).collect();
            // The last word counts where a key comes twice. One statement: all or nothing.
            let sql = format!(
                "WITH given AS (SELECT DISTINCT ON (pipeline, node, tbl) * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                      WITH ORDINALITY AS t (pipeline, node, tbl, document, at) ORDER BY pipeline, node, tbl, at DESC),
                  gone AS (DELETE FROM {table} p USING given g
                      WHERE g.document IS NULL AND (p.pipeline, p.node, p.tbl) = (g.pipeline, g.node, g.tbl))
                 INSERT INTO {table} (pipeline, node, tbl, document)
                     SELECT pipeline, node, tbl, document FROM given WHERE document IS NOT NULL
                     ON CONFLICT (pipeline, node, tbl) DO UPDATE SET document = excluded.document, updated_at = now()"
            );
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&pipelines, &nodes, &tables, &documents];
            client.execute(&sql, &parameters).await.map_err(|e| classify(&e, "writing the state"))?;
            Ok(Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::postgres::Postgres;
    use serde_json::json;

    #[test]
    fn documents_are_kept_and_a_pipeline_is_held_by_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut postgres = Postgres::start();
        let _ = runtime.block_on(postgres.database("state"));
        let server = StateServer { url: postgres.url("state").into(), schema: "Odd \"name".into() };
        let holder = |process| Some(Holder { pipeline: "p".into(), process });
        let open = |process| PostgresState::open(&server, Path::new("/"), process, Duration::from_secs(60));
        let state = open(holder(0)).unwrap();
        let (source, table) = (StateKey::node("p", "s"), StateKey::table("p", "s", "public.t"));
        let big = json!({ "b": 1, "a": "18446744073709551615" });
        state.store(&[(source.clone(), Some(json!(1))), (table.clone(), Some(json!("x"))), (source.clone(), Some(big.clone()))]).unwrap();
        state.store(&[(StateKey::node("p", "other"), Some(json!(0))), (StateKey::node("q", "s"), Some(json!(0)))]).unwrap();
        let other = open(holder(1)).unwrap();
        assert_eq!(other.list("p", "s").unwrap(), [(source.clone(), big.clone()), (table.clone(), json!("x"))]);
        assert_eq!(other.load(&StateKey::node("p", "none")).unwrap(), None);
        other.store(&[(table.clone(), None), (StateKey::node("p", "gone"), None)]).unwrap();
        assert_eq!(state.load(&table).unwrap(), None);
        // The server goes and comes: what is asked meanwhile is answered when it is there.
        postgres.kill();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| state.store(&[(table.clone(), Some(json!("after")))]));
            postgres.resume();
            asked.join().unwrap().unwrap();
        });
        assert_eq!(other.load(&table).unwrap(), Some(json!("after")));
        let held = PostgresState::open(&server, Path::new("/"), holder(0), Duration::ZERO).err().expect("it is held");
        assert_eq!(held.code, PostgresState::HELD);
        // A look needs no lock; a second holder waits until the first is gone.
        assert_eq!(open(None).unwrap().load(&source).unwrap(), Some(big));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| open(holder(0)));
            std::thread::sleep(PAUSE * 2);
            drop(state);
            assert!(second.join().unwrap().is_ok());
        });
    }
}
