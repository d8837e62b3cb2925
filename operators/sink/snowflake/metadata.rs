//! The members that every landing row has beside its columns.
//!
//! ```text
//! "_OP":"i","_SEQ":"<commit lsn>/<ordinal>","_COMMIT_TS":"…","_UNCHANGED":
//!          └─────── head ──────┘         └───────── tail ────────┘
//! ```
//! Hot path: rows of a transaction come one after the other, and differ by a letter and an ordinal.

use super::super::json::{Fixed, write_timestamptz};
use crate::contract::{RowBatch, hex};

/// See the module.
pub(super) struct Metadata {
    /// Commit LSN and time of the transaction whose members these are.
    of: Option<(u64, i64)>,
    /// From after the operation's letter to before the ordinal.
    head: Fixed<32>,
    /// From after the ordinal.
    tail: Fixed<64>,
    /// Where they are spelled.
    text: Vec<u8>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { of: None, head: Fixed::new(b""), tail: Fixed::new(b""), text: Vec::new() }
    }
}

impl Metadata {
    fn turn(&mut self, lsn: u64, time: i64) {
        let Self { of, head, tail, text } = self;
        *of = Some((lsn, time));
        text.clear();
        text.extend_from_slice(b"\",\"_SEQ\":\"");
        text.extend_from_slice(&hex::of_number(lsn));
        text.push(b'/');
        *head = Fixed::new(text);
        text.clear();
        text.extend_from_slice(b"\",\"_COMMIT_TS\":");
        write_timestamptz(time, text);
        text.extend_from_slice(b",\"_UNCHANGED\":");
        *tail = Fixed::new(text);
    }

    /// Writes a row's members up to the value of `_UNCHANGED`.
    pub(super) fn begin(&mut self, rows: &RowBatch, row: usize, out: &mut Vec<u8>) {
        let of = (rows.commit_lsn[row], rows.commit_time[row]);
        if self.of != Some(of) {
            self.turn(of.0, of.1);
        }
        out.extend_from_slice(b"\"_OP\":\"");
        out.push(rows.ops[row]);
        self.head.write(out);
        out.extend_from_slice(&hex::of_number(rows.ordinal[row]));
        self.tail.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, insert, items};
    use super::*;
    use crate::contract::Token;

    #[test]
    fn as_the_token_spells_itself() {
        let places = [(1, 0), (1, u64::MAX), (u64::MAX, 1), (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), (1, 0)];
        let changes: Vec<_> = places.iter().map(|(lsn, ordinal)| insert(*lsn % 1_000, *ordinal, 1, "x")).collect();
        let mut rows = batch(&items(), &changes);
        rows.commit_lsn = places.iter().map(|(lsn, _)| *lsn).collect();
        let mut metadata = Metadata::default();
        for (row, (lsn, ordinal)) in places.iter().enumerate() {
            let mut out = Vec::new();
            metadata.begin(&rows, row, &mut out);
            let seconds = lsn % 1_000;
            let time = format!("1970-01-01T00:{:02}:{:02}+00:00", seconds / 60, seconds % 60);
            let expected = format!(r#""_OP":"i","_SEQ":"{}","_COMMIT_TS":"{time}","_UNCHANGED":"#, Token::new(*lsn, *ordinal));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
