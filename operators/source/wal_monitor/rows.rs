//! What was seen as row batches: `etl_stream.wal_slots`, a row for each slot, and `etl_stream.wal_servers`, one for each
//! check.
//!
//! Both have a key (`server`, `slot_name`; `server`), so that a sink that merges shows how things stand, and one that
//! appends keeps their history. Sizes are bytes, lags seconds; positions are PostgreSQL's text of an LSN.

use crate::contract::{Column, ColumnType, Lsn, PgType, ReplicaIdentity, RowBatch, TableSchema, WalDecoded, WalSender, WalServer, WalSlot};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use std::sync::Arc;

/// The schema of both tables.
const SCHEMA: &str = "etl_stream";

/// Columns and their arrays, side by side.
#[derive(Default)]
struct Columns {
    columns: Vec<Column>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn add(&mut self, name: &str, ty: ColumnType, (oid, pg): (u32, &str), key: Option<u16>, array: ArrayRef) {
        let pg_type = PgType { oid, modifier: -1, name: pg.into() };
        self.columns.push(Column {
            name: name.into(),
            ty,
            pg_type,
            nullable: key.is_none(),
            key,
            missing: None,
            number: None,
            filled: false,
        });
        self.arrays.push(array);
    }

    fn key<'a>(&mut self, name: &str, place: u16, values: impl Iterator<Item = &'a str>) {
        self.add(name, ColumnType::Text, (25, "text"), Some(place), Arc::new(StringArray::from_iter_values(values)));
    }

    fn text<T: AsRef<str>>(&mut self, name: &str, values: impl Iterator<Item = Option<T>>) {
        self.add(name, ColumnType::Text, (25, "text"), None, Arc::new(values.collect::<StringArray>()));
    }

    fn lsn(&mut self, name: &str, values: impl Iterator<Item = Option<Lsn>>) {
        self.text(name, values.map(|lsn| lsn.map(|lsn| lsn.to_string())));
    }

    fn integer(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        self.add(name, ColumnType::Int8, (20, "bigint"), None, Arc::new(values.collect::<Int64Array>()));
    }

    fn float(&mut self, name: &str, values: impl Iterator<Item = Option<f64>>) {
        self.add(name, ColumnType::Float8, (701, "double precision"), None, Arc::new(values.collect::<Float64Array>()));
    }

    fn flag(&mut self, name: &str, values: impl Iterator<Item = Option<bool>>) {
        self.add(name, ColumnType::Bool, (16, "boolean"), None, Arc::new(values.collect::<BooleanArray>()));
    }

    fn time(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        let array = values.collect::<TimestampMicrosecondArray>().with_timezone("UTC");
        self.add(name, ColumnType::TimestampTz, (1184, "timestamp with time zone"), None, Arc::new(array));
    }

    /// The batch of check number `check`, whose first row has the ordinal `first`.
    fn batch(
        self,
        table: &mut Option<Arc<TableSchema>>,
        source: &Arc<str>,
        (id, name): (u32, &str),
        check: u64,
        first: u64,
        at: i64,
    ) -> RowBatch {
        let Self { columns, arrays } = self;
        let table = table.get_or_insert_with(|| {
            Arc::new(TableSchema {
                source: Arc::clone(source),
                id,
                schema: SCHEMA.into(),
                name: name.into(),
                columns,
                identity: ReplicaIdentity::Default,
                storage: None,
            })
        });
        let rows = arrays.first().map_or(0, |array| array.len());
        RowBatch {
            columns: arrays,
            ops: vec![b'i'; rows].into(),
            commit_lsn: vec![check; rows].into(),
            ordinal: (first..first + rows as u64).collect(),
            commit_time: vec![at; rows].into(),
            ..RowBatch::empty(Arc::clone(table))
        }
    }
}

/// Makes batches; keeps the schemas, so that all batches of a table have the same one.
pub(super) struct Rows {
    source: Arc<str>,
    slots: Option<Arc<TableSchema>>,
    servers: Option<Arc<TableSchema>>,
}

impl Rows {
    /// For the monitor of that name.
    pub(super) fn new(source: Arc<str>) -> Self {
        Self { source, slots: None, servers: None }
    }

