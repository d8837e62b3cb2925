//! Tables and rows of them, made from a seed: what a node's tests are fed with.

use super::random::Random;
use crate::contract::{Cells, Column, ColumnType, Op, PgType, ReplicaIdentity, RowBatch, TableSchema, Token};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use std::sync::Arc;

/// A table `schema.name` of source `s`, with these columns; the first is the key.
///
/// # Panics
/// When the name has no dot.
#[must_use]
pub fn table(name: &str, columns: &[(&str, ColumnType, &str)]) -> TableSchema {
    let (schema, table) = name.split_once('.').expect("schema.table");
    let column = |(at, (name, ty, pg)): (usize, &(&str, ColumnType, &str))| Column {
        name: (*name).into(),
        ty: ty.clone(),
        pg_type: PgType { oid: 0, modifier: -1, name: (*pg).into() },
        nullable: at > 0,
        key: (at == 0).then_some(0),
        missing: None,
        number: i16::try_from(at + 1).ok(),
        filled: false,
    };
    TableSchema {
        source: "s".into(),
        id: name.bytes().fold(16_384, |id, byte| id * 31 % 1_000_003 + u32::from(byte)),
        schema: schema.into(),
        name: table.into(),
        columns: columns.iter().enumerate().map(column).collect(),
        identity: ReplicaIdentity::Default,
        storage: None,
    }
}

/// `public.orders`, `public.customers` and `public.everything`, which has a column of each family: what the built-in nodes'
/// examples speak of.
#[must_use]
pub fn tables() -> Vec<Arc<TableSchema>> {
    use ColumnType as T;
    let orders = table(
        "public.orders",
        &[
            ("id", T::Int8, "bigint"),
            ("customer_id", T::Int8, "bigint"),
            ("status", T::Text, "text"),
            ("total", T::Numeric { precision: 18, scale: 4 }, "numeric(18,4)"),
            ("region", T::Text, "text"),
            ("placed", T::TimestampTz, "timestamp with time zone"),
            ("note", T::Text, "text"),
        ],
    );
    let customers = table(
        "public.customers",
        &[
            ("id", T::Int8, "bigint"),
            ("name", T::Text, "text"),
            ("email", T::Text, "text"),
            ("phone", T::Text, "text"),
            ("note", T::Text, "text"),
        ],
    );
    let everything = table(
        "public.everything",
        &[
            ("id", T::Int8, "bigint"),
            ("bool", T::Bool, "boolean"),
            ("int2", T::Int2, "smallint"),
            ("int4", T::Int4, "integer"),
            ("oid", T::Oid, "oid"),
            ("float4", T::Float4, "real"),
            ("float8", T::Float8, "double precision"),
            ("numeric", T::NumericText, "numeric"),
            ("bytea", T::Bytea, "bytea"),
            ("date", T::Date, "date"),
            ("time", T::Time, "time without time zone"),
            ("timetz", T::TimeTz, "time with time zone"),
            ("timestamp", T::Timestamp, "timestamp without time zone"),
            ("interval", T::Interval, "interval"),
            ("uuid", T::Uuid, "uuid"),
            ("json", T::Json, "json"),
            ("jsonb", T::Jsonb, "jsonb"),
            ("array", T::Array(Box::new(T::Int4)), "integer[]"),
            ("other", T::Other, "inet"),
        ],
    );
    [orders, customers, everything].map(Arc::new).into()
}

