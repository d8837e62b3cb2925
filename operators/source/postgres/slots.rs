//! Slots of the source's server, listed and dropped beside a pipeline that may or may not run.
//!
//! Guarantee: a slot that somebody uses is never dropped.

use super::config::Settings;
use super::connect::{Endpoint, classify};
use super::quote::identifier;
use super::setup;
use crate::contract::{CodedError, Dropped, Lsn, SlotFacts};

/// What looks at them.
pub(super) struct Slots<'a> {
    pub settings: &'a Settings,
    pub endpoint: Endpoint,
}

impl Slots<'_> {
    /// The source's slot and those that are named as slots of this program are.
    pub(super) async fn list(&self) -> Result<Vec<SlotFacts>, CodedError> {
        let client = self.endpoint.query("slots").await?;
        let failed = |e: tokio_postgres::Error| classify(&e, "listing replication slots");
        let sql = r"SELECT s.slot_name::text, s.database::text, s.plugin::text, s.active_pid, a.application_name, s.confirmed_flush_lsn::text,
                           pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                                           s.restart_lsn)::int8,
                           to_jsonb(s)->>'wal_status', s.temporary
                    FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
                    WHERE s.slot_name = $1 OR s.slot_name LIKE 'etl\_stream\_%' ORDER BY s.slot_name";
        let rows = client.query(sql, &[&self.settings.slot]).await.map_err(failed)?;
        let facts = rows.iter().map(|row| {
            let slot: String = row.try_get(0)?;
            let confirmed: Option<String> = row.try_get(5)?;
            Ok(SlotFacts {
                server: self.endpoint.host_label(),
                own: slot == self.settings.slot,
                slot,
                database: row.try_get(1)?,
                plugin: row.try_get(2)?,
                pid: row.try_get(3)?,
                application: row.try_get(4)?,
                confirmed: confirmed.and_then(|text| text.parse::<Lsn>().ok()),
                retained_bytes: row.try_get::<_, Option<i64>>(6)?.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
                wal_status: row.try_get(7)?,
                temporary: row.try_get(8)?,
            })
        });
        facts.collect::<Result<_, _>>().map_err(failed)
    }

    /// Drops a slot that nobody uses, then the publication.
    pub(super) async fn drop(&self, slot: &str, publication: bool) -> Result<Dropped, CodedError> {
        let client = self.endpoint.query("slots").await?;
        let found = setup::slot(&client, slot).await?;
        if let Some(who) = found.as_ref().and_then(setup::Slot::user) {
            return Err(setup::in_use(slot, &who));
        }
        let mut dropped = Dropped { slot: None, publication: None };
        if found.is_some() {
            // Used since: the server says so.
            let done = client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await;
            done.map_err(|e| classify(&e, &format!("dropping replication slot \"{slot}\"")))?;
            dropped.slot = Some(slot.to_owned());
        }
        let name = if slot == self.settings.slot { &self.settings.publication } else { slot };
        if publication {
            let failed = |e: tokio_postgres::Error| classify(&e, &format!("dropping publication \"{name}\""));
            let there = client.query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[&name]).await.map_err(failed)?;
            if there.is_some() {
                client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", identifier(name))).await.map_err(failed)?;
                dropped.publication = Some(name.to_owned());
            }
        }
        Ok(dropped)
    }
}
