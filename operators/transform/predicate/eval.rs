//! Evaluates a bound predicate over a batch: one kernel per column type, one byte of result per row.
//!
//! Hot path: no allocation per value, no dyn call per value; result buffers are reused. Cells whose
//! value stands as exact text, or is unknown, are few and are done again one by one afterwards.

use super::bind::{Node, Pair, Test};
use super::expr::Relation;
use super::literal::{Range, float_key};
use super::truth::{AND, IS_FALSE, IS_NULL, IS_TRUE, NOT, OR};
use super::{FALSE, NULL, TRUE, Truth};
use crate::contract::{ColumnType, RowBatch};
use crate::transform::decimal::{Decimal, Number, compare_scaled};
use crate::transform::temporal::{self, DAY, FUTURE, PAST};
use crate::transform::text::Texts;
use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::array::{GenericByteArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, ByteArrayType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use std::cmp::Ordering;

/// Buffers for results, used again.
#[derive(Default)]
pub(super) struct Pool {
    truths: Vec<Vec<Truth>>,
    keys: Vec<Vec<i128>>,
}

impl Pool {
    fn take(&mut self, length: usize, value: Truth) -> Vec<Truth> {
        let mut buffer = self.truths.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(length, value);
        buffer
    }

    pub(super) fn give(&mut self, buffer: Vec<Truth>) {
        self.truths.push(buffer);
    }
}

/// Evaluates a node for every row.
pub(super) fn eval(node: &Node, batch: &RowBatch, pool: &mut Pool) -> Vec<Truth> {
    match node {
        Node::Always(truth) => pool.take(batch.len(), *truth),
        Node::Leaf { column, test } => {
            let mut out = pool.take(batch.len(), NULL);
            leaf(test, &batch.columns[*column], &mut out);
            again(test, *column, batch, &mut out);
            out
        }
        Node::Columns { left, right, relation, pair } => {
            let mut out = pool.take(batch.len(), NULL);
            Sides { batch, left: *left, right: *right, relation: *relation, pair: *pair }.eval(&mut out, pool);
            out
        }
        Node::Not(inner) => map(inner, &NOT, batch, pool),
        Node::IsNull(inner) => map(inner, &IS_NULL, batch, pool),
        Node::IsBool(inner, value) => map(inner, if *value { &IS_TRUE } else { &IS_FALSE }, batch, pool),
        Node::And(parts) => fold(parts, &AND, TRUE, batch, pool),
        Node::Or(parts) => fold(parts, &OR, FALSE, batch, pool),
    }
}

fn map(inner: &Node, table: &[Truth; 8], batch: &RowBatch, pool: &mut Pool) -> Vec<Truth> {
    let mut out = eval(inner, batch, pool);
    for truth in &mut out {
        *truth = table[usize::from(*truth & 7)];
    }
    out
}

fn fold(parts: &[Node], table: &[Truth; 64], empty: Truth, batch: &RowBatch, pool: &mut Pool) -> Vec<Truth> {
    let Some((first, rest)) = parts.split_first() else { return pool.take(batch.len(), empty) };
    let mut out = eval(first, batch, pool);
    for part in rest {
        let other = eval(part, batch, pool);
        for (a, b) in out.iter_mut().zip(&other) {
            *a = table[usize::from((*a & 7) << 3 | (b & 7))];
        }
        pool.give(other);
    }
    out
}

const fn truth(holds: bool) -> Truth {
    if holds { TRUE } else { FALSE }
}

/// Runs a test over values, then sets the nulls.
fn each<T: Copy>(values: &[T], array: &ArrayRef, out: &mut [Truth], holds: impl Fn(T) -> bool) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = truth(holds(*value));
    }
    nulls(array, out);
}

fn nulls(array: &ArrayRef, out: &mut [Truth]) {
    if let Some(nulls) = array.nulls().filter(|n| n.null_count() > 0) {
        for (out, valid) in out.iter_mut().zip(nulls) {
            if !valid {
                *out = NULL;
            }
        }
    }
}

fn values<P: ArrowPrimitiveType>(array: &ArrayRef) -> &[P::Native] {
    let array: &PrimitiveArray<P> = array.as_primitive();
    array.values()
}

