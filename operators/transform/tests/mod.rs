//! What several operators' tests share: tables and batches of a real server's rows, operators from
//! settings as the pipeline file has them.

mod cast;
mod examples;
mod filter;
mod mask;
mod route;
mod shape;
mod text;

use super::parse::{ColumnBuilder, Fit};
use super::register;
use crate::contract::{
    BuildContext, Cells, CodedError, Column, ColumnType, Findings, Kind, Op, Operator, PgType, Registry, ReplicaIdentity, RowBatch,
    TableSchema,
};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio_postgres::{Client, SimpleQueryMessage};

fn context() -> BuildContext {
    BuildContext { pipeline: "p".into(), node: "n".into(), folder: Path::new("/").into(), peers: crate::contract::Peers::default() }
}

/// An operator of a type from its settings; panics with the findings when there are any.
pub(super) fn operator(name: &str, settings: &Value) -> Box<dyn Operator> {
    try_operator(name, settings).unwrap_or_else(|e| panic!("{name} {settings}: {e:?}"))
}

pub(super) fn try_operator(name: &str, settings: &Value) -> Result<Box<dyn Operator>, CodedError> {
    let registry = register(Registry::empty());
    let node = registry.get(Kind::Operator, name).expect("the type is registered");
    (node.parse)(settings.clone())
        .unwrap_or_else(|e| panic!("{settings}: {e}"))
        .operator(&context())
        .map(|made| made.batches().expect("it works on batches"))
}

/// The codes and pointers of what is wrong with settings.
pub(super) fn findings(name: &str, settings: &Value) -> Vec<(&'static str, String)> {
    let registry = register(Registry::empty());
    let node = registry.get(Kind::Operator, name).expect("the type is registered");
    let mut findings = Findings::default();
    (node.parse)(settings.clone()).unwrap_or_else(|e| panic!("{settings}: {e}")).check(&mut findings);
    findings.0.into_iter().map(|f| (f.code.id, f.pointer)).collect()
}

/// serde's message for settings that do not parse.
pub(super) fn parse_error(name: &str, settings: &Value) -> String {
    let registry = register(Registry::empty());
    let node = registry.get(Kind::Operator, name).expect("the type is registered");
    (node.parse)(settings.clone()).err().expect("the settings are wrong").to_string()
}

/// What is no scalar type of the server's own is an enum here.
fn family(oid: u32, modifier: i32) -> ColumnType {
    const FIRST_OF_USERS: u32 = 16384;
    ColumnType::built_in(oid, modifier).unwrap_or(if oid < FIRST_OF_USERS { ColumnType::Other } else { ColumnType::Text })
}

async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        })
        .collect()
}

/// A table of the server as a schema; columns named `id` are the key.
pub(super) async fn table(client: &Client, name: &str) -> TableSchema {
    let sql = format!(
        "SELECT a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), t.typelem, t.typcategory
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE attrelid = '{name}'::regclass AND attnum > 0 ORDER BY attnum"
    );
    let columns = rows(client, &sql).await.into_iter().map(|row| {
        let field = |at: usize| row[at].clone().expect("not null");
        let (oid, modifier) = (field(1).parse().expect("oid"), field(2).parse().expect("typmod"));
        let element: u32 = field(4).parse().expect("oid");
        let ty = if field(5) == "A" { ColumnType::Array(Box::new(family(element, modifier))) } else { family(oid, modifier) };
        let key = (field(0) == "id").then_some(0);
        let pg_type = PgType { oid, modifier, name: field(3).into() };
        Column { name: field(0).into(), ty, pg_type, nullable: key.is_none(), key, missing: None, number: None, filled: false }
    });
    TableSchema {
        source: "s".into(),
        id: 1,
        schema: "public".into(),
        name: name.into(),
        columns: columns.collect(),
        identity: ReplicaIdentity::Default,
        storage: None,
    }
}

