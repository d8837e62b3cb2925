//! What a filter makes of each operation.

use super::{batch, operator, orders, show, with_ops};
use crate::contract::{Cells, Operator, ReplicaIdentity, RowBatch};
use crate::testing::drive::drive;
use serde_json::json;
use std::sync::Arc;

fn sample(ops: &str) -> RowBatch {
    let rows = ["draft", "paid", "draft", "paid", "draft", "-"]
        .map(|status| vec![Some("1"), Some(status).filter(|s| *s != "-"), Some("1.5"), Some("n")]);
    with_ops(batch(orders(), &rows), ops)
}

fn run(operator: &mut dyn Operator, batch: RowBatch) -> Result<Vec<String>, (String, String)> {
    let outputs = drive(operator, [batch]).map_err(|e| (e.code.id.to_owned(), e.message.clone()))?;
    Ok(outputs.iter().flat_map(|(_, batch)| show(batch)).collect())
}

#[test]
fn operations() {
    let mut paid = operator("filter", &json!({ "where": "status = 'paid'" }));
    for (ops, expected) in [
        ("rrrrrr", vec!["r 1|paid|1.5000|n", "r 1|paid|1.5000|n"]),
        ("uuiidt", vec!["d 1|-|-|-", "u 1|paid|1.5000|n", "i 1|paid|1.5000|n", "d 1|draft|1.5000|n", "t 1|-|1.5000|n"]),
        (
            "dddddd",
            vec![
                "d 1|draft|1.5000|n",
                "d 1|paid|1.5000|n",
                "d 1|draft|1.5000|n",
                "d 1|paid|1.5000|n",
                "d 1|draft|1.5000|n",
                "d 1|-|1.5000|n",
            ],
        ),
    ] {
        assert_eq!(run(&mut *paid, sample(ops)).expect(ops), expected, "{ops}");
    }
    let kept = drive(&mut *paid, [sample("rrrrrr")]).expect("rows").remove(0).1;
    assert_eq!((kept.token(0).ordinal, kept.token(1).ordinal), (1, 3), "tokens stay");

    let elsewhere = operator("filter", &json!({ "tables": ["other.*"], "where": "nothing = 1" }));
    let (mut elsewhere, batch) = (elsewhere, sample("rrrrrr"));
    let passed = drive(&mut *elsewhere, [batch.clone()]).expect("it passes").remove(0).1;
    assert!(Arc::ptr_eq(&passed.table, &batch.table) && passed == batch);
}

#[test]
fn unchanged_values() {
    let mut hidden = sample("uuuuii");
    let mut cells = Cells::default();
    for row in 0..6 {
        cells.push(row, 3, ());
    }
    hidden.unchanged = cells;
    for (condition, when, expected) in [
        // decided without the value
        (
            "status = 'paid' AND (note = 'n' OR TRUE)",
            "refuse",
            Ok(vec!["d 1|-|-|-", "u 1|paid|1.5000|?", "d 1|-|-|-", "u 1|paid|1.5000|?"]),
        ),
        ("note IS NOT NULL AND status = 'paid'", "refuse", Ok(vec!["d 1|-|-|-", "u 1|paid|1.5000|?", "d 1|-|-|-", "u 1|paid|1.5000|?"])),
        ("status = 'paid' AND note = 'n'", "refuse", Err("column \"note\" is unchanged")),
        (
            "note LIKE 'n%' AND status IS NOT NULL",
            "keep",
            Ok(vec!["u 1|draft|1.5000|?", "u 1|paid|1.5000|?", "u 1|draft|1.5000|?", "u 1|paid|1.5000|?", "i 1|draft|1.5000|?"]),
        ),
        ("note = 'n' AND status = 'paid'", "forward_delete", Ok(vec!["d 1|-|-|-"; 4])),
    ] {
        let mut filter = operator("filter", &json!({ "where": condition, "when_unknown": when }));
        match (run(&mut *filter, hidden.clone()), expected) {
            (Ok(rows), Ok(expected)) => assert_eq!(rows, expected, "{condition}"),
            (Err((code, message)), Err(expected)) => assert!(code == "OP0001" && message.contains(expected), "{condition}: {message}"),
            (got, _) => panic!("{condition}: {got:?}"),
        }
    }
}

#[test]
fn tables_without_key() {
    let mut schema = orders();
    schema.columns[0].key = None;
    for (identity, expected) in
        [(ReplicaIdentity::Full, Ok(vec!["d 1|draft|1.5000|n".to_owned()])), (ReplicaIdentity::Default, Err("OP0002".to_owned()))]
    {
        schema.identity = identity;
        let row = batch(schema.clone(), &[vec![Some("1"), Some("draft"), Some("1.5"), Some("n")]]);
        let mut paid = operator("filter", &json!({ "where": "status = 'paid'" }));
        assert_eq!(run(&mut *paid, with_ops(row.clone(), "i")), Ok(vec![]), "inserts need no key");
        assert_eq!(run(&mut *paid, with_ops(row, "u")).map_err(|e| e.0), expected);
    }
}

#[test]
fn tables_that_do_not_fit() {
    for (condition, code, part) in [
        ("stats = 'x'", "CFG0031", "has no column \"stats\""),
        ("status > 1", "CFG0032", "column \"status\" is text and the literal is a number"),
        ("total = 'abc'", "CFG0032", "the string is not a number"),
        ("status", "CFG0032", "not boolean"),
        ("total LIKE '1%'", "CFG0032", "LIKE is for text"),
        ("status = total", "CFG0032", "\"status\" is text and \"total\" is numeric(18,4)"),
        ("1 = 1", "CFG0032", "two literals"),
    ] {
        let mut filter = operator("filter", &json!({ "where": condition }));
        let error = filter.schema(&orders()).expect_err(condition);
        assert!(error.code.id == code && error.message.contains(part), "{condition}: {error:?}");
    }
    let error = operator("filter", &json!({ "where": "stats = 'x'" })).schema(&orders()).expect_err("no such column");
    assert_eq!(error.hint.as_deref(), Some("did you mean \"status\"?"));
}