fn leaf(test: &Test, array: &ArrayRef, out: &mut [Truth]) {
    use arrow::datatypes::DataType as D;
    if let Test::IsNull = test {
        for (row, out) in out.iter_mut().enumerate() {
            *out = truth(array.is_null(row));
        }
        return;
    }
    match array.data_type() {
        D::Boolean => {
            for (out, value) in out.iter_mut().zip(array.as_boolean().values()) {
                *out = truth(test.key(i128::from(value), true));
            }
            nulls(array, out);
        }
        D::Int16 => keys(test, values::<Int16Type>(array), array, out, i64::from),
        D::Int32 => keys(test, values::<Int32Type>(array), array, out, i64::from),
        D::Date32 => keys(test, values::<Date32Type>(array), array, out, i64::from),
        D::Int64 => keys(test, values::<Int64Type>(array), array, out, |v| v),
        D::Time64(_) => keys(test, values::<Time64MicrosecondType>(array), array, out, |v| v),
        D::Timestamp(..) => keys(test, values::<TimestampMicrosecondType>(array), array, out, |v| v),
        D::Float32 => keys(test, values::<Float32Type>(array), array, out, |v| float_key(f64::from(v))),
        D::Float64 => keys(test, values::<Float64Type>(array), array, out, float_key),
        D::Decimal128(..) => each(values::<Decimal128Type>(array), array, out, |v| test.key(v, true)),
        D::Binary => bytes(test, array.as_binary::<i32>(), out),
        _ => bytes(test, array.as_string::<i32>(), out),
    }
}

/// Keys of 64 bits: the range is narrowed to them once.
fn keys<T: Copy>(test: &Test, values: &[T], array: &ArrayRef, out: &mut [Truth], key: impl Fn(T) -> i64) {
    match test {
        Test::Keys(Range { low, high, negate }) => {
            let narrow = |bound: i128| bound.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            let empty = low > high || *low > i128::from(i64::MAX) || *high < i128::from(i64::MIN);
            let (low, high) = if empty { (1, 0) } else { (narrow(*low), narrow(*high)) };
            each(values, array, out, |v| (low <= key(v) && key(v) <= high) != *negate);
        }
        _ => each(values, array, out, |v| test.key(i128::from(key(v)), true)),
    }
}

fn bytes<B: ByteArrayType>(test: &Test, array: &GenericByteArray<B>, out: &mut [Truth])
where
    B::Offset: OffsetSizeTrait,
    B::Native: AsRef<[u8]>,
{
    for (row, out) in out.iter_mut().enumerate() {
        *out = if array.is_null(row) { NULL } else { test.text(array.value(row).as_ref()) };
    }
}

fn trimmed(text: &[u8], trim: bool) -> &[u8] {
    let spaces = if trim { text.iter().rev().take_while(|b| **b == b' ').count() } else { 0 };
    &text[..text.len() - spaces]
}

impl Test {
    /// Tests a key; one that is not exact stands for a value between it and the next.
    fn key(&self, key: i128, exact: bool) -> bool {
        match self {
            Self::Keys(Range { low, high, negate }) => (*low <= key && if exact { key <= *high } else { key < *high }) != *negate,
            Self::KeySet(keys) if keys.len() <= 8 => exact && keys.contains(&key),
            Self::KeySet(keys) => exact && keys.binary_search(&key).is_ok(),
            _ => false,
        }
    }

    /// Tests the bytes of a column that has text or bytes.
    fn text(&self, text: &[u8]) -> Truth {
        match self {
            Self::Bytes { relation, literal, trim } => truth(relation.holds(trimmed(text, *trim).cmp(literal))),
            Self::ByteSet { literals, trim } => {
                let text = trimmed(text, *trim);
                truth(literals.binary_search_by(|literal| literal[..].cmp(text)).is_ok())
            }
            Self::Like(pattern) => truth(pattern.matches(text)),
            Self::Number(relation, number) => match Decimal::view(text) {
                Some(value) => truth(relation.holds(value.compare(&number.view()))),
                None => TRUE | FALSE,
            },
            Self::IsNull => FALSE,
            Self::Keys(_) | Self::KeySet(_) => TRUE | FALSE,
        }
    }
}

