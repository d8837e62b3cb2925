//! PostgreSQL is the oracle: random rows and random predicates, `SELECT … WHERE` against [`Bound::eval`].
//!
//! `PREDICATE_SEED` replays a run.

use super::{Predicate, selected};
use crate::contract::Cells;
use crate::testing::postgres::Postgres;
use crate::transform::tests::{ids, load, table};
use std::collections::BTreeSet;
use tokio_postgres::SimpleQueryMessage;

/// Column, type, and values to store and to compare with, as SQL.
const COLUMNS: [(&str, &str, &[&str]); 20] = [
    ("i2", "int2", &["0", "1", "-1", "32767", "-32768", "2.5", "'5'", "40000"]),
    ("i4", "int4", &["0", "7", "-7", "2147483647", "3000000000", "7.0", "6.999", "'7'", "1e3", "99999999999999999999"]),
    ("i8", "int8", &["0", "9223372036854775807", "-9223372036854775808", "9223372036854775807.5", "12", "'12'", "12.5"]),
    ("f4", "float4", &["0", "0.1", "1.5", "'NaN'", "'Infinity'", "'-Infinity'", "'0.1'", "-2", "16777217", "1e30"]),
    ("f8", "float8", &["0", "0.1", "'NaN'", "'-Infinity'", "'inf'", "1e300", "-0.0", "3", "'0.30000000000000004'"]),
    ("n", "numeric(18,4)", &["0", "1.5", "1.50001", "-1.5", "'NaN'", "99999999999999.9999", "100", "1e20", "'1.5'", "-0.00001"]),
    ("n2", "numeric(38,2)", &["0", "1.5", "1.49", "-7", "'NaN'", "999999999999999999999999999999999999.99", "12"]),
    ("m", "numeric", &["0", "1.5", "1.500", "'NaN'", "'Infinity'", "'-Infinity'", "1e50", "-3", "0.000001", "12", "7"]),
    ("t", "text", &["''", "'a'", "'b'", "'B'", "'ab'", "'a b '", "'é'", "'it''s'", "'100%'", "'a_b'", "'a\\b'"]),
    ("v", "varchar(8)", &["''", "'a'", "'b'", "'a '", "'ab'", "'É'", "'AB'"]),
    ("c", "char(5)", &["''", "'a'", "'a  '", "'b'", "'ab'", "'B'"]),
    ("b", "bool", &["TRUE", "FALSE", "'t'", "'off'"]),
    (
        "d",
        "date",
        &[
            "DATE '2024-02-29'",
            "'infinity'",
            "DATE '-infinity'",
            "'0044-03-15 BC'",
            "DATE '2024-03-01'",
            "TIMESTAMP '2024-02-29 00:00:00'",
            "TIMESTAMP '2024-02-29 12:00:00'",
            "TIMESTAMP 'infinity'",
        ],
    ),
    (
        "ts",
        "timestamp",
        &[
            "TIMESTAMP '2024-02-29 12:00:00'",
            "'infinity'",
            "'-infinity'",
            "TIMESTAMP '0044-03-15 00:00:00 BC'",
            "DATE '2024-02-29'",
            "'2024-02-29'",
            "DATE 'infinity'",
            "'294276-01-01 00:00:00'",
        ],
    ),
    (
        "tz",
        "timestamptz",
        &[
            "TIMESTAMPTZ '2024-02-29 12:00:00+00'",
            "'infinity'",
            "TIMESTAMP WITH TIME ZONE '-infinity'",
            "'2024-02-29 13:00:00+01'",
            "'294276-06-01 00:00:00Z'",
        ],
    ),
    ("tm", "time", &["'00:00:00'", "'24:00:00'", "'12:30'", "'23:59:59.999999'"]),
    (
        "u",
        "uuid",
        &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'A0EEBC999C0B4EF8BB6D6BB9BD380A11'", "'00000000-0000-0000-0000-000000000000'"],
    ),
    ("y", "bytea", &["'\\x'", "'\\x00'", "'\\x00ff'", "'\\xFF'"]),
    ("e", "mood", &["'sad'", "'happy'", "'ok'"]),
    ("o", "oid", &["0", "7", "4294967295", "'7'"]),
];

