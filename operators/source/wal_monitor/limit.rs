//! `on_limit: drop_slot`: the server's disk is worth more than the source.
//!
//! # Guarantees
//! Only a logical slot of the very name and database that a source of the file reads, and only while it is beyond the
//! limit: both are looked at again by the statement that drops it. Each drop is an error in the log and is counted.

use crate::contract::{CodedError, WalSlot};
use crate::source::postgres::connect::classify;
use crate::source::postgres::quote::literal;
use tokio_postgres::Client;
use tracing::error;

/// How long the process that reads the slot may take to end, in milliseconds.
const PATIENCE: u64 = 2_000;

/// Slots that were dropped.
pub(super) const DROPPED: &str = "etl_stream_slots_dropped_total";

/// Drops a slot; first ends the process that reads it.
pub(super) async fn drop_slot(client: &Client, server: &str, slot: &WalSlot, limit: i64) -> Result<(), CodedError> {
    let name = literal(&slot.name);
    let database = literal(slot.database.as_deref().unwrap_or_default());
    let beyond = format!(
        "FROM pg_replication_slots WHERE slot_name = {name} AND slot_type = 'logical' AND database = {database} AND
         pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn) > {limit}"
    );
    let doing = format!("dropping replication slot \"{}\" of {server}, which retains more than `retained_wal_limit`", slot.name);
    let ended = format!("SELECT pg_terminate_backend(active_pid, {PATIENCE}) {beyond} AND active_pid IS NOT NULL");
    client.simple_query(&ended).await.map_err(|e| classify(&e, &doing))?;
    let dropped = client.simple_query(&format!("SELECT pg_drop_replication_slot(slot_name) {beyond}")).await;
    let dropped = dropped.map_err(|e| classify(&e, &doing))?;
    if dropped.iter().any(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))) {
        let source = slot.source.as_deref().unwrap_or_default();
        metrics::counter!(DROPPED, "server" => server.to_owned(), "slot" => slot.name.clone()).increment(1);
        error!(
            server,
            slot = slot.name,
            source,
            retained_bytes = slot.retained_bytes,
            limit_bytes = limit,
            "dropped the replication slot: it retained more than `retained_wal_limit`; the source needs a new snapshot"
        );
    }
    Ok(())
}
