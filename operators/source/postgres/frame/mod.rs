//! Frames of the replication stream: what each message is about, without looking at column values.
//!
//! ```text
//! CopyData payload := 'w' start:int64 end:int64 clock:int64 pgoutput          XLogData
//!                   | 'k' wal_end:int64 clock:int64 reply:byte                Primary keepalive
//! pgoutput := 'B' final_lsn:int64 commit_time:int64 xid:int32                 Begin
//!           | 'C' flags:byte commit_lsn:int64 end_lsn:int64 time:int64        Commit
//!           | 'O' lsn:int64 name:string                                       Origin
//!           | 'R' oid:int32 schema:string name:string identity:byte count:int16 column*   Relation
//!           | 'Y' oid:int32 schema:string name:string                         Type
//!           | 'I' oid:int32 'N' tuple                                         Insert
//!           | 'U' oid:int32 ['K' tuple | 'O' tuple] 'N' tuple                 Update
//!           | 'D' oid:int32 ('K' | 'O') tuple                                 Delete
//!           | 'T' count:int32 options:byte oid:int32*                         Truncate
//!           | 'M' flags:byte lsn:int64 prefix:string length:int32 bytes       Message
//!           | 'S' xid:int32 first:byte                                        Stream Start
//!           | 'E'                                                             Stream Stop
//!           | 'c' xid:int32 flags:byte commit_lsn:int64 end_lsn:int64 time:int64      Stream Commit
//!           | 'A' xid:int32 subxid:int32                                      Stream Abort
//! column   := flags:byte (1: part of the key) name:string type:int32 modifier:int32
//! string   := bytes 0;  integers are big-endian; times are microseconds since 2000-01-01 UTC
//! ```
//! (PostgreSQL manual, "Streaming Replication Protocol" and "Logical Replication Message Formats",
//! protocol versions 1 to 4; not `streaming 'parallel'`, whose Stream Abort is longer, nor two-phase slots, which
//! `setup` refuses.)
//!
//! # Blocks
//! What stands between Stream Start and Stream Stop belongs to a transaction in progress. There, and only there, an
//! `xid:int32` stands between the tag and the rest of `R Y I U D T M`: the subtransaction that made the change, or the
//! transaction itself. [`parse_in_block`] reads that; what it leaves of a message is a message as above.
//!
//! Hot path: a change costs one tag and one relation id; nothing is allocated for it. Bytes from outside
//! never panic.

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// Bytes of an XLogData header, before the pgoutput message.
pub(super) const DATA_HEADER: usize = 25;

const XLOG_DATA: u8 = b'w';
const KEEPALIVE: u8 = b'k';
const BEGIN: u8 = b'B';
const COMMIT: u8 = b'C';
const ORIGIN: u8 = b'O';
const RELATION: u8 = b'R';
const TYPE: u8 = b'Y';
const INSERT: u8 = b'I';
const UPDATE: u8 = b'U';
const DELETE: u8 = b'D';
const TRUNCATE: u8 = b'T';
const MESSAGE: u8 = b'M';
const STREAM_START: u8 = b'S';
const STREAM_STOP: u8 = b'E';
const STREAM_COMMIT: u8 = b'c';
const STREAM_ABORT: u8 = b'A';

