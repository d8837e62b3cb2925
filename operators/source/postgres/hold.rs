//! The hold: changes of transactions in progress, until they commit or are rolled back.
//!
//! ```text
//! Stream Start … Stop ──push──> memory ──over the bound──> spill file       one of each for a transaction
//!        Stream Abort ──abort──> gone: the transaction's, or one subtransaction's changes
//!       Stream Commit ──commit─> Replay, in the order they came
//! ```
//! # Guarantees
//! What a transaction replays is what the server sends of it when it doesn't stream: the changes in log order, less
//! those of subtransactions that were rolled back. All transactions together have at most `memory` in memory (up to the
//! slack of a growing buffer and one message) and `max_bytes` in files; beyond that comes `PG0030`, never a row less.
//! Of a rolled back subtransaction the space comes back if nothing that survives was written after it.
//!
//! Hot path: a change costs one look-up by transaction and one copy.

use super::assemble::StreamError;
use super::config::SpillSettings;
use super::replay::Replay;
use super::spill::{self, Place, SpillFile};
use crate::contract::{ByteSize, CodedError, SourceStatus};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Runs remembered of a transaction: beyond, the older half is forgotten, and with it that their space can come back.
const MOST_RUNS: usize = 4096;

/// Changes of one subtransaction with none of another between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    xid: u32,
    /// Where it starts.
    offset: u64,
    /// Records before it.
    records: u64,
}

/// What is held of one transaction.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Records after those of the file.
    pub buffer: Vec<u8>,
    /// The first records.
    pub file: Option<SpillFile>,
    /// How many records there are.
    pub records: u64,
    /// Subtransactions whose records do not count.
    pub aborted: HashSet<u32>,
    pub runs: Vec<Run>,
}

impl Kept {
    fn spilled(&self) -> u64 {
        self.file.as_ref().map_or(0, SpillFile::length)
    }

    fn push(&mut self, xid: u32, tag: u8, body: &[u8]) {
        if self.runs.last().is_none_or(|run| run.xid != xid) {
            if self.runs.len() >= MOST_RUNS {
                self.runs.drain(..MOST_RUNS / 2);
            }
            self.runs.push(Run { xid, offset: self.spilled() + self.buffer.len() as u64, records: self.records });
        }
        spill::record(&mut self.buffer, xid, tag, body);
        self.records += 1;
    }

    /// Drops a subtransaction's records.
    fn abort(&mut self, subxid: u32) -> Result<(), CodedError> {
        self.aborted.insert(subxid);
        let mut from = None;
        while let Some(run) = self.runs.pop_if(|run| self.aborted.contains(&run.xid)) {
            from = Some(run);
        }
        let Some(run) = from else { return Ok(()) };
        self.records = run.records;
        let spilled = self.spilled();
        match &mut self.file {
            Some(file) if run.offset < spilled => {
                self.buffer = Vec::new();
                file.truncate(run.offset)
            }
            _ => {
                self.buffer.truncate(usize::try_from(run.offset - spilled).unwrap_or(usize::MAX));
                Ok(())
            }
        }
    }
}

/// Transactions in progress.
pub(super) struct Hold {
    place: Place,
    memory: u64,
    most: ByteSize,
    kept: HashMap<u32, Kept>,
    /// The transaction whose block is open.
    block: Option<u32>,
    /// Capacity of all buffers.
    used: u64,
    status: Arc<SourceStatus>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.kept.clear();
        self.tell();
    }
}

impl Hold {
    /// An empty hold. Files that an earlier process left are removed: only the one that has the slot may do so.
    pub(super) fn new(settings: &SpillSettings, name: &str, status: Arc<SourceStatus>) -> Self {
        let place = Place { folder: settings.folder.clone(), name: name.to_owned() };
        place.clean();
        Self { place, memory: settings.memory.0, most: settings.max_bytes, kept: HashMap::new(), block: None, used: 0, status }
    }

    /// Whether a block is open.
    pub(super) fn in_block(&self) -> bool {
        self.block.is_some()
    }