/// Rows with these operations and tokens from `first` on. Deletes have their key alone, truncates nothing, and of the others
/// every fourth value that may be null is.
#[must_use]
pub fn rows(table: &Arc<TableSchema>, ops: &[Op], first: Token, random: &mut Random) -> RowBatch {
    let columns = table.columns.iter().map(|column| {
        let is_null = |op: &Op, random: &mut Random| match op {
            Op::Truncate => true,
            Op::Delete => column.key.is_none(),
            _ => column.nullable && random.percent(25),
        };
        let seeds: Vec<Option<u64>> = ops.iter().map(|op| (!is_null(op, random)).then(|| random.below(100_000))).collect();
        array(&column.ty, &seeds)
    });
    RowBatch {
        columns: columns.collect(),
        ops: ops.iter().map(|op| op.letter()).collect(),
        commit_lsn: ops.iter().map(|_| first.commit_lsn).collect(),
        ordinal: (first.ordinal..).take(ops.len()).collect(),
        commit_time: ops.iter().map(|_| first.commit_lsn.cast_signed()).collect(),
        unchanged: Cells::default(),
        exact: Cells::default(),
        ..RowBatch::empty(Arc::clone(table))
    }
}

/// Rows whose every column is null, with tokens from `first` on.
#[must_use]
pub fn nulls(table: &Arc<TableSchema>, op: Op, count: usize, first: Token) -> RowBatch {
    let all = rows(table, &vec![op; count], first, &mut Random::new(0));
    let none = vec![None; count];
    RowBatch { columns: table.columns.iter().map(|column| array(&column.ty, &none)).collect(), ..all }
}

/// Values of a family from numbers.
fn array(ty: &ColumnType, seeds: &[Option<u64>]) -> ArrayRef {
    use ColumnType as T;
    let small = |seed: u64| seed as i64;
    let text = |form: &dyn Fn(u64) -> String| -> ArrayRef { Arc::new(seeds.iter().map(|seed| seed.map(form)).collect::<StringArray>()) };
    macro_rules! numbers {
        ($array:ident, |$seed:ident| $value:expr) => {
            Arc::new(seeds.iter().map(|seed| seed.map(|$seed| $value)).collect::<$array>())
        };
    }
    match ty {
        T::Bool => numbers!(BooleanArray, |seed| seed % 2 == 0),
        T::Int2 => numbers!(Int16Array, |seed| (seed % 30_000) as i16),
        T::Int4 => numbers!(Int32Array, |seed| small(seed) as i32),
        T::Int8 | T::Oid => numbers!(Int64Array, |seed| small(seed)),
        T::Float4 => numbers!(Float32Array, |seed| seed as f32 / 4.0),
        T::Float8 => numbers!(Float64Array, |seed| seed as f64 / 8.0),
        T::Numeric { precision, scale } => {
            let most = 10_i128.pow(u32::from(*precision).min(5));
            let values = seeds.iter().map(|seed| seed.map(|seed| i128::from(seed) % most)).collect::<Decimal128Array>();
            Arc::new(values.with_precision_and_scale(*precision, scale.cast_signed()).expect("a column's own precision and scale"))
        }
        T::Bytea => Arc::new(seeds.iter().map(|seed| seed.map(u64::to_be_bytes)).collect::<BinaryArray>()),
        T::Date => numbers!(Date32Array, |seed| (seed % 20_000) as i32),
        T::Time => numbers!(Time64MicrosecondArray, |seed| small(seed) * 1_000),
        T::Timestamp => numbers!(TimestampMicrosecondArray, |seed| small(seed) * 1_000_003),
        T::TimestampTz => {
            let values = seeds.iter().map(|seed| seed.map(|seed| small(seed) * 1_000_003)).collect::<TimestampMicrosecondArray>();
            Arc::new(values.with_timezone("UTC"))
        }
        T::NumericText => text(&|seed| format!("{seed}.{:02}", seed % 100)),
        T::Text => text(&|seed| format!("text {seed}")),
        T::TimeTz => text(&|seed| format!("{:02}:{:02}:00+00", seed % 24, seed % 60)),
        T::Interval => text(&|seed| format!("{seed} days")),
        T::Uuid => text(&|seed| format!("00000000-0000-4000-8000-{seed:012}")),
        T::Json | T::Jsonb => text(&|seed| format!("{{\"a\": {seed}}}")),
        T::Array(_) => text(&|seed| format!("[{seed}, null]")),
        T::Other => text(&|seed| format!("10.0.{}.{}", seed / 250 % 250, seed % 250)),
    }
}