/// Why bytes are not a message of the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The message ends inside a field.
    #[error("the message ends before its {0}")]
    Truncated(&'static str),
    /// A tag that this protocol version does not have.
    #[error("a message of kind {0:#04x} is not part of the protocol asked for")]
    Tag(u8),
    /// A name that is not UTF-8, although the connection's encoding is.
    #[error("the message's {0} is not UTF-8")]
    Encoding(&'static str),
    /// A count below zero.
    #[error("the message counts {0} {1}")]
    Count(i64, &'static str),
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The server has sent everything before `wal_end`.
    Keepalive {
        /// Where the server's reading of the log stands.
        wal_end: u64,
        /// Whether it wants an answer at once.
        reply: bool,
    },
    /// A transaction starts.
    Begin {
        /// LSN of its commit record.
        commit_lsn: u64,
        /// Its commit time, microseconds since 1970-01-01 UTC.
        time: i64,
    },
    /// It ends.
    Commit {
        /// LSN of the commit record.
        commit_lsn: u64,
        /// Just past it.
        end_lsn: u64,
    },
    /// A table as the following rows have it.
    Relation(Relation),
    /// A type that is not built in.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// `schema.name`.
        name: String,
    },
    /// A row's insert, update or delete.
    Change {
        /// The relation's object id.
        relation: u32,
    },
    /// Relations truncated together.
    Truncate(Relations<'a>),
    /// A block of a transaction in progress starts.
    StreamStart {
        /// The transaction.
        xid: u32,
        /// Whether it is the transaction's first.
        first: bool,
    },
    /// The block ends.
    StreamStop,
    /// A transaction that came in blocks has committed.
    StreamCommit(StreamCommit),
    /// It, or a part of it, was rolled back.
    StreamAbort {
        /// The transaction.
        xid: u32,
        /// What was rolled back: a subtransaction, or the transaction.
        subxid: u32,
    },
    /// A relation, type, change or truncate within a block.
    Streamed {
        /// The subtransaction, or the transaction.
        xid: u32,
        /// The message's tag.
        tag: u8,
        /// What follows the transaction id: with the tag before it, a message for [`message`].
        body: &'a [u8],
    },
    /// An origin or a logical message: nothing to do.
    Other,
}

/// The commit of a transaction that came in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamCommit {
    /// The transaction.
    pub xid: u32,
    /// LSN of the commit record.
    pub commit_lsn: u64,
    /// Just past it.
    pub end_lsn: u64,
    /// Its commit time, microseconds since 1970-01-01 UTC.
    pub time: i64,
}

/// A relation as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    /// `pg_class.oid`.
    pub id: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub identity: u8,
    /// The columns sent.
    pub columns: Vec<RelationColumn>,
}

/// A column of a relation as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// Whether old tuples carry it.
    pub key: bool,
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub modifier: i32,
}

/// Object ids of truncated relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relations<'a>(&'a [u8]);

impl Relations<'_> {
    /// The ids, in the message's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.as_chunks::<4>().0.iter().map(|id| u32::from_be_bytes(*id))
    }
}

/// A forward reader of fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FrameError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Truncated(what))?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        Ok(self.take::<1>(what)?[0])
    }
    fn i16(&mut self, what: &'static str) -> Result<i16, FrameError> {
        Ok(i16::from_be_bytes(self.take(what)?))
    }
    fn i32(&mut self, what: &'static str) -> Result<i32, FrameError> {
        Ok(i32::from_be_bytes(self.take(what)?))
    }
    fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        Ok(u32::from_be_bytes(self.take(what)?))
    }
    fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        Ok(u64::from_be_bytes(self.take(what)?))
    }
    fn time(&mut self, what: &'static str) -> Result<i64, FrameError> {
        Ok(i64::from_be_bytes(self.take(what)?).saturating_add(EPOCH_2000))
    }
    fn text(&mut self, what: &'static str) -> Result<&'a str, FrameError> {
        let end = memchr::memchr(0, self.0).ok_or(FrameError::Truncated(what))?;
        let (head, rest) = self.0.split_at_checked(end).ok_or(FrameError::Truncated(what))?;
        self.0 = rest.get(1..).unwrap_or_default();
        str::from_utf8(head).map_err(|_| FrameError::Encoding(what))
    }
}

/// Reads the payload of one CopyData message.
///
/// # Errors
/// When the bytes do not follow the layout above.
pub(crate) fn parse(payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut fields = Fields(payload);
    match fields.u8("kind")? {
        XLOG_DATA => {
            let _header: [u8; DATA_HEADER - 1] = fields.take("header")?;
            pgoutput(fields)
        }
        KEEPALIVE => {
            let wal_end = fields.u64("position")?;
            let _clock = fields.u64("clock")?;
            Ok(Frame::Keepalive { wal_end, reply: fields.u8("reply flag")? != 0 })
        }
        other => Err(FrameError::Tag(other)),
    }
}

