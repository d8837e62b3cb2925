//! What comes out of the bytes is what the workload says went in.

use super::super::testing::run;
use super::generate::Generator;
use super::pgoutput::Messages;
use super::{Kind, Scenario, SyntheticConfig, Value, Workload};
use crate::contract::{BuildContext, Findings, MemoryState, NodeConfig, Op, RowBatch, Source, SourceConfig};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn config(settings: serde_json::Value) -> SyntheticConfig {
    let config: SyntheticConfig = serde_json::from_value(settings).unwrap();
    let mut findings = Findings::default();
    config.check(&mut findings);
    assert!(findings.0.is_empty(), "{findings:?}");
    config
}

fn source(config: &SyntheticConfig) -> Box<dyn Source> {
    config
        .build(&BuildContext {
            pipeline: "test".into(),
            node: "s".into(),
            folder: Path::new("/").into(),
            peers: crate::contract::Peers::default(),
        })
        .unwrap()
}

/// A cell as the workload has it: nothing for null.
fn cell(kind: Kind, batch: &RowBatch, column: usize, row: usize) -> Option<Value> {
    let array = &batch.columns[column];
    assert_eq!(batch.exact.iter().count(), 0, "every value is held exactly by its array");
    if array.is_null(row) {
        return None;
    }
    Some(match kind {
        Kind::Int8 => Value::Integer(array.as_primitive::<Int64Type>().value(row).into()),
        Kind::Int4 => Value::Integer(array.as_primitive::<Int32Type>().value(row).into()),
        Kind::Bool => Value::Integer(array.as_boolean().value(row).into()),
        Kind::Numeric => Value::Integer(array.as_primitive::<Decimal128Type>().value(row)),
        Kind::TimestampTz => Value::Integer(array.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        Kind::Texts => Value::Texts(serde_json::from_str(array.as_string::<i32>().value(row)).unwrap()),
        Kind::Text | Kind::Varchar | Kind::Jsonb | Kind::Uuid | Kind::Body => Value::Text(array.as_string::<i32>().value(row).to_owned()),
    })
}

/// Compares rows with the changes from `first` on; gives how many there were.
fn compare(workload: &Workload, batches: &[RowBatch], first: u64) -> u64 {
    let mut rows: BTreeMap<_, (&RowBatch, usize)> = BTreeMap::new();
    for batch in batches {
        for row in 0..batch.len() {
            assert!(rows.insert(batch.token(row), (batch, row)).is_none(), "no token comes twice");
        }
    }
    let mut number = first;
    for (token, (batch, row)) in rows {
        let change = workload.change(number);
        assert_eq!((token, batch.op(row)), (change.token, change.op), "change {number}");
        assert_eq!(batch.table, workload.tables()[change.table], "change {number}");
        let last = workload.kinds().len() - 1;
        for (column, kind) in workload.kinds().iter().enumerate() {
            let expected = match (column, change.op) {
                (0, _) => Some(Value::Integer(change.key.into())),
                (_, Op::Delete) => None,
                (column, _) if column == last && change.unchanged => None,
                (column, _) => Some(workload.values(change.variant)[column - 1].clone()),
            };
            assert_eq!(cell(*kind, batch, column, row), expected, "change {number}, column {column}");
            assert_eq!(batch.unchanged.get(row, column).is_some(), column == last && change.unchanged, "change {number}, column {column}");
        }
        number += 1;
    }
    number - first
}

#[tokio::test]
async fn every_scenario_decodes_to_what_was_asked() {
    for scenario in Scenario::ALL {
        let config = config(json!({ "scenario": scenario.word(), "rows": 2_345, "seed": 9 }));
        let given = run(source(&config), &Arc::default(), None).await.unwrap();
        let workload = Workload::new(&config, "s");
        assert_eq!(compare(&workload, &given.batches, 0), 2_345, "{scenario:?}");
        let transactions = 2_345_u64.div_ceil(scenario.transaction().into());
        let [changes, commits, received, server] = given.counts;
        assert_eq!(received, server, "{scenario:?}: caught up");
        match scenario {
            Scenario::Snapshot => assert_eq!(given.marks, ["SnapshotBegin", "SnapshotEnd"]),
            _ => assert_eq!((changes, commits), (2_345, transactions), "{scenario:?}"),
        }
        let ops: BTreeSet<char> = given.batches.iter().flat_map(|b| b.ops.iter().map(|op| *op as char)).collect();
        let expected = match scenario {
            Scenario::NarrowInsert | Scenario::LargeTransaction => "i",
            Scenario::WideUpdate | Scenario::ToastUpdate => "iu",
            Scenario::ManyTables | Scenario::MaskFilter => "diu",
            Scenario::Snapshot => "r",
        };
        assert_eq!(ops.into_iter().collect::<String>(), expected, "{scenario:?}");
        let unchanged: usize = given.batches.iter().map(|batch| batch.unchanged.iter().count()).sum();
        assert_eq!(unchanged > 0, scenario == Scenario::ToastUpdate, "{scenario:?}");
        assert_eq!(workload.tables().len(), if scenario == Scenario::ManyTables { 50 } else { 1 });
    }
}

#[test]
fn what_is_changed_was_inserted_and_nothing_twice() {
    for scenario in Scenario::ALL {
        let workload = Workload::new(&config(json!({ "scenario": scenario.word(), "rows": 20_000 })), "s");
        let mut there = BTreeSet::new();
        for change in (0..20_000).map(|n| workload.change(n)) {
            let row = (change.table, change.key);
            match change.op {
                Op::Insert | Op::Read => assert!(there.insert(row), "{scenario:?} {row:?}"),
                Op::Update => assert!(there.contains(&row), "{scenario:?} {row:?}"),
                Op::Delete => assert!(there.remove(&row), "{scenario:?} {row:?}"),
                Op::Truncate => panic!("no scenario truncates"),
            }
        }
    }
}

/// The bytes of a workload at a fixed time.
fn bytes(settings: serde_json::Value) -> Vec<u8> {
    let workload = Arc::new(Workload::new(&config(settings), "s"));
    let (mut generator, mut out) = (Generator::new(Arc::clone(&workload), 0), Messages::default());
    if workload.is_copy() {
        return std::iter::from_fn(|| generator.copy(10_000)).flatten().collect();
    }
    generator.fill(usize::MAX, |_| Some(1_800_000_000_000_000), &mut out);
    out.bytes
}

#[test]
fn a_seed_decides_every_byte() {
    for scenario in Scenario::ALL {
        let seeded = |seed: u64| bytes(json!({ "scenario": scenario.word(), "rows": 3_000, "seed": seed }));
        assert!(seeded(1) == seeded(1), "{scenario:?}");
        assert!(seeded(1) != seeded(2), "{scenario:?}");
    }
}

#[tokio::test]
async fn a_run_goes_on_where_the_last_one_ended() {
    for scenario in ["mask_filter", "large_transaction", "many_tables"] {
        let config = config(json!({ "scenario": scenario, "rows": 6_000, "transaction": 1_500 }));
        let (state, workload) = (Arc::new(MemoryState::default()), Workload::new(&config, "s"));
        let first = run(source(&config), &state, Some(1)).await.unwrap();
        let before = compare(&workload, &first.batches, 0);
        assert!(before > 0 && before < 6_000 && before.is_multiple_of(1_500), "{scenario}: stopped between transactions: {before}");
        let second = run(source(&config), &state, None).await.unwrap();
        assert_eq!(compare(&workload, &second.batches, before), 6_000 - before, "{scenario}");
        let third = run(source(&config), &state, None).await.unwrap();
        assert_eq!(third.batches.len(), 0, "{scenario}: there is nothing left");
        // More rows go on behind. Another seed is another stream, and so is one that ends within a transaction.
        let more = SyntheticConfig { rows: Some(7_500), ..config.clone() };
        let fourth = run(source(&more), &state, None).await.unwrap();
        assert_eq!(compare(&Workload::new(&more, "s"), &fourth.batches, 6_000), 1_500);
        for other in [SyntheticConfig { seed: 2, ..config.clone() }, SyntheticConfig { rows: Some(7_600), ..config }] {
            assert_eq!(run(source(&other), &state, None).await.unwrap_err().code.id, "REC0004");
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_stopped_is_replaced_as_a_whole() {
    let config = config(json!({ "scenario": "snapshot", "rows": 5_000 }));
    let state = Arc::new(MemoryState::default());
    let first = run(source(&config), &state, Some(2)).await.unwrap();
    assert_eq!(first.marks, ["SnapshotBegin"]);
    let second = run(source(&config), &state, None).await.unwrap();
    assert_eq!(second.marks, ["SnapshotBegin", "SnapshotEnd"]);
    assert!(
        second.batches.iter().all(|batch| batch.commit_lsn.iter().all(|lsn| *lsn == first.batches[0].commit_lsn[0] + 1)),
        "the second attempt's LSN is later"
    );
    assert_eq!(second.batches.iter().map(RowBatch::len).sum::<usize>(), 5_000);
    assert_eq!(run(source(&config), &state, None).await.unwrap().batches.len(), 0);
}

#[test]
fn settings_that_cannot_work_are_found() {
    for (settings, pointers) in [
        (json!({ "scenario": "narrow_insert" }), vec![]),
        (json!({ "scenario": "narrow_insert", "rows": 0, "rate": 0, "transaction": 0 }), vec!["/rows", "/rate", "/transaction"]),
        (json!({ "scenario": "many_tables", "tables": 0 }), vec!["/tables"]),
        (json!({ "scenario": "many_tables", "start": "16/0" }), vec![]),
        (json!({ "scenario": "many_tables", "start": "0/1" }), vec!["/start"]),
        (json!({ "scenario": "many_tables", "start": "later" }), vec!["/start"]),
        (json!({ "scenario": "snapshot" }), vec![""]),
        (json!({ "scenario": "snapshot", "rows": 1, "rate": 1, "tables": 2 }), vec!["/rate", "/tables"]),
    ] {
        let config: SyntheticConfig = serde_json::from_value(settings.clone()).unwrap();
        let mut findings = Findings::default();
        config.check(&mut findings);
        assert_eq!(findings.0.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(), pointers, "{settings}");
    }
}
