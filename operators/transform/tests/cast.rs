//! What a cast holds, what it keeps as exact text, and what it refuses.

use super::{batch, column, operator, orders, show};
use crate::contract::{ColumnType as T, TableSchema};
use crate::testing::drive::drive;
use serde_json::json;

#[test]
fn values() {
    let numeric = || T::Numeric { precision: 18, scale: 4 };
    // from, its value, to, the result: `!` refused as a value, `x` refused as a type, [exact]
    for (from, value, to, expected) in [
        (T::Int4, "7", "int8", "7"),
        (T::Int8, "3000000000", "int4", "!"),
        (T::Int8, "9007199254740993", "float8", "!"),
        (T::Int8, "9007199254740992", "float8", "9.007199254740992e+15"),
        (T::Int4, "1", "bool", "true"),
        (T::Int4, "2", "bool", "!"),
        (T::Bool, "true", "int4", "1"),
        (T::Bool, "true", "text", "true"),
        (T::Bool, "true", "date", "x"),
        (numeric(), "1.5", "numeric(10,1)", "1.5"),
        (numeric(), "1.5", "numeric", "1.5000"),
        (numeric(), "1.5", "int8", "!"),
        (numeric(), "2.0000", "int8", "2"),
        (numeric(), "NaN", "numeric(30,2)", "[NaN]"),
        (numeric(), "NaN", "float8", "NaN"),
        (numeric(), "NaN", "int4", "!"),
        (numeric(), "123.45", "numeric(4,2)", "!"),
        (T::NumericText, "0.1", "float8", "0.1"),
        (T::NumericText, "0.12345678901234567890", "float8", "!"),
        (T::NumericText, "Infinity", "numeric(18,4)", "!"),
        (T::Float8, "0.1", "numeric(18,4)", "0.1000"),
        (T::Float8, "1e+20", "numeric", "100000000000000000000"),
        (T::Float8, "0.1", "float4", "!"),
        (T::Float8, "0.5", "float4", "0.5"),
        (T::Float4, "0.1", "float8", "0.10000000149011612"),
        (T::Float8, "1e+20", "text", "1e+20"),
        (T::Text, " 12 ", "int4", "12"),
        (T::Text, "1e2", "numeric", "100"),
        (T::Text, "abc", "int4", "!"),
        (T::Text, "infinity", "timestamptz", "[infinity]"),
        (T::Text, "2024-01-01 10:00", "timestamptz", "!"),
        (T::Text, "2024-01-01 10:00+02", "timestamptz", "2024-01-01 08:00:00+00"),
        (T::Text, "2024-01-01 10:00+02", "timestamp", "!"),
        (T::Text, "2024-02-30", "date", "!"),
        (T::Text, "{\"a\": 1}", "json", "{\"a\": 1}"),
        (T::Text, "{a", "jsonb", "!"),
        (T::Text, "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (T::Text, "\\xAB", "bytea", "\\xab"),
        (T::Text, "24:00:00", "time", "[24:00:00]"),
        (T::Timestamp, "2024-01-01 00:00:00", "date", "2024-01-01"),
        (T::Timestamp, "2024-01-01 00:00:01", "date", "!"),
        (T::Timestamp, "2024-01-01 10:00:00", "timestamptz", "2024-01-01 10:00:00+00"),
        (T::Timestamp, "-infinity", "timestamptz", "[-infinity]"),
        (T::Timestamp, "infinity", "text", "infinity"),
        (T::Timestamp, "2024-01-01 10:00:00", "int8", "x"),
        (T::Date, "0044-03-15 BC", "timestamp", "0044-03-15 00:00:00 BC"),
        (T::Array(Box::new(T::Int4)), "[1,null,[2]]", "text", "{1,NULL,{2}}"),
        (T::Array(Box::new(T::Int4)), "[1,null]", "json", "[1,null]"),
        (T::Interval, "1 day", "text", "1 day"),
        (T::Interval, "1 day", "int8", "x"),
        (T::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "bytea", "x"),
    ] {
        let mut schema = TableSchema { columns: vec![orders().columns.remove(0), column("v", from.clone(), 0, "source type")], ..orders() };
        schema.columns[1].nullable = false;
        let rows = batch(schema.clone(), &[vec![Some("1"), Some(value)], vec![Some("2"), None]]);
        let rows_shown = rows.clone();
        let what = format!("{from:?} {value} to {to}");
        let mut strict = operator("cast", &json!({ "columns": { "public.orders.v": to } }));
        let got = drive(&mut *strict, [rows.clone()]);
        match expected {
            "x" => assert_eq!(got.expect_err(&what).code.id, "CFG0032", "{what}"),
            "!" => {
                let error = got.expect_err(&what);
                assert!(
                    error.code.id == "OP0003" && error.message.contains("\"v\"") && error.message.contains("public.orders"),
                    "{error:?}"
                );
                assert!(!error.report().contains(value), "{what}: the value is not told");
                let mut lenient = operator("cast", &json!({ "columns": { "v": to }, "on_error": "null_with_exact" }));
                let out = drive(&mut *lenient, [rows]).expect(&what).remove(0).1;
                let kept = show(&rows_shown)[0].replace(['[', ']'], "").replace("r 1|", "");
                assert_eq!(show(&out), [format!("r 1|[{kept}]"), "r 2|-".to_owned()], "{what}");
                assert!(out.table.columns[1].nullable);
            }
            held => {
                let out = got.expect(&what).remove(0).1;
                assert_eq!(show(&out), [format!("r 1|{held}"), "r 2|-".to_owned()], "{what}");
            }
        }
    }
}

#[test]
fn keys_and_defaults() {
    let mut schema = orders();
    schema.columns[1].missing = Some("12".into());
    let mut cast = operator("cast", &json!({ "columns": { "id": "int4", "status": "numeric(5,2)" }, "on_error": "null_with_exact" }));
    let made = cast.schema(&schema).expect("it fits");
    assert_eq!((made.columns[0].key, made.columns[0].nullable), (Some(0), false));
    assert_eq!(made.columns[1].missing.as_deref(), Some("12.00"));
    let rows = batch(schema.clone(), &[vec![Some("3000000000"), None, None, None]]);
    assert_eq!(drive(&mut *cast, [rows]).expect_err("a key is never nulled").code.id, "OP0003");
    schema.columns[1].missing = Some("x".into());
    let mut strict = operator("cast", &json!({ "columns": { "status": "int4" } }));
    assert_eq!(strict.schema(&schema).expect_err("the default does not fit").code.id, "CFG0032");
}
