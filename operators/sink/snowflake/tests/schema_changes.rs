//! Tables whose columns change while they are written.

use super::*;
use arrow::array::Int64Array;

/// `items` with further columns.
fn with(columns: &[(&str, ColumnType, Option<&str>)]) -> Arc<TableSchema> {
    let mut table = (*items()).clone();
    for (name, ty, missing) in columns {
        let mut column = table.columns[3].clone();
        (column.name, column.ty, column.missing) = ((*name).into(), ty.clone(), missing.map(Into::into));
        table.columns.push(column);
    }
    Arc::new(table)
}

fn rows_with(table: &Arc<TableSchema>, changes: &[Change], more: Vec<ArrayRef>) -> RowBatch {
    let mut rows = batch(table, changes);
    rows.columns.extend(more);
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_added_and_widened() {
    let server = server().await;
    let sink = sink(&server, json!({ "merge": { "interval": "1h" } }));
    let run = Run::start(&sink).await;
    run.rows(batch(&items(), &[insert(1, 0, 1, "x"), insert(1, 1, 2, "x")]));
    run.upper(1);
    run.finish().await.unwrap();
    let run = Run::start(&sink).await;
    // Not merged when the columns come.
    run.rows(batch(&items(), &[Change { op: Op::Update, ..insert(2, 0, 2, "y") }]));
    let tags = ColumnType::Array(Box::new(ColumnType::Text));
    let table = with(&[("extra", ColumnType::Text, None), ("state", ColumnType::Text, Some("new'")), ("tags", tags, Some("{}"))]);
    let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    run.rows(rows_with(&table, &[insert(3, 0, 3, "z")], vec![text(Some("e")), text(None), text(Some("[\"t\"]"))]));
    // And one goes, and one is widened.
    let mut less = (*with(&[("extra", ColumnType::Text, None)])).clone();
    less.columns[3].ty = ColumnType::Int8;
    let less = Arc::new(less);
    run.mark(Mark::Schema { table: Arc::clone(&less) });
    let mut last = rows_with(&less, &[insert(4, 0, 4, "w")], vec![text(Some("f"))]);
    last.columns[3] = Arc::new(Int64Array::from(vec![i64::MAX]));
    run.rows(last);
    run.upper(4);
    run.finish().await.unwrap();
    let target = "SELECT ID, A, N, EXTRA, STATE, TAGS FROM RAW.SHOP.ITEMS ORDER BY ID";
    assert_eq!(rows(&server, target).await, ["1 x 1 ∅ new' []", "2 y 2 ∅ new' []", "3 z 3 e ∅ [\"t\"]", "4 w 9223372036854775807 f ∅ ∅"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_not_wanted_or_not_possible() {
    let server = server().await;
    let more = with(&[("extra", ColumnType::Text, None)]);
    let extra = || vec![Arc::new(StringArray::from(vec!["e"])) as ArrayRef];
    for (mode, schema) in [("ignore", "IGNORES"), ("refuse", "REFUSES")] {
        let sink = sink(&server, json!({ "schema": schema, "schema_changes": mode }));
        let run = Run::start(&sink).await;
        run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
        run.rows(rows_with(&more, &[insert(2, 0, 2, "y")], extra()));
        run.upper(2);
        if mode == "refuse" {
            assert_eq!(run.failed().await.code.id, "SF0008");
        } else {
            run.finish().await.unwrap();
            assert_eq!(rows(&server, "SELECT * EXCLUDE (\"_ETL_EXACT\") FROM RAW.IGNORES.ITEMS ORDER BY ID").await.len(), 2);
            assert!(server.try_sql("SELECT EXTRA FROM RAW.IGNORES.ITEMS").await.is_err());
        }
    }
    let sink = sink(&server, json!({}));
    let run = Run::start(&sink).await;
    run.rows(batch(&items(), &[insert(1, 0, 1, "x")]));
    let mut other = (*items()).clone();
    other.columns[3].ty = ColumnType::Text;
    let other = Arc::new(other);
    run.mark(Mark::Schema { table: other });
    assert_eq!(run.failed().await.code.id, "SF0008");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_and_is_merged() {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Time64MicrosecondArray,
        TimestampMicrosecondArray,
    };
    let server = server().await;
    let columns = [
        ("id", ColumnType::Int8),
        ("flag", ColumnType::Bool),
        ("small", ColumnType::Int2),
        ("f", ColumnType::Float8),
        ("amount", ColumnType::Numeric { precision: 38, scale: 4 }),
        ("big", ColumnType::NumericText),
        ("bytes", ColumnType::Bytea),
        ("day", ColumnType::Date),
        ("at", ColumnType::Time),
        ("ts", ColumnType::Timestamp),
        ("tz", ColumnType::TimestampTz),
        ("doc", ColumnType::Jsonb),
        ("list", ColumnType::Array(Box::new(ColumnType::Int4))),
        ("Mixed Name", ColumnType::Text),
    ];
    let table = schema("pg", "public", "Types", &columns, 1);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int16Array::from(vec![Some(-32768), None])),
        Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None])),
        Arc::new(
            Decimal128Array::from(vec![Some(99_999_999_999_999_999_999_999_999_999_999_999_999_i128), None])
                .with_precision_and_scale(38, 4)
                .unwrap(),
        ),
        Arc::new(StringArray::from(vec![Some("123456789012345678901234567890123456789012345"), None])),
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None])),
        Arc::new(Date32Array::from(vec![Some(2_932_897), None])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(3_723_000_001), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some("{\"a\": 12345678901234567890}"), None])),
        Arc::new(StringArray::from(vec![Some("[1,null]"), None])),
        Arc::new(StringArray::from(vec![Some("o'b\n"), None])),
    ];
    let sink = sink(&server, json!({}));
    let run = Run::start(&sink).await;
    run.rows(batch_of(&table, arrays));
    run.upper(1);
    run.finish().await.unwrap();
    let query = "SELECT * EXCLUDE (\"_ETL_SEQ\") FROM RAW.SHOP.\"Types\" ORDER BY ID";
    let nulls = vec!["∅"; 14].join(" ");
    assert_eq!(
        rows(&server, query).await,
        [
            "1 true -32768 inf 9999999999999999999999999999999999.9999 123456789012345678901234567890123456789012345 00FF ∅ 3723.000001000 \
             0.000001000 -0.000001000 1440 {\"a\": 12345678901234567890} [1,null] o'b\n {\"DAY\":\"10000-01-01\"}",
            &format!("2 {nulls}"),
        ]
    );
}
