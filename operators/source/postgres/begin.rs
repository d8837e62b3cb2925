//! The first start: publication, slot, snapshot.
//!
//! ```text
//! look ──> intent stored ──> slot made, snapshot exported ──> tables locked ──> look again ──> copy ──> durable ──> stored
//! ```
//! # Guarantees
//! Only a slot that the stored intent names is ever dropped. Nothing of the snapshot counts until all of it
//! is durable.

use super::catalog::Published;
use super::codes;
use super::config::{Settings, SnapshotMode};
use super::connect::{Endpoint, Replication, sqlstate};
use super::control::Statements;
use super::publication;
use super::quote::identifier;
use super::run::{Run, Sent};
use super::setup::{self, Identity, Server};
use super::snapshot::{self, Locked, Places, Shape, Snapshot};
use super::state::{Progress, Stage, TableProgress};
use crate::contract::{CodedError, Lsn, Permit, Phase, SourceClosed, TableSchema, Ts};
use crate::failpoint;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;
use tracing::info;

/// The first version with `CREATE_REPLICATION_SLOT`'s options in parentheses.
const SLOT_OPTIONS: u32 = 150_000;
/// The first version with failover slots.
const FAILOVER_SLOTS: u32 = 170_000;
/// SQLSTATE of an object that exists.
const DUPLICATE: &str = "42710";
/// SQLSTATE of a limit of the server's settings.
const LIMIT: &str = "53400";

/// How a first start reaches the server.
pub(super) struct Reach<'a> {
    pub endpoint: &'a Endpoint,
    /// Given back before a snapshot asks for its places.
    pub client: Statements,
    pub server: &'a Server,
    pub identity: Identity,
    pub replication: Replication,
}

/// A new slot.
struct Made {
    consistent: u64,
    snapshot: Option<String>,
}

impl Run {
    /// Makes publication and slot, and copies the rows that exist. Returns where the stream starts.
    pub(super) async fn begin(&mut self, reach: Reach<'_>, before: Option<Progress>) -> Result<u64, CodedError> {
        let Reach { endpoint, client, server, identity, mut replication } = reach;
        let initial = self.settings.snapshot.mode == SnapshotMode::Initial;
        setup::check_room(&client).await?;
        let tables = publication::settle(&client, &self.settings, server, true).await?;
        if initial {
            publication::check_readable(&tables, server)?;
        }
        let (shape, places) = if initial {
            // Before the slot: a snapshot that waits holds back the server's clean-up. And with nothing in hand.
            client.keep();
            let (lock, first) = Places::take(&self.connections, endpoint).await?.split();
            let client = endpoint.query_within(lock, "snapshot").await?;
            (Shape::of(&client, &mut self.catalog, server.version, &tables).await?, Some((client, first)))
        } else {
            let shape = Shape::of(&client, &mut self.catalog, server.version, &tables).await?;
            client.keep();
            (shape, None)
        };
        let mut progress = Progress {
            system_identifier: identity.system,
            timeline: identity.timeline,
            database: server.database.clone(),
            slot: self.settings.slot.clone(),
            publication: self.settings.publication.clone(),
            stage: Stage::Creating,
            consistent_lsn: None,
            snapshot_lsn: before.as_ref().and_then(|p| p.snapshot_lsn),
            // What is found here was not completed.
            attempt_lsn: before.as_ref().and_then(|p| p.attempt_lsn.or(p.snapshot_lsn)),
        };
        self.documents().store(&progress, &BTreeMap::new())?;
        let made = self.make_slot(&mut replication, server, initial).await?;
        failpoint::reach("snapshot.slot");
        // One below: a commit record may start at the consistent point itself.
        let lsn = made.consistent.saturating_sub(1);
        if progress.snapshot_lsn.is_some_and(|before| before >= lsn) {
            return Err(CodedError::transient(codes::COPY, "the new snapshot is not later than the one before it"));
        }
        progress.consistent_lsn = Some(made.consistent);
        progress.snapshot_lsn = Some(lsn);
        let replaces = progress.attempt_lsn;
        progress.attempt_lsn = Some(replaces.map_or(lsn, |first| first.min(lsn)));
        progress.stage = Stage::Snapshot;
        info!(slot = self.settings.slot, lsn = %Lsn(made.consistent), tables = tables.len(), "created the replication slot");
        self.documents().store(&progress, &BTreeMap::new())?;
        self.note().confirmed(made.consistent)?;
        let documents = tables
            .iter()
            .map(|table| (table.full_name(), TableProgress::streaming(table.id, Some(table.membership), initial.then_some(lsn))));
        let documents = documents.collect();
        let mut upper = Ts::default();
        if let Some((name, places)) = made.snapshot.zip(places) {
            self.copy(endpoint, server, replication, places, tables, shape, &name, (lsn, replaces)).await?;
            upper = Ts::after(lsn);
        }
        (progress.stage, progress.attempt_lsn) = (Stage::Streaming, None);
        self.assembler.reached(upper);
        self.sent = Some(Sent { upper, progress, tables: documents });
        self.wait_durable(upper).await?;
        failpoint::reach("snapshot.durable");
        self.complete()?;
        failpoint::reach("snapshot.complete");
        Ok(made.consistent)
    }