    /// The rows of a check: those of the slots, if it was answered and there are any, and the server's.
    pub(super) fn batches(&mut self, check: u64, server: &WalServer) -> Vec<RowBatch> {
        let answered = server.failed_checks == 0;
        let slots: &[WalSlot] = if answered { &server.slots } else { &[] };
        let mut batches = Vec::with_capacity(2);
        if !slots.is_empty() {
            let columns = slot_columns(server, slots);
            batches.push(columns.batch(&mut self.slots, &self.source, (1, "wal_slots"), check, 0, server.checked_at));
        }
        let columns = server_columns(server, answered);
        batches.push(columns.batch(&mut self.servers, &self.source, (2, "wal_servers"), check, slots.len() as u64, server.checked_at));
        batches
    }
}

fn slot_columns(server: &WalServer, slots: &[WalSlot]) -> Columns {
    let mut c = Columns::default();
    let each = || slots.iter();
    let decoded = |get: fn(&WalDecoded) -> i64| slots.iter().map(move |s| s.decoded.as_ref().map(get));
    let sender = || slots.iter().map(|s| s.sender.as_ref());
    let position = |get: fn(&WalSender) -> Option<Lsn>| slots.iter().map(move |s| s.sender.as_ref().and_then(get));
    c.key("server", 0, each().map(|_| &*server.name));
    c.key("slot_name", 1, each().map(|s| s.name.as_str()));
    c.time("checked_at", each().map(|_| Some(server.checked_at)));
    c.text("source", each().map(|s| s.source.as_deref()));
    c.text("slot_type", each().map(|s| Some(&s.slot_type)));
    c.text("plugin", each().map(|s| s.plugin.as_ref()));
    c.text("database", each().map(|s| s.database.as_ref()));
    c.flag("temporary", each().map(|s| Some(s.temporary)));
    c.flag("active", each().map(|s| Some(s.active)));
    c.integer("active_pid", each().map(|s| s.active_pid));
    c.lsn("restart_lsn", each().map(|s| s.restart_lsn));
    c.lsn("confirmed_flush_lsn", each().map(|s| s.confirmed_flush_lsn));
    c.integer("retained_bytes", each().map(|s| s.retained_bytes));
    c.integer("unconfirmed_bytes", each().map(|s| s.unconfirmed_bytes));
    c.text("wal_status", each().map(|s| s.wal_status.as_ref()));
    c.integer("safe_wal_size", each().map(|s| s.safe_wal_size));
    c.time("inactive_since", each().map(|s| s.inactive_since));
    c.text("invalidation_reason", each().map(|s| s.invalidation_reason.as_ref()));
    c.flag("conflicting", each().map(|s| s.conflicting));
    c.flag("failover", each().map(|s| s.failover));
    c.flag("synced", each().map(|s| s.synced));
    c.flag("two_phase", each().map(|s| s.two_phase));
    c.flag("over_limit", each().map(|s| Some(s.over_limit)));
    c.integer("spill_txns", decoded(|d| d.spill_txns));
    c.integer("spill_count", decoded(|d| d.spill_count));
    c.integer("spill_bytes", decoded(|d| d.spill_bytes));
    c.integer("stream_txns", decoded(|d| d.stream_txns));
    c.integer("stream_count", decoded(|d| d.stream_count));
    c.integer("stream_bytes", decoded(|d| d.stream_bytes));
    c.integer("total_txns", decoded(|d| d.total_txns));
    c.integer("total_bytes", decoded(|d| d.total_bytes));
    c.text("walsender_state", sender().map(|s| s.and_then(|s| s.state.as_ref())));
    c.text("walsender_application", sender().map(|s| s.and_then(|s| s.application.as_ref())));
    c.lsn("sent_lsn", position(|s| s.sent_lsn));
    c.lsn("write_lsn", position(|s| s.write_lsn));
    c.lsn("flush_lsn", position(|s| s.flush_lsn));
    c.lsn("replay_lsn", position(|s| s.replay_lsn));
    c.float("flush_lag", sender().map(|s| s.and_then(|s| s.flush_lag)));
    c.float("replay_lag", sender().map(|s| s.and_then(|s| s.replay_lag)));
    c
}

