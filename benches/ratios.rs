//! Decode and encode against the usual way, and against a copy, within one run: what `docs/benchmarks.md` says of them.
//!
//! ```text
//! cargo bench --bench ratios [-- ROUNDS]      a table on stderr, JSON lines on stdout
//! ```
//! Contenders take turns; each round gives one ratio of this thread's CPU time, and the median of them is the result.
//! Rows are checked to be the same on both sides first. Allocations are counted by the allocator.

mod boxed;
mod row;

use arrow::array::{Array, AsArray};
use etl_stream::bench::{Counting, allocations};
use etl_stream_operators::batch::{Batcher, Limits, Sealed};
use etl_stream_operators::contract::{BatchSettings, ColumnType, Format, Item, RawRows, RowBatch};
use etl_stream_operators::encode::Encoder;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The binary's own allocator, counted.
#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

/// Rows of a chunk: what one read of the stream holds at 364 bytes a row.
const CHUNK: usize = 700;
/// Chunks that one activation of a busy worker takes: four MiB.
const BURST: usize = 16;
/// The batch stage's own limits.
const NO_LIMITS: BatchSettings = BatchSettings { max_rows: None, max_bytes: None, max_age: None };
const CHUNKS: usize = 16 * BURST;

/// CPU time of this thread.
#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all the call writes to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Nanoseconds of CPU a row of something that handles `rows`, repeated for a tenth of a second.
fn cost(rows: usize, work: &mut dyn FnMut()) -> f64 {
    let (start, mut times) = (cpu(), 0);
    loop {
        work();
        times += 1;
        let spent = cpu() - start;
        if spent >= Duration::from_millis(100) {
            return spent.as_nanos() as f64 / (rows * times) as f64;
        }
    }
}

fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// Two contenders in turn; says and gives the median of `other / ours`.
fn versus(rounds: usize, name: &str, rows: usize, other: &mut dyn FnMut(), ours: &mut dyn FnMut()) {
    let (mut ratios, mut others, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (a, b) = (cost(rows, other), cost(rows, ours));
        // the first warms up
        if round > 0 {
            ratios.push(a / b);
            others.push(a);
            own.push(b);
        }
    }
    let ((low, ratio, high), (_, other, _), (_, own, _)) = (median(&mut ratios), median(&mut others), median(&mut own));
    eprintln!("{name:<34} {ratio:>7.2} ({low:.2} to {high:.2})   {other:>8.1} ns against {own:>7.1} ns a row");
    println!(
        r#"{{"bench":"ratios","name":"{name}","ratio":{ratio:.3},"low":{low:.3},"high":{high:.3},"other_ns":{other:.1},"own_ns":{own:.1},"rows_per_second":{:.0},"rounds":{rounds}}}"#,
        1e9 / own
    );
}

fn chunks(columns: &[(&str, ColumnType)], format: Format, values: impl Fn(usize) -> Vec<Vec<u8>>) -> Vec<RawRows> {
    let table = row::table(columns);
    (0..CHUNKS).map(|chunk| row::raw(&table, format, chunk * CHUNK..(chunk + 1) * CHUNK, &values)).collect()
}

fn give(sealed: Sealed<()>, each: &mut impl FnMut(RowBatch)) {
    if let Item::Rows(batch) = sealed.item {
        each(batch);
    }
}

/// Decoded and encoded, a burst at a time, and nothing after.
fn encoded(chunks: &[RawRows], encoder: &mut Encoder) {
    for burst in chunks.chunks(BURST) {
        let mut batches = Vec::new();
        burst.iter().for_each(|raw| encoder.push(raw, &mut batches).expect("rows in their documented form"));
        encoder.flush(&mut batches);
        black_box(batches);
    }
}

/// Everything up to sealed batches, as the dataflow does it: bursts of chunks, flushed, batched; in pieces, as for the
/// `snowflake` and `blackhole` sinks, or whole, as for the others.
fn sealed(chunks: &[RawRows], encoder: &mut Encoder, in_pieces: bool, mut each: impl FnMut(RowBatch)) {
    let (mut batches, mut out) = (Vec::new(), Vec::<Sealed<()>>::new());
    let mut batcher = Batcher::new(Limits::new(NO_LIMITS, in_pieces));
    let now = Instant::now();
    for burst in chunks.chunks(BURST) {
        burst.iter().for_each(|raw| encoder.push(raw, &mut batches).expect("rows in their documented form"));
        encoder.flush(&mut batches);
        batches.drain(..).for_each(|batch| batcher.push(Item::Rows(batch), (), now, &mut out).expect("one schema"));
        out.drain(..).for_each(|sealed| give(sealed, &mut each));
    }
    batcher.seal_all(etl_stream_operators::batch::SealReason::End, &mut out).expect("one schema");
    out.drain(..).for_each(|sealed| give(sealed, &mut each));
}

