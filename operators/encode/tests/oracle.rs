//! PostgreSQL judges: each type's edge values, in the text its output function prints and the bytes of `COPY …
//! (FORMAT binary)`, must give the same column, and that column the text again. Arrays must say what `to_jsonb` says.

use super::spelled::spelled;
use super::{Sent, encode, message, raw, single, values};
use crate::contract::{ColumnType, Format, RowBatch, double_holds};
use crate::testing::postgres::Postgres;
use ColumnType as T;
use arrow::array::{Array, AsArray};
use futures::TryStreamExt;
use tokio_postgres::Client;

fn array(element: ColumnType) -> ColumnType {
    T::Array(Box::new(element))
}

fn numeric(precision: u8, scale: u8) -> ColumnType {
    T::Numeric { precision, scale }
}

/// Types, and literals that each reads.
fn cases() -> Vec<(&'static str, ColumnType, Vec<String>)> {
    let long = format!("-{}.{}", "9876543210".repeat(60), "0123456789".repeat(40));
    let mut cases: Vec<(&'static str, ColumnType, Vec<&str>)> = vec![
        ("bool", T::Bool, vec!["t", "f"]),
        ("int2", T::Int2, vec!["0", "-32768", "32767"]),
        ("int4", T::Int4, vec!["0", "-1", "-2147483648", "2147483647"]),
        ("int8", T::Int8, vec!["0", "-9223372036854775808", "9223372036854775807"]),
        ("oid", T::Oid, vec!["0", "4294967295"]),
        (
            "float4",
            T::Float4,
            vec!["0", "-0", "1e-45", "3.4028235e38", "1.1754944e-38", "1e6", "123456", "0.1", "NaN", "Infinity", "-Infinity"],
        ),
        (
            "float8",
            T::Float8,
            vec![
                "0",
                "-0",
                "5e-324",
                "2.2250738585072014e-308",
                "1.7976931348623157e308",
                "0.1",
                "0.30000000000000004",
                "1e15",
                "1e14",
                "1e23",
                "9007199254740993",
                "1e-5",
                "1e-4",
                "123456789.125",
                "NaN",
                "Infinity",
                "-Infinity",
            ],
        ),
        ("numeric(18,4)", numeric(18, 4), vec!["0", "-0.0001", "99999999999999.9999", "-99999999999999.9999", "1", "1000000", "NaN"]),
        (
            "numeric(38,37)",
            numeric(38, 37),
            vec!["9.9999999999999999999999999999999999999", "-1", "0.0000000000000000000000000000000000001"],
        ),
        ("numeric(38,0)", numeric(38, 0), vec!["99999999999999999999999999999999999999", "-10000000000000000000000000000000000000", "NaN"]),
        ("numeric(5,2)", numeric(5, 2), vec!["999.99", "0.01", "-0.10"]),
        (
            "numeric",
            T::NumericText,
            vec![
                "0",
                "0.000",
                "1.10",
                "-12345.678900",
                "1e131071",
                "1e-16383",
                "NaN",
                "Infinity",
                "-Infinity",
                "10000",
                "99990000.0001",
                &long,
            ],
        ),
        ("numeric(3,-2)", T::NumericText, vec!["12345", "-50", "49"]),
        ("numeric(3,5)", T::NumericText, vec!["0.00123", "-0.00001"]),
        ("text", T::Text, vec!["", "plain", "é😀\u{7f}", "line\nbreak\ttab\\\"'", "NULL"]),
        ("varchar(9)", T::Text, vec!["", "nine char"]),
        ("char(5)", T::Text, vec!["a", "abcde"]),
        ("\"char\"", T::Text, vec!["", "a", "\\377"]),
        ("name", T::Text, vec!["pg_class"]),
        ("mood", T::Text, vec!["so so", "ok"]),
        ("email", T::Text, vec!["a@b"]),
        ("positive", T::Int4, vec!["1"]),
        ("bytea", T::Bytea, vec!["", "\\x", "\\x00ff10", "\\x6869"]),
        (
            "date",
            T::Date,
            vec![
                "0001-01-01",
                "9999-12-31",
                "10000-01-01",
                "5874897-12-31",
                "0044-03-15 BC",
                "4714-11-24 BC",
                "infinity",
                "-infinity",
                "2024-02-29",
            ],
        ),
        ("time", T::Time, vec!["00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.7"]),
        ("timetz", T::TimeTz, vec!["00:00:00+00", "24:00:00-15:59:59", "12:34:56.789+05:30", "01:02:03-03:30", "01:02:03+00:00:01"]),
        (
            "timestamp",
            T::Timestamp,
            vec![
                "2026-11-23 01:02:03.000004",
                "0001-01-01 00:00:00",
                "9999-12-31 23:59:59.999999",
                "10000-01-01 00:00:00",
                "294276-12-31 23:59:59.999999",
                "4714-11-24 00:00:00 BC",
                "0044-03-15 12:00:00.5 BC",
                "infinity",
                "-infinity",
            ],
        ),
        (
            "timestamptz",
            T::TimestampTz,
            vec![
                "2026-11-23 01:02:03.000004+02",
                "0001-01-01 00:00:00+00",
                "0001-01-01 00:00:00+01",
                "12026-01-01 00:00:00+00",
                "294276-12-31 23:59:59.999999+00",
                "4714-11-24 00:00:00+00 BC",
                "infinity",
                "-infinity",
                "1883-11-18 12:00:00+00",
            ],
        ),
        (
            "interval",
            T::Interval,
            vec![
                "0",
                "1 year 2 mons -3 days 04:05:06.789",
                "-1 mons +1 day -00:00:00.000001",
                "178000000 years",
                "-178000000 years",
                "2562047788:00:54.775807",
                "1 day",
                "-1 day 1 hour",
                "1 mon",
                "-13 mons",
                "100 hours",
                "-1 year -2 days",
                "1 year -00:00:01",
            ],
        ),
        ("uuid", T::Uuid, vec!["00000000-0000-0000-0000-000000000000", "A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        ("json", T::Json, vec!["{\"a\":1,\"a\": 2}", "[1.10, 12345678901234567890.123]", "null", "\"x\""]),
        ("jsonb", T::Jsonb, vec!["{\"b\":1,\"a\": [1.10, 12345678901234567890.123]}", "null", "\"line\\nbreak é\""]),
        ("inet", T::Other, vec!["10.0.0.1", "::1/64"]),
        ("money", T::Other, vec!["12.50"]),
        ("int4range", T::Other, vec!["[1,5)", "empty"]),
        ("bool[]", array(T::Bool), vec!["{t,f,NULL}"]),
        ("int2[]", array(T::Int2), vec!["{}", "{1,-2}", "{{1,2},{3,4}}", "{{{1},{2}},{{3},{NULL}}}"]),
        ("int4[]", array(T::Int4), vec!["{2147483647,NULL}", "[0:2]={1,2,3}", "[-1:0][5:6]={{1,2},{3,4}}", "{{{{{{1}}}}}}"]),
        ("int8[]", array(T::Int8), vec!["{999999999999999,1000000000000000,-9007199254740993,9223372036854775807}"]),
        ("oid[]", array(T::Oid), vec!["{0,4294967295}"]),
        ("float4[]", array(T::Float4), vec!["{1e-45,3.4028235e38,0.1,NaN,Infinity,-Infinity,1e6}", "[2:3]={1e6,-0.5}"]),
        ("float8[]", array(T::Float8), vec!["{5e-324,1.7976931348623157e308,0.30000000000000004,1e-7,1e15,NaN,-Infinity,0}"]),
        ("numeric(18,4)[]", array(numeric(18, 4)), vec!["{1.5,99999999999999.9999,NaN,NULL}"]),
        (
            "numeric[]",
            array(T::NumericText),
            vec!["{1.50,123456789012345,1234567890123456,0.1234567890123456,NaN,Infinity,-Infinity,1e300}"],
        ),
        (
            "text[]",
            array(T::Text),
            vec![
                "{}",
                "{a,NULL,\"NULL\",\"\",\"a b\",\"c,d\",\"e\\\"f\",\"g\\\\h\",\"{i}\",é😀,null1}",
                "[0:1]={\"x y\",NULL}",
                "{\"tab\tnew\nline\"}",
                "{{a,b},{NULL,\"}\"}}",
            ],
        ),
        ("char(3)[]", array(T::Text), vec!["{a,abc}"]),
        ("mood[]", array(T::Text), vec!["{\"so so\",ok}"]),
        ("\"char\"[]", array(T::Text), vec!["{a,\"\"}"]),
        ("bytea[]", array(T::Bytea), vec!["{\"\\\\x00ff\",\"\"}"]),
        ("date[]", array(T::Date), vec!["{2026-11-23,infinity,\"0044-03-15 BC\",12026-01-01}"]),
        ("time[]", array(T::Time), vec!["{24:00:00,01:02:03.5}"]),
        ("timetz[]", array(T::TimeTz), vec!["{01:02:03+05:30}"]),
        (
            "timestamp[]",
            array(T::Timestamp),
            vec!["{\"2026-11-23 01:02:03.5\",infinity,\"0044-03-15 00:00:00 BC\"}", "[0:0]={\"2026-11-23 01:02:03.5\"}"],
        ),
        ("timestamptz[]", array(T::TimestampTz), vec!["{\"2026-11-23 01:02:03.5+00\",-infinity,\"0044-03-15 00:00:00+00 BC\",NULL}"]),
        ("interval[]", array(T::Interval), vec!["{\"1 day 02:00:00\",\"-1 mons\"}"]),
        ("uuid[]", array(T::Uuid), vec!["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"]),
        ("json[]", array(T::Json), vec!["{\"{\\\"a\\\":\n[1,null,\\\"x\\\\\\\\n\\\"]}\",null,\"null\",1.5}"]),
        ("jsonb[]", array(T::Jsonb), vec!["{\"{\\\"a\\\": [1, null]}\",NULL,\"\\\"s\\\"\"}"]),
        ("inet[]", array(T::Other), vec!["{10.0.0.1,::1/64}"]),
        ("pair[]", array(array(T::Int4)), vec!["{\"{1,2}\",NULL,\"[0:0]={7}\"}"]),
    ];
    cases.push(("box[]", array(T::Other), vec!["{(1,1),(0,0);(2,2),(1,1)}"]));
    cases.into_iter().map(|(name, ty, literals)| (name, ty, literals.into_iter().map(str::to_owned).collect())).collect()
}

async fn session(postgres: &Postgres) -> Client {
    let client = postgres.database("types").await;
    let setup = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET lc_monetary = 'C';
        CREATE TYPE mood AS ENUM ('so so', 'ok'); CREATE DOMAIN email AS text; CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE DOMAIN pair AS int[];";
    client.batch_execute(setup).await.unwrap();
    client
}

/// The tuples of a binary copy.
async fn copy(client: &Client, query: &str) -> Vec<Vec<u8>> {
    let stream = client.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await.unwrap();
    let bytes: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    let bytes = bytes.concat();
    let mut rest = &bytes[19..];
    let mut tuples = Vec::new();
    while rest[..2] != [0xff, 0xff] {
        let mut end = 2;
        for _ in 0..u16::from_be_bytes([rest[0], rest[1]]) {
            let length = i32::from_be_bytes(rest[end..end + 4].try_into().unwrap());
            end += 4 + length.max(0) as usize;
        }
        tuples.push(rest[..end].to_vec());
        rest = &rest[end..];
    }
    tuples
}

struct Asked {
    text: Vec<String>,
    json: Vec<String>,
    binary: RowBatch,
}

/// What PostgreSQL says of values of a type.
async fn ask(client: &Client, name: &str, ty: &ColumnType, literals: &[String]) -> Asked {
    client.batch_execute(&format!("DROP TABLE IF EXISTS asked; CREATE TABLE asked (n int, v {name})")).await.unwrap();
    let rows: Vec<String> =
        literals.iter().enumerate().map(|(n, l)| format!("({n}, E'{}')", l.replace('\\', "\\\\").replace('\'', "''"))).collect();
    client.batch_execute(&format!("INSERT INTO asked VALUES {}", rows.join(","))).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let rows = client.query("SELECT format('%s', v), to_jsonb(v)::text FROM asked ORDER BY n", &[]).await.unwrap();
    // `v::text` would be another text where a cast to text has a function of its own: inet's adds the mask
    let select = if ty.has_binary_form() { "v" } else { "CASE WHEN num_nulls(v) = 0 THEN format('%s', v) END" };
    let mut table = (*single(ty.clone())).clone();
    if name == "box[]" {
        table.columns[0].pg_type.oid = 1020;
    }
    let tuples = copy(client, &format!("SELECT {select} FROM asked ORDER BY n")).await;
    let mut batches = encode(&raw(&table.into(), Format::CopyBinary, &tuples)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    assert_eq!(batches.len(), 1, "{name}");
    Asked { text: rows.iter().map(|r| r.get(0)).collect(), json: rows.iter().map(|r| r.get(1)).collect(), binary: batches.remove(0) }
}

/// A document's tokens without the white space between them; strings keep their quotes.
fn tokens(json: &str) -> Vec<String> {
    let (mut tokens, mut rest) = (Vec::new(), json.trim_start());
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => {
                let mut escaped = false;
                let close = rest[1..].find(|c| {
                    let end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    end
                });
                close.unwrap() + 2
            }
            '[' | ']' | '{' | '}' | ',' | ':' => 1,
            _ => rest.find(|c: char| "[]{},: ".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    tokens
}

/// Whether ours says what `to_jsonb` says, but for the numbers that must be strings.
fn says_the_same(ours: &str, theirs: &str, floats: bool) -> bool {
    let (ours, theirs) = (tokens(ours), tokens(theirs));
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(ours, theirs)| {
            let number = theirs.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            if number && !floats && !double_holds(theirs.as_bytes()) { *ours == format!("\"{theirs}\"") } else { ours == theirs }
        })
}

#[tokio::test]
async fn every_type_both_forms() {
    let postgres = Postgres::start();
    let client = session(&postgres).await;
    for (name, ty, literals) in cases() {
        let asked = ask(&client, name, &ty, &literals).await;
        let sent: Vec<Sent<'_>> = asked.text.iter().map(|t| Sent::Text(t.as_bytes())).collect();
        let from_text = if name == "box[]" { asked.binary.clone() } else { values(&ty, &sent) };
        assert_eq!(from_text.columns[0].to_data(), asked.binary.columns[0].to_data(), "{name}: {asked:?}", asked = asked.text);
        assert_eq!(from_text.exact, asked.binary.exact, "{name}");
        assert_eq!(from_text.columns[0].data_type(), &ty.arrow(), "{name}");
        for (row, text) in asked.text.iter().enumerate() {
            if matches!(ty, T::Array(_)) {
                let ours = from_text.columns[0].as_string::<i32>().value(row);
                let floats = matches!(&ty, T::Array(e) if matches!(**e, T::Float4 | T::Float8));
                assert!(says_the_same(ours, &asked.json[row], floats), "{name}: {ours} is not {}", asked.json[row]);
                assert!(!ours.contains(['\n', '\r', '\t']));
                let says_less = text.starts_with('[') || text.contains("=") || name.starts_with("json") && text.contains("\"null\"");
                assert_eq!(from_text.exact.get(row, 0).map(|t| &**t), says_less.then_some(text.as_str()), "{name}");
            } else {
                assert_eq!(spelled(&from_text, row).as_ref(), Some(text), "{name}");
            }
            let beyond = from_text.columns[0].is_null(row);
            assert_eq!(beyond, from_text.exact.get(row, 0).is_some() && !matches!(ty, T::Array(_) | T::Json | T::Jsonb), "{name}: {text}");
        }
    }
    let documents = ["{\n\t\"a\": 1,\r\n \"a\": \"x\\ny\"\n}".to_owned()];
    let asked = ask(&client, "json", &T::Json, &documents).await;
    for batch in [&asked.binary, &values(&T::Json, &[Sent::Text(asked.text[0].as_bytes())])] {
        assert_eq!(batch.columns[0].as_string::<i32>().value(0), "{  \"a\": 1,   \"a\": \"x\\ny\" }");
    }
    let long = format!("{{{}}}", (0..3000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let asked = ask(&client, "int4[]", &array(T::Int4), &[long]).await;
    assert!(says_the_same(asked.binary.columns[0].as_string::<i32>().value(0), &asked.json[0], false));
}

/// xorshift64*: the seed is printed with a failure.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[tokio::test]
async fn random_values_both_forms() {
    let postgres = Postgres::start();
    let client = session(&postgres).await;
    let start = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let mut seed = start;
    let mut make = |value: &dyn Fn(u64) -> String| -> Vec<String> { (0..1000).map(|_| value(random(&mut seed))).collect() };
    let doubles = make(&|bits| Some(f64::from_bits(bits)).filter(|v| v.is_finite()).unwrap_or_default().to_string());
    let singles = make(&|bits| Some(f32::from_bits(bits as u32)).filter(|v| v.is_finite()).unwrap_or_default().to_string());
    let decimals = make(&|bits| format!("{}.{:04}", bits as i64 / 1_000_000, bits % 10_000));
    let stamps = make(&|bits| format!("{:04}-01-01 00:00:00", 1 + bits % 12_000));
    let intervals = make(&|bits| format!("{} mons {} days {} us", bits as i8, (bits >> 8) as i16, (bits >> 16) as i32));
    let numerics = make(&|bits| format!("{}e{}", bits as i32, (bits >> 32) as i8));
    for (name, ty, literals) in [
        ("float8", T::Float8, &doubles),
        ("float4", T::Float4, &singles),
        ("numeric(20,4)", numeric(20, 4), &decimals),
        ("timestamptz", T::TimestampTz, &stamps),
        ("interval", T::Interval, &intervals),
        ("numeric", T::NumericText, &numerics),
    ] {
        let asked = ask(&client, name, &ty, literals).await;
        let sent: Vec<Sent<'_>> = asked.text.iter().map(|t| Sent::Text(t.as_bytes())).collect();
        let from_text = values(&ty, &sent);
        assert_eq!(from_text.columns[0].to_data(), asked.binary.columns[0].to_data(), "{name} seed {start}");
        assert_eq!(from_text.exact, asked.binary.exact, "{name} seed {start}");
        for (row, text) in asked.text.iter().enumerate() {
            assert_eq!(spelled(&asked.binary, row).as_ref(), Some(text), "{name} seed {start}");
        }
    }
}

#[tokio::test]
async fn a_real_stream() {
    let postgres = Postgres::start();
    let client = session(&postgres).await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY, note text, big text);
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
        CREATE PUBLICATION p FOR TABLE t;";
    client.batch_execute(setup).await.unwrap();
    client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await.unwrap();
    let work = "INSERT INTO t VALUES (1, 'a', repeat('x', 9000));
        UPDATE t SET note = 'b'; UPDATE t SET id = 2; DELETE FROM t;
        ALTER TABLE t REPLICA IDENTITY FULL;
        INSERT INTO t VALUES (3, NULL, repeat('y', 9000));
        UPDATE t SET note = 'c'; UPDATE t SET id = 4; DELETE FROM t;
        TRUNCATE t;";
    client.batch_execute(work).await.unwrap();
    let id: u32 = client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
    let columns = [("id", T::Int4), ("note", T::Text), ("big", T::Text)].map(|(name, ty)| super::column(name, ty));
    let mut schema = (*super::table(columns.into())).clone();
    schema.id = id;
    schema.columns[0].key = Some(0);
    let schema = std::sync::Arc::new(schema);
    let mut batches = Vec::new();
    for binary in ["false", "true"] {
        let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'binary', $1)";
        let rows = client.query(peek, &[&binary]).await.unwrap();
        let messages: Vec<Vec<u8>> = rows.iter().map(|r| r.get::<_, Vec<u8>>(0)).filter(|m| b"IUDT".contains(&m[0])).collect();
        batches.push(encode(&raw(&schema, Format::PgOutput, &messages)).unwrap().remove(0));
    }
    assert_eq!(batches[0], batches[1]);
    let batch = &batches[0];
    let text = |row: usize, column: usize| {
        let column = batch.columns[column].as_string::<i32>();
        if column.is_null(row) { "-".to_owned() } else { column.value(row).chars().take(1).collect() }
    };
    let rows: Vec<String> = (0..batch.len())
        .map(|row| {
            let id = batch.columns[0].as_primitive::<arrow::datatypes::Int32Type>();
            let id = if id.is_null(row) { 0 } else { id.value(row) };
            let unchanged = if batch.unchanged.get(row, 2).is_some() { "~" } else { "" };
            format!("{} {id} {} {}{unchanged}", batch.ops[row] as char, text(row, 1), text(row, 2))
        })
        .collect();
    assert_eq!(
        rows,
        ["i 1 a x", "u 1 b -~", "d 1 - -", "i 2 b -~", "d 2 - -", "i 3 - y", "u 3 c y", "d 3 c y", "i 4 c y", "d 4 c y", "t 0 - -"]
    );
    assert_eq!(message(b'T', &[])[0], b'T');
}
