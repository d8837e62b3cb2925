//! A table as it stood at a point of the log: its columns, their types, its key.
//!
//! A schema is immutable; a change of the table makes a new one, and every batch carries the schema its
//! rows were encoded by.

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A relation's object id in its database (PostgreSQL manual, `pg_class.oid`).
pub type TableId = u32;

/// A PostgreSQL type as the catalog names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgType {
    /// `pg_type.oid`.
    pub oid: u32,
    /// `pg_attribute.atttypmod`; -1 without one.
    pub modifier: i32,
    /// As `format_type` spells it, such as `numeric(18,4)`.
    pub name: Arc<str>,
}

/// The family that decides a column's Arrow type and its spelling in every sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `oid` and its kin: unsigned 32 bits, carried as a 64-bit integer.
    Oid,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric(precision, scale)` with `precision <= 38` and `0 <= scale <= 37`.
    Numeric {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// Any other `numeric`: its exact decimal text.
    NumericText,
    /// Text kinds, enums.
    Text,
    /// `bytea`.
    Bytea,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `time with time zone`: its exact text.
    TimeTz,
    /// `timestamp`.
    Timestamp,
    /// `timestamp with time zone`, in UTC.
    TimestampTz,
    /// `interval`: PostgreSQL's `postgres` style text.
    Interval,
    /// `uuid`: its text.
    Uuid,
    /// `json`: the document's own bytes.
    Json,
    /// `jsonb`: the document's own bytes.
    Jsonb,
    /// An array of any dimension: JSON text, elements spelled as `to_jsonb` does.
    Array(Box<ColumnType>),
    /// Everything else: the exact text of the type's output function.
    Other,
}

impl ColumnType {
    /// The Arrow type that carries it.
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 | Self::Oid => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::NumericText
            | Self::Text
            | Self::TimeTz
            | Self::Interval
            | Self::Uuid
            | Self::Json
            | Self::Jsonb
            | Self::Array(_)
            | Self::Other => DataType::Utf8,
        }
    }

    /// Whether `COPY … (FORMAT binary)` carries it in its type's own binary form. A snapshot selects the
    /// output function's text of any other column, so that its field is that text's bytes: as
    /// `CASE WHEN num_nulls(c) = 0 THEN format('%s', c) END`, since `c::text` is another text for types
    /// whose cast has a function of its own (`inet` gains its mask).
    #[must_use]
    pub fn has_binary_form(&self) -> bool {
        match self {
            Self::Other => false,
            Self::Array(element) => element.has_binary_form(),
            _ => true,
        }
    }

    /// Whether the column's text is a JSON document.
    #[must_use]
    pub fn is_json(&self) -> bool {
        matches!(self, Self::Json | Self::Jsonb | Self::Array(_))
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, as PostgreSQL has it.
    pub name: Arc<str>,
    /// Its family.
    pub ty: ColumnType,
    /// Its PostgreSQL type.
    pub pg_type: PgType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Its place in the table's key, from 0.
    pub key: Option<u16>,
    /// The text that rows written before the column existed read as (`pg_attribute.attmissingval`).
    pub missing: Option<Arc<str>>,
    /// What stays when the column is renamed, and is never given to another column of the table
    /// (`pg_attribute.attnum`). Nothing when it is not known.
    #[serde(default)]
    pub number: Option<i16>,
    /// Whether rows written before the column existed may have values of it that no stream carries: it has a
    /// default or an identity, or is not null, and there is no `missing`.
    #[serde(default)]
    pub filled: bool,
}

/// Where a table's rows were when the catalog was read. It is no part of what the table is: all are equal.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The file (`pg_relation_filenode`): another one after a rewrite of the table.
    pub file: u32,
    /// Whether the catalog had the columns of the schema, so that the table had not changed since.
    pub current: bool,
}

impl PartialEq for Storage {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What PostgreSQL sends of a row's old version (PostgreSQL manual, `ALTER TABLE … REPLICA IDENTITY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletes are refused by the server.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// A table at a point of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The source node it comes from.
    pub source: Arc<str>,
    /// Its relation's object id.
    pub id: TableId,
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its columns, in the order the batch's arrays have.
    pub columns: Vec<Column>,
    /// What old versions of its rows carry.
    pub identity: ReplicaIdentity,
    /// Where its rows were, as far as that is known.
    #[serde(default)]
    pub storage: Option<Storage>,
}

/// A table as `schema.table`, for people and for keys of the state: a part that has a dot or a quote is quoted, so that
/// no two tables share a name.
#[must_use]
pub fn qualified(schema: &str, table: &str) -> String {
    let part = |name: &str| {
        if name.contains(['.', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
    };
    format!("{}.{}", part(schema), part(table))
}

impl TableSchema {
    /// `schema.table`, for messages and patterns; not an SQL identifier.
    #[must_use]
    pub fn full_name(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// The key's column indices, in key order. Empty: the table has no key.
    #[must_use]
    pub fn key(&self) -> Vec<usize> {
        let mut key: Vec<(u16, usize)> = self.columns.iter().enumerate().filter_map(|(i, c)| c.key.map(|at| (at, i))).collect();
        key.sort_unstable();
        key.into_iter().map(|(_, i)| i).collect()
    }

    /// The index of a column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }

    /// A stable hash of source, schema and name: which worker and lane own the table.
    #[must_use]
    pub fn route(&self) -> u64 {
        // FNV-1a: the same in every process and version, unlike a seeded hasher.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in [&self.source, &self.schema, &self.name] {
            for byte in part.as_bytes().iter().chain(&[0]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash ^ (hash >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::qualified;

    #[test]
    fn no_two_tables_share_a_name() {
        for (schema, table, name) in [
            ("public", "orders", "public.orders"),
            ("x.y", "z", "\"x.y\".z"),
            ("x", "y.z", "x.\"y.z\""),
            ("a\"b", "c", "\"a\"\"b\".c"),
            ("Ünï", "with space", "Ünï.with space"),
        ] {
            assert_eq!(qualified(schema, table), name);
        }
    }
}
