//! Which channel a row goes through: a fixed function of its key, the same in every process and version.
//!
//! Rows of one key share a channel, and so their order. Truncates and rows of tables without a key go
//! through the first.
//!
//! Hot path: columns one after the other, no allocation per value, no copy of a value.

use crate::contract::{Op, RowBatch, Token};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use std::ops::Range;
use std::sync::Arc;

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

/// Rows of a batch that go through one channel, in order: picked, not copied.
#[derive(Clone, Debug)]
pub(super) struct Share {
    batch: RowBatch,
    /// The channel's rows; `None`: all.
    rows: Option<Arc<[u32]>>,
    /// Which of them.
    range: Range<usize>,
}

impl Share {
    /// All rows.
    pub(super) fn whole(batch: RowBatch) -> Self {
        Self { range: 0..batch.len(), rows: None, batch }
    }

    fn picked(batch: RowBatch, rows: Vec<u32>) -> Self {
        Self { batch, range: 0..rows.len(), rows: Some(rows.into()) }
    }

    fn at(&self, nth: usize) -> usize {
        self.rows.as_ref().map_or(nth, |rows| rows[nth] as usize)
    }

    /// The rows' numbers in the batch.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        self.range.clone().map(|nth| self.at(nth))
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The batch they are rows of.
    pub(super) fn batch(&self) -> &RowBatch {
        &self.batch
    }

    /// The last row's token.
    pub(super) fn last_token(&self) -> Option<Token> {
        self.range.end.checked_sub(1).filter(|_| !self.is_empty()).map(|last| self.batch.token(self.at(last)))
    }

    /// How many of them come at or before a token.
    fn until(&self, token: Token) -> usize {
        let (mut low, mut high) = (self.range.start, self.range.end);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.batch.token(self.at(middle)) <= token { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The rows after a token.
    pub(super) fn after(&self, token: Token) -> Self {
        Self { range: self.until(token)..self.range.end, ..self.clone() }
    }

    /// The rows at or before a token.
    pub(super) fn upto(&self, token: Token) -> Self {
        Self { range: self.range.start..self.until(token), ..self.clone() }
    }

    /// Without some of the batch's rows, given in order.
    pub(super) fn without(&self, gone: &[u32]) -> Self {
        let kept = self.rows().map(|row| row as u32).filter(|row| gone.binary_search(row).is_err()).collect();
        Self::picked(self.batch.clone(), kept)
    }

    /// A copy of the rows.
    pub(super) fn copy(&self) -> RowBatch {
        match &self.rows {
            Some(rows) => self.batch.take(&rows[self.range.clone()]),
            None => self.batch.slice(self.range.start, self.range.len()),
        }
    }
}

/// The rows of each channel.
pub(super) fn split(batch: &RowBatch, hashes: &[u64], channels: usize) -> Vec<Share> {
    if channels <= 1 {
        return vec![Share::whole(batch.clone())];
    }
    let mut rows: Vec<Vec<u32>> = (0..channels).map(|_| Vec::with_capacity(hashes.len() / channels * 9 / 8)).collect();
    for (row, hash) in hashes.iter().enumerate() {
        let shard = if batch.ops[row] == Op::Truncate.letter() { 0 } else { (hash % channels as u64) as usize };
        rows[shard].push(row as u32);
    }
    rows.into_iter().map(|rows| Share::picked(batch.clone(), rows)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, insert, items};
    use super::*;
    use arrow::array::{Int16Array, Int64Array, StringArray};

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

    #[test]
    fn shares_are_the_rows_in_order() {
        let changes: Vec<_> = (0..40).map(|at| insert(1 + at / 7, at % 7, at as i32 % 11, "x")).collect();
        let whole = batch(&items(), &changes);
        let keys = hashes(&whole, &[0]);
        for channels in 1..5 {
            let shares = split(&whole, &keys, channels);
            let mut all: Vec<usize> = shares.iter().flat_map(Share::rows).collect();
            all.sort_unstable();
            assert_eq!(all, (0..40).collect::<Vec<_>>());
            for share in &shares {
                let copy = share.copy();
                let tokens: Vec<Token> = share.rows().map(|row| whole.token(row)).collect();
                assert_eq!((0..copy.len()).map(|row| copy.token(row)).collect::<Vec<_>>(), tokens);
                assert!(tokens.is_sorted());
                assert_eq!((share.len(), share.last_token()), (tokens.len(), tokens.last().copied()));
                for token in [Token::ZERO, Token::new(1, 3), Token::new(3, 6), Token::end_of(4), Token::end_of(9)] {
                    assert_eq!(share.after(token).copy(), copy.after(token));
                    assert_eq!(share.upto(token).len() + share.after(token).len(), share.len());
                    assert!(share.upto(token).last_token().is_none_or(|last| last <= token));
                }
                let gone: Vec<u32> = share.rows().map(|row| row as u32).filter(|row| row % 3 == 0).collect();
                let less = share.after(Token::new(2, 0)).without(&gone);
                assert!(less.rows().all(|row| row % 3 > 0) && less.copy().len() == less.len());
            }
        }
    }
}
