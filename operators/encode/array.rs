//! Arrays of any dimension: a column of JSON text, written straight from the wire.
//!
//! JSON arrays start at the first element whatever the array's lower bounds, and JSON's null stands for both no element
//! and a document that is null; where the JSON says less so, the exact text is kept beside it.

use super::element::Element;
use super::fixed::keep_exact;
use super::read::Malformed;
use super::run::{ExactTexts, Run};
use super::text::Bytes;
use super::{array_binary, array_text};
use crate::contract::{Column, ColumnType};
use crate::decode::Field;
use arrow::array::ArrayRef;

/// `pg_type.oid` of `box[]`, the one built-in array with another delimiter than a comma.
const BOX_ARRAY: u32 = 1020;

/// A column of arrays.
pub(super) struct ArrayColumn {
    ty: ColumnType,
    element: Element,
    bytes: Bytes,
    scratch: Vec<u8>,
}

impl ArrayColumn {
    pub(super) fn new(column: &Column, element: &ColumnType) -> Self {
        let delimiter = if column.pg_type.oid == BOX_ARRAY { b';' } else { b',' };
        Self { ty: column.ty.clone(), element: Element::new(element, delimiter), bytes: Bytes::new(), scratch: Vec::new() }
    }

    pub(super) fn reserve(&mut self, rows: usize, most: usize) {
        self.bytes.reserve(rows, most);
    }

    pub(super) fn append(&mut self, run: &Run<'_>, column: usize, exact: &mut ExactTexts) -> Result<(), Malformed> {
        let mark = self.bytes.mark();
        for (row, field) in run.column(column).enumerate() {
            let says_less = match field {
                Field::Text(text) => array_text::write(&self.element, text, &mut self.scratch, &mut self.bytes.values)?,
                Field::Binary(binary) => array_binary::write(&self.element, binary, &mut self.scratch, &mut self.bytes.values)?,
                Field::Null | Field::Unchanged => {
                    self.bytes.null();
                    continue;
                }
            };
            self.bytes.end_value();
            if says_less {
                keep_exact(&self.ty, field, run.first + row, column, exact)?;
            }
        }
        self.bytes.check_text(mark)
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.bytes.finish_text()
    }
}