/// The rows of a table, by id, as one batch of snapshot rows.
pub(super) async fn load(client: &Client, schema: TableSchema) -> RowBatch {
    let columns = schema.columns.iter().map(|c| match c.ty {
        ColumnType::Array(_) => format!("to_jsonb(\"{}\")::text", c.name),
        _ => format!("\"{}\"", c.name),
    });
    let sql = format!("SELECT {} FROM {name} ORDER BY {name}.id", columns.collect::<Vec<_>>().join(", "), name = schema.name);
    let texts = rows(client, &sql).await;
    batch(schema, &texts.iter().map(|row| row.iter().map(Option::as_deref).collect()).collect::<Vec<Vec<_>>>())
}

/// A batch of snapshot rows from their texts.
pub(super) fn batch(schema: TableSchema, texts: &[Vec<Option<&str>>]) -> RowBatch {
    let mut exact = Vec::new();
    let mut arrays = Vec::new();
    for (at, column) in schema.columns.iter().enumerate() {
        let mut builder = ColumnBuilder::new(&column.ty, texts.len(), false);
        for (row, values) in texts.iter().enumerate() {
            let Some(text) = values[at] else {
                builder.push_null();
                continue;
            };
            match builder.push(text.as_bytes()) {
                Fit::Held => {}
                Fit::Exact(_) => exact.push((row, at, text)),
                Fit::Refused => panic!("{} refused {text}", column.name),
            }
        }
        arrays.push(builder.finish());
    }
    exact.sort_unstable();
    let mut cells = Cells::default();
    for (row, column, text) in exact {
        cells.push(row, column, text.into());
    }
    let count = texts.len() as u64;
    RowBatch {
        table: Arc::new(schema),
        columns: arrays,
        ops: vec![Op::Read.letter(); texts.len()].into(),
        commit_lsn: vec![100; texts.len()].into(),
        ordinal: (0..count).collect(),
        commit_time: vec![7; texts.len()].into(),
        unchanged: Cells::default(),
        exact: cells,
    }
}

pub(super) fn with_ops(mut batch: RowBatch, ops: &str) -> RowBatch {
    assert_eq!(ops.len(), batch.len());
    batch.ops = ops.bytes().collect();
    batch
}

pub(super) fn column(name: &str, ty: ColumnType, oid: u32, type_name: &str) -> Column {
    let key = (name == "id").then_some(0);
    Column {
        name: name.into(),
        ty,
        pg_type: PgType { oid, modifier: -1, name: type_name.into() },
        nullable: key.is_none(),
        key,
        missing: None,
        number: None,
        filled: false,
    }
}

/// `public.orders (id bigint, status text, total numeric(18,4), note text)`, key `id`.
pub(super) fn orders() -> TableSchema {
    TableSchema {
        source: "shop".into(),
        id: 42,
        schema: "public".into(),
        name: "orders".into(),
        columns: vec![
            column("id", ColumnType::Int8, 20, "bigint"),
            column("status", ColumnType::Text, 25, "text"),
            column("total", ColumnType::Numeric { precision: 18, scale: 4 }, 1700, "numeric(18,4)"),
            column("note", ColumnType::Text, 25, "text"),
        ],
        identity: ReplicaIdentity::Default,
        storage: None,
    }
}

/// Each row as `op id|status|…`, null as `-`, unchanged as `?`, an exact text in brackets.
pub(super) fn show(batch: &RowBatch) -> Vec<String> {
    (0..batch.len())
        .map(|row| {
            let cells = batch.columns.iter().enumerate().map(|(at, array)| {
                if let Some(text) = batch.exact.get(row, at) {
                    return format!("[{text}]");
                }
                if batch.unchanged.get(row, at).is_some() {
                    return "?".into();
                }
                if array.is_null(row) {
                    return "-".into();
                }
                let mut text = Vec::new();
                super::text::Texts::of(&batch.table.columns[at], array).write(row, &mut text);
                String::from_utf8(text).expect("UTF-8")
            });
            format!("{} {}", char::from(batch.ops[row]), cells.collect::<Vec<_>>().join("|"))
        })
        .collect()
}

pub(super) fn ids(batch: &RowBatch) -> Vec<i64> {
    batch.columns[0].as_primitive::<Int64Type>().values().to_vec()
}
