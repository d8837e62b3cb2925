//! Tables whose columns change while they are written.

use super::*;
use arrow::array::Int64Array;

/// `items` with further columns.
fn with(columns: &[(&str, ColumnType, Option<&str>)]) -> Arc<TableSchema> {
    let mut table = (*items()).clone();
    for (name, ty, missing) in columns {
        let mut column = table.columns[3].clone();
        (column.name, column.ty, column.missing) = ((*name).into(), ty.clone(), missing.map(Into::into));
        column.number = Some(table.columns.len() as i16 + 1);
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
            run.settled().await;
            let [(table, since, discarded, why)] = &run.stopped()[..] else { panic!("{:?}", run.stopped()) };
            assert_eq!((table.as_str(), *since, *discarded), ("public.items", Token::new(2, 0), 1));
            assert!(why.contains("SF0008") && why.contains("refuse"), "{why}");
            run.finish().await.unwrap();
            assert_eq!(rows(&server, "SELECT ID FROM RAW.REFUSES.ITEMS").await, ["1"]);
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
    run.rows(as_text(&Arc::new(other), &[insert(2, 0, 2, "y")]));
    run.settled().await;
    assert_eq!(run.stopped().len(), 1);
    run.finish().await.unwrap();
}

/// Changes of a table whose column `n` is a text.
fn as_text(table: &Arc<TableSchema>, changes: &[Change]) -> RowBatch {
    let mut rows = batch(table, changes);
    rows.columns[3] = Arc::new(changes.iter().map(|c| c.n.map(|n| format!("<{n}>"))).collect::<StringArray>());
    rows
}

/// `items` changed.
fn altered(change: impl FnOnce(&mut TableSchema)) -> Arc<TableSchema> {
    let mut table = (*items()).clone();
    change(&mut table);
    Arc::new(table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_renamed_swapped_and_added_again_keep_what_existing_rows_have() {
    let server = server().await;
    // Nothing is merged by time: only before a change, and at the end.
    let sink = sink(&server, json!({ "merge": { "interval": "1h" } }));
    let renamed = altered(|t| t.columns[1].name = "title".into());
    let swapped = altered(|t| (t.columns[1].name, t.columns[2].name) = ("b".into(), "title".into()));
    let again = altered(|t| {
        (t.columns[1].name, t.columns[2].name) = ("b".into(), "title".into());
        (t.columns[3].number, t.columns[3].missing) = (Some(5), Some("9".into()));
    });
    let kept = Change { op: Op::Update, a: Err(()), n: Some(10), ..insert(2, 0, 1, "") };
    let deliver = |run: &Run| {
        run.rows(batch(&items(), &[insert(1, 0, 1, "x"), insert(1, 1, 2, "y")]));
        run.rows(batch(&renamed, &[kept.clone(), insert(2, 2, 3, "z")]));
        run.mark(Mark::Schema { table: Arc::clone(&swapped) });
        run.rows(batch(&swapped, &[insert(3, 0, 4, "q")]));
        run.rows(batch(&again, &[insert(4, 0, 5, "r")]));
    };
    let target = "SELECT ID, B, TITLE, N FROM RAW.SHOP.ITEMS ORDER BY ID";
    let run = Run::start(&sink).await;
    deliver(&run);
    run.upper(4);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, target).await, ["1 x ∅ 9", "2 y ∅ 9", "3 z ∅ 9", "4 q ∅ 9", "5 r ∅ 5"]);
    // All of it again, as after a crash, and one more.
    let run = Run::start(&sink).await;
    deliver(&run);
    run.rows(batch(&again, &[Change { op: Op::Update, n: Some(50), ..insert(5, 0, 2, "y2") }]));
    run.upper(5);
    run.finish().await.unwrap();
    assert_eq!(rows(&server, target).await, ["1 x ∅ 9", "2 y2 ∅ 50", "3 z ∅ 9", "4 q ∅ 9", "5 r ∅ 5"]);
    // The history has each row once, in the columns of its time; what was dropped stays.
    let landed = rows(&server, "SELECT _OP, ID, A, B, TITLE FROM RAW.SHOP.ITEMS__CHANGES ORDER BY _SEQ").await;
    assert_eq!(landed, ["i 1 x ∅ ∅", "i 2 y ∅ ∅", "u 1 ∅ ∅ ∅", "i 3 ∅ ∅ z", "i 4 ∅ q ∅", "i 5 ∅ r ∅", "u 2 ∅ y2 ∅"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_applies_from_its_row_on() {
    let server = server().await;
    let sink = sink(&server, json!({ "merge": { "interval": "1h" }, "channels": 3 }));
    let keyed = altered(|t| (t.columns[0].key, t.columns[3].key, t.columns[3].nullable) = (Some(1), Some(0), false));
    let deliver = |run: &Run| {
        run.rows(batch(&items(), &[insert(1, 0, 1, "x"), insert(1, 2, 2, "y"), insert(1, 4, 3, "z")]));
        // Deletes say the key of their time, in the middle of a transaction too.
        run.rows(batch(&items(), &[Change { op: Op::Delete, a: Ok(None), n: None, ..insert(2, 0, 2, "") }]));
        run.rows(batch(&keyed, &[insert(2, 2, 4, "w"), Change { op: Op::Delete, a: Ok(None), ..insert(2, 4, 3, "") }]));
    };
    for _ in 0..2 {
        let run = Run::start(&sink).await;
        deliver(&run);
        run.upper(2);
        run.finish().await.unwrap();
        assert_eq!(rows(&server, "SELECT ID, A, N FROM RAW.SHOP.ITEMS ORDER BY ID").await, ["1 x 1", "4 w 4"]);
    }
    assert_eq!(rows(&server, "SELECT KEY_COLUMNS FROM RAW.SHOP._ETL_STREAM_PROGRESS").await, ["[\"ID\",\"N\"]"]);
    assert_eq!(rows(&server, "SELECT COUNT(*) FROM RAW.SHOP.ITEMS__CHANGES").await, ["6"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_known_of_existing_rows_is_copied_anew() {
    let server = server().await;
    let storage = |file| Some(crate::contract::Storage { file, current: true });
    let first = altered(|t| t.storage = storage(1));
    let filled = altered(|t| {
        let mut column = t.columns[3].clone();
        (column.name, column.number, column.filled) = ("drawn".into(), Some(5), true);
        t.columns.push(column);
        t.storage = storage(2);
    });
    let recreated = altered(|t| (t.id, t.storage, t.columns[3].ty) = (2, storage(3), ColumnType::Text));
    let retyped = altered(|t| (t.storage, t.columns[1].pg_type.oid, t.columns[1].pg_type.modifier) = (storage(1), 1042, 14));
    let narrower = altered(|t| {
        (t.columns[1].pg_type.oid, t.columns[1].pg_type.modifier) = (1042, 9);
    });
    for (schema, before, after, why) in [
        ("FILLED", &first, &filled, "a value of its own"),
        ("RECREATED", &first, &recreated, "another table"),
        ("RETYPED", &retyped, &narrower, "the type of column"),
    ] {
        let sink = sink(&server, json!({ "schema": schema }));
        let run = Run::start(&sink).await;
        run.rows(batch(before, &[insert(1, 0, 1, "x"), insert(1, 2, 2, "y")]));
        let changed = |changes: &[Change]| match schema {
            "RECREATED" => as_text(after, changes),
            "FILLED" => rows_with(after, changes, vec![Arc::new(changes.iter().map(|c| c.n).collect::<arrow::array::Int32Array>())]),
            _ => batch(after, changes),
        };
        run.rows(changed(&[insert(2, 0, 3, "z")]));
        run.settled().await;
        let stopped = run.cx.status.stopped();
        let [(.., stopped)] = &stopped[..] else { panic!("{schema}: {stopped:?}") };
        assert_eq!((stopped.error.code.id, stopped.since), ("SF0008", Token::new(2, 0)));
        assert!(stopped.error.message.contains(why), "{schema}: {}", stopped.error);
        assert!(stopped.error.hint.as_deref().is_some_and(|h| h.contains("resync")), "{schema}");
        run.finish().await.unwrap();
        assert_eq!(rows(&server, &format!("SELECT ID, A FROM RAW.{schema}.ITEMS ORDER BY ID")).await, ["1 x", "2 y"], "{schema}");
        let run = Run::start(&sink).await;
        run.mark(Mark::SnapshotBegin { table: Arc::clone(after), lsn: 9, replaces: None });
        run.rows(changed(&[Change { op: Op::Read, ..insert(9, 0, 7, "new") }]));
        run.mark(Mark::SnapshotEnd { table: Arc::clone(after), lsn: 9 });
        run.rows(changed(&[insert(10, 0, 8, "later")]));
        run.upper(10);
        run.finish().await.unwrap();
        let n = if schema == "RECREATED" { ["<7>", "<8>"] } else { ["7", "8"] };
        let found = rows(&server, &format!("SELECT ID, A, N FROM RAW.{schema}.ITEMS ORDER BY ID")).await;
        assert_eq!(found, [format!("7 new {}", n[0]), format!("8 later {}", n[1])], "{schema}");
    }
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
