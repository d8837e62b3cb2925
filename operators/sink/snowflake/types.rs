//! Snowflake's column types: what a PostgreSQL column becomes, and which changes of it can be followed.
//!
//! Landing and target have the same types. Integers are `NUMBER`s of their digits; a numeric without a
//! precision, or with more digits than 38, is its exact text.

use crate::contract::ColumnType;
use std::fmt;

/// 128 MiB: the longest text Snowflake holds.
const LONGEST_TEXT: u64 = 134_217_728;
/// 64 MiB: the longest binary value.
const LONGEST_BINARY: u64 = 67_108_864;

/// A Snowflake type, as far as this sink makes or meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SfType {
    /// `NUMBER(precision, scale)`.
    Number(u8, u8),
    /// `VARCHAR(length)`.
    Varchar(u64),
    /// `BINARY(length)`.
    Binary(u64),
    /// `TIME(scale)`, `TIMESTAMP_NTZ(scale)`, `TIMESTAMP_TZ(scale)`.
    Temporal(&'static str, u8),
    /// `FLOAT`, `BOOLEAN`, `DATE`, `VARIANT`, `ARRAY`, `OBJECT`.
    Plain(&'static str),
    /// One that this sink does not make.
    Foreign(String),
}

impl fmt::Display for SfType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(precision, scale) => write!(f, "NUMBER({precision},{scale})"),
            Self::Varchar(length) => write!(f, "VARCHAR({length})"),
            Self::Binary(length) => write!(f, "BINARY({length})"),
            Self::Temporal(name, scale) => write!(f, "{name}({scale})"),
            Self::Plain(name) => f.write_str(name),
            Self::Foreign(name) => f.write_str(name),
        }
    }
}

/// How an existing column relates to what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It holds every value as it is.
    Holds,
    /// `ALTER COLUMN … SET DATA TYPE` makes it hold them.
    Widen,
    /// Snowflake has no such change.
    Never,
}

impl SfType {
    /// The type for a PostgreSQL column.
    pub(super) fn of(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::Bool => Self::Plain("BOOLEAN"),
            ColumnType::Int2 => Self::Number(5, 0),
            ColumnType::Int4 => Self::Number(10, 0),
            ColumnType::Int8 | ColumnType::Oid => Self::Number(19, 0),
            ColumnType::Float4 | ColumnType::Float8 => Self::Plain("FLOAT"),
            ColumnType::Numeric { precision, scale } => Self::Number(*precision, *scale),
            ColumnType::Bytea => Self::Binary(LONGEST_BINARY),
            ColumnType::Date => Self::Plain("DATE"),
            ColumnType::Time => Self::Temporal("TIME", 6),
            ColumnType::Timestamp => Self::Temporal("TIMESTAMP_NTZ", 6),
            ColumnType::TimestampTz => Self::Temporal("TIMESTAMP_TZ", 6),
            ColumnType::Json | ColumnType::Jsonb => Self::Plain("VARIANT"),
            ColumnType::Array(_) => Self::Plain("ARRAY"),
            ColumnType::NumericText
            | ColumnType::Text
            | ColumnType::TimeTz
            | ColumnType::Interval
            | ColumnType::Uuid
            | ColumnType::Other => Self::Varchar(LONGEST_TEXT),
        }
    }

    /// A type as `INFORMATION_SCHEMA.COLUMNS` has it: its name, precision, scale, length and time scale.
    pub(super) fn described(name: &str, precision: Option<&str>, scale: Option<&str>, length: Option<&str>, time: Option<&str>) -> Self {
        let small = |text: Option<&str>, default| text.and_then(|t| t.parse().ok()).unwrap_or(default);
        let large = |text: Option<&str>, default| text.and_then(|t| t.parse().ok()).unwrap_or(default);
        match name {
            "NUMBER" | "FIXED" => Self::Number(small(precision, 38), small(scale, 0)),
            "TEXT" | "VARCHAR" => Self::Varchar(large(length, 16_777_216)),
            "BINARY" => Self::Binary(large(length, 8_388_608)),
            "FLOAT" | "REAL" => Self::Plain("FLOAT"),
            "BOOLEAN" => Self::Plain("BOOLEAN"),
            "DATE" => Self::Plain("DATE"),
            "VARIANT" => Self::Plain("VARIANT"),
            "ARRAY" => Self::Plain("ARRAY"),
            "OBJECT" => Self::Plain("OBJECT"),
            "TIME" => Self::Temporal("TIME", small(time, 9)),
            "TIMESTAMP_NTZ" => Self::Temporal("TIMESTAMP_NTZ", small(time, 9)),
            "TIMESTAMP_TZ" => Self::Temporal("TIMESTAMP_TZ", small(time, 9)),
            other => Self::Foreign(other.to_owned()),
        }
    }

    /// Whether `_ETL_EXACT` may have to say what a value is, as far as the type tells: integers are numbers too.
    pub(super) fn may_be_exact(&self) -> bool {
        !matches!(self, Self::Varchar(_) | Self::Binary(_) | Self::Plain("FLOAT" | "BOOLEAN" | "OBJECT"))
    }

    /// Whether a column of this type can take values of `wanted`.
    pub(super) fn fits(&self, wanted: &Self) -> Fit {
        match (self, wanted) {
            (Self::Number(p, s), Self::Number(wp, ws)) => match () {
                // Room on both sides of the point.
                () if s >= ws && p - s.min(p) >= wp - ws.min(wp) => Fit::Holds,
                () if s == ws && p < wp => Fit::Widen,
                () => Fit::Never,
            },
            (Self::Varchar(l), Self::Varchar(w)) | (Self::Binary(l), Self::Binary(w)) => {
                if l >= w {
                    Fit::Holds
                } else {
                    Fit::Widen
                }
            }
            (Self::Temporal(n, s), Self::Temporal(w, ws)) if n == w && s >= ws => Fit::Holds,
            (Self::Plain(n), Self::Plain(w)) if n == w => Fit::Holds,
            _ => Fit::Never,
        }
    }
}

