//! Something said of a few cells of a batch: a sparse, ordered list by row and column.
//!
//! Used for the mask of unchanged TOASTed columns and for exact texts. Empty, it costs nothing.

/// Sorted `(row, column, value)` entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells<T> {
    entries: Vec<(u32, u16, T)>,
}

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T: Clone> Cells<T> {
    /// Adds an entry; rows, and columns within a row, must come in ascending order.
    pub fn push(&mut self, row: usize, column: usize, value: T) {
        let key = (row as u32, column as u16);
        debug_assert!(self.entries.last().is_none_or(|last| (last.0, last.1) < key), "cells must be pushed in order");
        self.entries.push((key.0, key.1, value));
    }

    /// Whether nothing is said of any cell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many cells something is said of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, &T)> {
        self.entries.iter().map(|(row, column, value)| (*row as usize, *column as usize, value))
    }

    /// The entries of one row, in column order.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, &T)> {
        let start = self.entries.partition_point(|e| (e.0 as usize) < row);
        self.entries[start..].iter().take_while(move |e| e.0 as usize == row).map(|e| (e.1 as usize, &e.2))
    }

    /// What is said of one cell.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> Option<&T> {
        let at = self.entries.binary_search_by_key(&(row as u32, column as u16), |e| (e.0, e.1)).ok()?;
        self.entries.get(at).map(|e| &e.2)
    }

    /// The cells of rows `offset .. offset + len`, renumbered from 0.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        let start = self.entries.partition_point(|e| (e.0 as usize) < offset);
        let end = self.entries.partition_point(|e| (e.0 as usize) < offset + len);
        Self { entries: self.entries[start..end].iter().map(|e| (e.0 - offset as u32, e.1, e.2.clone())).collect() }
    }

    /// The cells of `rows`, in that order, renumbered from 0.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        let mut taken = Self::default();
        if !self.is_empty() {
            for (to, from) in rows.iter().enumerate() {
                for (column, value) in self.row(*from as usize) {
                    taken.push(to, column, value.clone());
                }
            }
        }
        taken
    }

    /// Keeps `columns` (old indices in their new order), renumbered.
    #[must_use]
    pub fn project(&self, columns: &[usize]) -> Self {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .flat_map(|e| {
                columns.iter().enumerate().filter(|(_, old)| **old == e.1 as usize).map(|(new, _)| (e.0, new as u16, e.2.clone()))
            })
            .collect();
        entries.sort_by_key(|e| (e.0, e.1));
        Self { entries }
    }

    /// Drops what is said of one column.
    pub fn clear_column(&mut self, column: usize) {
        self.entries.retain(|e| e.1 as usize != column);
    }

    /// Appends `other`, whose row 0 becomes `rows`.
    pub fn append(&mut self, rows: usize, other: &Self) {
        self.entries.extend(other.entries.iter().map(|e| (e.0 + rows as u32, e.1, e.2.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Cells<&'static str> {
        let mut cells = Cells::default();
        for (row, column, value) in [(0, 1, "a"), (2, 0, "b"), (2, 3, "c"), (5, 2, "d")] {
            cells.push(row, column, value);
        }
        cells
    }

    fn all(cells: &Cells<&'static str>) -> Vec<(usize, usize, &'static str)> {
        cells.iter().map(|(r, c, v)| (r, c, *v)).collect()
    }

    #[test]
    fn selections() {
        let cells = sample();
        assert_eq!(all(&cells.slice(1, 4)), [(1, 0, "b"), (1, 3, "c")]);
        assert_eq!(all(&cells.take(&[5, 2, 1])), [(0, 2, "d"), (1, 0, "b"), (1, 3, "c")]);
        assert_eq!(all(&cells.project(&[3, 1])), [(0, 1, "a"), (2, 0, "c")]);
        assert_eq!(cells.get(2, 3), Some(&"c"));
        assert_eq!(cells.get(2, 2), None);
        let mut joined = cells.slice(0, 1);
        joined.append(1, &cells.slice(5, 1));
        assert_eq!(all(&joined), [(0, 1, "a"), (1, 2, "d")]);
    }
}
