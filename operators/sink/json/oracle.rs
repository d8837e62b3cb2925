//! The values we write against what PostgreSQL's `to_jsonb` says of them.

use super::*;
use crate::contract::{Column, PgType, ReplicaIdentity};
use crate::testing::postgres::Postgres;
use arrow::array::{
    Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use std::sync::Arc;

fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(name, ty): &(&str, ColumnType)| Column {
        name: (*name).into(),
        ty: ty.clone(),
        pg_type: PgType { oid: 0, modifier: -1, name: "test".into() },
        nullable: true,
        key: None,
        missing: None,
        number: None,
        filled: false,
    };
    TableSchema {
        source: "shop".into(),
        id: 1,
        schema: "public".into(),
        name: "t".into(),
        columns: columns.iter().map(column).collect(),
        identity: ReplicaIdentity::Full,
        storage: None,
    }
}

fn batch(table: TableSchema, columns: Vec<ArrayRef>) -> RowBatch {
    let rows = columns.first().map_or(0, Array::len);
    RowBatch {
        table: Arc::new(table),
        columns,
        ops: vec![b'i'; rows].into(),
        commit_lsn: vec![1; rows].into(),
        ordinal: (0..rows as u64).collect(),
        commit_time: vec![0; rows].into(),
        unchanged: Cells::default(),
        exact: Cells::default(),
    }
}

/// What SQL gives of a value `v` for [`array`]; null for what the Arrow column cannot hold.
fn carrier(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::Bytea => "encode(v, 'hex')",
        ColumnType::Date => "CASE WHEN isfinite(v) THEN (v - date '1970-01-01')::text END",
        ColumnType::Time => "(extract(epoch FROM v) * 1000000)::int8::text",
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            "CASE WHEN isfinite(v) AND v < '290000-01-01' THEN (extract(epoch FROM v) * 1000000)::int8::text END"
        }
        ColumnType::Numeric { .. } => "CASE WHEN v <> 'NaN' THEN replace(v::text, '.', '') END",
        ColumnType::Array(_) => "to_jsonb(v)::text",
        ColumnType::Bool => "v::text",
        // What the type's output function gives; `inet::text` says more.
        _ => "format('%s', v)",
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>, A: FromIterator<Option<T>>>(texts: &[Option<String>]) -> A {
    texts.iter().map(|text| text.as_ref().map(|t| t.parse::<T>().expect("PostgreSQL's text of the type"))).collect()
}

fn array(ty: &ColumnType, texts: &[Option<String>]) -> ArrayRef {
    match ty {
        ColumnType::Bool => Arc::new(parsed::<bool, BooleanArray>(texts)),
        ColumnType::Int2 => Arc::new(parsed::<i16, Int16Array>(texts)),
        ColumnType::Int4 => Arc::new(parsed::<i32, Int32Array>(texts)),
        ColumnType::Int8 | ColumnType::Oid => Arc::new(parsed::<i64, Int64Array>(texts)),
        ColumnType::Float4 => Arc::new(parsed::<f32, Float32Array>(texts)),
        ColumnType::Float8 => Arc::new(parsed::<f64, Float64Array>(texts)),
        ColumnType::Numeric { precision, scale } => {
            let values: Decimal128Array = parsed::<i128, _>(texts);
            Arc::new(values.with_precision_and_scale(*precision, *scale as i8).expect("a valid scale"))
        }
        ColumnType::Bytea => {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
            let bytes = |text: &String| text.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>();
            Arc::new(texts.iter().map(|t| t.as_ref().map(bytes)).collect::<BinaryArray>())
        }
        ColumnType::Date => Arc::new(parsed::<i32, Date32Array>(texts)),
        ColumnType::Time => Arc::new(parsed::<i64, Time64MicrosecondArray>(texts)),
        ColumnType::Timestamp => Arc::new(parsed::<i64, TimestampMicrosecondArray>(texts)),
        ColumnType::TimestampTz => Arc::new(parsed::<i64, TimestampMicrosecondArray>(texts).with_timezone("UTC")),
        _ => Arc::new(texts.iter().cloned().collect::<StringArray>()),
    }
}

/// The value of each row of a batch of one column.
fn values(batch: &RowBatch, dialect: Dialect) -> Vec<String> {
    let writer = RowWriter::new(&batch.table, &["v".into()], dialect);
    let bound = writer.bind(batch);
    let value = |row| {
        let mut out = Vec::new();
        assert!(bound.write_columns(row, &mut out));
        String::from_utf8(out).expect("JSON is UTF-8").strip_prefix("\"v\":").expect("the column's member").to_owned()
    };
    (0..batch.len()).map(value).collect()
}

/// Whether a double keeps a number as it is written; measured here by going there and back.
fn double_keeps(number: &str) -> bool {
    let significant = number.trim_start_matches('-').replace('.', "");
    let significant = significant.trim_matches('0').len();
    let integer = number.parse::<i64>().is_ok_and(|n| n.unsigned_abs() < 1 << 53);
    let double = number.parse::<f64>().expect("a number");
    double == 0.0 && significant == 0 || (significant <= 15 && double.is_normal()) || integer
}

