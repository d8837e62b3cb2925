//! The publication: looked at, made and added to, or the error says which statement makes it so.
//!
//! # Guarantees
//! A publication that this source did not make is never changed. Who may not change its own is told the statement for
//! the tables' owner.

use super::advice;
use super::catalog::{self, Published};
use super::connect::{classify, sqlstate};
use super::quote::{identifier, table};
use super::setup::Server;
use super::{codes, config::Settings};
use crate::contract::CodedError;
use tokio_postgres::Client;
use tracing::{info, warn};

/// SQLSTATE of a missing privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The selected tables that the publication has, after making it or adding to it where that is ours to do.
/// `may_add`: nothing has been read yet, so tables added now are in the snapshot.
pub(super) async fn settle(client: &Client, settings: &Settings, server: &Server, may_add: bool) -> Result<Vec<Published>, CodedError> {
    let name = &settings.publication;
    let failed = |e: tokio_postgres::Error| classify(&e, &format!("reading publication \"{name}\""));
    let exists = client.query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[name]).await.map_err(failed)?.is_some();
    let candidates = catalog::candidates(client, &settings.tables).await.map_err(failed)?;
    let mut wanted: Vec<(String, String)> = candidates.into_iter().map(|(_, schema, table)| (schema, table)).collect();
    wanted.retain(|(schema, table)| settings.tables.matches(schema, table));
    if !exists {
        if wanted.is_empty() {
            let left_out = advice::left_out(client, settings, |_, _| false).await.map_err(failed)?;
            return Err(no_table(settings, server, &left_out));
        }
        if !may_add {
            return Err(gone(name));
        }
        make(client, settings, server, &wanted).await?;
    }
    let mut tables = catalog::published(client, name).await.map_err(failed)?;
    let missing = |tables: &[Published], wanted: &[(String, String)]| -> Vec<(String, String)> {
        wanted.iter().filter(|(s, t)| !tables.iter().any(|p| p.schema == *s && p.name == *t)).cloned().collect()
    };
    let absent = missing(&tables, &wanted);
    if exists && !absent.is_empty() {
        if settings.own_publication && !may_add {
            // Added by the survey, which knows which of them were taken out.
        } else if settings.own_publication {
            add(client, settings, &absent).await?;
            tables = catalog::published(client, name).await.map_err(failed)?;
        } else {
            say_left_out(settings, &absent);
        }
    }
    tables.retain(|t| settings.tables.matches(&t.schema, &t.name));
    let comes = |schema: &str, name: &str| tables.iter().any(|t| t.schema == schema && t.name == name);
    let left_out = advice::left_out(client, settings, comes).await.map_err(failed)?;
    // One that was dropped and made anew will be added.
    let will_be = settings.own_publication && !may_add && !absent.is_empty();
    if tables.is_empty() && !will_be {
        return Err(no_table(settings, server, &left_out));
    }
    for reason in left_out {
        warn!("a table that `tables` names does not come: {reason}");
    }
    advice::operations(client, name).await.map_err(failed)?;
    for table in tables.iter().filter(|t| t.identity == b'n') {
        warn!(table = table.full_name(), "the table has REPLICA IDENTITY NOTHING: the server refuses its updates and deletes");
    }
    Ok(tables)
}

/// Refuses tables that the user may not copy.
pub(super) fn check_readable(tables: &[Published], server: &Server) -> Result<(), CodedError> {
    let Some(table) = tables.iter().find(|t| !t.readable) else { return Ok(()) };
    let user = identifier(&server.user);
    Err(CodedError::definite(codes::NO_SELECT, format!("user {user} may not read table \"{}.{}\"", table.schema, table.name))
        .hint(format!("GRANT SELECT ON {} TO {user}; or exclude the table", self::table(&table.schema, &table.name))))
}

/// The refusal to go on without a publication that there was.
pub(super) fn gone(name: &str) -> CodedError {
    CodedError::definite(codes::PUBLICATION, format!("publication \"{name}\" is gone: changes made without it are not published"))
        .hint("remove this source's state so that it starts with a new snapshot")
}

pub(super) fn no_table(settings: &Settings, server: &Server, left_out: &[String]) -> CodedError {
    let (name, database) = (&settings.publication, &server.database);
    let reasons: String = left_out.iter().map(|reason| format!("{reason}; ")).collect();
    CodedError::definite(codes::NO_TABLE, format!("no table of database \"{database}\" and publication \"{name}\" is selected by `tables`"))
        .hint(format!(
            "{reasons}patterns are schema.table and case-sensitive; views, system, temporary and unlogged tables and single partitions never match"
        ))
}

/// Tables, for statements.
pub(super) fn list(tables: &[(String, String)]) -> String {
    tables.iter().map(|(schema, name)| table(schema, name)).collect::<Vec<_>>().join(", ")
}

/// The statement that makes a source's publication.
pub(super) fn create(settings: &Settings, server: &Server, wanted: &[(String, String)]) -> String {
    let root = if server.version >= 130_000 { " WITH (publish_via_partition_root = true)" } else { "" };
    format!("CREATE PUBLICATION {} FOR TABLE {}{root}", identifier(&settings.publication), list(wanted))
}

async fn make(client: &Client, settings: &Settings, server: &Server, wanted: &[(String, String)]) -> Result<(), CodedError> {
    let name = identifier(&settings.publication);
    let sql = create(settings, server, wanted);
    if server.standby {
        return Err(CodedError::definite(codes::PUBLICATION, format!("publication {name} does not exist, and a standby cannot make it"))
            .hint(format!("on the primary, as the tables' owner: {sql}")));
    }
    change(client, &sql, &format!("creating publication {name}")).await?;
    info!(publication = settings.publication, tables = wanted.len(), "created the publication");
    Ok(())
}

pub(super) async fn add(client: &Client, settings: &Settings, absent: &[(String, String)]) -> Result<(), CodedError> {
    let name = identifier(&settings.publication);
    let sql = format!("ALTER PUBLICATION {name} ADD TABLE {}", list(absent));
    change(client, &sql, &format!("adding tables to publication {name}")).await?;
    info!(publication = settings.publication, tables = absent.len(), "added tables to the publication");
    Ok(())
}

async fn change(client: &Client, sql: &str, doing: &str) -> Result<(), CodedError> {
    client.batch_execute(sql).await.map_err(|e| {
        let error = classify(&e, doing);
        match sqlstate(&error) {
            Some(INSUFFICIENT_PRIVILEGE) => CodedError::definite(codes::PUBLICATION, error.message)
                .hint(format!("as the tables' owner, with CREATE on the database: {sql}")),
            _ => error,
        }
    })
}

pub(super) fn say_left_out(settings: &Settings, absent: &[(String, String)]) {
    let publication = &settings.publication;
    warn!(
        publication,
        tables = list(absent),
        "selected tables are not in the publication and are left out: once they are added to it their rows are copied"
    );
}
