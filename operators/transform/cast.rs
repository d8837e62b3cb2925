//! Gives columns another type, exactly or not at all.
//!
//! ```text
//! row batch ──> cast ──> row batch      (same rows, same order, same tokens)
//! ```
//!
//! # Guarantees
//! A value that the new type does not hold exactly is refused, or, if the settings say so, becomes NULL
//! with its text kept beside it. Decimals become floats when the float's shortest text is the same
//! number; timestamps become dates at midnight. Timestamps with and without zone meet in UTC. A key
//! stays the key.
//!
//! Hot path: no allocation per value.

use super::parse::{ColumnBuilder, Fit};
use super::scope::{ColumnRef, Plans, acts_on, resolve};
use super::text::{ExactColumn, Texts};
use super::{CFG_TYPE, OP_CAST};
use crate::contract::float::write_float;
use crate::contract::{
    BuildContext, Cells, CodedError, Column, ColumnType, NodeConfig, Operator, OperatorConfig, Output, PgType, RowBatch, TablePattern,
    TableSchema,
};
use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array};
use arrow::datatypes::{Float32Type, Float64Type};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gives columns another type.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CastConfig {
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables pass.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// The new types: of `schema.table.column` (with `*`), or of a bare column name for every table. The
    /// entry that names the table most closely holds.
    columns: BTreeMap<ColumnRef, Target>,
    /// What becomes of a value that the new type does not hold exactly.
    #[serde(default)]
    on_error: OnError,
}

/// What becomes of a value that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnError {
    /// Stop with error OP0003.
    #[default]
    Refuse,
    /// NULL, its text kept as an exact text; a key's value is refused all the same.
    NullWithExact,
}

/// A type to cast to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    ty: ColumnType,
    pg: PgType,
}

const TARGETS: &str =
    "text, bool, int2, int4, int8, float4, float8, numeric, numeric(p,s), date, time, timestamp, timestamptz, json, jsonb, uuid or bytea";

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase();
        let (ty, oid, modifier, name) = match name.as_str() {
            "text" => (ColumnType::Text, 25, -1, "text".to_owned()),
            "bool" | "boolean" => (ColumnType::Bool, 16, -1, "boolean".to_owned()),
            "int2" | "smallint" => (ColumnType::Int2, 21, -1, "smallint".to_owned()),
            "int4" | "integer" | "int" => (ColumnType::Int4, 23, -1, "integer".to_owned()),
            "int8" | "bigint" => (ColumnType::Int8, 20, -1, "bigint".to_owned()),
            "float4" | "real" => (ColumnType::Float4, 700, -1, "real".to_owned()),
            "float8" | "double precision" => (ColumnType::Float8, 701, -1, "double precision".to_owned()),
            "numeric" => (ColumnType::NumericText, 1700, -1, "numeric".to_owned()),
            "date" => (ColumnType::Date, 1082, -1, "date".to_owned()),
            "time" => (ColumnType::Time, 1083, -1, "time without time zone".to_owned()),
            "timestamp" => (ColumnType::Timestamp, 1114, -1, "timestamp without time zone".to_owned()),
            "timestamptz" => (ColumnType::TimestampTz, 1184, -1, "timestamp with time zone".to_owned()),
            "json" => (ColumnType::Json, 114, -1, "json".to_owned()),
            "jsonb" => (ColumnType::Jsonb, 3802, -1, "jsonb".to_owned()),
            "uuid" => (ColumnType::Uuid, 2950, -1, "uuid".to_owned()),
            "bytea" => (ColumnType::Bytea, 17, -1, "bytea".to_owned()),
            other => {
                let parts = other.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')'));
                let (precision, scale) = parts
                    .map(|p| p.split_once(',').unwrap_or((p, "0")))
                    .ok_or_else(|| format!("`{text}` is not a type to cast to; write {TARGETS}"))?;
                let number = |digits: &str| digits.trim().parse::<u8>().ok();
                match (number(precision), number(scale)) {
                    (Some(precision @ 1..=38), Some(scale @ 0..=37)) if scale <= precision => {
                        let modifier = (i32::from(precision) << 16 | i32::from(scale)) + 4;
                        (ColumnType::Numeric { precision, scale }, 1700, modifier, format!("numeric({precision},{scale})"))
                    }
                    _ => {
                        return Err(format!(
                            "`{text}` is not numeric(p,s) with p from 1 to 38 and s from 0 to 37 and not above p; plain numeric holds any number"
                        ));
                    }
                }
            }
        };
        Ok(Self { ty, pg: PgType { oid, modifier, name: name.into() } })
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Target {
    fn schema_name() -> Cow<'static, str> {
        "CastTarget".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": format!("A type to cast to: {TARGETS}.") })
    }
}

