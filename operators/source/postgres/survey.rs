//! Looks for tables that are new, or no longer there, while the source runs.
//!
//! ```text
//! pg_publication_tables ──┐
//! tables that could be    ├──> Surveyed ──> join: what is to be copied, what is gone
//! in it, and are not  ────┘       └ those nobody took out are added to a publication of our own
//! ```
//! # Guarantees
//! A table that was in the publication before and is not any more was taken out by somebody: it is not added again.
//! Statements that wait for locks run on a connection that nobody else has meanwhile, so that the stream's look-ups do not.

use super::catalog::{self, Published};
use super::config::Settings;
use super::connect::classify;
use super::control::Control;
use super::publication;
use crate::contract::{CodedError, Lsn, qualified};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;

/// What a look found.
#[derive(Debug)]
pub(super) struct Surveyed {
    /// The selected tables that are published.
    pub published: Vec<Published>,
    /// Selected tables that are not.
    pub left_out: Vec<(String, String)>,
    /// Why they are left out, when they should have been added.
    pub refused: Option<CodedError>,
    /// What was visible before the look.
    pub visible: Arc<str>,
    /// Where the server's log ended after it.
    pub position: u64,
}

/// Where a server stands.
#[derive(Debug)]
pub(super) struct Position {
    /// Where its log ends, as far as a stream gives it.
    pub lsn: u64,
    /// Which transactions are visible: a primary's snapshot, as far as a standby has replayed. Nothing in a catalog changes
    /// without a commit, so while this is the same, a look finds what the one before did. (A standby's `pg_current_snapshot`
    /// lacks what runs on the primary.)
    pub visible: Arc<str>,
}

/// What a look works with.
pub(super) struct Survey {
    pub control: Control,
    pub settings: Settings,
    /// `server_version_num`.
    pub version: u32,
    pub standby: bool,
    /// Whether tables may be added to the publication now: not when that was refused a moment ago.
    pub may_add: bool,
    /// Object ids of the tables that are known, by `schema.table`.
    pub known: BTreeMap<String, u32>,
}

/// Where the server stands.
pub(super) async fn position(client: &Client) -> Result<Position, CodedError> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text, \
               CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text ELSE pg_current_snapshot()::text END";
    let failed = |e| classify(&e, "asking where the server's log ends");
    let rows = client.query_typed(sql, &[]).await.map_err(failed)?;
    let text = |at| rows.first().map_or(Ok(None), |row| row.try_get::<_, Option<&str>>(at)).map_err(failed);
    let lsn = text(0)?.and_then(|text| text.parse::<Lsn>().ok()).map_or(0, |lsn| lsn.0);
    Ok(Position { lsn, visible: text(1)?.unwrap_or_default().into() })
}

impl Survey {
    /// Looks, and adds what is to be added.
    pub(super) async fn look(self) -> Result<Surveyed, CodedError> {
        let (settings, name) = (&self.settings, &self.settings.publication);
        let failed = |e: tokio_postgres::Error| classify(&e, &format!("looking for new tables of publication \"{name}\""));
        let client = self.control.open().await?;
        // All at once. The server answers in order: that was visible before the look, and the log ended there after it.
        let (before, published, absent, ended) = tokio::join!(
            position(&client),
            catalog::published_at(&client, self.version, name),
            catalog::candidates(&client, &settings.tables),
            position(&client)
        );
        let (before, mut published, mut absent, mut ended) = (before?, published.map_err(failed)?, absent.map_err(failed)?, ended?);
        absent.retain(|(_, schema, table)| {
            settings.tables.matches(schema, table) && !published.iter().any(|p| p.schema == *schema && p.name == *table)
        });
        let mut refused = None;
        if settings.own_publication && !self.standby {
            // Those that are known were taken out.
            absent.retain(|(id, schema, table)| self.known.get(&qualified(schema, table)) != Some(id));
            if !absent.is_empty() && self.may_add {
                refused = self.add(&client, &mut absent).await.err();
                published = catalog::published_at(&client, self.version, name).await.map_err(failed)?;
                ended = position(&client).await?;
            }
        }
        published.retain(|t| settings.tables.matches(&t.schema, &t.name));
        client.keep();
        let left_out = absent.into_iter().map(|(_, schema, table)| (schema, table)).collect();
        Ok(Surveyed { published, left_out, refused, visible: before.visible, position: ended.lsn })
    }

    /// Adds tables, one by one where not all can be. Leaves those that were not in `absent`, and says why of the last.
    async fn add(&self, client: &Client, absent: &mut Vec<(u32, String, String)>) -> Result<(), CodedError> {
        let names: Vec<(String, String)> = absent.iter().map(|(_, schema, table)| (schema.clone(), table.clone())).collect();
        let mut result = publication::add(client, &self.settings, &names).await;
        if result.is_ok() {
            absent.clear();
        } else if names.len() > 1 {
            let mut left = Vec::new();
            for (table, name) in absent.drain(..).zip(names) {
                if let Err(error) = publication::add(client, &self.settings, &[name]).await {
                    result = Err(error);
                    left.push(table);
                }
            }
            *absent = left;
        }
        result
    }
}