    /// A block starts.
    pub(super) fn open(&mut self, xid: u32, first: bool) -> Result<(), StreamError> {
        // A block that is said to be the first may come after others that were empty.
        let fits = if first { self.kept.get(&xid).is_none_or(|kept| kept.records == 0) } else { self.kept.contains_key(&xid) };
        if !fits || self.block.is_some() {
            return Err(StreamError::Block(xid));
        }
        self.kept.entry(xid).or_default();
        self.block = Some(xid);
        Ok(())
    }

    /// The block ends.
    pub(super) fn close(&mut self) {
        self.block = None;
        self.tell();
    }

    /// Keeps a message of the open block. True: [`Hold::spill`] is due.
    pub(super) fn push(&mut self, xid: u32, tag: u8, body: &[u8]) -> Result<bool, StreamError> {
        let block = self.block.ok_or(StreamError::Outside("message of a block"))?;
        let kept = self.kept.get_mut(&block).ok_or(StreamError::Block(block))?;
        let before = kept.buffer.capacity();
        kept.push(xid, tag, body);
        self.used += (kept.buffer.capacity() - before) as u64;
        Ok(self.used > self.memory)
    }

    /// Writes the largest buffers to their files until the memory's bound is kept.
    pub(super) async fn spill(&mut self) -> Result<(), CodedError> {
        while self.used > self.memory {
            let disk: u64 = self.kept.values().map(Kept::spilled).sum();
            let count = self.kept.len();
            let Some((xid, kept)) = self.kept.iter_mut().max_by_key(|(_, kept)| kept.buffer.capacity()) else { break };
            let buffer = std::mem::take(&mut kept.buffer);
            self.used -= buffer.capacity() as u64;
            let length = buffer.len() as u64;
            if disk.saturating_add(length) > self.most.0 {
                return Err(spill::full(&self.place, self.most, count));
            }
            if length > 0 {
                let file = match &mut kept.file {
                    Some(file) => file,
                    none => none.insert(SpillFile::create(&self.place, *xid)?),
                };
                file.append(buffer).await?;
                self.status.spilled_bytes.fetch_add(length, Ordering::Relaxed);
            }
        }
        self.tell();
        Ok(())
    }

    /// Drops a transaction, or one subtransaction's changes.
    pub(super) fn abort(&mut self, xid: u32, subxid: u32) -> Result<(), CodedError> {
        if xid == subxid {
            let _ = self.take(xid);
        } else if let Some(kept) = self.kept.get_mut(&xid) {
            let before = kept.buffer.capacity();
            let aborted = kept.abort(subxid);
            self.used -= (before - kept.buffer.capacity()) as u64;
            aborted?;
        }
        self.tell();
        Ok(())
    }

    fn take(&mut self, xid: u32) -> Option<Kept> {
        let kept = self.kept.remove(&xid)?;
        self.used -= kept.buffer.capacity() as u64;
        Some(kept)
    }

    /// Hands a transaction over.
    pub(super) fn commit(&mut self, xid: u32) -> Result<Replay, StreamError> {
        if self.block.is_some() {
            return Err(StreamError::Block(xid));
        }
        let kept = self.take(xid).ok_or(StreamError::NoBlock(xid))?;
        Ok(Replay::new(xid, kept))
    }

