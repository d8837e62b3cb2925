//! What a table's tables were last made for: which column of the source each of their columns is.
//!
//! ```text
//! shape (kept in _ETL_STREAM_PROGRESS)  +  the schema of the next rows  ──>  where each column comes from
//! ```
//! A column is known by its number (`pg_attribute.attnum`), which it keeps under every name and which no
//! other column gets. So a renamed column is told from a new one, and one that was dropped and added again
//! from one that stayed. Columns that were dropped stay in the shape, as they stay in the tables.

use super::names::fold;
use crate::contract::{Column, ColumnType, TableSchema, Token};
use serde::{Deserialize, Serialize};

/// A column that the tables have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Its stored name.
    pub(super) name: String,
    number: Option<i16>,
    oid: u32,
    modifier: i32,
    family: ColumnType,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    /// The first row that was written with it.
    since: String,
    /// The relation.
    relation: u32,
    /// The relation's file.
    file: Option<u32>,
    /// The highest number that a column of the relation had, written or not.
    highest: i16,
    /// The schema's, then those that were dropped, the latest first.
    columns: Vec<Known>,
    /// How many of them the schema has.
    live: usize,
}

/// Where a column's values in existing rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there.
    Same,
    /// It was there under another stored name.
    Renamed(String),
    /// Another column of that name was there.
    Again,
    /// It is new.
    New,
}

impl Shape {
    /// The shape that tables have once they are made for a schema of which only `written` columns are written.
    pub(super) fn next(before: Option<&Self>, schema: &TableSchema, written: &[String], since: Token) -> Self {
        let before = before.filter(|b| b.relation == schema.id);
        let column = |c: &Column| Known {
            name: fold(&c.name),
            number: c.number,
            oid: c.pg_type.oid,
            modifier: c.pg_type.modifier,
            family: c.ty.clone(),
        };
        let mut columns: Vec<Known> = schema.columns.iter().map(column).filter(|c| written.contains(&c.name)).collect();
        for known in &mut columns {
            // A number that is open now may have been known.
            let old = before.and_then(|b| b.named(&known.name));
            known.number = known.number.or(old.and_then(|o| o.number));
        }
        let live = columns.len();
        let gone = before.into_iter().flat_map(|b| &b.columns).filter(|b| !columns.iter().any(|c| c.name == b.name));
        let gone: Vec<Known> = gone.cloned().collect();
        columns.extend(gone);
        let seen = schema.columns.iter().filter_map(|c| c.number).max().unwrap_or(0);
        let current = schema.storage.filter(|s| s.current).map(|s| s.file);
        Self {
            since: since.to_string(),
            relation: schema.id,
            file: current.or(before.and_then(|b| b.file)),
            highest: seen.max(before.map_or(0, |b| b.highest)),
            columns,
            live,
        }
    }

    fn named(&self, name: &str) -> Option<&Known> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The first row that was written with it.
    pub(super) fn since(&self) -> Token {
        self.since.parse().unwrap_or(Token::ZERO)
    }

    /// The relation's file, as last known.
    pub(super) fn file(&self) -> Option<u32> {
        self.file
    }

    /// Whether the tables were made for just these columns of this relation.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.relation, self.live, &self.columns) == (other.relation, other.live, &other.columns)
    }

    /// Where a column comes from, given its stored name.
    pub(super) fn origin(&self, column: &Column, name: &str) -> Origin {
        let numbered = column.number.and_then(|n| self.columns.iter().find(|c| c.number == Some(n)));
        match (numbered, self.named(name)) {
            (_, Some(old)) if old.number.is_none() || column.number.is_none() || old.number == column.number => Origin::Same,
            (Some(old), _) => Origin::Renamed(old.name.clone()),
            (None, Some(_)) => Origin::Again,
            (None, None) => Origin::New,
        }
    }

    /// Why existing rows cannot be given the values that PostgreSQL has in the columns that are written, if they
    /// cannot.
    pub(super) fn unknown(&self, schema: &TableSchema, written: &[String]) -> Option<String> {
        if self.relation != schema.id {
            return Some("it is another table than before under the same name, dropped and created again or renamed".into());
        }
        let columns = schema.columns.iter().filter(|c| written.contains(&fold(&c.name)));
        columns.into_iter().find_map(|column| self.unknown_column(schema, column))
    }

    fn unknown_column(&self, schema: &TableSchema, column: &Column) -> Option<String> {
        let name = &column.name;
        let stored = fold(name);
        let origin = self.origin(column, &stored);
        let old = match &origin {
            Origin::Same => self.named(&stored),
            Origin::Renamed(from) => self.named(from),
            Origin::New | Origin::Again => {
                let rewritten = schema.storage.is_none_or(|s| Some(s.file) != self.file);
                let open = |c: &&Known| c.number.is_none() && !schema.columns.iter().any(|s| fold(&s.name) == c.name);
                return if column.number.is_some_and(|n| n <= self.highest) {
                    Some(format!("column \"{name}\" was there before and was not written"))
                } else if column.filled && rewritten {
                    Some(format!("column \"{name}\" may have been given a value of its own in each existing row, which no change says"))
                } else {
                    self.columns.iter().find(open).map(|open| format!("column \"{name}\" may be what was \"{}\"", open.name))
                };
            }
        };
        let old = old.filter(|old| !keeps_values(old, column))?;
        Some(format!(
            "the type of column \"{name}\" became {}, which may have changed the values of existing rows (it was type {} with modifier {})",
            column.pg_type.name, old.oid, old.modifier
        ))
    }
}

