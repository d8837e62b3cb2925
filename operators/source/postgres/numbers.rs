//! Which column of the catalog a column of a relation message is.
//!
//! ```text
//! message:  id  b  note            written then: names, in the order of their numbers
//! catalog:   1  2  (3)  4  5       read now: c was b, 3 is dropped, 5 came later
//!            |  |       |
//!           id  c     note
//! ```
//! A message has no numbers (`pg_attribute.attnum`), but its columns stand in their order, a number is never
//! given twice, and a column that is there now was there in every message since it was added. So of all ways
//! to lay the message over the catalog the one is taken that skips no column that is there now and keeps the
//! most names. Where two ways are as good the number is left open.
//!
//! # Guarantees
//! While the catalog is as it was when the row was written, the numbers are the catalog's. A column that was
//! dropped and added again under its name, as the last one of its table, is taken for the new one as soon as
//! the catalog has it.

/// A column of the catalog, dropped or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// `pg_attribute.attnum`.
    pub number: i16,
    /// Its name; nothing once it is dropped.
    pub now: Option<&'a str>,
    /// Whether a message may leave it out: it is generated, or not in the publication's column list.
    pub optional: bool,
}

/// What a placement is worth: names that were kept, less columns that had to be there and are not.
type Score = i32;

const NAME: Score = 8;
/// A column that had to be there and is not: only when the catalog does not fit the message at all.
const LEFT_OUT: Score = -1000;
const IMPOSSIBLE: Score = i32::MIN / 2;

fn worth(column: &str, known: Known<'_>) -> Score {
    if known.now == Some(column) { NAME } else { 0 }
}

fn skipped(known: Known<'_>) -> Score {
    if known.now.is_some() && !known.optional { LEFT_OUT } else { 0 }
}

/// The number of each column of a message, given by name; `catalog` is sorted by number.
pub(super) fn numbers(message: &[&str], catalog: &[Known<'_>]) -> Vec<Option<i16>> {
    let (columns, places) = (message.len(), catalog.len());
    if columns > places {
        return vec![None; columns];
    }
    // best[i][j]: the columns from i on over the places from j on. Both are at most 1600: PostgreSQL's limit.
    let width = places + 1;
    let mut best = vec![IMPOSSIBLE; (columns + 1) * width];
    // Places after the last column came later: they cost nothing.
    best[columns * width..].fill(0);
    let value = |i: usize, j: usize, best: &mut Vec<Score>| {
        let take = best[(i + 1) * width + j + 1].saturating_add(worth(message[i], catalog[j]));
        let skip = best[i * width + j + 1].saturating_add(skipped(catalog[j]));
        best[i * width + j] = take.max(skip);
    };
    for i in (0..columns).rev() {
        for j in (0..places).rev() {
            value(i, j, &mut best);
        }
    }
    let walk = |early: bool| -> Vec<Option<i16>> {
        let (mut i, mut j) = (0, 0);
        let mut found = vec![None; columns];
        while i < columns && j < places && best[i * width + j] > IMPOSSIBLE / 2 {
            let take = best[(i + 1) * width + j + 1].saturating_add(worth(message[i], catalog[j]));
            let skip = best[i * width + j + 1].saturating_add(skipped(catalog[j]));
            if take > skip || (take == skip && early) {
                found[i] = Some(catalog[j].number);
                i += 1;
            }
            j += 1;
        }
        found
    };
    let (early, late) = (walk(true), walk(false));
    early.into_iter().zip(late).map(|(early, late)| early.filter(|_| early == late)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements() {
        // A `-` stands for a dropped column, parentheses for one that may be left out; the numbers count from 1,
        // 0 is open.
        for (what, message, catalog, expected) in [
            ("as it is", "id a", "id a", &[1, 2][..]),
            ("one was added", "id a", "id a b", &[1, 2]),
            ("one was dropped", "id a b", "id - b", &[1, 2, 3]),
            ("one was dropped long ago", "id b", "id - b", &[1, 3]),
            ("renamed", "id a b", "id c b", &[1, 2, 3]),
            ("renamed, the last", "id a", "id c", &[1, 2]),
            ("renamed, and one added", "id a", "id c d", &[1, 2]),
            ("renamed, or dropped and another one added", "id a", "id - c", &[1, 0]),
            ("all renamed", "a b c", "x y z", &[1, 2, 3]),
            ("swapped", "id b a", "id a b", &[1, 2, 3]),
            ("dropped and added again", "id b a", "id - b a", &[1, 3, 4]),
            ("before it was dropped and added again", "id a b", "id - b a", &[1, 2, 3]),
            ("which of two dropped ones", "id a b", "id - - b", &[1, 0, 4]),
            ("left out by the publication", "id b", "id (a) b", &[1, 3]),
            ("published although it may be left out", "id a b", "id (a) b", &[1, 2, 3]),
            ("dropped and added again behind others, or renamed", "id a b", "id a - c b", &[1, 2, 0]),
            ("everything is dropped", "id a", "- -", &[1, 2]),
            ("the table is gone", "id a", "", &[0, 0]),
            ("more than there ever were", "id a b", "id a", &[0, 0, 0]),
            ("no column", "", "id", &[]),
        ] {
            let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
            let known: Vec<Known<'_>> = words(catalog)
                .into_iter()
                .zip(1..)
                .map(|(name, number)| Known {
                    number,
                    now: (name != "-").then_some(name.trim_matches(['(', ')'])),
                    optional: name.starts_with('('),
                })
                .collect();
            let found: Vec<i16> = numbers(&words(message), &known).into_iter().map(Option::unwrap_or_default).collect();
            assert_eq!(found, expected, "{what}");
        }
    }
}
