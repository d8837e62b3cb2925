//! The benches' row: int8, int4, text, varchar, numeric(18,4), timestamptz, bool, jsonb of about 100 bytes, uuid, text[];
//! 364 bytes as pgoutput text.

use etl_stream_operators::contract::{Column, ColumnType, Commit, Format, PgType, RawRow, RawRows, ReplicaIdentity, TableSchema};
use std::sync::Arc;

/// The relation in every message.
pub(crate) const RELATION: u32 = 16_400;

/// Names and types.
pub(crate) fn columns() -> Vec<(&'static str, ColumnType)> {
    vec![
        ("id", ColumnType::Int8),
        ("quantity", ColumnType::Int4),
        ("note", ColumnType::Text),
        ("code", ColumnType::Text),
        ("total", ColumnType::Numeric { precision: 18, scale: 4 }),
        ("placed", ColumnType::TimestampTz),
        ("paid", ColumnType::Bool),
        ("details", ColumnType::Jsonb),
        ("key", ColumnType::Uuid),
        ("tags", ColumnType::Array(Box::new(ColumnType::Text))),
    ]
}

/// The table of some columns.
pub(crate) fn table(columns: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    let column = |(name, ty): &(&str, ColumnType)| Column {
        name: (*name).into(),
        ty: ty.clone(),
        pg_type: PgType { oid: 0, modifier: -1, name: (*name).into() },
        nullable: true,
        key: (*name == "id").then_some(0),
        missing: None,
        number: None,
        filled: false,
    };
    let columns = columns.iter().map(column).collect();
    let (source, schema, name) = ("shop".into(), "public".into(), "orders".into());
    Arc::new(TableSchema { source, id: RELATION, schema, name, columns, identity: ReplicaIdentity::Default, storage: None })
}

/// The values' text.
pub(crate) fn text_row(n: usize) -> Vec<Vec<u8>> {
    let details =
        format!(r#"{{"sku": "A-{n:06}", "lines": [{{"n": 1, "price": 12.50}}, {{"n": 2, "price": 7.25}}], "gift": false, "by": "web"}}"#);
    [
        (1_000_000 + n).to_string(),
        (n % 97).to_string(),
        format!("order number {n} of a customer with a note"),
        format!("SKU-{:05}", n % 100_000),
        format!("{}.{:04}", n * 13 % 1_000_000, n % 10_000),
        format!("2026-11-{:02} {:02}:{:02}:{:02}.{:06}+00", 1 + n % 28, n % 24, n % 60, n % 59, 1 + n % 999_999),
        if n.is_multiple_of(2) { "t" } else { "f" }.to_owned(),
        details,
        format!("a0eebc99-9c0b-4ef8-bb6d-6bb9{n:08x}"),
        "{red,\"dark green\",blue42}".to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}

/// The values' binary form.
pub(crate) fn binary_row(n: usize) -> Vec<Vec<u8>> {
    let text = text_row(n);
    let total: Vec<u8> =
        [3, 1, 0, 4, (n % 100) as i16, (n % 10_000) as i16, (n * 7 % 10_000) as i16].into_iter().flat_map(i16::to_be_bytes).collect();
    let mut tags: Vec<u8> = [1, 0, 25, 3, 1].into_iter().flat_map(i32::to_be_bytes).collect();
    for tag in ["red", "dark green", "blue42"] {
        tags.extend((tag.len() as i32).to_be_bytes());
        tags.extend(tag.bytes());
    }
    vec![
        (n as i64).to_be_bytes().to_vec(),
        (n as i32).to_be_bytes().to_vec(),
        text[2].clone(),
        text[3].clone(),
        total,
        (848_000_000_000_000 + n as i64).to_be_bytes().to_vec(),
        vec![(n % 2) as u8],
        [&[1], text[7].as_slice()].concat(),
        [n as u8; 16].to_vec(),
        tags,
    ]
}

/// So many rows as a source sends them, the first of them the `first`.
pub(crate) fn raw(
    table: &Arc<TableSchema>,
    format: Format,
    numbers: std::ops::Range<usize>,
    row: impl Fn(usize) -> Vec<Vec<u8>>,
) -> RawRows {
    let (mut bytes, mut rows) = (Vec::new(), Vec::new());
    for n in numbers {
        let start = bytes.len() as u32;
        if format == Format::PgOutput {
            bytes.push(b'I');
            bytes.extend(RELATION.to_be_bytes());
            bytes.push(b'N');
        }
        bytes.extend((table.columns.len() as u16).to_be_bytes());
        for value in row(n) {
            if format == Format::PgOutput {
                bytes.push(b't');
            }
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend(value);
        }
        rows.push(RawRow { start, end: bytes.len() as u32, commit: 0, ordinal: 2 * n as u64 });
    }
    RawRows { table: Arc::clone(table), format, bytes: bytes.into(), commits: vec![Commit { lsn: 1, time: 0 }], rows }
}