/// The key of an exact text in its column's domain, and whether the key is exact.
fn exact_key(ty: &ColumnType, text: &str) -> Option<(i128, bool)> {
    let text = text.as_bytes();
    let number = || Number::parse(text);
    match ty {
        ColumnType::Numeric { scale, .. } => number().map(|n| n.view().scaled(*scale)),
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => number().map(|n| n.view().scaled(0)),
        ColumnType::Float4 | ColumnType::Float8 => number()?.to_f64().map(|f| (i128::from(float_key(f)), true)),
        ColumnType::Date => temporal::date(text).map(|days| (days, true)),
        ColumnType::Timestamp | ColumnType::TimestampTz => temporal::timestamp(text).map(|(micros, _)| (micros, true)),
        ColumnType::Time => temporal::time(text).map(|micros| (i128::from(micros), true)),
        _ => None,
    }
}

/// Decides the cells whose array value is not the value.
fn again(test: &Test, column: usize, batch: &RowBatch, out: &mut [Truth]) {
    for (row, _, text) in batch.exact.iter().filter(|(_, c, _)| *c == column) {
        out[row] = match test {
            Test::IsNull => FALSE,
            Test::Keys(_) | Test::KeySet(_) => match exact_key(&batch.table.columns[column].ty, text) {
                Some((key, exact)) => truth(test.key(key, exact)),
                None => TRUE | FALSE,
            },
            _ => test.text(text.as_bytes()),
        };
    }
    // a value that was not sent for being large is not null
    for (row, _, ()) in batch.unchanged.iter().filter(|(_, c, ())| *c == column) {
        out[row] = if let Test::IsNull = test { FALSE } else { TRUE | FALSE };
    }
}

/// A comparison of two columns.
struct Sides<'a> {
    batch: &'a RowBatch,
    left: usize,
    right: usize,
    relation: Relation,
    pair: Pair,
}