/// The same values on both sides; documents may be spelled with other white space.
fn check(chunks: &[RawRows]) {
    let mut ours = Vec::new();
    sealed(chunks, &mut Encoder::new(), true, |batch| ours.push(batch));
    let ours = RowBatch::concat(ours).expect("one schema");
    let mut at = 0;
    for raw in chunks {
        let theirs = boxed::encode(raw, &boxed::decode(raw));
        for (column, array) in theirs.iter().enumerate() {
            let own = ours.columns[column].slice(at, array.len());
            if raw.table.columns[column].ty == ColumnType::Jsonb {
                let parse = |text: Option<&str>| text.map(|text| serde_json::from_str::<serde_json::Value>(text).expect("a document"));
                own.as_string::<i32>().iter().zip(array.as_string::<i32>()).for_each(|(a, b)| assert_eq!(parse(a), parse(b)));
            } else {
                assert_eq!(&own, array, "column {column}");
            }
        }
        at += raw.rows.len();
    }
    assert_eq!(ours.len(), at);
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7);
    let columns = row::columns();
    let rows = CHUNKS * CHUNK;
    let text = chunks(&columns, Format::PgOutput, row::text_row);
    let binary = chunks(&columns, Format::CopyBinary, row::binary_row);
    check(&text);

    let mut encoder = Encoder::new();
    let reference = |raws: &[RawRows]| raws.iter().for_each(|raw| drop(black_box(boxed::encode(raw, &boxed::decode(raw)))));
    versus(rounds, "ten columns, text", rows, &mut || reference(&text), &mut || {
        sealed(&text, &mut encoder, true, |batch| drop(black_box(batch)));
    });
    versus(rounds, "ten columns, text, whole batches", rows, &mut || reference(&text), &mut || {
        sealed(&text, &mut encoder, false, |batch| drop(black_box(batch)));
    });
    let (mut encoder, mut of_binary) = (Encoder::new(), Encoder::new());
    versus(
        rounds,
        "ten columns, text against binary",
        rows,
        &mut || sealed(&text, &mut encoder, true, |b| drop(black_box(b))),
        &mut || {
            sealed(&binary, &mut of_binary, true, |batch| drop(black_box(batch)));
        },
    );

    // A document, against copying it out of the stream and checking that it is UTF-8.
    let details = chunks(&columns[7..8], Format::PgOutput, |n| vec![row::text_row(n).swap_remove(7)]);
    let mut encoder = Encoder::new();
    let mut copy = || {
        for burst in details.chunks(BURST) {
            let (mut values, mut offsets) = (Vec::<u8>::with_capacity(BURST * CHUNK * 128), Vec::with_capacity(BURST * CHUNK));
            for raw in burst {
                for row in &raw.rows {
                    // tag, relation, 'N', column count, kind, length
                    values.extend_from_slice(&raw.bytes[row.start as usize + 13..row.end as usize]);
                    offsets.push(values.len() as i32);
                }
            }
            std::str::from_utf8(&values).expect("UTF-8");
            black_box((values, offsets));
        }
    };
    let mut ours = || encoded(&details, &mut encoder);
    // how much more than a copy: ours is the first here
    versus(rounds, "jsonb against a checked copy", rows, &mut ours, &mut copy);
    // The row's own parts, its message, order and op, are not the column's: a table with it, less the same table without.
    let rest: Vec<_> = columns.iter().enumerate().filter(|(at, _)| *at != 7).map(|(_, column)| column.clone()).collect();
    let without = chunks(&rest, Format::PgOutput, |n| {
        let mut values = row::text_row(n);
        values.remove(7);
        values
    });
    let (mut encoder, mut other) = (Encoder::new(), Encoder::new());
    let mut shares = Vec::new();
    for round in 0..=rounds {
        let whole = cost(rows, &mut || encoded(&text, &mut encoder));
        let less = cost(rows, &mut || encoded(&without, &mut other));
        let copied = cost(rows, &mut copy);
        if round > 0 {
            shares.push((whole - less) / copied);
        }
    }
    let (low, ratio, high) = median(&mut shares);
    eprintln!("{:<34} {ratio:>7.2} ({low:.2} to {high:.2})", "a jsonb column among ten, of a copy");
    println!(
        r#"{{"bench":"ratios","name":"a jsonb column among ten, of a checked copy","ratio":{ratio:.3},"low":{low:.3},"high":{high:.3},"rounds":{rounds}}}"#
    );

    let tags = chunks(&columns[9..], Format::PgOutput, |n| vec![row::text_row(n).swap_remove(9)]);
    let mut encoder = Encoder::new();
    let mut through_values = || {
        for burst in tags.chunks(BURST) {
            let mut out = String::new();
            for raw in burst {
                for row in &raw.rows {
                    let text = std::str::from_utf8(&raw.bytes[row.start as usize + 13..row.end as usize]).expect("UTF-8");
                    out.push_str(&serde_json::to_string(&boxed::array(text)).expect("strings"));
                }
            }
            black_box(out);
        }
    };
    let mut direct = || encoded(&tags, &mut encoder);
    versus(rounds, "text[] to JSON", rows, &mut through_values, &mut direct);

    let mut encoder = Encoder::new();
    sealed(&text, &mut encoder, true, drop);
    allocations::start();
    let before = allocations::counted().unwrap_or(0);
    sealed(&text, &mut encoder, true, drop);
    let each = (allocations::counted().unwrap_or(0) - before) as f64 / rows as f64;
    eprintln!("{:<34} {each:>7.4} a row", "allocations, to sealed batches");
    println!(r#"{{"bench":"ratios","name":"allocations","allocations_per_row":{each:.5}}}"#);
}
