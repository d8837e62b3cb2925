//! The stage as a whole: row semantics, hostile bytes, and PostgreSQL itself as the judge of every type.

mod hostile;
mod oracle;
mod round_trips;
mod rows;
mod spelled;

use crate::contract::{Column, ColumnType, Commit, Format, PgType, RawRow, RawRows, ReplicaIdentity, RowBatch, TableSchema};
use crate::encode::Encoder;
use std::sync::Arc;

/// A column's value on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent<'a> {
    Null,
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

pub(super) const RELATION: u32 = 16_400;

pub(super) fn column(name: &str, ty: ColumnType) -> Column {
    let pg_type = PgType { oid: 0, modifier: -1, name: format!("{ty:?}").into() };
    Column { name: name.into(), ty, pg_type, nullable: true, key: None, missing: None, number: None, filled: false }
}

pub(super) fn table(columns: Vec<Column>) -> Arc<TableSchema> {
    let (source, schema, name) = ("shop".into(), "public".into(), "orders".into());
    Arc::new(TableSchema { source, id: RELATION, schema, name, columns, identity: ReplicaIdentity::Default, storage: None })
}

/// A table of one column.
pub(super) fn single(ty: ColumnType) -> Arc<TableSchema> {
    table(vec![column("v", ty)])
}

/// A pgoutput message: its tag, and marked tuples.
pub(super) fn message(tag: u8, tuples: &[(u8, &[Sent<'_>])]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(RELATION.to_be_bytes());
    for (mark, values) in tuples {
        bytes.push(*mark);
        bytes.extend((values.len() as u16).to_be_bytes());
        for value in *values {
            let (kind, value) = match value {
                Sent::Null => (b'n', None),
                Sent::Unchanged => (b'u', None),
                Sent::Text(value) => (b't', Some(value)),
                Sent::Binary(value) => (b'b', Some(value)),
            };
            bytes.push(kind);
            if let Some(value) = value {
                bytes.extend((value.len() as u32).to_be_bytes());
                bytes.extend_from_slice(value);
            }
        }
    }
    bytes
}

/// Messages as a source gives them: commit 100, ordinals two apart.
pub(super) fn raw(table: &Arc<TableSchema>, format: Format, messages: &[Vec<u8>]) -> RawRows {
    let mut bytes = Vec::new();
    let mut rows = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(message);
        rows.push(RawRow { start, end: bytes.len() as u32, commit: 0, ordinal: 2 * at as u64 });
    }
    RawRows { table: Arc::clone(table), format, bytes: bytes.into(), commits: vec![Commit { lsn: 100, time: 7 }], rows }
}

/// Encodes everything into as many batches as it takes.
pub(super) fn encode(raw: &RawRows) -> Result<Vec<RowBatch>, crate::contract::CodedError> {
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    encoder.push(raw, &mut out)?;
    encoder.flush(&mut out);
    Ok(out)
}

/// Encodes one inserted value each, into one batch.
pub(super) fn values(ty: &ColumnType, values: &[Sent<'_>]) -> RowBatch {
    let messages: Vec<Vec<u8>> = values.iter().map(|value| message(b'I', &[(b'N', &[*value])])).collect();
    let mut out = encode(&raw(&single(ty.clone()), Format::PgOutput, &messages)).expect("values in their documented form");
    assert_eq!(out.len(), 1);
    out.remove(0)
}