impl NodeConfig for CastConfig {
    const TYPE: &'static str = "cast";
    const SUMMARY: &'static str = "gives columns another type, exactly";
    const EXAMPLE: &'static str =
        "columns:\n  public.orders.total: numeric(18,4)\n  public.orders.placed: timestamptz\non_error: null_with_exact\n";
}

impl OperatorConfig for CastConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Cast { config: self.clone(), plans: Plans::default() }))
    }
}

struct Cast {
    config: CastConfig,
    plans: Plans<Vec<(usize, Target)>>,
}

/// Whether values of one type can be read as another's.
fn castable(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType as T;
    let whole = |ty: &T| matches!(ty, T::Int2 | T::Int4 | T::Int8 | T::Oid);
    let number = |ty: &T| whole(ty) || matches!(ty, T::Float4 | T::Float8 | T::Numeric { .. } | T::NumericText);
    let json = |ty: &T| matches!(ty, T::Json | T::Jsonb);
    let day = |ty: &T| matches!(ty, T::Date | T::Timestamp | T::TimestampTz);
    from == to
        || *to == T::Text
        || matches!(from, T::Text | T::Other)
        || (number(from) && number(to))
        || (*from == T::Bool && whole(to))
        || (whole(from) && *to == T::Bool)
        || (day(from) && day(to))
        || (json(to) && (json(from) || number(from) || matches!(from, T::Bool | T::Array(_))))
}

impl CastConfig {
    fn plan(&self, table: &TableSchema) -> Result<Vec<(usize, Target)>, CodedError> {
        if !acts_on(&self.tables, table) {
            return Ok(Vec::new());
        }
        let found = resolve(&self.columns, table)?;
        for (at, target) in &found {
            let column = &table.columns[*at];
            if !castable(&column.ty, &target.ty) {
                let (table, from, to) = (table.full_name(), &column.pg_type.name, &target.pg.name);
                let message = format!("column \"{}\" of table \"{table}\" is {from}, which has no exact cast to {to}", column.name);
                return Err(CodedError::definite(CFG_TYPE, message).hint("cast it to text, or write an operator for it"));
            }
        }
        Ok(found.into_iter().map(|(at, target)| (at, target.clone())).collect())
    }

    fn column(&self, column: &Column, target: &Target, table: &TableSchema) -> Result<Column, CodedError> {
        let missing = match column.missing.as_deref() {
            None => None,
            Some(text) => Some(self.missing(column, text, target).ok_or_else(|| {
                let message =
                    format!("the default of column \"{}\" of table \"{}\" is no {}", column.name, table.full_name(), target.pg.name);
                CodedError::definite(CFG_TYPE, message).hint("cast to a type that holds it, or set on_error: null_with_exact")
            })?),
        };
        let nullable = column.nullable || (self.on_error == OnError::NullWithExact && column.key.is_none());
        Ok(Column { ty: target.ty.clone(), pg_type: target.pg.clone(), nullable, missing, ..column.clone() })
    }

    fn missing(&self, column: &Column, text: &str, target: &Target) -> Option<Arc<str>> {
        let mut builder = builder(&column.ty, &target.ty, 1);
        match builder.push(spelled(&column.ty, &target.ty, text.as_bytes())) {
            Fit::Held => {
                let array = builder.finish();
                let mut out = Vec::new();
                Texts::new(&target.ty, &array).write(0, &mut out);
                String::from_utf8(out).ok().map(Arc::from)
            }
            Fit::Exact(exact) => Some(exact.unwrap_or(text).into()),
            Fit::Refused => (self.on_error == OnError::NullWithExact).then(|| text.into()),
        }
    }
}

impl Operator for Cast {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let mut cast = table.clone();
        for (at, target) in self.config.plan(table)? {
            cast.columns[at] = self.config.column(&table.columns[at], &target, table)?;
        }
        Ok(cast)
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        self.config.plan(table).is_ok_and(|cast| cast.is_empty())
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let config = &self.config;
        let plan = self.plans.get(&batch.table, |table| config.plan(table))?;
        for (at, target) in plan.iter() {
            let column = &batch.table.columns[*at];
            // the same arrays, but for character(n), whose text has no spaces at its end
            if column.ty == target.ty && column.pg_type.oid != 1042 {
                continue;
            }
            let refuse = config.on_error == OnError::Refuse || column.key.is_some();
            let (array, exact) = cast(&batch, *at, target, refuse)?;
            batch.columns[*at] = array;
            if let Some(exact) = exact {
                batch.exact = exact;
            }
        }
        batch.table = Arc::clone(out_table);
        out.send(batch);
        Ok(())
    }
}