    /// Copies the rows that exist.
    #[expect(clippy::too_many_arguments, reason = "the one caller's locals")]
    async fn copy(
        &mut self,
        endpoint: &Endpoint,
        server: &Server,
        replication: Replication,
        (client, first): (Client, Permit),
        tables: Vec<Published>,
        shape: Shape,
        name: &str,
        (lsn, replaces): (u64, Option<u64>),
    ) -> Result<(), CodedError> {
        self.status.set_phase(Phase::Snapshot, None);
        let locked = Locked::new(client, &tables).await?;
        let now = Shape::of(locked.client(), &mut self.catalog, server.version, &tables).await?;
        if now != shape {
            return Err(CodedError::transient(codes::COPY, "a table was altered or truncated while its snapshot began"));
        }
        let tables: Vec<(Published, Arc<TableSchema>)> = tables.into_iter().zip(shape.schemas).collect();
        let job = Snapshot {
            endpoint,
            server,
            types: self.catalog.types(),
            tables: &tables,
            name,
            lsn,
            replaces,
            marks: true,
            workers: self.settings.snapshot.workers,
            connections: &self.connections,
            range_bytes: self.range_bytes,
            credits: &self.credits,
            status: &self.status,
        };
        let ready = job.import(&locked, first).await?;
        // The workers hold the snapshot now.
        drop(replication);
        self.advanced = true;
        let Some(out) = &mut self.out else { return Err(snapshot::closed(SourceClosed)) };
        job.copy(ready, &mut **out).await?;
        tables.iter().for_each(|(_, schema)| self.assembler.sent_as(schema));
        Ok(())
    }

    async fn make_slot(&mut self, replication: &mut Replication, server: &Server, export: bool) -> Result<Made, CodedError> {
        let sql = create_slot(&self.settings, server, export);
        let rows = match replication.simple_query(&sql).await {
            Ok(rows) => rows,
            Err(error) => {
                return Err(match sqlstate(&error) {
                    // Somebody made it since we looked: it is not ours.
                    Some(DUPLICATE) => {
                        self.documents().clear()?;
                        CodedError::definite(codes::SLOT_WITHOUT_STATE, error.message).hint("give this source another `slot`")
                    }
                    Some(LIMIT) => CodedError::definite(codes::NO_SLOT_LEFT, error.message)
                        .hint("raise max_replication_slots and restart the server, or drop slots that nobody reads"),
                    _ => error,
                });
            }
        };
        let field = |index: usize| rows.first().and_then(|row| row.get(index)).cloned().flatten();
        let consistent = field(1).and_then(|text| text.parse::<Lsn>().ok());
        let consistent = consistent
            .ok_or_else(|| CodedError::definite(codes::STREAM, "the server's answer to CREATE_REPLICATION_SLOT was not understood"))?;
        Ok(Made { consistent: consistent.0, snapshot: field(2) })
    }
}

fn create_slot(settings: &Settings, server: &Server, export: bool) -> String {
    let slot = identifier(&settings.slot);
    if server.version < SLOT_OPTIONS {
        let snapshot = if export { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        return format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {snapshot}");
    }
    let snapshot = if export { "export" } else { "nothing" };
    let can = server.version >= FAILOVER_SLOTS && !server.standby;
    let failover = if can && settings.failover.unwrap_or(true) { ", FAILOVER" } else { "" };
    format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT '{snapshot}'{failover})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::PostgresConfig;

    #[test]
    fn slots_by_version() {
        let config: PostgresConfig = serde_json::from_value(serde_json::json!({ "host": "h", "slot": "s" })).unwrap();
        let mut settings = Settings::new(&config, "p", "n");
        let server =
            |version, standby| Server { version, standby, sender_timeout: None, page: 8192, database: "d".into(), user: "u".into() };
        for (version, standby, failover, export, expected) in [
            (140_000, false, None, true, "EXPORT_SNAPSHOT"),
            (140_000, false, None, false, "NOEXPORT_SNAPSHOT"),
            (150_000, false, Some(true), true, "(SNAPSHOT 'export')"),
            (170_000, false, None, true, "(SNAPSHOT 'export', FAILOVER)"),
            (170_000, false, Some(false), false, "(SNAPSHOT 'nothing')"),
            (170_000, true, None, true, "(SNAPSHOT 'export')"),
        ] {
            settings.failover = failover;
            let sql = create_slot(&settings, &server(version, standby), export);
            assert_eq!(sql, format!("CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput {expected}"));
        }
    }
}