/// Reads the payload of one CopyData message between Stream Start and Stream Stop.
///
/// # Errors
/// When the bytes do not follow the layout above.
pub(crate) fn parse_in_block(payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut fields = Fields(payload);
    if fields.u8("kind")? != XLOG_DATA {
        return parse(payload);
    }
    let _header: [u8; DATA_HEADER - 1] = fields.take("header")?;
    Ok(match fields.u8("tag")? {
        tag @ (INSERT | UPDATE | DELETE | TRUNCATE | RELATION | TYPE) => {
            let xid = fields.u32("transaction id")?;
            Frame::Streamed { xid, tag, body: fields.0 }
        }
        STREAM_STOP => Frame::StreamStop,
        ORIGIN | MESSAGE => Frame::Other,
        other => return Err(FrameError::Tag(other)),
    })
}

/// Reads a pgoutput message without its XLogData header and, if it stood in a block, without its transaction id.
///
/// # Errors
/// When the bytes do not follow the layout above.
pub(crate) fn message(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    pgoutput(Fields(bytes))
}

fn pgoutput(mut fields: Fields<'_>) -> Result<Frame<'_>, FrameError> {
    Ok(match fields.u8("tag")? {
        INSERT | UPDATE | DELETE => Frame::Change { relation: fields.u32("relation")? },
        BEGIN => {
            let (commit_lsn, time) = (fields.u64("final LSN")?, fields.time("commit time")?);
            let _xid = fields.u32("transaction id")?;
            Frame::Begin { commit_lsn, time }
        }
        COMMIT => {
            let _flags = fields.u8("flags")?;
            let (commit_lsn, end_lsn) = (fields.u64("commit LSN")?, fields.u64("end LSN")?);
            let _time = fields.time("commit time")?;
            Frame::Commit { commit_lsn, end_lsn }
        }
        RELATION => Frame::Relation(relation(fields)?),
        TYPE => {
            let oid = fields.u32("type")?;
            let (schema, name) = (fields.text("type's schema")?, fields.text("type's name")?);
            let name = if schema.is_empty() { name.to_owned() } else { format!("{schema}.{name}") };
            Frame::Type { oid, name }
        }
        TRUNCATE => {
            let count = fields.i32("relation count")?;
            let _options = fields.u8("options")?;
            let length = usize::try_from(count).map_err(|_| FrameError::Count(count.into(), "relations"))?;
            let ids = length.checked_mul(4).and_then(|bytes| fields.0.get(..bytes)).ok_or(FrameError::Truncated("relations"))?;
            Frame::Truncate(Relations(ids))
        }
        STREAM_START => Frame::StreamStart { xid: fields.u32("transaction id")?, first: fields.u8("first block's flag")? != 0 },
        STREAM_COMMIT => {
            let xid = fields.u32("transaction id")?;
            let _flags = fields.u8("flags")?;
            let (commit_lsn, end_lsn) = (fields.u64("commit LSN")?, fields.u64("end LSN")?);
            Frame::StreamCommit(StreamCommit { xid, commit_lsn, end_lsn, time: fields.time("commit time")? })
        }
        STREAM_ABORT => {
            let (xid, subxid) = (fields.u32("transaction id")?, fields.u32("subtransaction id")?);
            Frame::StreamAbort { xid, subxid }
        }
        ORIGIN | MESSAGE => Frame::Other,
        other => return Err(FrameError::Tag(other)),
    })
}

fn relation(mut fields: Fields<'_>) -> Result<Relation, FrameError> {
    let id = fields.u32("relation")?;
    let schema = match fields.text("relation's schema")? {
        "" => "pg_catalog".to_owned(),
        schema => schema.to_owned(),
    };
    let name = fields.text("relation's name")?.to_owned();
    let identity = fields.u8("replica identity")?;
    let count = fields.i16("column count")?;
    let count = usize::try_from(count).map_err(|_| FrameError::Count(count.into(), "columns"))?;
    let columns = (0..count).map(|_| {
        Ok(RelationColumn {
            key: fields.u8("column's flags")? & 1 != 0,
            name: fields.text("column's name")?.to_owned(),
            type_oid: fields.u32("column's type")?,
            modifier: fields.i32("column's type modifier")?,
        })
    });
    let columns = columns.collect::<Result<_, FrameError>>()?;
    Ok(Relation { id, schema, name, identity, columns })
}

#[cfg(test)]
pub(super) mod tests;
