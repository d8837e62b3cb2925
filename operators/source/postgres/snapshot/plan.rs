//! The snapshot's plan: which statement copies which part of which table.
//!
//! ```text
//! table ──> leaves (itself, or its partitions) ──> ranges of pages ──> COPY statements
//! ```
//! Ranges of `ctid` need PostgreSQL 14 to be cheap; the last range of a table is open, so that the plan
//! may be made at any time while the table is locked against rewriting.

use super::super::catalog::Published;
use super::super::connect::classify;
use super::super::quote::{identifier, table};
use super::super::setup::Server;
use super::super::types::{Select, Types};
use crate::contract::{CodedError, TableSchema};
use std::sync::Arc;
use tokio_postgres::Client;

/// Bytes of a range.
pub(super) const RANGE_BYTES: u64 = 64 << 20;

/// The first version that reads a range of ctids without the rest of the table.
const TID_RANGE: u32 = 140_000;

/// A table of the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Its schema, as its rows are read.
    pub schema: Arc<TableSchema>,
    /// How many units copy it.
    pub units: usize,
    /// Rows that the catalog estimates.
    pub estimated_rows: u64,
}

/// A statement to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Index of its table.
    pub table: usize,
    /// `COPY … TO STDOUT (FORMAT binary)`.
    pub sql: String,
}

/// A relation that holds rows.
#[derive(Clone, Debug)]
struct Leaf {
    schema: String,
    name: String,
    /// `pg_class.relkind`.
    kind: u8,
    bytes: u64,
}

/// The list of a select that reads a table's columns.
fn columns(schema: &TableSchema, types: &Types) -> String {
    let column = |column: &crate::contract::Column| {
        let name = identifier(&column.name);
        match types.select(column.pg_type.oid, column.pg_type.modifier) {
            Select::Plain => name,
            Select::TextArray => format!("{name}::text[]"),
            // num_nulls, not IS NULL: a composite of nulls is not null. format, not ::text: the output function.
            Select::OutputText => format!("CASE WHEN num_nulls({name}) = 0 THEN format('%s', {name}) END"),
        }
    };
    schema.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The statements that copy one leaf.
fn statements(leaf: &Leaf, columns: &str, filter: Option<&str>, server: &Server, range_bytes: u64) -> Vec<String> {
    let from = table(&leaf.schema, &leaf.name);
    let only = if leaf.kind == b'r' { "ONLY " } else { "" };
    let filter = filter.map(|filter| format!("({filter})"));
    let copy = |range: Option<String>| {
        let conditions: Vec<String> = range.into_iter().chain(filter.clone()).collect();
        let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("COPY (SELECT {columns} FROM {only}{from}{condition}) TO STDOUT (FORMAT binary)")
    };
    let pages = leaf.bytes / server.page;
    let step = (range_bytes / server.page).max(1);
    if leaf.kind != b'r' || server.version < TID_RANGE || pages <= step {
        return vec![copy(None)];
    }
    let starts: Vec<u64> = (0..pages).step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect();
    let last = starts.len() - 1;
    let range = |(index, start): (usize, &u64)| {
        let from = format!("ctid >= '({start},0)'::tid");
        copy(Some(if index == last { from } else { format!("{from} AND ctid < '({},0)'::tid", start + step) }))
    };
    starts.iter().enumerate().map(range).collect()
}

async fn leaves(client: &Client, id: u32) -> Result<Vec<Leaf>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text, c.relname::text, c.relkind, CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) ELSE 0 END
               FROM (SELECT $1::oid AS oid WHERE (SELECT relkind FROM pg_class WHERE oid = $1) <> 'p'
                     UNION ALL SELECT relid::oid FROM pg_partition_tree($1) WHERE isleaf AND relid <> $1) leaf
               JOIN pg_class c ON c.oid = leaf.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2";
    let rows = client.query(sql, &[&id]).await?;
    let leaf = |row: &tokio_postgres::Row| {
        Ok(Leaf {
            schema: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get::<_, i8>(2)?.cast_unsigned(),
            bytes: u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0),
        })
    };
    rows.iter().map(leaf).collect()
}

/// Plans the copy of tables, the largest first so that the connections end together.
pub(super) async fn plan(
    client: &Client,
    server: &Server,
    types: &Types,
    tables: &[(Published, Arc<TableSchema>)],
    range_bytes: u64,
) -> Result<(Vec<Planned>, Vec<Unit>), CodedError> {
    let mut planned = Vec::with_capacity(tables.len());
    let mut sized = Vec::new();
    for (index, (published, schema)) in tables.iter().enumerate() {
        let doing = format!("planning the snapshot of table \"{}\"", schema.full_name());
        let leaves = leaves(client, published.id).await.map_err(|e| classify(&e, &doing))?;
        let columns = columns(schema, types);
        let statements: Vec<String> =
            leaves.iter().flat_map(|leaf| statements(leaf, &columns, published.row_filter.as_deref(), server, range_bytes)).collect();
        planned.push(Planned { schema: Arc::clone(schema), units: statements.len(), estimated_rows: published.estimated_rows });
        sized.push((leaves.iter().map(|leaf| leaf.bytes).sum::<u64>(), index, statements));
    }
    sized.sort_by_key(|(bytes, index, _)| (std::cmp::Reverse(*bytes), *index));
    let units = sized.into_iter().flat_map(|(_, table, statements)| statements.into_iter().map(move |sql| Unit { table, sql }));
    Ok((planned, units.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: u32) -> Server {
        Server { version, standby: false, sender_timeout: None, page: 8192, database: "d".into(), user: "u".into() }
    }

    fn leaf(kind: u8, bytes: u64) -> Leaf {
        Leaf { schema: "s".into(), name: "t\"x".into(), kind, bytes }
    }

    #[test]
    fn ranges() {
        let from = r#"FROM ONLY "s"."t""x""#;
        for (leaf, version, filter, expected) in [
            (leaf(b'r', 0), 150_000, None, vec![format!("{from})")]),
            (leaf(b'r', 16_384), 150_000, None, vec![format!("{from})")]),
            (
                leaf(b'r', 3 * 8192),
                150_000,
                Some("a > 1 OR b"),
                vec![
                    format!("{from} WHERE ctid >= '(0,0)'::tid AND ctid < '(2,0)'::tid AND (a > 1 OR b))"),
                    format!("{from} WHERE ctid >= '(2,0)'::tid AND (a > 1 OR b))"),
                ],
            ),
            (leaf(b'r', 3 * 8192), 130_000, Some("a"), vec![format!("{from} WHERE (a))")]),
            (leaf(b'f', 3 * 8192), 150_000, None, vec![r#"FROM "s"."t""x")"#.to_owned()]),
        ] {
            let found = statements(&leaf, "\"a\"", filter, &server(version), 16_384);
            let expected: Vec<String> = expected.iter().map(|e| format!("COPY (SELECT \"a\" {e} TO STDOUT (FORMAT binary)")).collect();
            assert_eq!(found, expected);
        }
    }
}