fn server_columns(server: &WalServer, answered: bool) -> Columns {
    // What an earlier check saw is no part of the row of one that failed.
    fn one<T>(value: Option<T>, answered: bool) -> std::iter::Once<Option<T>> {
        std::iter::once(value.filter(|_| answered))
    }
    let free = |most: Option<i64>, used: Option<i64>| one(most.zip(used).map(|(most, used)| most - used), answered);
    let mut c = Columns::default();
    c.key("server", 0, std::iter::once(&*server.name));
    c.time("checked_at", std::iter::once(Some(server.checked_at)));
    c.float("check_seconds", std::iter::once(Some(server.check_seconds)));
    c.integer("failed_checks", std::iter::once(Some(i64::from(server.failed_checks))));
    c.text("error", std::iter::once(server.error.as_ref()));
    c.text("system_identifier", one(server.system_identifier.as_ref(), answered));
    c.integer("server_version_num", one(server.version, answered));
    c.flag("in_recovery", one(server.in_recovery, answered));
    c.lsn("lsn", one(server.lsn, answered));
    c.float("wal_bytes_per_second", one(server.wal_rate, answered));
    c.integer("slots", one(server.slots_used, answered));
    c.integer("free_slots", free(server.slots_max, server.slots_used));
    c.integer("walsenders", one(server.senders_used, answered));
    c.integer("free_walsenders", free(server.senders_max, server.senders_used));
    c.integer("connections", one(server.connections_used, answered));
    c.integer("free_connections", free(server.connections_max, server.connections_used));
    c.integer("replay_lag_bytes", one(server.replay_lag_bytes, answered));
    c.float("replay_lag", one(server.replay_lag, answered));
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Token;
    use crate::testing::drive::assert_well_formed;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    fn server(slots: Vec<WalSlot>, failed_checks: u32) -> WalServer {
        WalServer {
            name: "db:5432".into(),
            checked_at: 7,
            failed_checks,
            slots_used: Some(2),
            slots_max: Some(10),
            error: (failed_checks > 0).then(|| "no [PG0001]".into()),
            slots,
            ..WalServer::default()
        }
    }

    #[test]
    fn a_check_is_rows_of_both_tables() {
        let slot =
            |name: &str| WalSlot { name: name.into(), retained_bytes: Some(5), sender: Some(WalSender::default()), ..WalSlot::default() };
        let mut rows = Rows::new("wal".into());
        let first = rows.batches(3, &server(vec![slot("a"), slot("b")], 0));
        let second = rows.batches(4, &server(Vec::new(), 0));
        let failed = rows.batches(5, &server(vec![slot("a")], 2));
        let lengths = |batches: &[RowBatch]| batches.iter().map(|b| (b.table.full_name(), b.len())).collect::<Vec<_>>();
        assert_eq!(lengths(&first), [("etl_stream.wal_slots".to_owned(), 2), ("etl_stream.wal_servers".to_owned(), 1)]);
        assert_eq!(lengths(&second), [("etl_stream.wal_servers".to_owned(), 1)]);
        assert_eq!(lengths(&failed), [("etl_stream.wal_servers".to_owned(), 1)]);
        let tokens: Vec<Token> = first.iter().flat_map(|b| (0..b.len()).map(|row| b.token(row))).collect();
        assert_eq!(tokens, [Token::new(3, 0), Token::new(3, 1), Token::new(3, 2)]);
        first.iter().chain(&second).chain(&failed).for_each(assert_well_formed);
        assert!(Arc::ptr_eq(&first[1].table, &second[0].table), "a table has one schema");
        assert_eq!((first[0].table.key(), first[1].table.key()), (vec![0, 1], vec![0]));
        let free = |batch: &RowBatch| {
            let column = batch.columns[batch.table.column("free_slots").expect("a column")].as_primitive::<Int64Type>();
            column.is_valid(0).then(|| column.value(0))
        };
        assert_eq!((free(&first[1]), free(&failed[0])), (Some(8), None));
    }
}