fn cases() -> Vec<(&'static str, ColumnType, Vec<String>)> {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    let mut doubles =
        texts(&["0", "-0", "1.5", "-12.25", "0.1", "NaN", "Infinity", "-Infinity", "1e23", "5e-324", "1.7976931348623157e308"]);
    let mut singles = texts(&["0", "-0", "1.1", "16777216", "3.4028235e38", "1e-45", "NaN", "-Infinity", "8388608.5", "33554432"]);
    doubles.extend((-1074..1024).map(|power| format!("{:e}", 2_f64.powi(power))));
    singles.extend((-149..128).map(|power| format!("{:e}", 2_f32.powi(power))));
    // A fixed walk over all bit patterns (odd multiples of the golden ratio).
    for step in 1..3000_u64 {
        let bits = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        doubles.extend(Some(f64::from_bits(bits)).filter(|f| f.is_finite()).map(|f| format!("{f:e}")));
        singles.extend(Some(f32::from_bits((bits >> 32) as u32)).filter(|f| f.is_finite()).map(|f| format!("{f:e}")));
    }
    let stamps = texts(&[
        "2024-01-31 12:34:56.789",
        "1970-01-01 00:00:00",
        "1969-12-31 23:59:59.999999",
        "2000-02-29 00:00:00.1",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
        "10000-01-01 00:00:00",
        "294276-12-31 23:59:59.999999",
        "0044-03-15 00:00:00 BC",
        "4714-11-24 00:00:00 BC",
        "infinity",
        "-infinity",
    ]);
    vec![
        ("bool", ColumnType::Bool, texts(&["true", "false"])),
        ("int2", ColumnType::Int2, texts(&["-32768", "0", "32767"])),
        ("int4", ColumnType::Int4, texts(&["-2147483648", "2147483647"])),
        ("int8", ColumnType::Int8, texts(&["9007199254740991", "9007199254740992", "-9223372036854775808", "9223372036854775807"])),
        ("oid", ColumnType::Oid, texts(&["0", "4294967295"])),
        ("float4", ColumnType::Float4, singles),
        ("float8", ColumnType::Float8, doubles),
        ("numeric(18,4)", numeric(18, 4), texts(&["12.5", "-0.0001", "0", "99999999999999.9999", "12345678901.2345", "NaN"])),
        ("numeric(38,0)", numeric(38, 0), texts(&["99999999999999999999999999999999999999", "-100000000000000000000", "999999999999999"])),
        (
            "numeric(38,37)",
            numeric(38, 37),
            texts(&["9.9999999999999999999999999999999999999", "0.5", "-0.0000000000000000000000000000000000001"]),
        ),
        (
            "numeric",
            ColumnType::NumericText,
            texts(&["12.50", "0.00", "1e300", "1e400", "1e-400", "123456789012345678", "NaN", "Infinity", "-Infinity", "1e-300", "-7.000"]),
        ),
        ("text", ColumnType::Text, texts(&["", "plain", "a\"b\\c/", "\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}", "Ä€😀\u{2028}"])),
        ("bytea", ColumnType::Bytea, texts(&["", "\\x00ff10", "abc"])),
        ("date", ColumnType::Date, stamps.clone()),
        ("time", ColumnType::Time, texts(&["12:34:56.789", "00:00:00", "24:00:00", "23:59:59.999999", "01:02:03.000001"])),
        ("timetz", ColumnType::TimeTz, texts(&["12:34:56.789+02", "24:00:00-03:30"])),
        ("timestamp", ColumnType::Timestamp, stamps.clone()),
        ("timestamptz", ColumnType::TimestampTz, stamps),
        ("interval", ColumnType::Interval, texts(&["1 year 2 mons -3 days 04:05:06.789", "0"])),
        ("uuid", ColumnType::Uuid, texts(&["00112233-4455-6677-8899-aabbccddeeff"])),
        ("jsonb", ColumnType::Jsonb, texts(&[r#"{"b": [1, 2.50, null], "a": "x\"y"}"#, "null", "1e400", r#""text""#])),
        ("int8[]", ColumnType::Array(Box::new(ColumnType::Int8)), texts(&["{1,NULL,3}", "{}", "{{1,2},{3,4}}", "[5:6]={1,2}"])),
        ("inet", ColumnType::Other, texts(&["10.0.0.1/8", "::1"])),
        ("int4range", ColumnType::Other, texts(&["[1,5)", "empty"])),
    ]
}

#[tokio::test]
async fn values_are_spelled_as_to_jsonb_does() {
    let postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    client.batch_execute("SET timezone = 'UTC'; SET bytea_output = hex").await.expect("a setting");
    for (pg_type, ty, inputs) in cases() {
        let query = format!(
            "SELECT {}, format('%s', v), to_jsonb(v)::text FROM (SELECT i, text::{pg_type} v FROM unnest($1::text[]) WITH ORDINALITY u (text, i)) t ORDER BY i",
            carrier(&ty)
        );
        let rows = client.query(&query, &[&inputs]).await.unwrap_or_else(|e| panic!("{pg_type}: {e:?}"));
        let held: Vec<Option<String>> = rows.iter().map(|r| r.get(0)).collect();
        let exact: Vec<String> = rows.iter().map(|r| r.get(1)).collect();
        let expected: Vec<String> = rows.iter().map(|r| r.get(2)).collect();
        let mut direct = batch(schema(&[("v", ty.clone())]), vec![array(&ty, &held)]);
        for (row, text) in exact.iter().enumerate().filter(|(row, _)| held[*row].is_none()) {
            direct.exact.push(row, 0, text.as_str().into());
        }
        let mut compared = vec![(direct.clone(), "array")];
        if matches!(ty, ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::Numeric { .. }) {
            // The same values again, as those that no array can hold.
            let mut texts = batch(direct.table.as_ref().clone(), vec![array(&ty, &vec![None; rows.len()])]);
            exact.iter().enumerate().for_each(|(row, text)| texts.exact.push(row, 0, text.as_str().into()));
            compared.push((texts, "text"));
        }
        for (batch, way) in compared {
            for (row, (ours, theirs)) in values(&batch, Dialect::Postgres).iter().zip(&expected).enumerate() {
                let float = matches!(ty, ColumnType::Float4 | ColumnType::Float8);
                let number = theirs.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && ty != ColumnType::Jsonb;
                let spelled = if number && !float && !double_keeps(theirs) { format!("\"{theirs}\"") } else { theirs.clone() };
                // the one value that `to_jsonb` has no other text for
                let spelled = if float && inputs[row] == "-0" { "-0.0".to_owned() } else { spelled };
                assert_eq!(*ours, spelled, "{pg_type} by {way}: {}", inputs[row]);
            }
        }
    }
}

#[test]
fn snowflake_spelling() {
    let texts = |list: &[&str]| list.iter().map(|s| Some((*s).to_owned())).collect::<Vec<_>>();
    type Case = (ColumnType, Vec<Option<String>>, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        (ColumnType::Int8, texts(&["1", "9007199254740992"]), &["1", "\"9007199254740992\""]),
        (ColumnType::Numeric { precision: 18, scale: 4 }, texts(&["125000", "-1"]), &["\"12.5000\"", "\"-0.0001\""]),
        (ColumnType::NumericText, texts(&["12.50", "NaN"]), &["\"12.50\"", "\"NaN\""]),
        (ColumnType::Float8, texts(&["1e300", "NaN", "inf", "-inf"]), &["1e+300", "\"NaN\"", "\"inf\"", "\"-inf\""]),
        (ColumnType::Bytea, texts(&["", "00", "00ff", "00ff10"]), &["\"\"", "\"AA==\"", "\"AP8=\"", "\"AP8Q\""]),
        (ColumnType::Interval, texts(&["1 year -00:00:01.5", "infinity"]), &["\"P1YT-1.5S\"", "\"infinity\""]),
        (ColumnType::Date, texts(&["19753"]), &["\"2024-01-31\""]),
        (ColumnType::TimestampTz, texts(&["1706704496789000"]), &["\"2024-01-31T12:34:56.789+00:00\""]),
        (ColumnType::Json, texts(&["{\"a\":\n1,\r\n\"b\":2}"]), &["{\"a\": 1,  \"b\":2}"]),
        (ColumnType::Date, vec![None], &["null"]),
    ];
    for (ty, texts, expected) in cases {
        let mut batch = batch(schema(&[("v", ty.clone())]), vec![array(&ty, &texts)]);
        if texts == [None] {
            batch.exact.push(0, 0, "0044-03-15 BC".into());
        }
        assert_eq!(values(&batch, Dialect::Snowflake), expected, "{ty:?}");
    }
}

#[test]
fn members_of_a_row() {
    let int = |values: &[Option<i32>]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
    let table = schema(&[("a", ColumnType::Int4), ("b \"q\"", ColumnType::Int4), ("c", ColumnType::Int4)]);
    let names: Vec<String> = table.columns.iter().map(|c| c.name.to_string()).collect();
    let mut batch = batch(table.clone(), vec![int(&[Some(1), None, None]), int(&[Some(2), None, None]), int(&[Some(3), Some(4), None])]);
    for (row, column) in [(1, 0), (2, 0), (2, 1), (2, 2)] {
        batch.unchanged.push(row, column, ());
    }
    for (dialect, row, expected) in [
        (Dialect::Postgres, 0, r#""a":1,"b \"q\"":2,"c":3"#),
        (Dialect::Postgres, 1, r#""b \"q\"":null,"c":4"#),
        (Dialect::Postgres, 2, ""),
        (Dialect::Snowflake, 1, r#""a":null,"b \"q\"":null,"c":4"#),
        (Dialect::Snowflake, 2, r#""a":null,"b \"q\"":null,"c":null"#),
    ] {
        for (batch, row) in [(batch.clone(), row), (batch.slice(row, 1), 0)] {
            let mut out = Vec::new();
            let any = RowWriter::new(&table, &names, dialect).bind(&batch).write_columns(row, &mut out);
            assert_eq!((String::from_utf8_lossy(&out).as_ref(), any), (expected, !expected.is_empty()));
        }
    }
}