/// Whether `_ETL_EXACT` may have to say what a value of the type is.
pub(super) fn may_be_exact(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Numeric { .. }
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Array(_)
    )
}

/// Whether PostgreSQL may leave an unchanged value of the type out of an update (`TOAST`).
pub(super) fn may_be_left_out(ty: &ColumnType) -> bool {
    !matches!(
        ty,
        ColumnType::Bool
            | ColumnType::Int2
            | ColumnType::Int4
            | ColumnType::Int8
            | ColumnType::Oid
            | ColumnType::Float4
            | ColumnType::Float8
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::TimeTz
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Interval
            | ColumnType::Uuid
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_postgresql_types() {
        for (ty, sql) in [
            (ColumnType::Bool, "BOOLEAN"),
            (ColumnType::Int2, "NUMBER(5,0)"),
            (ColumnType::Int4, "NUMBER(10,0)"),
            (ColumnType::Int8, "NUMBER(19,0)"),
            (ColumnType::Oid, "NUMBER(19,0)"),
            (ColumnType::Float4, "FLOAT"),
            (ColumnType::Numeric { precision: 38, scale: 37 }, "NUMBER(38,37)"),
            (ColumnType::NumericText, "VARCHAR(134217728)"),
            (ColumnType::Bytea, "BINARY(67108864)"),
            (ColumnType::Date, "DATE"),
            (ColumnType::Time, "TIME(6)"),
            (ColumnType::TimeTz, "VARCHAR(134217728)"),
            (ColumnType::Timestamp, "TIMESTAMP_NTZ(6)"),
            (ColumnType::TimestampTz, "TIMESTAMP_TZ(6)"),
            (ColumnType::Interval, "VARCHAR(134217728)"),
            (ColumnType::Uuid, "VARCHAR(134217728)"),
            (ColumnType::Jsonb, "VARIANT"),
            (ColumnType::Array(Box::new(ColumnType::Int4)), "ARRAY"),
            (ColumnType::Other, "VARCHAR(134217728)"),
        ] {
            assert_eq!(SfType::of(&ty).to_string(), sql, "{ty:?}");
        }
    }

    #[test]
    fn changes() {
        let number = SfType::Number;
        for (old, new, fit) in [
            (number(10, 0), number(10, 0), Fit::Holds),
            (number(10, 0), number(19, 0), Fit::Widen),
            (number(38, 0), number(19, 0), Fit::Holds),
            (number(12, 2), number(10, 0), Fit::Holds),
            (number(10, 2), number(12, 2), Fit::Widen),
            (number(10, 2), number(12, 4), Fit::Never),
            (number(11, 2), number(10, 0), Fit::Never),
            (number(10, 0), SfType::Varchar(9), Fit::Never),
            (SfType::Varchar(10), SfType::Varchar(20), Fit::Widen),
            (SfType::Varchar(20), SfType::Varchar(10), Fit::Holds),
            (SfType::Temporal("TIME", 9), SfType::Temporal("TIME", 6), Fit::Holds),
            (SfType::Temporal("TIME", 0), SfType::Temporal("TIME", 6), Fit::Never),
            (SfType::Plain("DATE"), SfType::Temporal("TIMESTAMP_NTZ", 6), Fit::Never),
            (SfType::Plain("VARIANT"), SfType::Plain("VARIANT"), Fit::Holds),
        ] {
            assert_eq!(old.fits(&new), fit, "{old} {new}");
        }
        assert_eq!(SfType::described("NUMBER", Some("10"), Some("2"), None, None), number(10, 2));
        assert_eq!(SfType::described("TIME", None, None, None, Some("6")), SfType::Temporal("TIME", 6));
        assert_eq!(SfType::described("GEOGRAPHY", None, None, None, None), SfType::Foreign("GEOGRAPHY".into()));
    }
}
