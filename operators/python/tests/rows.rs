//! What leaves: rows, their order, operations and tokens, marks, and what is said of cells.

use super::{build_context, config, module, orders, run};
use crate::contract::{Cells, ColumnType, Item, Mark, Op, RenderConfig, RowBatch, Token};
use crate::testing::drive::wrong_form;
use crate::testing::random::Random;
use crate::testing::rows::{rows, tables};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use serde_json::json;
use std::sync::Arc;

const OPS: [Op; 8] = [Op::Insert, Op::Update, Op::Delete, Op::Insert, Op::Update, Op::Delete, Op::Insert, Op::Read];

fn ops_of(batch: &RowBatch) -> String {
    batch.ops.iter().map(|op| char::from(*op)).collect()
}

#[test]
fn every_type_and_mark_leaves_as_it_came() {
    let folder = module(
        "def same(batch):\n    return batch\n\ndef by_hand(batch):\n    names = [n for n in batch.schema.names if not n.startswith('_')]\n    return batch.select(names)\n",
    );
    let mut random = Random::new(3);
    let mut items = Vec::new();
    for (at, table) in tables().iter().enumerate() {
        items.push(Item::Mark(Mark::Schema { table: Arc::clone(table) }));
        for part in 0..3 {
            let lsn = 10 + at as u64 * 3 + part;
            items.push(rows(table, &OPS, Token::new(lsn, 0), &mut random).into());
        }
        items.push(Item::Mark(Mark::SnapshotEnd { table: Arc::clone(table), lsn: 7 }));
    }
    for function in ["same", "by_hand"] {
        let outcome = run(folder.path(), json!({ "function": function, "workers": 2 }), items.clone());
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert_eq!(outcome.frontier, None);
        for table in tables() {
            let of = |items: &mut dyn Iterator<Item = &Item>| {
                // Batches may be joined: rows and marks are compared one by one.
                let mut all = Vec::new();
                for item in items.filter(|item| **item.table() == *table) {
                    match item {
                        Item::Rows(batch) => all.extend((0..batch.len()).map(|row| Item::Rows(batch.slice(row, 1)))),
                        mark => all.push(mark.clone()),
                    }
                }
                all
            };
            let (left, came) = (of(&mut outcome.left.iter().map(|(_, item)| item)), of(&mut items.iter()));
            assert_eq!(left.len(), came.len(), "{}", table.name);
            for (left, came) in left.iter().zip(&came) {
                assert_eq!(left, came);
            }
        }
        assert!(outcome.batches().iter().all(|batch| wrong_form(batch).is_none()));
        assert!(outcome.left.iter().all(|(ts, item)| !matches!(item, Item::Rows(b) if b.first_ts().unwrap() < *ts)));
    }
}

#[test]
fn a_filter_forwards_what_may_have_been_there() {
    let folder = module("import pyarrow.compute as pc\n\ndef big(batch):\n    return batch.filter(pc.greater(batch['id'], 50_000))\n");
    let came = orders(&[&OPS[..], &[Op::Truncate]].concat(), 9);
    let ids: Vec<Option<i64>> = came.columns[0].as_primitive::<Int64Type>().iter().collect();
    let outcome = run(folder.path(), json!({ "function": "big" }), vec![came.clone().into()]);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let left = outcome.batches()[0].clone();
    assert!(wrong_form(&left).is_none());
    let mut expected = String::new();
    for (row, id) in ids.iter().enumerate() {
        match (came.op(row), id.is_some_and(|id| id > 50_000)) {
            (op, true) | (op @ (Op::Delete | Op::Truncate), false) => expected.push(char::from(op.letter())),
            (Op::Update, false) => expected.push('d'),
            _ => {}
        }
    }
    assert!(expected.len() < came.len() && expected.contains('u') && expected.ends_with('t'), "{expected}: the seed serves the test");
    assert_eq!(ops_of(&left), expected);
    for row in 0..left.len() {
        let from = (0..came.len()).find(|at| came.token(*at) == left.token(row)).unwrap();
        assert_eq!(left.columns[0].slice(row, 1).as_ref(), came.columns[0].slice(from, 1).as_ref(), "its key is its own");
        let values = left.columns[1..].iter().filter(|c| c.is_valid(row)).count();
        assert!(left.op(row) != Op::Delete || ids[from].is_some_and(|id| id > 50_000) || values == 0, "a delete has its key alone");
    }
}

