//! The file of a recorded stream.
//!
//! ```text
//! file   := "etl-stream.capture/1\n" record* end
//! record := 't' length:int32 schema                  what the next relation's message stands for, as JSON
//!         | 'd' length:int32 payload                 CopyData of the replication stream: 'w' and what follows
//! end    := 'e' length:int32 (24) changes:int64 transactions:int64 end_lsn:int64
//! ```
//! Integers are big-endian. A file without its end was not finished and is refused.
//!
//! Any bytes give records or a typed error; a length is believed as far as bytes have come.

use crate::contract::TableSchema;

/// How a file begins.
pub(super) const MAGIC: &[u8; 21] = b"etl-stream.capture/1\n";
const TABLE: u8 = b't';
const PAYLOAD: u8 = b'd';
const END: u8 = b'e';
/// Bytes before a record's body.
const HEAD: usize = 5;
/// The longest record: PostgreSQL's longest message, and its header.
const LONGEST: usize = (1 << 30) + (64 << 10);
/// Bytes of the end.
pub(super) const END_BYTES: usize = HEAD + 24;

/// Why bytes are not a capture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// It begins differently.
    #[error("it does not begin as a capture of this version")]
    Magic,
    /// A record of no known kind.
    #[error("a record is of kind {0:#04x}")]
    Kind(u8),
    /// A record that is too long, or an end of another length.
    #[error("a record has {0} bytes")]
    Length(usize),
    /// A schema that is none.
    #[error("a table's schema was not understood: {0}")]
    Schema(serde_json::Error),
    /// It ends without its end.
    #[error("it has no end: the recording was not finished")]
    Unfinished,
    /// Bytes after the end.
    #[error("something stands after its end")]
    Trailing,
}

/// What a recording has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Changes.
    pub changes: u64,
    /// Transactions.
    pub transactions: u64,
    /// Where the last one ends in the log.
    pub end_lsn: u64,
}

/// A record.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A table's schema.
    Table(Box<TableSchema>),
    /// Start and end of a payload, from the start of the bytes given.
    Payload(usize, usize),
    /// The end.
    End(Captured),
}

/// Reads the record at `at`, and where the next one stands; nothing: it has not come as a whole.
pub(super) fn entry(bytes: &[u8], at: usize) -> Result<Option<(Entry, usize)>, CaptureError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some((head, _)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [kind, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if !matches!(kind, TABLE | PAYLOAD | END) {
        return Err(CaptureError::Kind(kind));
    }
    if length > LONGEST || (kind == END && length + HEAD != END_BYTES) {
        return Err(CaptureError::Length(length));
    }
    let Some(body) = rest.get(HEAD..HEAD + length) else { return Ok(None) };
    let next = at + HEAD + length;
    let entry = match kind {
        TABLE => Entry::Table(serde_json::from_slice(body).map_err(CaptureError::Schema)?),
        PAYLOAD => Entry::Payload(at + HEAD, next),
        _ => Entry::End(end(body)),
    };
    Ok(Some((entry, next)))
}

fn end(body: &[u8]) -> Captured {
    let (numbers, _) = body.as_chunks::<8>();
    let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Captured { changes: number(0), transactions: number(1), end_lsn: number(2) }
}

/// Reads the end from a file's last bytes.
pub(super) fn last(bytes: &[u8]) -> Result<Captured, CaptureError> {
    match bytes.len().checked_sub(END_BYTES).map(|at| entry(bytes, at)) {
        Some(Ok(Some((Entry::End(end), _)))) => Ok(end),
        _ => Err(CaptureError::Unfinished),
    }
}

fn record(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends a table's schema.
pub(super) fn write_table(table: &TableSchema, out: &mut Vec<u8>) {
    record(TABLE, &serde_json::to_vec(table).expect("plain data becomes JSON"), out);
}

/// Appends a payload.
pub(super) fn write_payload(payload: &[u8], out: &mut Vec<u8>) {
    record(PAYLOAD, payload, out);
}

/// Appends the end.
pub(super) fn write_end(end: Captured, out: &mut Vec<u8>) {
    record(END, &[end.changes, end.transactions, end.end_lsn].map(u64::to_be_bytes).concat(), out);
}