    /// Says what is held.
    pub(super) fn tell(&self) {
        let bytes = self.kept.values().map(|kept| kept.spilled() + kept.buffer.len() as u64).sum();
        self.status.held_bytes.store(bytes, Ordering::Relaxed);
        self.status.open_transactions.store(self.kept.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::source::postgres) fn hold(folder: &tempfile::TempDir, memory: u64, most: u64) -> Hold {
        let settings = SpillSettings { folder: folder.path().into(), max_bytes: ByteSize(most), memory: ByteSize(memory) };
        Hold::new(&settings, "n", Arc::default())
    }

    /// Pushes messages of `(subtransaction, letter)` in one block.
    async fn block(hold: &mut Hold, xid: u32, messages: &[(u32, u8)]) {
        hold.open(xid, !hold.kept.contains_key(&xid)).unwrap();
        for (subxid, letter) in messages {
            if hold.push(*subxid, *letter, &[*letter; 99]).unwrap() {
                hold.spill().await.unwrap();
            }
        }
        hold.close();
    }

    async fn text(hold: &mut Hold, xid: u32) -> String {
        let mut replay = hold.commit(xid).unwrap();
        let mut text = String::new();
        while let Some(piece) = replay.next(256).await.unwrap() {
            for (start, end) in &piece.messages {
                let message = &piece.bytes[*start as usize..*end as usize];
                assert!(message.len() == 100 && message.iter().all(|b| *b == message[0]));
                text.push(message[0] as char);
            }
        }
        text
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        std::fs::read_dir(folder.path()).unwrap().count()
    }

    #[tokio::test]
    async fn what_survives_comes_back_in_order() {
        // memory for all, for some messages, and for none
        for memory in [1 << 20, 1000, 1] {
            let folder = tempfile::tempdir().unwrap();
            let mut hold = hold(&folder, memory, 1 << 20);
            block(&mut hold, 10, &[(10, b'a'), (11, b'b'), (12, b'c'), (11, b'd')]).await;
            block(&mut hold, 20, &[(20, b'k'), (21, b'l')]).await;
            block(&mut hold, 30, &[(30, b'x')]).await;
            block(&mut hold, 10, &[(10, b'e'), (13, b'f')]).await;
            // 12 was released into 11; both are rolled back; f's space comes back, theirs cannot
            for subxid in [12, 11, 13, 99] {
                hold.abort(10, subxid).unwrap();
            }
            assert_eq!((hold.kept[&10].records, hold.status.open_transactions.load(Ordering::Relaxed)), (5, 3));
            block(&mut hold, 10, &[(14, b'g'), (10, b'h')]).await;
            hold.abort(20, 20).unwrap();
            hold.abort(77, 77).unwrap();
            hold.abort(77, 78).unwrap();
            assert_eq!(files(&folder), if memory > 1000 { 0 } else { 1 + usize::from(memory == 1) });
            assert_eq!(text(&mut hold, 10).await, "aegh", "{memory}");
            assert_eq!(hold.commit(20).unwrap_err(), StreamError::NoBlock(20));
            assert_eq!(text(&mut hold, 30).await, "x");
            assert_eq!((hold.used, files(&folder)), (0, 0));
        }
    }

    #[tokio::test]
    async fn space_of_what_was_rolled_back_at_the_end_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut hold = hold(&folder, 1, 2000);
        block(&mut hold, 10, &[(10, b'a')]).await;
        for round in 0..50 {
            let (outer, inner) = (100 + 2 * round, 101 + 2 * round);
            block(&mut hold, 10, &[(outer, b'b'), (inner, b'c'), (outer, b'd')]).await;
            hold.abort(10, inner).unwrap();
            hold.abort(10, outer).unwrap();
        }
        assert_eq!(hold.status.held_bytes.load(Ordering::Relaxed), 108);
        block(&mut hold, 10, &[(10, b'e')]).await;
        assert_eq!(text(&mut hold, 10).await, "ae");
    }

    #[tokio::test]
    async fn the_limit_is_an_error_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let mut hold = hold(&folder, 1, 250);
        block(&mut hold, 10, &[(10, b'a'), (10, b'b')]).await;
        hold.open(10, false).unwrap();
        assert!(hold.push(10, b'c', &[0; 99]).unwrap());
        let error = hold.spill().await.unwrap_err();
        assert!(error.code.id == "PG0030" && !error.is_transient() && error.hint.unwrap().contains("spill.max_bytes"));
        drop(hold);
        assert_eq!(files(&folder), 0);
    }

    #[test]
    fn order_of_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let mut hold = hold(&folder, 1 << 20, 0);
        assert_eq!(hold.open(10, false), Err(StreamError::Block(10)));
        hold.open(10, true).unwrap();
        assert_eq!(hold.open(11, true), Err(StreamError::Block(11)));
        assert_eq!(hold.commit(10).unwrap_err(), StreamError::Block(10));
        hold.close();
        hold.open(10, true).unwrap();
        let _ = hold.push(10, b'I', b"").unwrap();
        hold.close();
        assert_eq!(hold.open(10, true), Err(StreamError::Block(10)));
        assert_eq!(hold.push(10, b'I', b""), Err(StreamError::Outside("message of a block")));
        assert_eq!(hold.commit(11).unwrap_err(), StreamError::NoBlock(11));
    }
}
