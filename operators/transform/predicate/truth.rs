//! Three-valued logic over sets of possible results, as tables.

use super::{FALSE, NULL, TRUE, Truth};

/// What AND and OR give for each pair of possible results, at `a * 8 + b`.
pub(super) const AND: [Truth; 64] = joined(FALSE, TRUE);
/// See [`AND`].
pub(super) const OR: [Truth; 64] = joined(TRUE, FALSE);

const fn joined(wins: Truth, loses: Truth) -> [Truth; 64] {
    let mut table = [0; 64];
    let mut at = 0;
    while at < 64 {
        // every result that one possible result of each side gives
        let (mut left, mut all) = (TRUE, 0);
        while left <= NULL {
            let mut right = TRUE;
            while right <= NULL {
                if (at >> 3) as Truth & left != 0 && (at & 7) as Truth & right != 0 {
                    all |= if left == wins || right == wins {
                        wins
                    } else if left == loses && right == loses {
                        loses
                    } else {
                        NULL
                    };
                }
                right <<= 1;
            }
            left <<= 1;
        }
        table[at] = all;
        at += 1;
    }
    table
}

/// Maps each possible result on its own.
const fn mapped(of_true: Truth, of_false: Truth, of_null: Truth) -> [Truth; 8] {
    let mut table = [0; 8];
    let mut at = 0;
    while at < 8 {
        let set = at as Truth;
        table[at] = (if set & TRUE != 0 { of_true } else { 0 })
            | (if set & FALSE != 0 { of_false } else { 0 })
            | (if set & NULL != 0 { of_null } else { 0 });
        at += 1;
    }
    table
}

/// NOT.
pub(super) const NOT: [Truth; 8] = mapped(FALSE, TRUE, NULL);
/// IS NULL.
pub(super) const IS_NULL: [Truth; 8] = mapped(FALSE, FALSE, TRUE);
/// IS TRUE.
pub(super) const IS_TRUE: [Truth; 8] = mapped(TRUE, FALSE, FALSE);
/// IS FALSE.
pub(super) const IS_FALSE: [Truth; 8] = mapped(FALSE, TRUE, FALSE);
