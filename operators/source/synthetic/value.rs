//! Values of every kind of column, and how PostgreSQL writes them: in text, as the stream has them, and in binary, as a
//! copy has them.

use crate::contract::{Column, ColumnType, PgType};
use crate::testing::random::Random;

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000: i128 = 946_684_800_000_000;
/// Bytes of a value that PostgreSQL moves out of its row (its threshold is about 2 KiB).
const BODY: usize = 8 << 10;
/// Digits after the point of [`Kind::Numeric`].
const SCALE: i128 = 10_000;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bigint`.
    Int8,
    /// `integer`.
    Int4,
    /// `text` of 20 to 60 characters.
    Text,
    /// `varchar(20)`.
    Varchar,
    /// `numeric(18,4)`.
    Numeric,
    /// `timestamptz`.
    TimestampTz,
    /// `boolean`.
    Bool,
    /// `jsonb` of about 100 bytes.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// `text[]` of three.
    Texts,
    /// `text` of 8 KiB.
    Body,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of an integer; of a boolean, 0 or 1; of a numeric, times 10,000; of a timestamp, microseconds since 1970.
    Integer(i128),
    /// Of anything else but an array.
    Text(String),
    /// Of an array.
    Texts(Vec<String>),
}

const WORDS: [&str; 16] = [
    "amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "koi", "lotus", "maple", "nectar", "onyx",
    "pine",
];

impl Kind {
    /// `pg_type.oid` (`pg_type.dat`), `atttypmod`, and the type as `format_type` spells it.
    const fn pg_type(self) -> (u32, i32, &'static str) {
        match self {
            Self::Int8 => (20, -1, "bigint"),
            Self::Int4 => (23, -1, "integer"),
            Self::Text | Self::Body => (25, -1, "text"),
            Self::Varchar => (1043, 24, "character varying(20)"),
            Self::Numeric => (1700, (18 << 16 | 4) + 4, "numeric(18,4)"),
            Self::TimestampTz => (1184, -1, "timestamp with time zone"),
            Self::Bool => (16, -1, "boolean"),
            Self::Jsonb => (3802, -1, "jsonb"),
            Self::Uuid => (2950, -1, "uuid"),
            Self::Texts => (1009, -1, "text[]"),
        }
    }

    /// The type in a `CREATE TABLE`.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        self.pg_type().2
    }

    /// The column that a catalog would describe; the first is the key.
    pub(super) fn column(self, name: &str, number: i16) -> Column {
        let (oid, modifier, type_name) = self.pg_type();
        let key = number == 1;
        Column {
            name: name.into(),
            ty: ColumnType::built_in(oid, modifier).unwrap_or_else(|| ColumnType::Array(Box::new(ColumnType::Text))),
            pg_type: PgType { oid, modifier, name: type_name.into() },
            nullable: !key,
            key: key.then_some(0),
            missing: None,
            number: Some(number),
            filled: key,
        }
    }

    /// A value.
    pub(super) fn value(self, random: &mut Random) -> Value {
        let mut words = |count: u64| (0..count).map(|_| *random.pick(&WORDS)).collect::<Vec<_>>();
        match self {
            Self::Int8 => Value::Integer((random.number() >> 20).into()),
            Self::Int4 => Value::Integer(random.below(100).into()),
            Self::Text => Value::Text(words(7).join(" ")),
            Self::Varchar => Value::Text(format!("SKU-{:05}", random.below(100_000))),
            Self::Numeric => Value::Integer(i128::from(random.below(10_000_000_000)) - 5_000_000_000),
            // 2024, never on a whole ten microseconds: the text then has every digit.
            Self::TimestampTz => Value::Integer(i128::from(1_704_067_200_000_000 + random.below(3_153_600_000_000) * 10 + 7)),
            Self::Bool => Value::Integer(random.below(2).into()),
            // Keys by length, then by bytes, and single spaces: as jsonb writes it.
            Self::Jsonb => Value::Text(format!(
                "{{\"by\": \"{}\", \"sku\": \"A-{:06}\", \"gift\": {}, \"lines\": [{{\"n\": 1, \"price\": {}.25}}, {{\"n\": 2, \"price\": 7.50}}]}}",
                random.pick(&WORDS),
                random.below(1_000_000),
                random.percent(50),
                random.below(100)
            )),
            Self::Uuid => {
                let hex = format!("{:016x}{:016x}", random.number(), random.number());
                let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default().to_owned());
                Value::Text(parts.join("-"))
            }
            Self::Texts => Value::Texts(vec![words(1).concat(), words(2).join(" "), words(1).concat()]),
            Self::Body => {
                let mut text = String::with_capacity(BODY);
                while text.len() < BODY {
                    text.push_str(&format!("{:016x}", random.number()));
                }
                Value::Text(text)
            }
        }
    }

    /// Appends a value's text, as its type's output function writes it.
    pub(super) fn text(self, value: &Value, out: &mut Vec<u8>) {
        match (self, value) {
            (Self::Bool, Value::Integer(value)) => out.push(if *value == 0 { b'f' } else { b't' }),
            (Self::Numeric, Value::Integer(value)) => {
                let (sign, value) = (if *value < 0 { "-" } else { "" }, value.unsigned_abs());
                out.extend(format!("{sign}{}.{:04}", value / SCALE.unsigned_abs(), value % SCALE.unsigned_abs()).bytes());
            }
            (Self::TimestampTz, Value::Integer(value)) => {
                let moment = i64::try_from(*value).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
                out.extend(moment.unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string().bytes());
            }
            (_, Value::Integer(value)) => out.extend(value.to_string().bytes()),
            (_, Value::Text(text)) => out.extend(text.bytes()),
            // The words need quotes where they have a space, and nothing else.
            (_, Value::Texts(texts)) => {
                let quoted = texts.iter().map(|text| if text.contains(' ') { format!("\"{text}\"") } else { text.clone() });
                out.extend(format!("{{{}}}", quoted.collect::<Vec<_>>().join(",")).bytes());
            }
        }
    }

    /// Appends a value's binary form, as its type's send function writes it.
    pub(super) fn binary(self, value: &Value, out: &mut Vec<u8>) {
        match (self, value) {
            (Self::Bool, Value::Integer(value)) => out.push(u8::from(*value != 0)),
            (Self::Int4, Value::Integer(value)) => out.extend((*value as i32).to_be_bytes()),
            (Self::TimestampTz, Value::Integer(value)) => out.extend(((value - EPOCH_2000) as i64).to_be_bytes()),
            (Self::Numeric, Value::Integer(value)) => numeric(*value, out),
            (_, Value::Integer(value)) => out.extend((*value as i64).to_be_bytes()),
            (Self::Uuid, Value::Text(text)) => {
                let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').map(|b| (b as char).to_digit(16).unwrap_or(0) as u8).collect();
                out.extend(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low));
            }
            (Self::Jsonb, Value::Text(text)) => {
                out.push(1);
                out.extend(text.bytes());
            }
            (_, Value::Text(text)) => out.extend(text.bytes()),
            (_, Value::Texts(texts)) => {
                // dimensions, whether nulls are in it, the element's type, length, lower bound
                for number in [1, 0, 25, texts.len() as i32, 1] {
                    out.extend(number.to_be_bytes());
                }
                for text in texts {
                    out.extend((text.len() as i32).to_be_bytes());
                    out.extend(text.bytes());
                }
            }
        }
    }
}

/// `numeric_send`: groups of four decimal digits without zeros at either end, the first one's power of 10,000, the sign,
/// the digits after the point.
fn numeric(value: i128, out: &mut Vec<u8>) {
    let (mut left, mut groups) = (value.unsigned_abs(), Vec::new());
    while left > 0 {
        groups.push((left % 10_000) as i16);
        left /= 10_000;
    }
    let weight = groups.len() as i16 - 2;
    groups.reverse();
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let sign = if value < 0 { 0x4000 } else { 0 };
    let weight = if groups.is_empty() { 0 } else { weight };
    for number in [groups.len() as i16, weight, sign, 4].into_iter().chain(groups) {
        out.extend(number.to_be_bytes());
    }
}
