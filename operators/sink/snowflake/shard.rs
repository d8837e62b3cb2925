//! Which channel a row goes through: a fixed function of its key, the same in every process and version.
//!
//! Rows of one key share a channel, and so their order. Truncates and rows of tables without a key go
//! through the first.
//!
//! Hot path: columns one after the other, no allocation per value.

use crate::contract::{Op, RowBatch};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};

/// One step of the mix (the finalizer of SplitMix64): every bit of the input reaches every bit of the result.
fn mix(hash: u64, value: u64) -> u64 {
    let mut x = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash, u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
    }
    let mut tail = [0; 8];
    let rest = chunks.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(tail)), bytes.len() as u64)
}

/// Folds one column into the rows' hashes. Integers of any width hash alike, so that a widened key stays
/// in its channel.
fn add(array: &ArrayRef, hashes: &mut [u64]) {
    macro_rules! each {
        ($values:expr, $value:ident => $as_u64:expr) => {
            for (hash, $value) in hashes.iter_mut().zip($values) {
                *hash = mix(*hash, $as_u64);
            }
        };
    }
    match array.data_type() {
        DataType::Boolean => each!(array.as_boolean().values().iter(), v => u64::from(v)),
        DataType::Int16 => each!(array.as_primitive::<Int16Type>().values(), v => i64::from(*v) as u64),
        DataType::Int32 => each!(array.as_primitive::<Int32Type>().values(), v => i64::from(*v) as u64),
        DataType::Int64 => each!(array.as_primitive::<Int64Type>().values(), v => *v as u64),
        DataType::Date32 => each!(array.as_primitive::<Date32Type>().values(), v => i64::from(*v) as u64),
        DataType::Time64(TimeUnit::Microsecond) => each!(array.as_primitive::<Time64MicrosecondType>().values(), v => *v as u64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            each!(array.as_primitive::<TimestampMicrosecondType>().values(), v => *v as u64);
        }
        // Keys compare 0 and -0 as equal.
        DataType::Float32 => each!(array.as_primitive::<Float32Type>().values(), v => (f64::from(*v) + 0.0).to_bits()),
        DataType::Float64 => each!(array.as_primitive::<Float64Type>().values(), v => (*v + 0.0).to_bits()),
        DataType::Decimal128(..) => {
            each!(array.as_primitive::<Decimal128Type>().values(), v => mix(*v as u64, (*v >> 64) as u64));
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = mix_bytes(*hash, texts.value(row).as_bytes());
            }
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = mix_bytes(*hash, values.value(row));
            }
        }
        // No column type is carried by another; its rows share a channel.
        _ => {}
    }
}

/// The hash of each row's key.
pub(super) fn hashes(batch: &RowBatch, key: &[usize]) -> Vec<u64> {
    let mut hashes = vec![0; batch.len()];
    for column in key {
        if let Some(array) = batch.columns.get(*column) {
            add(array, &mut hashes);
        }
    }
    hashes
}

/// The rows of each channel, in order; `None` for a channel without any.
pub(super) fn split(batch: RowBatch, hashes: &[u64], channels: usize) -> Vec<Option<RowBatch>> {
    if channels <= 1 {
        return vec![Some(batch)];
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); channels];
    for (row, hash) in hashes.iter().enumerate() {
        let shard = if batch.ops[row] == Op::Truncate.letter() { 0 } else { (hash % channels as u64) as usize };
        rows[shard].push(row as u32);
    }
    rows.iter().map(|rows| (!rows.is_empty()).then(|| batch.take(rows))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int16Array, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn fixed_for_ever() {
        let hash = |array: ArrayRef| {
            let mut hashes = vec![0; array.len()];
            add(&array, &mut hashes);
            hashes
        };
        let narrow = hash(Arc::new(Int16Array::from(vec![1, -1])));
        assert_eq!(narrow, hash(Arc::new(Int64Array::from(vec![1, -1]))));
        // Changing these sends rows of running pipelines through other channels: never do.
        assert_eq!(narrow, [0x910a_2dec_8902_5cc1, 0xe4d9_7177_1b65_2c20]);
        let texts = hash(Arc::new(StringArray::from(vec!["", "a", "12345678", "123456789"])));
        assert_eq!(texts.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(texts[1], hash(Arc::new(StringArray::from(vec!["a"])))[0]);
    }
}