const TEXTS: [u32; 3] = [25, 1043, 19];
const PADDED: u32 = 1042;
const INET: u32 = 869;
const NUMERIC: u32 = 1700;
/// Object ids below it are PostgreSQL's own types.
const FIRST_OF_USERS: u32 = 16_384;

/// Whether `ALTER COLUMN … TYPE` leaves every value what it was, as long as it has no `USING` of its own.
fn keeps_values(old: &Known, new: &Column) -> bool {
    let (from, to) = ((old.oid, old.modifier), (new.pg_type.oid, new.pg_type.modifier));
    let users = from.0 >= FIRST_OF_USERS || to.0 >= FIRST_OF_USERS;
    if from == to || users && old.family == new.ty && new.ty != ColumnType::Other {
        return true;
    }
    // The scale of a numeric; PostgreSQL source, `numeric.c`.
    let scale = |modifier: i32| modifier.checked_sub(4).map(|packed| packed & 0x7ff);
    match (from.0, to.0) {
        (NUMERIC, NUMERIC) => to.1 < 0 || (from.1 >= 0 && scale(from.1) <= scale(to.1)),
        (21, 23 | 20) | (23, 20) | (26, 20) | (114, 3802) | (3802, 114) => true,
        (20 | 21 | 23, NUMERIC) => true,
        // Fractional digits of times.
        (1083 | 1114 | 1184 | 1266, same) if same == from.0 => to.1 < 0 || (from.1 >= 0 && from.1 <= to.1),
        (1043 | 1015, same) if same == from.0 => true,
        (1562, 1562) => to.1 < 0 || (from.1 >= 0 && from.1 <= to.1),
        (PADDED | INET, _) => false,
        (_, to) if TEXTS.contains(&to) => new.pg_type.modifier < 0 || TEXTS.contains(&from.0),
        (from, to) if TEXTS.contains(&from) => to >= FIRST_OF_USERS && new.ty == ColumnType::Text,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::*;
    use crate::contract::{PgType, Storage};
    use std::sync::Arc;

    /// A table of columns `name:number`, all text.
    fn table(columns: &str) -> TableSchema {
        let words: Vec<(&str, i16)> =
            columns.split_whitespace().map(|w| w.split_once(':').map(|(n, at)| (n, at.parse().unwrap())).unwrap()).collect();
        let plain: Vec<(&str, ColumnType)> = words.iter().map(|(name, _)| (*name, ColumnType::Text)).collect();
        let mut table = Arc::unwrap_or_clone(schema("pg", "public", "t", &plain, 1));
        for (column, (_, number)) in table.columns.iter_mut().zip(words) {
            column.number = (number > 0).then_some(number);
        }
        table.storage = Some(Storage { file: 1, current: true });
        table
    }

    fn written(table: &TableSchema) -> Vec<String> {
        table.columns.iter().map(|c| fold(&c.name)).collect()
    }

    fn shape(before: Option<&Shape>, columns: &str) -> Shape {
        let table = table(columns);
        Shape::next(before, &table, &written(&table), Token::new(7, 0))
    }

    #[test]
    fn where_columns_come_from() {
        let renamed = |from: &str| Origin::Renamed(from.into());
        for (before, now, expected) in [
            (vec!["id:1 a:2"], "id:1 a:2", vec![Origin::Same, Origin::Same]),
            (vec!["id:1 a:2"], "id:1 b:2", vec![Origin::Same, renamed("A")]),
            (vec!["id:1 a:2"], "id:1 b:3", vec![Origin::Same, Origin::New]),
            (vec!["id:1 a:2"], "id:1 a:3", vec![Origin::Same, Origin::Again]),
            (vec!["id:1 a:2"], "id:1 a:0", vec![Origin::Same, Origin::Same]),
            (vec!["id:1 a:2 b:3"], "id:1 b:2 a:3", vec![Origin::Same, renamed("A"), renamed("B")]),
            (vec!["id:1 a:2", "id:1 b:2"], "id:1 c:2", vec![Origin::Same, renamed("B")]),
            (vec!["id:1 a:2", "id:1"], "id:1 a:3", vec![Origin::Same, Origin::Again]),
            (vec!["id:1 a:2", "id:1 a:0"], "id:1 b:2", vec![Origin::Same, renamed("A")]),
        ] {
            let known = before.iter().fold(None, |known, columns| Some(shape(known.as_ref(), columns))).unwrap();
            let now = table(now);
            let found: Vec<Origin> = now.columns.iter().map(|c| known.origin(c, &fold(&c.name))).collect();
            assert_eq!(found, expected, "{before:?}");
            assert_eq!(known.unknown(&now, &written(&now)), None, "{before:?}");
            assert_eq!(known.since(), Token::new(7, 0));
        }
    }

    #[test]
    fn what_existing_rows_have_is_not_known() {
        let known = shape(None, "id:1 a:2 c:4");
        let mut other = table("id:1 a:2 c:4");
        other.id = 99;
        let mut filled = table("id:1 a:2 c:4 d:5");
        filled.columns[3].filled = true;
        assert_eq!(known.unknown(&filled, &written(&filled)), None, "not rewritten");
        filled.storage = Some(Storage { file: 2, current: true });
        let open = shape(None, "id:1 a:0");
        for (known, table, why) in [
            (&known, other, "another table"),
            (&known, filled, "of its own"),
            (&known, table("id:1 a:2 b:3 c:4"), "was there before"),
            (&open, table("id:1 b:2"), "may be what was \"A\""),
        ] {
            assert_eq!(known.unknown(&table, &[]).is_some(), table.id != known.relation, "{why}: what is not written does not matter");
            let found = known.unknown(&table, &written(&table));
            assert!(found.as_ref().is_some_and(|f| f.contains(why)), "{why}: {found:?}");
        }
    }

    #[test]
    fn types_that_keep_values() {
        let numeric = |precision: i32, scale: i32| (precision << 16 | scale) + 4;
        let number = |precision, scale| ColumnType::Numeric { precision, scale };
        for (from, to, kept) in [
            ((23, -1, ColumnType::Int4), (20, -1, ColumnType::Int8), true),
            ((20, -1, ColumnType::Int8), (23, -1, ColumnType::Int4), false),
            ((1043, 14, ColumnType::Text), (1043, 24, ColumnType::Text), true),
            ((1043, 14, ColumnType::Text), (25, -1, ColumnType::Text), true),
            ((25, -1, ColumnType::Text), (1043, 14, ColumnType::Text), true),
            ((1042, 14, ColumnType::Text), (25, -1, ColumnType::Text), false),
            ((1042, 14, ColumnType::Text), (1042, 24, ColumnType::Text), false),
            ((NUMERIC, numeric(10, 2), number(10, 2)), (NUMERIC, numeric(12, 2), number(12, 2)), true),
            ((NUMERIC, numeric(10, 2), number(10, 2)), (NUMERIC, numeric(9, 1), number(9, 1)), false),
            ((NUMERIC, numeric(10, 2), number(10, 2)), (NUMERIC, -1, ColumnType::NumericText), true),
            ((23, -1, ColumnType::Int4), (25, -1, ColumnType::Text), true),
            ((25, -1, ColumnType::Text), (23, -1, ColumnType::Int4), false),
            ((700, -1, ColumnType::Float4), (701, -1, ColumnType::Float8), false),
            ((1114, 3, ColumnType::Timestamp), (1114, -1, ColumnType::Timestamp), true),
            ((1114, -1, ColumnType::Timestamp), (1114, 3, ColumnType::Timestamp), false),
            ((1114, -1, ColumnType::Timestamp), (1184, -1, ColumnType::TimestampTz), false),
            ((99_000, -1, ColumnType::Int4), (23, -1, ColumnType::Int4), true),
            ((99_000, -1, ColumnType::Text), (25, -1, ColumnType::Text), true),
            ((99_000, -1, ColumnType::Other), (99_001, -1, ColumnType::Other), false),
            ((869, -1, ColumnType::Other), (25, -1, ColumnType::Text), false),
        ] {
            let known = Known { name: "C".into(), number: Some(1), oid: from.0, modifier: from.1, family: from.2.clone() };
            let mut column = table("c:1").columns.remove(0);
            column.ty = to.2.clone();
            column.pg_type = PgType { oid: to.0, modifier: to.1, name: "".into() };
            assert_eq!(keeps_values(&known, &column), kept, "{from:?} {to:?}");
        }
    }
}
