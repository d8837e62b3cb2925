//! A held transaction that has committed: its messages again, in pieces.
//!
//! ```text
//! spill file ──┐
//!              ├──read──> bytes ──> [ header message | header message | head ]     one allocation for a piece
//! memory ──────┘                          └── positions of messages ──┘  └ carried over to the next
//! ```
//! # Guarantees
//! Every message that counts comes once, in order. A piece has about the bytes asked for, or one message. Bytes that do
//! not fit (a file cut short, a length that runs past the end, a record too many or too few) are `PG0031`; a length is
//! never trusted with memory that the transaction does not have.
//!
//! Hot path: messages are not copied once read; a piece costs its buffer and its list of positions.

use super::hold::Kept;
use super::spill::{self, RECORD_HEADER, SpillFile};
use crate::contract::CodedError;
use bytes::{Bytes, BytesMut};
use hashbrown::HashSet;

/// Messages in one buffer.
#[derive(Debug)]
pub(super) struct Piece {
    /// The buffer.
    pub bytes: Bytes,
    /// Start and end of each message in it.
    pub messages: Vec<(u32, u32)>,
}

/// What is left of a transaction.
#[derive(Debug)]
pub(super) struct Replay {
    xid: u32,
    file: Option<SpillFile>,
    /// Read of the file.
    at: u64,
    /// What was in memory and is not read yet.
    memory: Bytes,
    /// Read, and no whole record.
    rest: Bytes,
    /// Records that must still come.
    records: u64,
    aborted: HashSet<u32>,
}

impl Replay {
    pub(super) fn new(xid: u32, kept: Kept) -> Self {
        let Kept { buffer, file, records, aborted, .. } = kept;
        Self { xid, file, at: 0, memory: buffer.into(), rest: Bytes::new(), records, aborted }
    }

    /// Bytes that were not read yet.
    fn left(&self) -> u64 {
        let file = self.file.as_ref().map_or(0, |file| file.length().saturating_sub(self.at));
        file + self.memory.len() as u64
    }

    /// The next messages, of about `most` bytes. Nothing at the end.
    ///
    /// # Errors
    /// `PG0031` when the bytes are not what was written.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<Piece>, CodedError> {
        loop {
            let (piece, missing) = self.whole()?;
            if piece.is_some() {
                return Ok(piece);
            }
            let left = self.left();
            if left == 0 && self.rest.is_empty() && self.records == 0 {
                return Ok(None);
            }
            if missing as u64 > left || left == 0 {
                return Err(spill::broken(self.xid, "it ends early"));
            }
            self.fill(missing.max(most)).await?;
        }
    }

    /// The whole records at hand; without any, the bytes that the first one lacks at least.
    fn whole(&mut self) -> Result<(Option<Piece>, usize), CodedError> {
        let mut messages = Vec::new();
        let mut at = 0_usize;
        let missing = loop {
            let rest = self.rest.get(at..).unwrap_or_default();
            let Some((xid, length)) = spill::header(rest) else { break RECORD_HEADER.saturating_sub(rest.len()) };
            let whole = RECORD_HEADER.saturating_add(length);
            if whole > rest.len() {
                break whole - rest.len();
            }
            self.records = self.records.checked_sub(1).ok_or_else(|| spill::broken(self.xid, "it has more changes"))?;
            let (Ok(start), Ok(end)) = (u32::try_from(at + RECORD_HEADER), u32::try_from(at + whole)) else {
                return Err(spill::broken(self.xid, "a change is larger than any of the protocol"));
            };
            if !self.aborted.contains(&xid) {
                messages.push((start, end));
            }
            at += whole;
        };
        let piece = (at > 0).then(|| Piece { bytes: self.rest.split_to(at), messages });
        Ok((piece, missing))
    }

    /// Reads up to `want` bytes behind the rest.
    async fn fill(&mut self, want: usize) -> Result<(), CodedError> {
        let unread = self.file.as_ref().map_or(0, |file| file.length().saturating_sub(self.at));
        let more = match &self.file {
            Some(file) if unread > 0 => {
                let want = usize::try_from(unread).unwrap_or(usize::MAX).min(want);
                let more = file.read(self.at, want).await?;
                self.at += more.len() as u64;
                more
            }
            _ => self.memory.split_to(want.min(self.memory.len())),
        };
        if self.rest.is_empty() {
            self.rest = more;
        } else {
            let mut joined = BytesMut::with_capacity(self.rest.len() + more.len());
            joined.extend_from_slice(&self.rest);
            joined.extend_from_slice(&more);
            self.rest = joined.freeze();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::spill::Place;
    use super::*;

    /// A transaction of 300 messages, the first `spilled` bytes of it in a file that `change` has been at.
    async fn replay(spilled: usize, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, Replay) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder: folder.path().into(), name: "n".into() };
        let mut bytes = Vec::new();
        (0..300_u32).for_each(|i| spill::record(&mut bytes, 7 + i % 2, b'I', &vec![0; (i * 7 % 100) as usize]));
        let buffer = bytes.split_off(spilled);
        let mut file = SpillFile::create(&place, 7).unwrap();
        change(&mut bytes);
        file.append(bytes).await.unwrap();
        let kept = Kept { buffer, file: Some(file), records: 300, aborted: [8].into_iter().collect(), ..Kept::default() };
        (folder, Replay::new(7, kept))
    }

    async fn count(replay: &mut Replay, most: usize) -> Result<usize, CodedError> {
        let mut count = 0;
        while let Some(piece) = replay.next(most).await? {
            assert!(piece.bytes.len() < most + 108);
            assert!(piece.messages.iter().all(|(start, _)| piece.bytes[*start as usize] == b'I'));
            count += piece.messages.len();
        }
        Ok(count)
    }

    #[tokio::test]
    async fn pieces_of_any_size() {
        for spilled in [0, 3, 2000] {
            for most in [1, 9, 1000, 1 << 20] {
                let (_folder, mut replay) = replay(spilled, |_| ()).await;
                assert_eq!(count(&mut replay, most).await.unwrap(), 150);
                assert!(replay.next(most).await.unwrap().is_none());
            }
        }
    }

    #[tokio::test]
    async fn hostile_files_are_errors() {
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 7] = [
            ("empty", Vec::clear),
            ("short", |bytes| bytes.truncate(1999)),
            ("long", |bytes| bytes.extend_from_slice(b"\0\0\0\x01\0\0\0\x07I")),
            ("huge length", |bytes| bytes[..4].fill(0xff)),
            ("length past the end", |bytes| bytes[..4].copy_from_slice(&20_000_u32.to_be_bytes())),
            ("zero length", |bytes| bytes[..4].fill(0)),
            ("noise", |bytes| bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 31) as u8)),
        ];
        for (what, change) in changes {
            let (_folder, mut replay) = replay(2000, change).await;
            let result = async {
                while let Some(piece) = replay.next(100).await? {
                    assert!(piece.messages.iter().all(|(start, end)| start <= end && *end as usize <= piece.bytes.len()));
                }
                Ok::<(), CodedError>(())
            };
            assert_eq!(result.await.unwrap_err().code.id, "PG0031", "{what}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(buffer: Vec<u8>, records: u64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut replay = Replay::new(7, Kept { buffer, records, ..Kept::default() });
            runtime.block_on(async { while let Ok(Some(_)) = replay.next(10).await {} });
        }
    }
}
