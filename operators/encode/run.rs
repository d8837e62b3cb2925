//! A run: some rows of one table, decoded, about to be appended column by column.

use crate::decode::{Cell, Field};

/// Rows' cells, row after row, and the buffer they point into.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// The source's buffer.
    pub(super) bytes: &'a [u8],
    /// `width` cells a row.
    pub(super) cells: &'a [Cell],
    /// Columns of the table; not 0.
    pub(super) width: usize,
    /// The batch's row that the first row becomes.
    pub(super) first: usize,
}

impl<'a> Run<'a> {
    /// One column's values from top to bottom.
    #[inline]
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = Field<'a>> {
        let bytes = self.bytes;
        self.cells(column).map(move |cell| cell.field(bytes))
    }

    /// One column's cells from top to bottom.
    #[inline]
    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = Cell> {
        self.cells.get(column..).unwrap_or_default().iter().step_by(self.width).copied()
    }
}

/// Exact texts of a batch's cells, in the order columns met them.
#[derive(Default)]
pub(super) struct ExactTexts(Vec<(u32, u16, Box<str>)>);

impl ExactTexts {
    /// Keeps a text; `false` when it is not UTF-8. Rare, so allocating is fine.
    pub(super) fn keep(&mut self, row: usize, column: usize, text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        self.0.push((row as u32, column as u16, text.into()));
        true
    }

    /// The texts by row and column; leaves none.
    pub(super) fn finish(&mut self) -> crate::contract::Cells<Box<str>> {
        let mut texts = std::mem::take(&mut self.0);
        texts.sort_unstable_by_key(|(row, column, _)| (*row, *column));
        let mut cells = crate::contract::Cells::default();
        texts.into_iter().for_each(|(row, column, text)| cells.push(row as usize, column as usize, text));
        cells
    }
}
