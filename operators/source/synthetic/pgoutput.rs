//! pgoutput messages as the server writes them, each in XLogData in CopyData: what [`crate::source::postgres`] reads.
//! The layout stands in its `frame`.
//!
//! Hot path: a change is one copy of bytes made before.

use crate::contract::{Op, TableSchema};

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// Bytes of log that a change takes: its record's position is told with it.
pub(super) const CHANGE_LSNS: u64 = 64;
/// Transaction ids below are the system's.
const FIRST_XID: u32 = 1_000;
/// Bytes of log of a commit record.
pub(super) const COMMIT_LSNS: u64 = 48;

/// Messages in their frames.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Start and end of each payload.
    pub(super) places: Vec<(u32, u32)>,
}

/// A changed row.
pub(super) struct Row<'a> {
    pub(super) relation: u32,
    pub(super) op: Op,
    pub(super) columns: u16,
    pub(super) key: i64,
    /// The tuple after its first column: the values, or nulls for a delete.
    pub(super) rest: [&'a [u8]; 2],
}

impl Messages {
    /// Room for so many bytes, and what the last message has beyond them.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + bytes / 8), places: Vec::with_capacity(bytes / 128) }
    }

    /// Writes one message; `lsn` is where its record stands, 0 for what is not of one record.
    fn message(&mut self, lsn: u64, clock: i64, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(b"d\0\0\0\0");
        let start = self.bytes.len();
        self.bytes.push(b'w');
        self.bytes.extend_from_slice(&lsn.to_be_bytes());
        self.bytes.extend_from_slice(&lsn.to_be_bytes());
        self.bytes.extend_from_slice(&clock.to_be_bytes());
        write(&mut self.bytes);
        let end = self.bytes.len();
        // The length of a CopyData counts itself.
        if let Some(length) = self.bytes.get_mut(start - 4..start) {
            length.copy_from_slice(&((end - start + 4) as u32).to_be_bytes());
        }
        self.places.push((start as u32, end as u32));
    }

    pub(super) fn begin(&mut self, lsn: u64, commit_lsn: u64, time: i64, transaction: u64) {
        let xid = (transaction as u32).wrapping_add(FIRST_XID);
        let time = time - EPOCH_2000;
        self.message(lsn, time, |out| {
            out.push(b'B');
            out.extend_from_slice(&commit_lsn.to_be_bytes());
            out.extend_from_slice(&time.to_be_bytes());
            out.extend_from_slice(&xid.to_be_bytes());
        });
    }

    pub(super) fn commit(&mut self, commit_lsn: u64, end_lsn: u64, time: i64) {
        let time = time - EPOCH_2000;
        self.message(commit_lsn, time, |out| {
            out.extend_from_slice(b"C\0");
            out.extend_from_slice(&commit_lsn.to_be_bytes());
            out.extend_from_slice(&end_lsn.to_be_bytes());
            out.extend_from_slice(&time.to_be_bytes());
        });
    }

    pub(super) fn relation(&mut self, table: &TableSchema) {
        self.message(0, 0, |out| {
            out.push(b'R');
            out.extend_from_slice(&table.id.to_be_bytes());
            for name in [&table.schema, &table.name] {
                out.extend_from_slice(name.as_bytes());
                out.push(0);
            }
            out.push(b'd');
            out.extend_from_slice(&(table.columns.len() as u16).to_be_bytes());
            for column in &table.columns {
                out.push(u8::from(column.key.is_some()));
                out.extend_from_slice(column.name.as_bytes());
                out.push(0);
                out.extend_from_slice(&column.pg_type.oid.to_be_bytes());
                out.extend_from_slice(&column.pg_type.modifier.to_be_bytes());
            }
        });
    }

    pub(super) fn change(&mut self, lsn: u64, time: i64, row: &Row<'_>) {
        let Row { relation, op, columns, key, rest } = *row;
        let mut digits = itoa::Buffer::new();
        let key = digits.format(key).as_bytes();
        self.message(lsn, time - EPOCH_2000, |out| {
            let (tag, tuple) = match op {
                Op::Update => (b'U', b'N'),
                Op::Delete => (b'D', b'K'),
                _ => (b'I', b'N'),
            };
            out.push(tag);
            out.extend_from_slice(&relation.to_be_bytes());
            out.push(tuple);
            out.extend_from_slice(&columns.to_be_bytes());
            out.push(b't');
            out.extend_from_slice(&(key.len() as u32).to_be_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(rest[0]);
            out.extend_from_slice(rest[1]);
        });
    }
}
