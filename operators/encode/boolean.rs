//! `boolean`: text `t` or `f`, binary one byte.

use super::read::Malformed;
use super::run::Run;
use super::validity::Validity;
use crate::decode::Field;
use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder};
use std::sync::Arc;

/// Reads either form.
#[inline]
pub(super) fn boolean(field: &[u8], text: bool) -> Option<bool> {
    match (text, field) {
        (true, b"t" | b"true") | (false, [1..=255]) => Some(true),
        (true, b"f" | b"false") | (false, [0]) => Some(false),
        _ => None,
    }
}

/// A column of booleans.
pub(super) struct BooleanColumn {
    values: BooleanBufferBuilder,
    validity: Validity,
}

impl BooleanColumn {
    pub(super) fn new() -> Self {
        Self { values: BooleanBufferBuilder::new(0), validity: Validity::new() }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    pub(super) fn append(&mut self, run: &Run<'_>, column: usize) -> Result<(), Malformed> {
        for field in run.column(column) {
            let value = match field {
                Field::Text(bytes) => Some(boolean(bytes, true).ok_or(Malformed::Form)?),
                Field::Binary(bytes) => Some(boolean(bytes, false).ok_or(Malformed::Form)?),
                Field::Null | Field::Unchanged => None,
            };
            self.values.append(value.unwrap_or_default());
            if value.is_some() { self.validity.valid() } else { self.validity.null() }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(BooleanArray::new(self.values.finish(), self.validity.finish()))
    }
}
