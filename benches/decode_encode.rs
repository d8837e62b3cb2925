//! Decode and encode alone: rows in memory to Arrow batches, one core, no I/O.
//!
//! The row is the one of [`row`]. Each iteration is what one chunk of the stream brings: 8,192 rows
//! of one table, pushed at once and flushed. `cargo bench --bench decode_encode`.

mod row;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etl_stream_operators::contract::{Format, RawRows};
use etl_stream_operators::encode::Encoder;
use row::{binary_row, columns, raw, table, text_row};
use std::hint::black_box;

/// The binary's own allocator: it keeps the pages of a batch for the next one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 8_192;

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_encode");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut run = |name: &str, raw: &RawRows| {
        let (mut encoder, mut out) = (Encoder::new(), Vec::new());
        group.bench_function(name, |b| {
            b.iter(|| {
                encoder.push(black_box(raw), &mut out).expect("rows in their documented form");
                encoder.flush(&mut out);
                black_box(&out);
                out.clear();
            });
        });
    };
    let all = columns();
    let of = |columns, format, row: &dyn Fn(usize) -> Vec<Vec<u8>>| raw(&table(columns), format, 0..ROWS, row);
    run("row/text", &of(&all, Format::PgOutput, &text_row));
    run("row/binary", &of(&all, Format::CopyBinary, &binary_row));
    for (at, column) in all.iter().enumerate() {
        let one = std::slice::from_ref(column);
        run(&format!("column/text/{}", column.0), &of(one, Format::PgOutput, &|n| vec![text_row(n).swap_remove(at)]));
        run(&format!("column/binary/{}", column.0), &of(one, Format::CopyBinary, &|n| vec![binary_row(n).swap_remove(at)]));
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