const PATTERNS: [&str; 14] =
    ["''", "'%'", "'a%'", "'%b'", "'%a%'", "'_'", "'__'", "'A%'", "'a\\_b'", "'a\\\\b'", "'%\\%'", "'É'", "'_b_%'", "NULL"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A comparison or a joint of such.
    fn predicate(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 4 } else { 10 }) {
            4 | 5 => format!("({} AND {})", self.predicate(depth - 1), self.predicate(depth - 1)),
            6 | 7 => format!("({} OR {})", self.predicate(depth - 1), self.predicate(depth - 1)),
            8 => format!("NOT {}", self.predicate(depth - 1)),
            9 => format!(
                "({}) IS {}{}",
                self.predicate(depth - 1),
                self.pick(&["", "NOT "]),
                self.pick(&["NULL", "TRUE", "FALSE", "UNKNOWN"])
            ),
            _ => self.leaf(),
        }
    }

    fn leaf(&mut self) -> String {
        let (name, _, literals) = COLUMNS[self.below(COLUMNS.len())];
        let relation = self.pick(&["=", "<>", "!=", "<", "<=", ">", ">="]);
        let not = self.pick(&["", "NOT "]);
        match self.below(12) {
            0 => format!("{name} IS {not}NULL"),
            1 => format!("{name} {not}BETWEEN {} AND {}", self.pick(literals), self.pick(literals)),
            2 => {
                let many = 1 + self.below(10);
                let items: Vec<&str> = (0..many).map(|_| if self.below(12) == 0 { "NULL" } else { self.pick(literals) }).collect();
                format!("{name} {not}IN ({})", items.join(", "))
            }
            3 => format!("{name} IS {not}DISTINCT FROM {}", if self.below(4) == 0 { "NULL" } else { self.pick(literals) }),
            4 => {
                let (column, kind) = (self.pick(&["t", "v", "c"]), self.pick(&["LIKE", "ILIKE"]));
                format!("{column} {not}{kind} {}{}", self.pick(&PATTERNS), self.pick(&["", "", " ESCAPE '!'", " ESCAPE ''"]))
            }
            5 => format!("{} {relation} {}", self.pick(literals), name.to_uppercase()),
            6 => self.pick(&["b", "NOT b", "NULL", "TRUE", "b IS TRUE", "b IS NOT FALSE"]).to_owned(),
            7 | 8 => {
                let numbers = ["i2", "i4", "i8", "f4", "f8", "n", "n2", "m"];
                let groups: [&[&str]; 8] =
                    [&numbers, &numbers, &numbers, &["t", "v", "c"], &["d", "ts"], &["tz"], &["tm"], &["u", "y", "b", "o"]];
                let group = groups[self.below(groups.len())];
                let (a, b) = (self.pick(group), self.pick(group));
                match self.below(4) {
                    0 => format!("{a} IS {not}DISTINCT FROM {b}"),
                    _ => format!("{a} {relation} \"{b}\""),
                }
            }
            _ => format!("{name} {relation} {}", self.pick(literals)),
        }
    }
}

#[tokio::test]
async fn selects_as_postgresql_does() {
    let seed = std::env::var("PREDICATE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id()));
    println!("PREDICATE_SEED={seed}");
    let mut random = Random(seed.max(1));
    let server = Postgres::start();
    let client = server.client("postgres").await;
    let columns: Vec<String> = COLUMNS.iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
    let setup = format!(
        "SET timezone = 'UTC'; CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TABLE t (id int8 PRIMARY KEY, {})",
        columns.join(", ")
    );
    client.batch_execute(&setup).await.unwrap();
    for id in 0..150 {
        for (name, ty, literals) in COLUMNS {
            // a literal that the column cannot store leaves it null
            let literal = if random.below(6) == 0 { "NULL" } else { random.pick(literals) };
            let statement = format!(
                "INSERT INTO t (id, {name}) VALUES ({id}, {literal}::text::{ty}) ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name}"
            );
            let plain = statement.replace("::text::", "::");
            if client.batch_execute(&plain).await.is_err() {
                let _ = client.batch_execute(&statement).await;
            }
        }
    }
    let schema = table(&client, "t").await;
    let batch = load(&client, schema).await;
    assert!(batch.len() == 150 && !batch.exact.is_empty());
    let (mut compared, mut refused, mut undecided) = (0, BTreeSet::new(), 0);
    for _ in 0..1500 {
        let text = random.predicate(3);
        let answer = client.simple_query(&format!("SELECT id FROM t WHERE {text} ORDER BY id")).await;
        let bound = Predicate::parse(&text).map_err(|m| m.message).and_then(|p| p.bind(&batch.table).map_err(|e| e.message));
        let (messages, mut bound) = match (answer, bound) {
            (Ok(messages), Ok(bound)) => (messages, bound),
            (Ok(_), Err(why)) => {
                refused.insert(format!("{text}: {why}"));
                continue;
            }
            (Err(_), Err(_)) => continue,
            (Err(error), Ok(_)) => panic!("PostgreSQL refuses {text}: {error:?}"),
        };
        let expected: Vec<i64> = messages
            .iter()
            .filter_map(|m| match m {
                SimpleQueryMessage::Row(row) => row.get(0).and_then(|id| id.parse().ok()),
                _ => None,
            })
            .collect();
        let truths = bound.eval(&batch);
        let chosen: Vec<i64> =
            ids(&batch).into_iter().zip(&truths).filter(|(_, t)| selected(**t) == Some(true)).map(|(id, _)| id).collect();
        assert!(truths.iter().all(|t| t.count_ones() == 1), "{text}: every value is known");
        assert_eq!(chosen, expected, "{text}");
        compared += 1;

        // hiding large values never changes what is decided
        let mut hidden = batch.clone();
        let t = batch.table.column("t").expect("t");
        let mut cells = Cells::default();
        for row in (0..batch.len()).filter(|row| batch.columns[t].is_valid(*row) && row % 2 == 0) {
            cells.push(row, t, ());
        }
        hidden.unchanged = cells;
        for (row, (known, unknown)) in truths.iter().zip(bound.eval(&hidden)).enumerate() {
            assert!(known & unknown == *known, "{text}: row {row} may have its real result");
            undecided += usize::from(selected(unknown).is_none());
        }
        // a slice gives the slice of the result
        let sliced = bound.eval(&batch.slice(37, 50));
        assert_eq!(sliced[..], truths[37..87], "{text}");
    }
    println!("compared {compared}, refused {}, undecided {undecided}", refused.len());
    for text in refused.iter().take(20) {
        println!("refused: {text}");
    }
    assert!(compared > 700 && undecided > 0, "{compared} predicates were compared");
}