/// A builder that takes a timestamp without zone as UTC when the value was one, and not when it was text.
fn builder(from: &ColumnType, to: &ColumnType, rows: usize) -> ColumnBuilder {
    ColumnBuilder::new(to, rows, !matches!(from, ColumnType::Text | ColumnType::Other))
}

/// A boolean's text as an integer's where that is wanted.
fn spelled<'a>(from: &ColumnType, to: &ColumnType, text: &'a [u8]) -> &'a [u8] {
    match (from, to, text) {
        (ColumnType::Bool, ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8, b"true" | b"t") => b"1",
        (ColumnType::Bool, ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8, b"false" | b"f") => b"0",
        _ => text,
    }
}

/// Between floats the value itself counts, not its text.
fn float(from: &ColumnType, to: &ColumnType, array: &ArrayRef) -> Option<ArrayRef> {
    match (from, to) {
        (ColumnType::Float4, ColumnType::Float8) => {
            let wide: Float64Array = array.as_primitive::<Float32Type>().unary(f64::from);
            Some(Arc::new(wide))
        }
        (ColumnType::Float8, ColumnType::Float4) => {
            let wide = array.as_primitive::<Float64Type>();
            let narrow: Float32Array = wide.unary(|v| v as f32);
            wide.iter().flatten().all(same_narrow).then(|| Arc::new(narrow) as ArrayRef)
        }
        _ => None,
    }
}

type ExactTexts = Cells<Box<str>>;

/// One column cast, and the batch's exact texts where they change.
fn cast(batch: &RowBatch, at: usize, target: &Target, refuse: bool) -> Result<(ArrayRef, Option<ExactTexts>), CodedError> {
    let array = &batch.columns[at];
    let from = &batch.table.columns[at].ty;
    let narrows = (from, &target.ty) == (&ColumnType::Float8, &ColumnType::Float4);
    if let Some(array) = float(from, &target.ty, array) {
        return Ok((array, None));
    }
    // an array's JSON is the value where JSON is wanted
    let is_document = matches!(from, ColumnType::Array(_)) && target.ty.is_json();
    let texts = if is_document { Texts::new(&ColumnType::Json, array) } else { Texts::of(&batch.table.columns[at], array) };
    let mut exact = ExactColumn::new(&batch.exact, at);
    let mut builder = builder(from, &target.ty, array.len());
    let (mut scratch, mut kept): (Vec<u8>, Vec<(usize, Box<str>)>) = (Vec::new(), Vec::new());
    for row in 0..array.len() {
        let text = match exact.at(row) {
            Some(text) => text.as_bytes(),
            None if array.is_valid(row) => texts.read(row, &mut scratch),
            None => {
                builder.push_null();
                continue;
            }
        };
        let fit = match narrows && array.is_valid(row) {
            true => narrowed(array.as_primitive::<Float64Type>().value(row), &mut builder),
            false => builder.push(spelled(from, &target.ty, text)),
        };
        let own = || String::from_utf8_lossy(text).into_owned().into_boxed_str();
        match fit {
            Fit::Held => {}
            Fit::Exact(spelling) => kept.push((row, spelling.map_or_else(own, Into::into))),
            Fit::Refused if refuse => {
                let message = format!(
                    "a value of column \"{}\" of table \"{}\" at {} does not fit {} exactly",
                    batch.table.columns[at].name,
                    batch.table.full_name(),
                    batch.token(row),
                    target.pg.name
                );
                return Err(CodedError::definite(OP_CAST, message).hint("cast to a wider type or text, or set on_error: null_with_exact"));
            }
            Fit::Refused => {
                builder.push_null();
                kept.push((row, own()));
            }
        }
    }
    let before = batch.exact.iter().any(|(_, column, _)| column == at);
    Ok((builder.finish(), (before || !kept.is_empty()).then(|| merged(&batch.exact, at, kept))))
}

fn same_narrow(value: f64) -> bool {
    f64::from(value as f32) == value || value.is_nan()
}

/// Adds a `double precision` to a `real` column when it is the same value.
fn narrowed(value: f64, builder: &mut ColumnBuilder) -> Fit {
    let mut text = Vec::new();
    write_float(value as f32, &mut text);
    if same_narrow(value) { builder.push(&text) } else { Fit::Refused }
}

/// The exact texts with those of one column in place of what it had.
fn merged(exact: &Cells<Box<str>>, at: usize, kept: Vec<(usize, Box<str>)>) -> Cells<Box<str>> {
    let others = exact.iter().filter(|(_, column, _)| *column != at).map(|(row, column, text)| (row, column, text.clone()));
    let mut all: Vec<_> = others.chain(kept.into_iter().map(|(row, text)| (row, at, text))).collect();
    all.sort_by_key(|(row, column, _)| (*row, *column));
    let mut cells = Cells::default();
    for (row, column, text) in all {
        cells.push(row, column, text);
    }
    cells
}
