//! From PostgreSQL's types to the families that decide a column's Arrow type.
//!
//! Types are looked up once and kept by object id; domains are followed to their base type, whose
//! modifier is the domain's (`numeric(10,2)`), arrays to their element.

use crate::contract::ColumnType;
use hashbrown::HashMap;
use tokio_postgres::{Client, Error};

/// How deep domains and arrays may nest before a type counts as `Other`; the catalog has no cycles, but
/// it comes from outside.
const DEPTH: usize = 32;

const CHAR: u32 = 18;

/// A row of `pg_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeFacts {
    /// Its name.
    pub name: String,
    /// `typtype`: `b`ase, `c`omposite, `d`omain, `e`num, `m`ultirange, `p`seudo, `r`ange.
    pub kind: u8,
    /// A domain's base type.
    pub base: u32,
    /// A domain's modifier.
    pub modifier: i32,
    /// The element of a true array, not of a vector such as `int2vector`.
    pub element: u32,
    /// `typdelim` of an array's element.
    pub delimiter: u8,
}

/// What is known of the database's types.
#[derive(Debug, Default)]
pub(super) struct Types {
    facts: HashMap<u32, TypeFacts>,
    /// Names from the stream, for types that have been dropped since.
    names: HashMap<u32, String>,
}

/// How a snapshot selects a column so that its binary form is what the column's family says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// As it is.
    Plain,
    /// Cast to `text[]`: arrays of `"char"`, whose binary form is a raw byte.
    TextArray,
    /// The exact text of its output function. A cast to text is not always that (`inet`).
    OutputText,
}

impl Types {
    /// Looks up the types that are not known yet, with the types they are made of.
    pub(super) async fn load(&mut self, client: &Client, oids: impl Iterator<Item = u32>) -> Result<(), Error> {
        let mut missing: Vec<u32> = oids.filter(|oid| !self.facts.contains_key(oid)).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let rows = client
            .query(
                "WITH RECURSIVE wanted(oid) AS (
                     SELECT unnest($1::oid[])
                     UNION
                     SELECT part.oid FROM wanted w JOIN pg_type t ON t.oid = w.oid
                     CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) part(oid) WHERE part.oid <> 0)
                 SELECT t.oid, t.typname::text, t.typtype, t.typbasetype, t.typtypmod,
                        CASE WHEN e.typarray = t.oid THEN e.oid ELSE 0::oid END, coalesce(e.typdelim, t.typdelim)
                 FROM wanted w JOIN pg_type t ON t.oid = w.oid LEFT JOIN pg_type e ON e.oid = t.typelem",
                &[&missing],
            )
            .await?;
        for row in rows {
            let facts = TypeFacts {
                name: row.try_get(1)?,
                kind: row.try_get::<_, i8>(2)?.cast_unsigned(),
                base: row.try_get(3)?,
                modifier: row.try_get(4)?,
                element: row.try_get(5)?,
                delimiter: row.try_get::<_, i8>(6)?.cast_unsigned(),
            };
            self.facts.insert(row.try_get(0)?, facts);
        }
        Ok(())
    }

    /// Keeps a name that the stream announced.
    pub(super) fn announce(&mut self, oid: u32, name: String) {
        self.names.insert(oid, name);
    }

    /// What to call a type that the catalog no longer has.
    pub(super) fn last_name(&self, oid: u32) -> String {
        self.names.get(&oid).cloned().unwrap_or_else(|| format!("type {oid}"))
    }

    /// The family of a type.
    pub(super) fn family(&self, oid: u32, modifier: i32) -> ColumnType {
        self.family_at(oid, modifier, DEPTH)
    }

    fn family_at(&self, oid: u32, modifier: i32, depth: usize) -> ColumnType {
        if let Some(family) = ColumnType::built_in(oid, modifier) {
            return family;
        }
        let Some(depth) = depth.checked_sub(1) else { return ColumnType::Other };
        let Some(facts) = self.facts.get(&oid) else {
            // Dropped before it was looked up: the stream has announced it by the name of its base type.
            return self.names.get(&oid).and_then(|name| named(name)).unwrap_or(ColumnType::Other);
        };
        match facts.kind {
            b'd' => self.family_at(facts.base, facts.modifier, depth),
            b'e' => ColumnType::Text,
            b'b' if facts.element != 0 && facts.delimiter == b',' => {
                ColumnType::Array(Box::new(self.family_at(facts.element, modifier, depth)))
            }
            b'b' if facts.name == "citext" => ColumnType::Text,
            _ => ColumnType::Other,
        }
    }

    /// How a snapshot selects a column of the type.
    pub(super) fn select(&self, oid: u32, modifier: i32) -> Select {
        let base = self.base(oid);
        let element = self.facts.get(&base).map_or(0, |facts| self.base(facts.element));
        match self.family(oid, modifier) {
            _ if base == CHAR => Select::OutputText,
            _ if element == CHAR => Select::TextArray,
            family if family.has_binary_form() => Select::Plain,
            _ => Select::OutputText,
        }
    }

    fn base(&self, mut oid: u32) -> u32 {
        for _ in 0..DEPTH {
            match self.facts.get(&oid) {
                Some(facts) if facts.kind == b'd' => oid = facts.base,
                _ => break,
            }
        }
        oid
    }
}

