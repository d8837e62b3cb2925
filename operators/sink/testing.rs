//! Batches, deliveries and acknowledgements for the sinks' tests.

use crate::contract::{
    Ack, AckReport, Cells, Column, ColumnType, Deliveries, Delivery, Item, MemoryState, PgType, PipelineStatus, ReplicaIdentity, RowBatch,
    TableSchema, WriterContext,
};
use arrow::array::{Int64Array, StringArray};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// A table of `id bigint` and `note text`.
pub(super) fn table(schema: &str, name: &str) -> Arc<TableSchema> {
    let column = |name: &str, ty: ColumnType, pg: &str| Column {
        name: name.into(),
        ty,
        pg_type: PgType { oid: 0, modifier: -1, name: pg.into() },
        nullable: true,
        key: (name == "id").then_some(0),
        missing: None,
        number: None,
        filled: false,
    };
    Arc::new(TableSchema {
        source: "shop".into(),
        id: 1,
        schema: schema.into(),
        name: name.into(),
        columns: vec![column("id", ColumnType::Int8, "bigint"), column("note", ColumnType::Text, "text")],
        identity: ReplicaIdentity::Default,
        storage: None,
    })
}

/// Rows with tokens `(lsn, ordinals)`, whose ids are `lsn * 1000 + ordinal`.
pub(super) fn batch(schema: &str, name: &str, lsn: u64, ordinals: Range<u64>) -> RowBatch {
    let rows = ordinals.clone().count();
    RowBatch {
        table: table(schema, name),
        columns: vec![
            Arc::new(ordinals.clone().map(|ordinal| (lsn * 1000 + ordinal) as i64).collect::<Int64Array>()),
            Arc::new(ordinals.clone().map(|ordinal| Some(format!("row {ordinal}"))).collect::<StringArray>()),
        ],
        ops: vec![b'i'; rows].into(),
        commit_lsn: vec![lsn; rows].into(),
        ordinal: ordinals.collect(),
        commit_time: vec![lsn as i64; rows].into(),
        unchanged: Cells::default(),
        exact: Cells::default(),
    }
}

/// The deliveries that were acknowledged, by their place in what [`deliver`] got.
#[derive(Clone, Default)]
pub(super) struct Acks(Arc<Mutex<Vec<u64>>>);

impl AckReport for Acks {
    fn durable(&self, id: u64) {
        self.0.lock().expect("no test panics with it").push(id);
    }
}

impl Acks {
    pub(super) fn durable(&self) -> Vec<u64> {
        let mut acks = self.0.lock().expect("no test panics with it").clone();
        acks.sort_unstable();
        acks
    }
}

/// A queue of these items, closed.
pub(super) fn deliver(items: Vec<Item>, acks: &Acks) -> Deliveries {
    let (sender, deliveries) = mpsc::unbounded_channel();
    for (id, item) in items.into_iter().enumerate() {
        let ack = Ack::new(id as u64, Arc::new(acks.clone()));
        let delivery = match item {
            Item::Rows(batch) => Delivery::Rows { batch, ack },
            Item::Mark(mark) => Delivery::Mark { mark, ack },
        };
        sender.send(delivery).expect("the receiver is here");
    }
    deliveries
}

/// A writer's context: pipeline `p`, sink `out`, source `shop`.
pub(super) fn context() -> WriterContext {
    WriterContext {
        pipeline: "p".into(),
        sink: "out".into(),
        source: "shop".into(),
        worker: 0,
        workers: 1,
        process: 0,
        processes: 1,
        state: Arc::new(MemoryState::default()),
        status: Arc::new(PipelineStatus::default()),
    }
}
