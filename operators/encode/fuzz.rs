//! Fuzz targets: rows of any table and values of any type, in both forms.

use super::output::output;
use super::{BROKEN_MESSAGE, Encoder, TUPLE_DOES_NOT_FIT};
use crate::contract::{CodedError, ColumnType, Format, RowBatch};
use crate::fuzzing::{Feed, RELATION, check, families, insert, raw, table};
use arrow::array::{Array, AsArray};

fn encoded(raw: &crate::contract::RawRows) -> Result<Vec<RowBatch>, CodedError> {
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    encoder.push(raw, &mut out)?;
    encoder.flush(&mut out);
    out.iter().for_each(check);
    Ok(out)
}

/// A table that the input chooses, and messages or tuples of it.
pub(crate) fn pgoutput_rows(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let families = families();
    let (columns, copy) = (feed.byte() % 7, feed.byte() & 1 == 1);
    let types = (0..columns).map(|_| {
        let choice = feed.byte();
        let ty = families[usize::from(choice & 0x7f) % families.len()].clone();
        if choice & 0x80 == 0 { ty } else { ColumnType::Array(Box::new(ty)) }
    });
    let table = table(types.collect());
    let mut messages = Vec::new();
    while let Some(piece) = feed.piece() {
        let mut message = piece.to_vec();
        // the source has looked at the relation already
        if let Some(relation) = message.get_mut(1..5).filter(|_| !copy) {
            relation.copy_from_slice(&RELATION.to_be_bytes());
        }
        messages.push(message);
    }
    let format = if copy { Format::CopyBinary } else { Format::PgOutput };
    let together = encoded(&raw(&table, format, &messages));
    // each message alone is accepted exactly when all are
    let alone: Result<Vec<Vec<RowBatch>>, CodedError> = messages.iter().map(|m| encoded(&raw(&table, format, &[m]))).collect();
    match (together, alone) {
        (Ok(together), Ok(alone)) => {
            let rows = |batches: &[RowBatch]| batches.iter().map(RowBatch::len).sum::<usize>();
            assert_eq!(rows(&together), alone.iter().map(|batches| rows(batches)).sum::<usize>());
            for message in alone {
                assert!(rows(&message) <= 2);
            }
        }
        (Err(_), Err(_)) => {}
        (together, alone) => panic!("{:?} {:?}", together.err(), alone.err()),
    }
}

fn one(ty: &ColumnType, kind: u8, bytes: &[u8]) -> Result<RowBatch, CodedError> {
    let messages = [insert(kind, &[Some(bytes)])];
    let mut batches = encoded(&raw(&table(vec![ty.clone()]), Format::PgOutput, &messages))?;
    assert_eq!((batches.len(), batches[0].len()), (1, 1));
    Ok(batches.remove(0))
}

/// A value in one form. Accepted in binary, it has a text, and that text gives the same column. Accepted as an
/// array, it is JSON.
fn forms(ty: &ColumnType, kind: u8, bytes: &[u8]) {
    let batch = match one(ty, kind, bytes) {
        Ok(batch) => batch,
        Err(error) => {
            assert!(![TUPLE_DOES_NOT_FIT, BROKEN_MESSAGE].contains(&error.code), "the message itself is whole: {error:?}");
            return;
        }
    };
    if let ColumnType::Array(element) = ty
        && !matches!(**element, ColumnType::Json | ColumnType::Jsonb)
    {
        let text = batch.columns[0].as_string::<i32>().value(0);
        assert!(!text.contains(['\n', '\r', '\t']), "one line: {text}");
        serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    }
    if kind == b'b' {
        let mut text = Vec::new();
        output(ty, bytes, &mut text).expect("what a column takes has a text");
        let again = one(ty, b't', &text).unwrap_or_else(|e| panic!("{e:?}: {}", String::from_utf8_lossy(&text)));
        assert_eq!(batch.exact, again.exact, "{ty:?} {}", String::from_utf8_lossy(&text));
        assert_eq!(batch.columns[0].to_data(), again.columns[0].to_data(), "{ty:?} {}", String::from_utf8_lossy(&text));
    }
}

/// The first byte chooses among types, its highest bit the form.
fn either(types: &[ColumnType], bytes: &[u8]) {
    let Some((choice, value)) = bytes.split_first() else { return };
    let ty = &types[usize::from(choice & 0x7f) % types.len()];
    forms(ty, if choice & 0x80 == 0 { b't' } else { b'b' }, value);
}

fn arrays() -> Vec<ColumnType> {
    let nested = ColumnType::Array(Box::new(ColumnType::Int4));
    families().into_iter().chain([nested]).map(|ty| ColumnType::Array(Box::new(ty))).collect()
}

/// Arrays in text form.
pub(crate) fn array_text(bytes: &[u8]) {
    let Some((choice, value)) = bytes.split_first() else { return };
    let types = arrays();
    forms(&types[usize::from(*choice) % types.len()], b't', value);
}

/// Arrays in binary form.
pub(crate) fn array_binary(bytes: &[u8]) {
    let Some((choice, value)) = bytes.split_first() else { return };
    let types = arrays();
    forms(&types[usize::from(*choice) % types.len()], b'b', value);
}

/// Decimals.
pub(crate) fn numeric(bytes: &[u8]) {
    use ColumnType::{Numeric, NumericText};
    let types = [
        NumericText,
        Numeric { precision: 38, scale: 0 },
        Numeric { precision: 18, scale: 4 },
        Numeric { precision: 5, scale: 2 },
        Numeric { precision: 38, scale: 37 },
    ];
    either(&types, bytes);
}

/// Dates, times and intervals.
pub(crate) fn temporal(bytes: &[u8]) {
    use ColumnType::{Date, Interval, Time, TimeTz, Timestamp, TimestampTz};
    either(&[Date, Time, TimeTz, Timestamp, TimestampTz, Interval], bytes);
}

/// Everything else.
pub(crate) fn scalar(bytes: &[u8]) {
    use ColumnType::{Bool, Bytea, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Oid, Other, Text, Uuid};
    either(&[Bool, Int2, Int4, Int8, Oid, Float4, Float8, Text, Bytea, Uuid, Json, Jsonb, Other], bytes);
}
