//! What each mask leaves of a value, and that nothing else of it is left.

use super::{batch, column, findings, operator, orders, show, with_ops};
use crate::contract::{Cells, Column, ColumnType};
use crate::testing::drive::drive;
use crate::testing::postgres::Postgres;
use serde_json::json;

const KEY: &str = "0123456789abcdef0123";

#[test]
fn every_way() {
    let mut schema = orders();
    schema.columns.push(Column { missing: Some("secret default".into()), ..column("phone", ColumnType::Text, 25, "text") });
    schema.columns.push(column("born", ColumnType::Date, 1082, "date"));
    let mut rows = batch(
        schema,
        &[
            vec![Some("1"), Some("héllo wörld"), Some("NaN"), Some("n"), Some("+49 123"), Some("infinity")],
            vec![Some("2"), None, Some("1.5"), None, Some("ab"), None],
            vec![Some("3"), Some(""), None, None, None, Some("2024-02-29")],
        ],
    );
    let mut cells = Cells::default();
    cells.push(1, 1, ());
    cells.push(1, 3, ());
    rows.unchanged = cells;
    let settings = json!({ "columns": {
        "status": { "with": "keep_first", "characters": 2 },
        "public.orders.status": { "with": "keep_last", "characters": 3 },
        "public.*.total": { "with": "redact" },
        "note": { "with": "nullify" },
        "phone": { "with": "redact", "text": "gone" },
        "born": { "with": "keep_first", "characters": 4 } } });
    let mut mask = operator("mask", &settings);
    let out = drive(&mut *mask, [with_ops(rows, "rui")]).expect("rows").remove(0).1;
    assert_eq!(show(&out), ["r 1|********rld|***|-|gone|infi****", "u 2|?|***|-|gone|-", "i 3||-|-|-|2024******"]);
    assert!(out.exact.is_empty());
    assert_eq!(out.unchanged.len(), 1, "a nullified column is known");
    let types: Vec<u32> = out.table.columns.iter().map(|c| c.pg_type.oid).collect();
    assert_eq!(types, [20, 25, 25, 25, 25, 25]);
    assert!(out.table.columns.iter().all(|c| c.missing.as_deref() != Some("secret default")));
    assert!(findings("mask", &settings).is_empty());

    for (way, code) in [("nullify", Some("OP0002")), ("redact", Some("OP0002")), ("hmac_sha256", None)] {
        let rule = if way == "hmac_sha256" { json!({ "with": way, "key": { "plain": KEY } }) } else { json!({ "with": way }) };
        let mut mask = operator("mask", &json!({ "columns": { "id": rule } }));
        assert_eq!(mask.schema(&orders()).err().map(|e| e.code.id), code, "{way}");
    }
}

#[tokio::test]
async fn hmac_of_the_text() {
    let server = Postgres::start();
    let client = server.client("postgres").await;
    let hmac = |value: &str| format!("encode(hmac({value}::text, '{KEY}', 'sha256'), 'hex')");
    client
        .batch_execute(
            "CREATE EXTENSION pgcrypto; SET timezone = 'UTC';
             CREATE TABLE t (id int8 PRIMARY KEY, c char(9), n numeric(18,4), m numeric, f float8, d date, tz timestamptz, b bool, a text[], j jsonb, y bytea);
             INSERT INTO t VALUES (1, 'ab', 1.5, 'NaN', 1e20, 'infinity', '2024-02-29 12:00:00.5+00', true, '{a b,NULL,c}', '{\"a\": [1, 2]}', '\\x00ff');
             INSERT INTO t (id) VALUES (2);
             INSERT INTO t VALUES (3, '', 'NaN', 1.50, -0.1, '0044-03-15 BC', '-infinity', false, '{}', '1', '');",
        )
        .await
        .unwrap();
    let schema = super::table(&client, "t").await;
    let names: Vec<String> = schema.columns.iter().map(|c| c.name.to_string()).collect();
    let select: Vec<String> = names.iter().map(|n| hmac(n)).collect();
    let expected = super::rows(&client, &format!("SELECT {} FROM t ORDER BY t.id", select.join(", "))).await;
    let rules: serde_json::Map<_, _> =
        names.iter().map(|n| (format!("public.t.{n}"), json!({ "with": "hmac_sha256", "key": { "plain": KEY } }))).collect();
    let mut mask = operator("mask", &json!({ "columns": rules }));
    let out = drive(&mut *mask, [super::load(&client, schema).await]).expect("rows").remove(0).1;
    let expected: Vec<String> =
        expected.iter().map(|row| format!("r {}", row.iter().map(|v| v.as_deref().unwrap_or("-")).collect::<Vec<_>>().join("|"))).collect();
    assert_eq!(show(&out), expected);
    assert!(out.table.columns[0].key == Some(0) && out.exact.is_empty());
}
