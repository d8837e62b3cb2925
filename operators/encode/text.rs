//! Columns of bytes of any length: text kinds, and whatever is spelled as text; JSON; `bytea`.
//!
//! Text is copied as it came; the binary form of types that have one is spelled as the type's output function
//! does. Each run is checked to be UTF-8 where it is not plain ASCII, so that finishing cannot fail.
//!
//! The document `null` is kept as exact text too: what reads documents may not tell it from no value.

use super::fixed::keep_exact;
use super::output::output;
use super::read::Malformed;
use super::run::{ExactTexts, Run};
use super::validity::Validity;
use super::{bytea, json};
use crate::contract::ColumnType;
use crate::decode::Field;
use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use std::sync::Arc;

/// Bytes that are copied without a call.
const SHORT: usize = 64;

/// Values of any length, one after another.
pub(super) struct Bytes {
    pub(super) values: Vec<u8>,
    offsets: Vec<i32>,
    validity: Validity,
    /// Bytes of a value of the array before.
    before: Option<usize>,
}

impl Bytes {
    pub(super) fn new() -> Self {
        Self { values: Vec::new(), offsets: vec![0], validity: Validity::new(), before: None }
    }

    fn average(&self) -> Option<usize> {
        self.values.len().checked_div(self.offsets.len().saturating_sub(1))
    }

    /// Makes room for more values like those there are, or were in the array before, of at most `most` bytes.
    pub(super) fn reserve(&mut self, rows: usize, most: usize) {
        self.offsets.reserve(rows + 1);
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        // a sixteenth more than the average, so that the last rows seldom double the buffer
        if let Some(average) = self.average().or(self.before) {
            self.values.reserve((average + 1).saturating_mul(rows + rows / 16).min(most));
        }
    }

    /// Appends a value's bytes, which stand at `start` of `buffer`.
    #[inline]
    pub(super) fn copy(&mut self, value: &[u8], buffer: &[u8], start: usize) {
        // Most values are short, and copying a fixed number of bytes needs no call: whatever follows is cut off again.
        let Some(wide) = buffer.get(start..).and_then(|rest| rest.first_chunk::<SHORT>()).filter(|_| value.len() <= SHORT) else {
            return self.values.extend_from_slice(value);
        };
        let end = self.values.len() + value.len();
        self.values.extend_from_slice(wide);
        self.values.truncate(end);
    }

    /// Ends a value: what was appended to `values` since the last.
    #[inline]
    pub(super) fn end_value(&mut self) {
        // a length beyond i32 wraps here and is refused when the run ends
        self.offsets.push(self.values.len() as i32);
        self.validity.valid();
    }

    #[inline]
    pub(super) fn null(&mut self) {
        self.offsets.push(self.values.len() as i32);
        self.validity.null();
    }

    /// How much there is before a run: its bytes and its values.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.values.len(), self.offsets.len())
    }

    /// Refuses a run that passed 2 GiB.
    pub(super) fn check_size(&self) -> Result<(), Malformed> {
        if i32::try_from(self.values.len()).is_ok() { Ok(()) } else { Err(Malformed::TooLarge) }
    }

    /// Refuses a run with a value that is not UTF-8.
    pub(super) fn check_text(&self, (bytes, values): (usize, usize)) -> Result<(), Malformed> {
        self.check_size()?;
        let run = self.values.get(bytes..).unwrap_or_default();
        if run.is_ascii() {
            return Ok(());
        }
        let run = std::str::from_utf8(run).map_err(|_| Malformed::NotUtf8)?;
        // two values must not share a character
        let whole = self.offsets.get(values..).unwrap_or_default().iter().all(|end| run.is_char_boundary(*end as usize - bytes));
        if whole { Ok(()) } else { Err(Malformed::NotUtf8) }
    }

    fn parts(&mut self) -> (OffsetBuffer<i32>, Vec<u8>, Option<arrow::buffer::NullBuffer>) {
        self.before = self.average().or(self.before);
        // The first offset, 0, comes with the room for others.
        let offsets = std::mem::take(&mut self.offsets);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), std::mem::take(&mut self.values), self.validity.finish())
    }

    /// The array of values that were all checked by [`Bytes::check_text`], run by run.
    pub(super) fn finish_text(&mut self) -> ArrayRef {
        let (offsets, values, nulls) = self.parts();
        #[expect(unsafe_code, reason = "checking what was checked takes as long as copying it")]
        // SAFETY: offsets ascend from 0 to the length of `values` (`OffsetBuffer::new` refuses others); every run between
        // them was found to be UTF-8 with no character across two values, or else the column was dropped; there is a
        // validity for each value.
        Arc::new(unsafe { StringArray::new_unchecked(offsets, values.into(), nulls) })
    }

    fn finish_binary(&mut self) -> ArrayRef {
        let (offsets, values, nulls) = self.parts();
        Arc::new(BinaryArray::new(offsets, values.into(), nulls))
    }
}

/// A column of text.
pub(super) struct TextColumn {
    ty: ColumnType,
    bytes: Bytes,
}

impl TextColumn {
    pub(super) fn new(ty: &ColumnType) -> Self {
        Self { ty: ty.clone(), bytes: Bytes::new() }
    }

    pub(super) fn reserve(&mut self, rows: usize, most: usize) {
        self.bytes.reserve(rows, most);
    }

    pub(super) fn append(&mut self, run: &Run<'_>, column: usize, exact: &mut ExactTexts) -> Result<(), Malformed> {
        let mark = self.bytes.mark();
        let document = matches!(self.ty, ColumnType::Json | ColumnType::Jsonb);
        for (row, cell) in run.cells(column).enumerate() {
            let (start, field) = (self.bytes.values.len(), cell.field(run.bytes));
            match field {
                Field::Text(text) => self.bytes.copy(text, run.bytes, cell.start()),
                Field::Binary(binary) => match (&self.ty, binary) {
                    // the text itself (see `output` for one byte), after a version
                    (ColumnType::Text, [_, _, ..]) => self.bytes.copy(binary, run.bytes, cell.start()),
                    (ColumnType::Jsonb, [1, document @ ..]) => self.bytes.copy(document, run.bytes, cell.start() + 1),
                    _ => output(&self.ty, binary, &mut self.bytes.values)?,
                },
                Field::Null | Field::Unchanged => {
                    self.bytes.null();
                    continue;
                }
            }
            self.bytes.end_value();
            if document && json::is_null(self.bytes.values.get(start..).unwrap_or_default()) {
                keep_exact(&self.ty, field, run.first + row, column, exact)?;
            }
        }
        if self.ty == ColumnType::Json {
            json::to_one_line(self.bytes.values.get_mut(mark.0..).unwrap_or_default());
        }
        self.bytes.check_text(mark)
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.bytes.finish_text()
    }
}

/// A column of `bytea`.
pub(super) struct ByteaColumn(Bytes);

impl ByteaColumn {
    pub(super) fn new() -> Self {
        Self(Bytes::new())
    }

    pub(super) fn reserve(&mut self, rows: usize, most: usize) {
        self.0.reserve(rows, most);
    }

    pub(super) fn append(&mut self, run: &Run<'_>, column: usize) -> Result<(), Malformed> {
        for field in run.column(column) {
            match field {
                Field::Text(text) => {
                    bytea::text(text, &mut self.0.values)?;
                    self.0.end_value();
                }
                Field::Binary(binary) => {
                    self.0.values.extend_from_slice(binary);
                    self.0.end_value();
                }
                Field::Null | Field::Unchanged => self.0.null(),
            }
        }
        self.0.check_size()
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.0.finish_binary()
    }
}
