//! A column of values of one size: integers, floats, decimals, dates and times.
//!
//! One loop a run: the kind of value is a type parameter, so nothing is dispatched and nothing is allocated
//! per value. Values that the type cannot carry are null here and kept as exact text.

use super::output::output;
use super::read::{Malformed, Read};
use super::run::{ExactTexts, Run};
use super::validity::Validity;
use crate::contract::ColumnType;
use crate::decode::Field;
use arrow::array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use std::sync::Arc;

/// How to read one type's two wire forms.
pub(super) trait Scalar {
    /// The Arrow type.
    type Arrow: ArrowPrimitiveType;
    /// Reads the output function's text.
    fn text(&self, bytes: &[u8]) -> Read<<Self::Arrow as ArrowPrimitiveType>::Native>;
    /// Reads the send function's bytes.
    fn binary(&self, bytes: &[u8]) -> Read<<Self::Arrow as ArrowPrimitiveType>::Native>;
}

/// A column of `S`.
pub(super) struct FixedColumn<S: Scalar> {
    scalar: S,
    ty: ColumnType,
    values: Vec<<S::Arrow as ArrowPrimitiveType>::Native>,
    validity: Validity,
}

impl<S: Scalar> FixedColumn<S> {
    pub(super) fn new(scalar: S, ty: &ColumnType) -> Self {
        Self { scalar, ty: ty.clone(), values: Vec::new(), validity: Validity::new() }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    pub(super) fn append(&mut self, run: &Run<'_>, column: usize, exact: &mut ExactTexts) -> Result<(), Malformed> {
        for (row, field) in run.column(column).enumerate() {
            let read = match field {
                Field::Text(bytes) => self.scalar.text(bytes),
                Field::Binary(bytes) => self.scalar.binary(bytes),
                Field::Null | Field::Unchanged => {
                    self.values.push(Default::default());
                    self.validity.null();
                    continue;
                }
            };
            match read {
                Read::Is(value) => {
                    self.values.push(value);
                    self.validity.valid();
                }
                Read::Beyond => {
                    self.values.push(Default::default());
                    self.validity.null();
                    keep_exact(&self.ty, field, run.first + row, column, exact)?;
                }
                Read::Malformed => return Err(Malformed::Form),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let values = std::mem::take(&mut self.values);
        let array = PrimitiveArray::<S::Arrow>::new(values.into(), self.validity.finish());
        Arc::new(array.with_data_type(self.ty.arrow()))
    }
}

/// Keeps a value's exact text beside its column.
#[cold]
pub(super) fn keep_exact(ty: &ColumnType, field: Field<'_>, row: usize, column: usize, exact: &mut ExactTexts) -> Result<(), Malformed> {
    let kept = match field {
        Field::Text(bytes) => exact.keep(row, column, bytes),
        Field::Binary(bytes) => {
            let mut text = Vec::new();
            output(ty, bytes, &mut text)?;
            exact.keep(row, column, &text)
        }
        Field::Null | Field::Unchanged => true,
    };
    if kept { Ok(()) } else { Err(Malformed::NotUtf8) }
}
