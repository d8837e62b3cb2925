//! Where a change stands: log sequence numbers, offset tokens and the dataflow's timestamps.
//!
//! Guarantees: `Ts` and [`Token`] order exactly as PostgreSQL committed, and a token's text sorts as
//! the token does. Never a clock.

use super::hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::PathSummary;
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;

/// A byte position in PostgreSQL's write-ahead log (PostgreSQL manual, `pg_lsn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The text is not `XXXXXXXX/XXXXXXXX` in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a log sequence number such as 16/B374D848")]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let part = |digits: &str| {
            let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if hex { u32::from_str_radix(digits, 16).map_err(|_| NotAnLsn) } else { Err(NotAnLsn) }
        };
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// The order of a row: its transaction's commit LSN and its place in that transaction.
///
/// Written `{commit_lsn:016x}/{ordinal:016x}`, which sorts as text. It is the Snowpipe offset token,
/// the landing table's sequence and the fence of a merge. Every row has a token of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// LSN of the commit record of the row's transaction; the snapshot's LSN for a snapshot row.
    pub commit_lsn: u64,
    /// Place in the transaction; the same on every replay.
    pub ordinal: u64,
}

impl Token {
    /// Before every row.
    pub const ZERO: Self = Self { commit_lsn: 0, ordinal: 0 };

    /// Makes a token.
    #[must_use]
    pub const fn new(commit_lsn: u64, ordinal: u64) -> Self {
        Self { commit_lsn, ordinal }
    }

    /// The last token that a row of a transaction committed at or before `lsn` can have.
    #[must_use]
    pub const fn end_of(lsn: u64) -> Self {
        Self { commit_lsn: lsn, ordinal: u64::MAX }
    }

    /// Writes the 33 bytes of the text form, without allocating.
    pub fn write(&self, out: &mut [u8; 33]) {
        let (commit, rest) = out.split_at_mut(16);
        hex::write_to(&self.commit_lsn.to_be_bytes(), commit);
        rest[0] = b'/';
        hex::write_to(&self.ordinal.to_be_bytes(), &mut rest[1..]);
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{:016x}", self.commit_lsn, self.ordinal)
    }
}

/// The text is not a 33-character offset token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an offset token of 16 hexadecimal digits, a slash and 16 more")]
pub struct NotAToken;

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (lsn, ordinal) = text.split_once('/').ok_or(NotAToken)?;
        let part = |digits: &str| {
            let form = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
            if form { u64::from_str_radix(digits, 16).map_err(|_| NotAToken) } else { Err(NotAToken) }
        };
        Ok(Self { commit_lsn: part(lsn)?, ordinal: part(ordinal)? })
    }
}

/// The dataflow's timestamp: a commit LSN and the ordinal within it, totally ordered.
///
/// A frontier past `(L + 1, 0)` means that every change of every transaction committed at or before
/// `L` has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ts {
    /// Commit LSN.
    pub lsn: u64,
    /// Ordinal within the transaction.
    pub seq: u64,
}

impl Ts {
    /// Makes a timestamp.
    #[must_use]
    pub const fn new(lsn: u64, seq: u64) -> Self {
        Self { lsn, seq }
    }

    /// The time just past every transaction committed at or before `lsn`.
    #[must_use]
    pub const fn after(lsn: u64) -> Self {
        Self { lsn: lsn.saturating_add(1), seq: 0 }
    }

    /// The greatest token that is certainly complete at a frontier of `self`: a whole transaction's end.
    #[must_use]
    pub const fn fence(&self) -> Token {
        Token::end_of(self.lsn.saturating_sub(1))
    }
}

impl From<Token> for Ts {
    fn from(token: Token) -> Self {
        Self { lsn: token.commit_lsn, seq: token.ordinal }
    }
}

impl PartialOrder for Ts {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
    fn less_than(&self, other: &Self) -> bool {
        self < other
    }
}

impl TotalOrder for Ts {}

impl PathSummary<Ts> for () {
    fn results_in(&self, time: &Ts) -> Option<Ts> {
        Some(*time)
    }
    fn followed_by(&self, _: &Self) -> Option<Self> {
        Some(())
    }
}

impl Timestamp for Ts {
    type Summary = ();
    fn minimum() -> Self {
        Self::default()
    }
}

impl Refines<()> for Ts {
    fn to_inner((): ()) -> Self {
        Self::default()
    }
    fn to_outer(self) {}
    fn summarize((): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text() {
        for (text, value) in [
            ("0/0", Some(0)),
            ("16/B374D848", Some(0x16_B374_D848)),
            ("FFFFFFFF/FFFFFFFF", Some(u64::MAX)),
            ("1", None),
            ("/1", None),
            ("1/", None),
            ("100000000/0", None),
            ("+1/0", None),
            ("0/0/0", None),
        ] {
            assert_eq!(text.parse::<Lsn>().ok().map(|l| l.0), value, "{text}");
            if let Some(value) = value {
                assert_eq!(Lsn(value).to_string(), text);
            }
        }
    }

    #[test]
    fn token_text_sorts_as_the_token() {
        let mut tokens =
            [Token::ZERO, Token::new(0, 1), Token::new(1, 0), Token::new(9, u64::MAX), Token::new(10, 0), Token::end_of(u64::MAX)];
        tokens.sort();
        let texts: Vec<String> = tokens.iter().map(Token::to_string).collect();
        let mut sorted = texts.clone();
        sorted.sort();
        assert_eq!(texts, sorted);
        for (token, text) in tokens.iter().zip(&texts) {
            assert_eq!(text.parse::<Token>().as_ref(), Ok(token));
            let mut raw = [0; 33];
            token.write(&mut raw);
            assert_eq!(&raw, text.as_bytes());
        }
        for text in
            ["", "0/0", "00000000000000000/0000000000000000", "000000000000000G/0000000000000000", "00000000000000AA/0000000000000000"]
        {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
