//! project and rename: what they change of a table and what stays.

use super::{batch, operator, orders, show, with_ops};
use crate::contract::{Cells, RowBatch};
use crate::testing::drive::drive;
use serde_json::{Value, json};

fn sample() -> RowBatch {
    let mut batch =
        with_ops(batch(orders(), &[vec![Some("1"), None, Some("NaN"), None], vec![Some("2"), Some("paid"), Some("1"), Some("n")]]), "ui");
    let mut cells = Cells::default();
    cells.push(0, 3, ());
    batch.unchanged = cells;
    batch
}

/// `schema.table(columns)` and the rows, or the error's code.
fn run(name: &str, settings: &Value) -> Result<(String, Vec<String>), &'static str> {
    let outputs = drive(&mut *operator(name, settings), [sample()]).map_err(|e| e.code.id)?;
    let (_, batch) = outputs.first().expect("rows");
    let columns: Vec<&str> = batch.table.columns.iter().map(|c| &*c.name).collect();
    Ok((format!("{}({})", batch.table.full_name(), columns.join(",")), show(batch)))
}

#[test]
fn tables() {
    let all = vec!["u 1|-|[NaN]|?".to_owned(), "i 2|paid|1.0000|n".to_owned()];
    let rows = |rows: [&str; 2]| rows.map(str::to_owned).to_vec();
    for (name, settings, expected) in [
        (
            "project",
            json!({ "columns": { "public.orders": { "keep": ["note", "id"] } } }),
            Ok(("public.orders(id,note)", rows(["u 1|?", "i 2|n"]))),
        ),
        (
            "project",
            json!({ "columns": { "public.*": { "drop": ["status", "absent"] } } }),
            Ok(("public.orders(id,total,note)", rows(["u 1|[NaN]|?", "i 2|1.0000|n"]))),
        ),
        ("project", json!({ "columns": { "other.*": { "keep": ["a"] } } }), Ok(("public.orders(id,status,total,note)", all.clone()))),
        ("project", json!({ "columns": { "public.orders": { "drop": ["id"] } } }), Err("OP0002")),
        ("project", json!({ "columns": { "public.orders": { "keep": ["note"] } } }), Err("OP0002")),
        ("project", json!({ "columns": { "public.orders": { "drop": ["nte"] } } }), Err("CFG0031")),
        (
            "rename",
            json!({ "tables": { "public.orders": "shop.sales" }, "columns": { "public.orders.note": "comment" } }),
            Ok(("shop.sales(id,status,total,comment)", all.clone())),
        ),
        (
            "rename",
            json!({ "schema": { "public": "raw" }, "columns": { "status": "state", "absent": "x" } }),
            Ok(("raw.orders(id,state,total,note)", all.clone())),
        ),
        ("rename", json!({ "columns": { "note": "status", "status": "note" } }), Ok(("public.orders(id,note,total,status)", all))),
        ("rename", json!({ "columns": { "note": "status" } }), Err("CFG0034")),
        ("rename", json!({ "columns": { "public.orders.absent": "x" } }), Err("CFG0031")),
    ] {
        assert_eq!(run(name, &settings), expected.map(|(shape, rows)| (shape.to_owned(), rows)), "{name} {settings}");
    }
}
