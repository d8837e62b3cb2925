//! `column::text` of a real server is the oracle of [`super::super::text`].

use super::{load, rows, show, table};
use crate::testing::postgres::Postgres;

#[tokio::test]
async fn every_type_as_postgresql_writes_it() {
    let server = Postgres::start();
    let client = server.client("postgres").await;
    client
        .batch_execute(
            "SET timezone = 'UTC';
             CREATE TABLE t (id int8 PRIMARY KEY, b bool, i2 int2, i4 int4, o oid, f4 float4, f8 float8, n numeric(18,4), m numeric,
                t text, c char(4), y bytea, d date, tm time, ttz timetz, ts timestamp, tz timestamptz, iv interval, u uuid, j json, jb jsonb,
                ai int[], at text[], atz timestamptz[], ad date[], af float8[], af4 float4[], ab bool[], an numeric[], ay bytea[], ajb jsonb[]);
             INSERT INTO t SELECT 0;
             INSERT INTO t VALUES (1, true, -32768, -2147483648, 4294967295, 'NaN', 'Infinity', -0.0001, 'NaN', '', 'ab', '\\x00ff', '2024-02-29',
                '24:00:00', '12:00:00.5+01', 'infinity', '-infinity', '1 mon -2 days 03:04:05.5', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"a\" : 1}', '[1, \"x\"]',
                '{}', '{\"\",null,\"NULL\",\"a b\",\"q\\\"\\\\\",\"{}\"}'::text[], '{\"2024-01-01 00:00:00+00\",infinity,\"0044-03-15 10:00:00+00 BC\"}', '{infinity,\"0044-03-15 BC\"}', '{1e20,NaN,-1.5,0.1}', '{1e20,1e-7}', '{t,f,null}', '{1.50,NaN,-0.001}', '{\"\\\\x00ff\"}', '{\"{\\\"a\\\": \\\"b,c\\\"}\",\"[1, 2]\",null}');
             INSERT INTO t (id, ts, tz, d, tm, n, m, ai, at) VALUES (2, '0044-03-15 00:00:00.000001 BC', '294276-12-31 23:59:59.999999+00', '4714-11-24 BC', '23:59:59.9',
                99999999999999.9999, 1e40, '{{1,2},{3,null}}', '{{a,é},{\"x,y\",\"\ttab\"}}');
             INSERT INTO t (id, ts, tz, d, tm, n, m) VALUES (3, '4714-11-24 00:00:00 BC', '12345-01-01 00:00:00.1+00', '5874897-12-31', '00:00:00',
                0, 0.000);
             INSERT INTO t (id, f4, f8) SELECT 10 + row_number() OVER (), v::float4, v FROM unnest(array[0, '-0', 1, 1e5, 999999, 1e6, 1234567, 16777216,
                0.1, 0.0001, 0.00001, 1.5e-5, 123456.7, 1e14, 123456789012345, 1e15, 1234567890123456, 3.4e38, 1e-37, 1.0/3, 100, 1200]::float8[]) v;
             INSERT INTO t (id, f8) SELECT 100 + row_number() OVER (), v FROM unnest(array[1.7976931348623157e308, 5e-324, 2.2250738585072014e-308,
                9007199254740993, 123456789012345678, 4.35, 0.3, 1e22, 1e23]::float8[]) v;
             INSERT INTO t (id, f8, f4) SELECT 1000 + g, (random() - 0.5) * 10 ^ (random() * 60 - 30), (random() - 0.5) * 10 ^ (random() * 30 - 15) FROM generate_series(1, 2000) g;
             INSERT INTO t (id, f4, f8) SELECT 20000 + g, (random() * 2 ^ (24 + random() * 20))::int8, (random() * 2 ^ (53 + random() * 10))::int8 FROM generate_series(1, 3000) g;
             INSERT INTO t (id, f4, f8) SELECT 30000 + g, 2::float8 ^ g, 2::float8 ^ (g * 8) FROM generate_series(-120, 120) g;
             INSERT INTO t (id, ts, d, tm) SELECT 5000 + g, 'epoch'::timestamp + (random() - 0.3) * interval '9000 years', 'epoch'::date + ((random() - 0.3) * 4000000)::int,
                time '00:00' + random() * interval '1 day' FROM generate_series(1, 500) g;",
        )
        .await
        .unwrap();
    let schema = table(&client, "t").await;
    let columns: Vec<String> = schema.columns.iter().map(|c| format!("\"{}\"::text", c.name)).collect();
    let expected = rows(&client, &format!("SELECT {} FROM t ORDER BY t.id", columns.join(", "))).await;
    let batch = load(&client, schema).await;
    assert!(batch.exact.len() == 4, "infinities, 24:00:00 and far years stand as exact text: {}", batch.exact.len());
    for (shown, expected) in show(&batch).iter().zip(expected) {
        let expected: Vec<String> = expected.into_iter().map(|v| v.unwrap_or_else(|| "-".into())).collect();
        let bare = |text: &str| text.replace(['[', ']'], "");
        assert_eq!(bare(shown), bare(&format!("r {}", expected.join("|"))));
    }
}
