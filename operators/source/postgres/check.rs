//! The preflight: everything that could keep the source from running, found in one look that changes nothing.
//!
//! ```text
//! connection ──> server ──> replication ──> slot and state ──> publication ──> tables
//!      └── without it nothing else can be seen; every other step goes on after a problem
//! ```
//! Refusals are those of `setup`, said by the same functions.

use super::advice;
use super::catalog::{self, Candidate, Catalog, Published};
use super::codes;
use super::config::SnapshotMode;
use super::connect::{Endpoint, classify};
use super::publication;
use super::quote::{identifier, table};
use super::run::{PostgresSource, within};
use super::setup::{self, Identity, Server, Slot};
use super::state::{Documents, Progress, Stage};
use crate::contract::{CheckContext, Checks, CodedError, Lsn, ReplicaIdentity, TableSchema};
use crate::writable::writable;
use std::sync::Arc;
use tokio_postgres::{Client, Error};

/// The oldest version that tests are made for.
const TRIED: u32 = 150_000;
/// Connections beside those that copy: statements, the stream, and one more for a new table.
const BESIDE: i32 = 3;

/// A preflight under way.
pub(super) struct Preflight<'a> {
    pub source: &'a PostgresSource,
    pub cx: &'a CheckContext,
    pub checks: &'a mut Checks,
}

/// What the server still has.
struct Room {
    senders: (i32, i64),
    slots: (i32, i64),
    connections: (i32, i64),
    keeps: Option<String>,
}

async fn room(client: &Client) -> Result<Room, Error> {
    let sql = "SELECT current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication),
                      current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots),
                      current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
                      (SELECT coalesce(sum(numbackends), 0)::int8 FROM pg_stat_database),
                      current_setting('max_slot_wal_keep_size', true)";
    let row = client.query_one(sql, &[]).await?;
    Ok(Room {
        senders: (row.try_get(0)?, row.try_get(1)?),
        slots: (row.try_get(2)?, row.try_get(3)?),
        connections: (row.try_get(4)?, row.try_get(5)?),
        keeps: row.try_get(6)?,
    })
}

/// Refuses a table whose rows the user cannot all see.
fn seen(candidate: &Candidate, server: &Server) -> Result<(), CodedError> {
    publication::check_readable(std::slice::from_ref(&candidate.table), server)?;
    if !candidate.hidden {
        return Ok(());
    }
    let (name, user) = (candidate.table.full_name(), identifier(&server.user));
    Err(CodedError::definite(codes::NO_SELECT, format!("row level security hides rows of table \"{name}\" from user {user}"))
        .hint(format!("ALTER ROLE {user} BYPASSRLS; or exclude the table")))
}