impl Sides<'_> {
    fn eval(&self, out: &mut [Truth], pool: &mut Pool) {
        match self.pair {
            Pair::Numbers => self.texts(out, |a, b| Some(Decimal::view(a)?.compare(&Decimal::view(b)?))),
            Pair::Bytes(trim_a, trim_b) => self.texts(out, |a, b| Some(trimmed(a, trim_a).cmp(trimmed(b, trim_b)))),
            Pair::Scaled(a, b) => self.keys(out, pool, |x, y| compare_scaled(x, a, y, b)),
            _ => self.keys(out, pool, |a, b| a.cmp(&b)),
        }
        for (row, column, ()) in self.batch.unchanged.iter() {
            if column == self.left || column == self.right {
                let other = if column == self.left { self.right } else { self.left };
                let has_value = self.batch.unchanged.get(row, other).is_some() || self.batch.exact.get(row, other).is_some();
                out[row] = if !has_value && self.batch.columns[other].is_null(row) { NULL } else { TRUE | FALSE };
            }
        }
    }

    fn texts(&self, out: &mut [Truth], order: impl Fn(&[u8], &[u8]) -> Option<Ordering>) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let side = |column: usize| {
            let array = &self.batch.columns[column];
            (array, Texts::new(&self.batch.table.columns[column].ty, array))
        };
        let (left, right) = (side(self.left), side(self.right));
        let read = |(array, texts): &(&ArrayRef, Texts<'_>), column: usize, row: usize, text: &mut Vec<u8>| {
            text.clear();
            match self.batch.exact.get(row, column) {
                Some(exact) => text.extend_from_slice(exact.as_bytes()),
                None if array.is_null(row) => return false,
                None => texts.write(row, text),
            }
            true
        };
        for (row, out) in out.iter_mut().enumerate() {
            if read(&left, self.left, row, &mut a) && read(&right, self.right, row, &mut b) {
                *out = order(&a, &b).map_or(TRUE | FALSE, |order| truth(self.relation.holds(order)));
            }
        }
    }

    fn keys(&self, out: &mut [Truth], pool: &mut Pool, order: impl Fn(i128, i128) -> Ordering) {
        let (mut a, mut b) = (pool.keys.pop().unwrap_or_default(), pool.keys.pop().unwrap_or_default());
        self.fill(self.left, self.pair == Pair::DateLeft, &mut a);
        self.fill(self.right, self.pair == Pair::DateRight, &mut b);
        for ((out, a), b) in out.iter_mut().zip(&a).zip(&b) {
            *out = truth(self.relation.holds(order(*a, *b)));
        }
        nulls(&self.batch.columns[self.left], out);
        nulls(&self.batch.columns[self.right], out);
        for (row, column, _) in self.batch.exact.iter() {
            if column == self.left || column == self.right {
                out[row] = self.exact(row, &a, &b).map_or(TRUE | FALSE, |sides| match sides {
                    (Some(a), Some(b)) => truth(self.relation.holds(order(a, b))),
                    _ => NULL,
                });
            }
        }
        pool.keys.extend([a, b]);
    }

    /// Both sides' keys where one stands as text; an inner `None` is null, an outer one unknown.
    fn exact(&self, row: usize, a: &[i128], b: &[i128]) -> Option<(Option<i128>, Option<i128>)> {
        let side = |column: usize, keys: &[i128], raise: bool| match self.batch.exact.get(row, column) {
            Some(text) if self.pair == Pair::Floats => Some(Some(i128::from(float_key(Number::parse(text.as_bytes())?.to_f64()?)))),
            Some(text) => match exact_key(&self.batch.table.columns[column].ty, text)? {
                (key, true) => Some(Some(if raise { raised(key) } else { key })),
                _ => None,
            },
            None => Some((!self.batch.columns[column].is_null(row)).then(|| keys[row])),
        };
        Some((side(self.left, a, self.pair == Pair::DateLeft)?, side(self.right, b, self.pair == Pair::DateRight)?))
    }

    /// A column's keys; `raise`: of days, as microseconds.
    fn fill(&self, column: usize, raise: bool, keys: &mut Vec<i128>) {
        use arrow::datatypes::DataType as D;
        let array = &self.batch.columns[column];
        let floats = self.pair == Pair::Floats;
        let float = |v: f64| i128::from(float_key(v));
        let whole = |v: i64| if floats { float(v as f64) } else { i128::from(v) };
        keys.clear();
        match array.data_type() {
            D::Boolean => keys.extend(array.as_boolean().values().iter().map(i128::from)),
            D::Int16 => keys.extend(values::<Int16Type>(array).iter().map(|v| whole(i64::from(*v)))),
            D::Int32 => keys.extend(values::<Int32Type>(array).iter().map(|v| whole(i64::from(*v)))),
            D::Int64 => keys.extend(values::<Int64Type>(array).iter().map(|v| whole(*v))),
            D::Date32 if raise => keys.extend(values::<Date32Type>(array).iter().map(|v| raised(i128::from(*v)))),
            D::Date32 => keys.extend(values::<Date32Type>(array).iter().map(|v| i128::from(*v))),
            D::Time64(_) => keys.extend(values::<Time64MicrosecondType>(array).iter().map(|v| i128::from(*v))),
            D::Timestamp(..) => keys.extend(values::<TimestampMicrosecondType>(array).iter().map(|v| i128::from(*v))),
            D::Float32 => keys.extend(values::<Float32Type>(array).iter().map(|v| float(f64::from(*v)))),
            D::Float64 => keys.extend(values::<Float64Type>(array).iter().map(|v| float(*v))),
            D::Decimal128(..) if !floats => keys.extend_from_slice(values::<Decimal128Type>(array)),
            _ => {
                // a decimal beside a float is read as the nearest float, as PostgreSQL casts it
                let texts = Texts::new(&self.batch.table.columns[column].ty, array);
                let mut text = Vec::new();
                for row in 0..array.len() {
                    text.clear();
                    if array.is_valid(row) {
                        texts.write(row, &mut text);
                    }
                    keys.push(std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok()).map_or(0, float));
                }
            }
        }
    }
}

/// A day's first microsecond; infinities stay.
fn raised(days: i128) -> i128 {
    if matches!(days, PAST | FUTURE) { days } else { days * i128::from(DAY) }
}
