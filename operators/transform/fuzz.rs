//! Fuzz targets: predicates, and texts cast to a type.

use super::parse::{ColumnBuilder, Fit};
use super::predicate::Predicate;
use super::text::Texts;
use crate::contract::{ColumnType, Format, RowBatch};
use crate::encode::Encoder;
use crate::fuzzing::{families, insert, raw, table};
use arrow::array::Array;
use std::cell::OnceCell;

/// Rows of every family: common values, then those that stand as exact text or null, then values that were not sent.
fn sample() -> RowBatch {
    let texts: [&[&str]; 22] = [
        &["t", "f"],
        &["7", "-32768"],
        &["7", "2147483647"],
        &["7", "-9223372036854775808"],
        &["7", "4294967295"],
        &["0.1", "NaN"],
        &["0.1", "-Infinity"],
        &["1.50", "NaN"],
        &["1.5", "NaN"],
        &["1.5", "100000000000000000000.000001"],
        &["a", "é_%\\"],
        &["\\x00ff", "\\x"],
        &["2024-02-29", "infinity"],
        &["12:00:00", "24:00:00"],
        &["12:00:00+00", "00:00:00+15:59:59"],
        &["2024-02-29 12:00:00", "0044-03-15 00:00:00 BC"],
        &["2024-02-29 12:00:00+00", "-infinity"],
        &["1 day", "-1 mons"],
        &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
        &["{}", "[1]"],
        &["{}", "[1]"],
        &["x", ""],
    ];
    let schema = table(families());
    let row = |at: usize| insert(b't', &texts.map(|values| Some(values[at].as_bytes())));
    let mut unsent = insert(b't', &[None; 22]);
    unsent.iter_mut().skip(8).for_each(|kind| *kind = b'u');
    let rows = [row(0), row(1), insert(b't', &[None; 22]), unsent];
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    encoder.push(&raw(&schema, Format::PgOutput, &rows), &mut out).expect("the sample is right");
    encoder.flush(&mut out);
    out.remove(0)
}

thread_local! {
    static SAMPLE: OnceCell<RowBatch> = const { OnceCell::new() };
}

/// A predicate over columns `c0` to `c21`: it is refused, or decides each row the same alone and among others.
pub(crate) fn predicate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(parsed) = Predicate::parse(text) else { return };
    SAMPLE.with(|batch| {
        let batch = batch.get_or_init(sample);
        let Ok(mut bound) = parsed.bind(&batch.table) else { return };
        let truths = bound.eval(batch);
        assert_eq!(truths.len(), batch.len());
        for (row, truth) in truths.iter().enumerate() {
            assert!((1..8).contains(truth));
            let alone = bound.eval(&batch.slice(row, 1));
            assert_eq!(alone, [*truth], "row {row} of {text}");
            bound.reuse(alone);
        }
    });
}

/// A text cast to a type: what is held has a text that is held again, the same.
pub(crate) fn cast(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let families = families();
    let ty = &families[usize::from(choice & 0x7f) % families.len()];
    let utc = choice & 0x80 != 0;
    let read = |text: &[u8]| {
        let mut builder = ColumnBuilder::new(ty, 1, utc);
        let fit = builder.push(text);
        let array = builder.finish();
        assert_eq!(array.len(), usize::from(fit != Fit::Refused));
        (fit, array)
    };
    let (fit, array) = read(text);
    if fit != Fit::Held {
        return;
    }
    let mut written = Vec::new();
    Texts::new(ty, &array).write(0, &mut written);
    if matches!(ty, ColumnType::Bool) {
        assert!([&b"true"[..], b"false"].contains(&&*written));
    }
    let (again, same) = read(&written);
    assert_eq!(again, Fit::Held, "{ty:?} {}", String::from_utf8_lossy(&written));
    assert_eq!(array.to_data(), same.to_data(), "{ty:?} {}", String::from_utf8_lossy(&written));
}