/// The family of a built-in type by its name in `pg_type`, or of an array of one.
fn named(name: &str) -> Option<ColumnType> {
    let oid = match name {
        "bool" => 16,
        "bytea" => 17,
        "char" | "name" | "text" | "bpchar" | "varchar" => 25,
        "int8" => 20,
        "int2" => 21,
        "int4" => 23,
        "oid" | "xid" | "cid" => 26,
        "json" => 114,
        "jsonb" => 3802,
        "float4" => 700,
        "float8" => 701,
        "date" => 1082,
        "time" => 1083,
        "timetz" => 1266,
        "timestamp" => 1114,
        "timestamptz" => 1184,
        "interval" => 1186,
        "numeric" => 1700,
        "uuid" => 2950,
        other => return other.strip_prefix('_').and_then(named).map(|element| ColumnType::Array(Box::new(element))),
    };
    ColumnType::built_in(oid, -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::postgres::Postgres;

    #[tokio::test]
    async fn families_of_real_types() {
        use ColumnType as T;
        let server = Postgres::start();
        let client = server.database("types").await;
        client
            .batch_execute(
                "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN money10 AS numeric(10,2);
                 CREATE DOMAIN deep AS money10; CREATE DOMAIN ints AS int[]; CREATE DOMAIN letter AS \"char\"",
            )
            .await
            .unwrap();
        let has_citext = client.batch_execute("CREATE EXTENSION citext").await.is_ok();
        let number = |precision, scale| T::Numeric { precision, scale };
        let array = |element| T::Array(Box::new(element));
        let plain = Select::Plain;
        let mut cases = vec![
            ("boolean", T::Bool, plain),
            ("smallint", T::Int2, plain),
            ("integer", T::Int4, plain),
            ("bigint", T::Int8, plain),
            ("oid", T::Oid, plain),
            ("xid", T::Oid, plain),
            ("cid", T::Oid, plain),
            ("regclass", T::Other, Select::OutputText),
            ("xid8", T::Other, Select::OutputText),
            ("real", T::Float4, plain),
            ("double precision", T::Float8, plain),
            ("numeric", T::NumericText, plain),
            ("numeric(18,4)", number(18, 4), plain),
            ("money10", number(10, 2), plain),
            ("deep", number(10, 2), plain),
            ("text", T::Text, plain),
            ("varchar(5)", T::Text, plain),
            ("char(5)", T::Text, plain),
            ("name", T::Text, plain),
            ("\"char\"", T::Text, Select::OutputText),
            ("letter", T::Text, Select::OutputText),
            ("\"char\"[]", array(T::Text), Select::TextArray),
            ("letter[]", array(T::Text), Select::TextArray),
            ("mood", T::Text, plain),
            ("bytea", T::Bytea, plain),
            ("date", T::Date, plain),
            ("time", T::Time, plain),
            ("time with time zone", T::TimeTz, plain),
            ("timestamp(3)", T::Timestamp, plain),
            ("timestamptz", T::TimestampTz, plain),
            ("interval", T::Interval, plain),
            ("uuid", T::Uuid, plain),
            ("json", T::Json, plain),
            ("jsonb", T::Jsonb, plain),
            ("int[]", array(T::Int4), plain),
            ("int[][]", array(T::Int4), plain),
            ("ints", array(T::Int4), plain),
            ("ints[]", array(array(T::Int4)), plain),
            ("numeric(5,1)[]", array(number(5, 1)), plain),
            ("money10[]", array(number(10, 2)), plain),
            ("mood[]", array(T::Text), plain),
            ("inet[]", array(T::Other), Select::OutputText),
            ("box[]", T::Other, Select::OutputText),
            ("int2vector", T::Other, Select::OutputText),
            ("oidvector", T::Other, Select::OutputText),
            ("point", T::Other, Select::OutputText),
            ("int4range", T::Other, Select::OutputText),
            ("inet", T::Other, Select::OutputText),
            ("pair", T::Other, Select::OutputText),
            ("tsvector", T::Other, Select::OutputText),
            ("money", T::Other, Select::OutputText),
        ];
        if has_citext {
            cases.push(("citext", T::Text, plain));
        }
        let columns: Vec<String> = cases.iter().enumerate().map(|(i, (name, ..))| format!("c{i} {name}")).collect();
        client.batch_execute(&format!("CREATE TABLE t ({})", columns.join(", "))).await.unwrap();
        let rows = client
            .query("SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum", &[])
            .await
            .unwrap();
        let mut types = Types::default();
        types.load(&client, rows.iter().map(|row| row.get(0))).await.unwrap();
        for (row, (name, family, select)) in rows.iter().zip(&cases) {
            assert_eq!(&types.family(row.get(0), row.get(1)), family, "{name}");
            assert_eq!(&types.select(row.get(0), row.get(1)), select, "{name}");
        }
        assert_eq!(types.family(4_000_000_000, -1), T::Other);
        for (name, family) in [("int4", T::Int4), ("_timestamptz", array(T::TimestampTz)), ("shop.mood", T::Other), ("_shop", T::Other)] {
            types.announce(4_000_000_001, name.into());
            assert_eq!(types.family(4_000_000_001, -1), family, "{name}");
        }
    }
}