#[test]
fn a_class_says_its_schema_and_is_opened_and_closed() {
    let folder = module(
        "import pyarrow as pa, pyarrow.compute as pc, pathlib\nhere = pathlib.Path(__file__).parent\n\nclass Doubled:\n    def open(self):\n        (here / 'opened').touch()\n    def close(self):\n        (here / 'closed').touch()\n    def schema(self, schema):\n        assert schema.metadata[b'table'] == b'orders' and schema.field('id').metadata[b'key'] == b'0'\n        schema = schema.remove(schema.get_field_index('note'))\n        return schema.append(pa.field('twice', pa.int64())).append(pa.field('price', pa.decimal128(21, 2)))\n    def apply(self, batch):\n        twice = pc.multiply(batch['customer_id'], 2)\n        price = pc.cast(batch['customer_id'], pa.decimal128(21, 2))\n        return batch.append_column('twice', twice).append_column('price', price).drop_columns(['note'])\n",
    );
    let settings = json!({ "class": "Doubled" });
    let said = config(settings.clone()).build(&build_context(folder.path())).unwrap().schema(&tables()[0]).unwrap();
    let came = orders(&OPS, 5);
    let outcome = run(folder.path(), settings, vec![came.clone().into()]);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let left = outcome.batches()[0].clone();
    assert_eq!(*left.table, said);
    assert_eq!(left.table.columns.iter().map(|c| &*c.name).collect::<Vec<_>>()[5..], ["placed", "twice", "price"]);
    assert_eq!(
        (&left.table.columns[6].ty, left.table.columns[7].ty.clone()),
        (&ColumnType::Int8, ColumnType::Numeric { precision: 21, scale: 2 })
    );
    assert_eq!(left.table.columns[3], came.table.columns[3], "a column that is left alone keeps all of its own");
    let (ids, twice) = (came.columns[1].as_primitive::<Int64Type>(), left.columns[6].as_primitive::<Int64Type>());
    assert!(ids.iter().zip(twice).all(|(id, twice)| id.map(|id| 2 * id) == twice));
    assert!(wrong_form(&left).is_none());
    assert!(folder.path().join("opened").exists() && folder.path().join("closed").exists());
}

#[test]
fn what_is_said_of_cells_follows_their_rows() {
    let folder = module(
        "import pyarrow as pa, pyarrow.compute as pc\n\ndef fill(batch):\n    at = batch.schema.get_field_index('note')\n    batch = batch.set_column(at, 'note', pc.fill_null(batch['note'], 'filled'))\n    at = batch.schema.get_field_index('region')\n    region = pa.array(['hidden'] * len(batch))\n    return batch.set_column(at, 'region', region).slice(1)\n",
    );
    let mut came = orders(&[Op::Insert; 4], 5);
    let (note, region, total) = (6, 4, 3);
    came.unchanged.push(1, note, ());
    came.unchanged.push(3, note, ());
    for (row, column) in [(0, total), (1, region), (2, total)] {
        came.exact.push(row, column, format!("exact {row}").into());
    }
    let mask = |rows: [bool; 4]| arrow::array::BooleanArray::from(rows.to_vec());
    came.columns[note] = arrow::compute::nullif(&came.columns[note], &mask([false, true, false, true])).unwrap();
    came.columns[total] = arrow::compute::nullif(&came.columns[total], &mask([true, false, true, false])).unwrap();
    let outcome = run(folder.path(), json!({ "function": "fill" }), vec![came.into()]);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let left = outcome.batches()[0].clone();
    assert!(wrong_form(&left).is_none());
    assert_eq!(left.unchanged.iter().map(|(row, column, ())| (row, column)).collect::<Vec<_>>(), [(0, note), (2, note)]);
    assert!(left.columns[note].is_null(0) && left.columns[note].is_null(2), "a value that was not sent is not made up");
    // The text of a value that was replaced is gone with it.
    let mut expected = Cells::default();
    expected.push(1, total, "exact 2".into());
    assert_eq!(left.exact, expected);
}

#[test]
fn tables_that_it_does_not_name_pass() {
    let folder = module("def fail(batch):\n    raise RuntimeError('never called')\n");
    let came = orders(&OPS, 5);
    let outcome = run(folder.path(), json!({ "function": "fail", "tables": ["other.*"] }), vec![came.clone().into()]);
    assert!(outcome.error.is_none());
    assert_eq!(outcome.batches(), [&came]);
}

#[test]
fn a_slow_worker_holds_back_its_own_tables_alone() {
    let folder = module(
        "import pathlib, time\nhere = pathlib.Path(__file__).parent\n\ndef one_waits(batch):\n    while batch.schema.metadata[b'table'] == b'orders' and not (here / 'go').exists():\n        time.sleep(0.01)\n    if batch.schema.metadata[b'table'] == b'customers':\n        (here / 'go').touch()\n    return batch\n",
    );
    let (orders, customers) = (Arc::clone(&tables()[0]), Arc::clone(&tables()[1]));
    let workers = (2..20).find(|n| (orders.route() >> 20) % n != (customers.route() >> 20) % n).unwrap();
    let mut items = Vec::new();
    for lsn in 1..20 {
        items.push(rows(&orders, &OPS, Token::new(2 * lsn, 0), &mut Random::new(lsn)).into());
        items.push(rows(&customers, &OPS, Token::new(2 * lsn + 1, 0), &mut Random::new(lsn)).into());
    }
    let outcome = run(folder.path(), json!({ "function": "one_waits", "workers": workers }), items);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.tokens().len(), 19 * 2 * OPS.len());
    assert_eq!(*outcome.batches()[0].table, *customers, "customers went first, though orders came first");
}
