//! The stages behind encode, each alone, on batches of the benches' row: operators, the batch stage, NDJSON lines, and
//! reading a pipeline file into a checked graph. `cargo bench --bench stages`.

mod row;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etl_stream::config::{self, Environment};
use etl_stream_operators::batch::{Batcher, Limits, SealReason};
use etl_stream_operators::contract::{BatchSettings, BuildContext, Format, Item, Kind, Output, Peers, Registry, RowBatch};
use etl_stream_operators::encode::Encoder;
use etl_stream_operators::sink::json::{Dialect, RowWriter};
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The binary's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The batch stage's own limits.
const NO_LIMITS: BatchSettings = BatchSettings { max_rows: None, max_bytes: None, max_age: None };
const ROWS: usize = 8_192;

fn batch() -> RowBatch {
    let raw = row::raw(&row::table(&row::columns()), Format::CopyBinary, 0..ROWS, row::binary_row);
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    encoder.push(&raw, &mut out).expect("rows in their documented form");
    encoder.flush(&mut out);
    out.remove(0)
}

fn transform(c: &mut Criterion) {
    let mut group = c.benchmark_group("transform");
    group.throughput(Throughput::Elements(ROWS as u64));
    let batch = batch();
    let registry = Registry::builtin();
    let key = json!({ "plain": "a key of the bench, long enough" });
    let nodes: [(&str, &str, Value); 7] = [
        ("filter/integer", "filter", json!({ "where": "quantity < 50" })),
        ("filter/two", "filter", json!({ "where": "paid AND total > 500000.5" })),
        ("filter/like", "filter", json!({ "where": "note LIKE '%7 of a%'" })),
        ("mask/hmac", "mask", json!({ "columns": { "public.orders.note": { "with": "hmac_sha256", "key": key } } })),
        ("mask/nullify", "mask", json!({ "columns": { "public.orders.note": { "with": "nullify" } } })),
        ("project", "project", json!({ "columns": { "public.orders": { "keep": ["id", "total", "placed"] } } })),
        ("cast", "cast", json!({ "columns": { "public.orders.quantity": "int8" } })),
    ];
    for (name, kind, settings) in nodes {
        let node = registry.get(Kind::Operator, kind).expect("built in");
        let parsed = (node.parse)(settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        let context = BuildContext { pipeline: "p".into(), node: "n".into(), folder: Path::new("/").into(), peers: Peers::default() };
        let mut operator = parsed.operator(&context).expect("the settings are right").batches().expect("it works on batches");
        let table = Arc::new(operator.schema(&batch.table).expect("the table fits"));
        let mut out = Output::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                operator.apply(black_box(batch.clone()), &table, &mut out).expect("the rows fit");
                out.drain().for_each(|sent| drop(black_box(sent)));
            });
        });
    }
}

fn batching(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(ROWS as u64));
    let whole = batch();
    for parts in [1, 12, 128] {
        let size = ROWS / parts;
        let parts: Vec<RowBatch> = (0..parts).map(|part| whole.slice(part * size, size)).collect();
        group.bench_function(format!("{} parts", parts.len()), |b| {
            b.iter(|| {
                let (mut batcher, mut out, now) = (Batcher::new(Limits::new(NO_LIMITS, false)), Vec::new(), Instant::now());
                for part in &parts {
                    batcher.push(Item::Rows(part.clone()), (), now, &mut out).expect("one schema");
                }
                batcher.seal_all(SealReason::End, &mut out).expect("one schema");
                black_box(out)
            });
        });
    }
}

fn lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("ndjson");
    group.throughput(Throughput::Elements(ROWS as u64));
    let batch = batch();
    let names: Vec<String> = batch.table.columns.iter().map(|column| column.name.to_string()).collect();
    for dialect in [Dialect::Postgres, Dialect::Snowflake] {
        let writer = RowWriter::new(&batch.table, &names, dialect);
        let mut out = Vec::new();
        group.bench_function(format!("{dialect:?}"), |b| {
            b.iter(|| {
                out.clear();
                let rows = writer.bind(black_box(&batch));
                for row in 0..batch.len() {
                    rows.write_columns(row, &mut out);
                }
                black_box(&out);
            });
        });
    }
}

fn graph(c: &mut Criterion) {
    let mut group = c.benchmark_group("graph");
    let registry = Registry::builtin();
    for nodes in [10, 100, 1_000] {
        let mut text = String::from("sources:\n  s: { type: postgres, url: { env: URL } }\noperators:\n");
        for n in 0..nodes {
            let input = if n == 0 { "s".to_owned() } else { format!("o{}", n - 1) };
            text.push_str(&format!("  o{n}: {{ type: filter, inputs: [{input}], where: \"a > {n}\" }}\n"));
        }
        text.push_str(&format!("sinks:\n  b: {{ type: blackhole, inputs: [o{}] }}\n", nodes - 1));
        let lookup = |_: &str| Some("postgres://u@h/d".to_owned());
        group.throughput(Throughput::Elements(nodes));
        group.bench_function(format!("{nodes} operators"), |b| {
            b.iter(|| {
                let loaded = config::parse("p.yaml", black_box(&text), Path::new("/p.yaml"), &registry, &Environment::Lookup(&lookup));
                assert!(loaded.graph.is_some(), "the file is right");
            });
        });
    }
}

criterion_group!(benches, transform, batching, lines, graph);
criterion_main!(benches);