impl Preflight<'_> {
    /// Looks at everything. Gives the tables that the source would read, as far as they can be seen.
    pub(super) async fn tables(mut self) -> Vec<Arc<TableSchema>> {
        self.spill();
        let Some(endpoint) = self.checks.take(self.source.connect.resolve(&self.source.folder)) else { return Vec::new() };
        let Some(client) = self.checks.take(endpoint.query("check").await) else { return Vec::new() };
        let patience = self.source.settings.receive_timeout;
        let looked = within(patience, "reading the server's settings", setup::look(&client)).await;
        let Some((server, level)) = self.checks.take(looked) else { return Vec::new() };
        self.server(&endpoint, &client, &server, &level).await;
        let progress = match &self.cx.state {
            None => None,
            Some(state) => {
                let documents = Documents { store: &**state, pipeline: &self.cx.pipeline, source: &self.cx.node };
                self.checks.take(documents.load()).flatten()
            }
        };
        let slot = self.checks.take(setup::slot(&client, &self.source.settings.slot).await).flatten();
        self.slot(&client, &server, progress.as_ref(), slot.as_ref()).await;
        self.replication(&endpoint, &server, progress.as_ref(), slot.as_ref()).await;
        let tables = self.publication(&client, &server, progress.as_ref()).await;
        self.schemas(&client, &server, &tables).await
    }

    fn spill(&mut self) {
        let spill = &self.source.settings.spill.folder;
        if self.source.settings.streaming
            && let Err(error) = writable(spill)
        {
            let message = format!("files cannot be made in the spill folder \"{}\"", spill.display());
            let hint = "let the pipeline's user write there, or set `spill: { folder: … }`, or `streaming: off`";
            self.checks.wrong(CodedError::definite(codes::SPILL, message).caused_by(error).hint(hint));
        }
    }

    async fn server(&mut self, endpoint: &Endpoint, client: &Client, server: &Server, level: &str) {
        let (major, standby) = (server.version / 10_000, if server.standby { ", a standby" } else { "" });
        self.checks.fine(format!("connected to {endpoint}: PostgreSQL {major}{standby}"));
        if server.version < TRIED {
            let message = format!("PostgreSQL {major} is older than the versions that etl-stream is tested with");
            self.checks.doubt(message, "15 to 18 are; earlier ones lack column lists and row filters of publications");
        }
        // Of this session: what is asked for may not be what there is (`prefer`).
        let sql = "SELECT (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
                          coalesce(inet_client_addr() = inet_server_addr(), true)";
        match client.query_one(sql, &[]).await.and_then(|row| Ok((row.try_get::<_, Option<String>>(0)?, row.try_get::<_, bool>(1)?))) {
            Ok((Some(version), _)) => self.checks.fine(format!("the connection is encrypted ({version})")),
            Ok((None, true)) => self.checks.fine("the connection is not encrypted, and stays on this machine"),
            Ok((None, false)) => {
                self.checks.doubt("the connection is not encrypted", "set `tls: { mode: verify-full, ca_file: … }`");
            }
            Err(error) => self.checks.wrong(classify(&error, "asking whether the connection is encrypted")),
        }
        if self.checks.take(setup::check_level(level)).is_some() {
            self.checks.fine("wal_level is logical");
        }
        let Some(room) = self.checks.take(room(client).await.map_err(|e| classify(&e, "reading the server's limits"))) else { return };
        let mut left = |what: &str, setting: &str, (most, used): (i32, i64), needed: i32| {
            let free = i64::from(most) - used;
            if free < i64::from(needed) {
                self.checks.doubt(
                    format!("{free} of {most} {what} are free, and {needed} may be needed"),
                    format!("raise {setting} and restart the server"),
                );
            } else {
                self.checks.fine(format!("{free} of {most} {what} are free"));
            }
        };
        // The stream, and one beside it for tables that are new later.
        left("WAL senders", "max_wal_senders", room.senders, 2);
        left("replication slots", "max_replication_slots", room.slots, 2);
        left("connections", "max_connections", room.connections, i32::from(self.source.settings.snapshot.workers) + BESIDE);
        match room.keeps.as_deref() {
            Some("-1") => {
                self.checks.fine("the server keeps all log for a slot that is not read (max_slot_wal_keep_size = -1): watch its disk")
            }
            Some(limit) => {
                self.checks.fine(format!("the server keeps {limit} of log for a slot that is not read (max_slot_wal_keep_size)"))
            }
            None => {}
        }
    }

    async fn slot(&mut self, client: &Client, server: &Server, progress: Option<&Progress>, slot: Option<&Slot>) {
        let settings = &self.source.settings;
        let name = &settings.slot;
        let Some(slot) = slot else {
            if self.cx.state.is_some() {
                self.checks.take(setup::check_start(settings, progress, None));
            }
            if self.checks.take(setup::check_room(client).await).is_some() {
                self.checks.fine(format!("replication slot \"{name}\" does not exist; `run` makes it"));
            }
            return;
        };
        let fits = self.checks.take(setup::check_slot(name, slot, &server.database));
        let Some(state) = &self.cx.state else {
            match slot.user() {
                Some(who) => self.checks.fine(format!("replication slot \"{name}\" is in use by {who}: the pipeline runs")),
                None => self.checks.fine(format!("replication slot \"{name}\" exists, and nobody reads it now")),
            }
            return;
        };
        if let Some(who) = slot.user() {
            self.checks.wrong(setup::in_use(name, &who));
        }
        let agrees = self.checks.take(setup::check_start(settings, progress, Some(slot)));
        let documents = Documents { store: &**state, pipeline: &self.cx.pipeline, source: &self.cx.node };
        let told = self.checks.take(documents.confirmed()).flatten().unwrap_or(0);
        let stands = slot.confirmed.unwrap_or(0);
        if told > 0 && stands > told {
            self.checks.wrong(setup::moved(name, stands, told));
        } else if fits.is_some() && agrees.is_some() {
            self.checks.fine(format!("replication slot \"{name}\" is this source's, and stands at {}", Lsn(stands)));
        }
    }

    async fn replication(&mut self, endpoint: &Endpoint, server: &Server, progress: Option<&Progress>, slot: Option<&Slot>) {
        let Some(mut replication) = self.checks.take(endpoint.replicate("check").await) else { return };
        let patience = self.source.settings.receive_timeout;
        let rows = within(patience, "identifying the server", replication.simple_query("IDENTIFY_SYSTEM")).await;
        let Some(identity) = self.checks.take(rows.and_then(|rows| Identity::of(&rows))) else { return };
        self.checks.fine(format!("user {} may replicate", identifier(&server.user)));
        if let Some(progress) = progress
            && self.checks.take(identity.check(progress, &server.database, slot)).is_some()
        {
            self.checks.fine("the server is the one of the state");
        }
    }

    /// The tables that would be read: those of the publication, or those that it would be made with.
    async fn publication(&mut self, client: &Client, server: &Server, progress: Option<&Progress>) -> Vec<Candidate> {
        let settings = &self.source.settings;
        let name = &settings.publication;
        let failed = |e: Error| classify(&e, &format!("reading publication \"{name}\""));
        let Some(mut candidates) = self.checks.take(catalog::described_candidates(client).await.map_err(failed)) else { return Vec::new() };
        self.patterns(&candidates);
        candidates.retain(|c| settings.tables.matches(&c.table.schema, &c.table.name));
        let sql = "SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $1";
        let owned = client.query_opt(sql, &[name]).await.and_then(|row| row.map(|row| row.try_get::<_, bool>(0)).transpose());
        let Some(owned) = self.checks.take(owned.map_err(failed)) else { return candidates };
        let published = match owned {
            None => {
                self.makes(client, server, progress, &candidates).await;
                candidates
            }
            Some(owned) => {
                let Some(published) = self.checks.take(catalog::published(client, name).await.map_err(failed)) else { return candidates };
                self.covers(owned, progress, &published, candidates)
            }
        };
        let comes = |schema: &str, table: &str| published.iter().any(|c| c.table.schema == schema && c.table.name == table);
        let left_out = self.checks.take(advice::left_out(client, settings, comes).await.map_err(failed)).unwrap_or_default();
        if published.is_empty() {
            self.checks.wrong(publication::no_table(settings, server, &left_out));
        } else {
            for reason in left_out {
                self.checks.doubt(format!("a table that `tables` names does not come: {reason}"), "change it, or leave it out of `tables`");
            }
        }
        if let Some(Some((message, hint))) = self.checks.take(advice::absent_operations(client, name).await.map_err(failed)) {
            self.checks.doubt(message, hint);
        }
        published
    }

    /// Patterns that fit nothing.
    fn patterns(&mut self, candidates: &[Candidate]) {
        let tables = &self.source.settings.tables;
        for (what, patterns) in [("include", &tables.include), ("exclude", &tables.exclude)] {
            for pattern in patterns.iter().filter(|p| !candidates.iter().any(|c| p.matches(&c.table.schema, &c.table.name))) {
                self.checks.doubt(
                    format!("`{what}: {pattern}` fits no table"),
                    "patterns are schema.table and case-sensitive; a table that is made later is taken in when it fits",
                );
            }
        }
    }

    /// Whether the publication can be made.
    async fn makes(&mut self, client: &Client, server: &Server, progress: Option<&Progress>, candidates: &[Candidate]) {
        let settings = &self.source.settings;
        let name = identifier(&settings.publication);
        if progress.is_some_and(|progress| progress.stage == Stage::Streaming) {
            return self.checks.wrong(publication::gone(&settings.publication));
        }
        if candidates.is_empty() {
            return;
        }
        let names = |which: fn(&&Candidate) -> bool| -> Vec<(String, String)> {
            candidates.iter().filter(which).map(|c| (c.table.schema.clone(), c.table.name.clone())).collect()
        };
        let sql = publication::create(settings, server, &names(|_| true));
        let asked = client.query_one("SELECT has_database_privilege(current_database(), 'CREATE')", &[]).await;
        let asked = asked.and_then(|row| row.try_get(0)).map_err(|e| classify(&e, "asking for the privilege to make a publication"));
        let Some(may) = self.checks.take::<bool>(asked) else { return };
        let foreign = names(|c| !c.owned);
        let mut why = Vec::new();
        if server.standby {
            why.push("a standby cannot make it".to_owned());
        }
        if !may {
            why.push(format!("user {} lacks CREATE on database {}", identifier(&server.user), identifier(&server.database)));
        }
        if !foreign.is_empty() {
            why.push(format!("user {} does not own {}", identifier(&server.user), publication::list(&foreign)));
        }
        if why.is_empty() {
            self.checks.fine(format!("publication {name} does not exist; `run` makes it for {} tables", candidates.len()));
        } else {
            let message = format!("publication {name} does not exist, and cannot be made: {}", why.join(", "));
            let hint = format!("as the tables' owner, with CREATE on the database: {sql}");
            self.checks.wrong(CodedError::definite(codes::PUBLICATION, message).hint(hint));
        }
    }

    /// Whether the publication has the selected tables, or can be added to. Gives those that come.
    fn covers(&mut self, owned: bool, progress: Option<&Progress>, published: &[Published], candidates: Vec<Candidate>) -> Vec<Candidate> {
        let settings = &self.source.settings;
        let name = identifier(&settings.publication);
        let (mut there, absent): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|c| published.iter().any(|p| (&p.schema, &p.name) == (&c.table.schema, &c.table.name)));
        // Its columns and rows are the publication's.
        for candidate in &mut there {
            if let Some(as_published) = published.iter().find(|p| p.id == candidate.table.id) {
                candidate.table = as_published.clone();
            }
        }
        // Partitions that are published each for itself are nobody's candidates.
        let parts = published.iter().filter(|p| settings.tables.matches(&p.schema, &p.name) && !there.iter().any(|c| c.table.id == p.id));
        let parts: Vec<_> = parts.map(|p| Candidate { table: p.clone(), owned, hidden: false, keyed: true }).collect();
        there.extend(parts);
        self.checks.fine(format!("publication {name} has {} of the selected tables", there.len()));
        let limited = there.iter().filter(|c| c.table.row_filter.is_some()).count();
        if limited > 0 {
            self.checks.fine(format!("the publication filters rows of {limited} tables: others do not come"));
        }
        if absent.is_empty() {
            return there;
        }
        let names: Vec<_> = absent.iter().map(|c| (c.table.schema.clone(), c.table.name.clone())).collect();
        let list = publication::list(&names);
        let sql = format!("as the tables' owner: ALTER PUBLICATION {name} ADD TABLE {list}");
        if !settings.own_publication {
            self.checks.doubt(format!("selected tables are not in publication {name} and do not come: {list}"), sql);
        } else if owned && absent.iter().all(|c| c.owned) {
            self.checks.fine(format!("`run` adds {} tables to publication {name}", names.len()));
            there.extend(absent);
        } else {
            let message = format!("selected tables are not in publication {name}, and the user may not add them: {list}");
            // Later they are left out; at the first start nothing begins without them.
            if progress.is_some() {
                self.checks.doubt(message, sql)
            } else {
                self.checks.wrong(CodedError::definite(codes::PUBLICATION, message).hint(sql))
            }
        }
        there
    }

    /// Whether each table can be copied and followed.
    async fn schemas(&mut self, client: &Client, server: &Server, tables: &[Candidate]) -> Vec<Arc<TableSchema>> {
        let settings = &self.source.settings;
        let mut catalog = Catalog::new(Arc::clone(&self.cx.node), settings.keys.clone());
        let mut schemas = Vec::with_capacity(tables.len());
        for candidate in tables {
            if settings.snapshot.mode == SnapshotMode::Initial {
                self.checks.take(seen(candidate, server));
            }
            let described = catalog.describe(client, server.version, std::slice::from_ref(&candidate.table)).await;
            let Some(schema) = self.checks.take(described).and_then(|mut one| one.pop()) else { continue };
            self.identity(candidate, &schema);
            schemas.push(schema);
        }
        for name in settings.keys.keys().filter(|name| !schemas.iter().any(|s| format!("{}.{}", s.schema, s.name) == **name)) {
            self.checks.doubt(format!("`keys` names \"{name}\", which is none of the tables"), "write schema.table as PostgreSQL has it");
        }
        schemas
    }

    /// What the server does to updates and deletes of a published table without an identity.
    fn identity(&mut self, candidate: &Candidate, schema: &TableSchema) {
        let (name, sql) = (schema.full_name(), table(&schema.schema, &schema.name));
        let fix = format!("give it a primary key, or ALTER TABLE {sql} REPLICA IDENTITY FULL");
        match schema.identity {
            ReplicaIdentity::Nothing => {
                self.checks
                    .doubt(format!("table \"{name}\" has REPLICA IDENTITY NOTHING: the server refuses its updates and deletes"), fix);
            }
            ReplicaIdentity::Default if !candidate.keyed => {
                let message =
                    format!("table \"{name}\" has no primary key: once it is published, the server refuses its updates and deletes");
                self.checks.doubt(message, fix);
            }
            _ => {}
        }
    }
}
