//! Messages, whole, broken and in blocks.

use super::*;

/// The payload of an XLogData message.
pub(in crate::source::postgres) fn data(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![XLOG_DATA];
    out.extend_from_slice(&[0; DATA_HEADER - 1]);
    out.push(tag);
    out.extend_from_slice(body);
    out
}

pub(in crate::source::postgres) fn begin(lsn: u64) -> Vec<u8> {
    data(BEGIN, &[&lsn.to_be_bytes()[..], &0_i64.to_be_bytes(), &7_i32.to_be_bytes()].concat())
}

pub(in crate::source::postgres) fn commit(lsn: u64, end: u64) -> Vec<u8> {
    data(COMMIT, &[&[0][..], &lsn.to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat())
}

pub(in crate::source::postgres) fn insert(relation: u32) -> Vec<u8> {
    data(INSERT, &[&relation.to_be_bytes()[..], b"N\0\0"].concat())
}

pub(in crate::source::postgres) fn truncate(relations: &[u32]) -> Vec<u8> {
    let ids: Vec<u8> = relations.iter().flat_map(|id| id.to_be_bytes()).collect();
    data(TRUNCATE, &[&(relations.len() as i32).to_be_bytes()[..], &[0], &ids].concat())
}

pub(in crate::source::postgres) fn keepalive(wal_end: u64) -> Vec<u8> {
    [&[KEEPALIVE][..], &wal_end.to_be_bytes(), &[0; 8], &[1]].concat()
}

pub(in crate::source::postgres) fn stream_commit(xid: u32, lsn: u64, end: u64) -> Vec<u8> {
    data(STREAM_COMMIT, &[&xid.to_be_bytes()[..], &[0], &lsn.to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat())
}

pub(in crate::source::postgres) fn stream_abort(xid: u32, subxid: u32) -> Vec<u8> {
    data(STREAM_ABORT, &[xid.to_be_bytes(), subxid.to_be_bytes()].concat())
}

#[test]
fn messages() {
    assert_eq!(parse(&begin(0x10)), Ok(Frame::Begin { commit_lsn: 0x10, time: EPOCH_2000 }));
    assert_eq!(parse(&commit(0x10, 0x20)), Ok(Frame::Commit { commit_lsn: 0x10, end_lsn: 0x20 }));
    assert_eq!(parse(&insert(9)), Ok(Frame::Change { relation: 9 }));
    assert_eq!(parse(&keepalive(5)), Ok(Frame::Keepalive { wal_end: 5, reply: true }));
    match parse(&truncate(&[3, 1])) {
        Ok(Frame::Truncate(relations)) => assert_eq!(relations.iter().collect::<Vec<_>>(), [3, 1]),
        other => panic!("{other:?}"),
    }
    let body = b"\0\0\0\x01public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0n\xc3\xa9\0\0\0\0\x19\xff\xff\xff\xff";
    let column = |key, name: &str, type_oid| RelationColumn { key, name: name.into(), type_oid, modifier: -1 };
    let columns = vec![column(true, "id", 23), column(false, "né", 25)];
    let relation = Relation { id: 1, schema: "public".into(), name: "t".into(), identity: b'd', columns };
    assert_eq!(parse(&data(RELATION, body)), Ok(Frame::Relation(relation)));
    assert_eq!(parse(&data(TYPE, b"\0\0\0\x05s\0e\0")), Ok(Frame::Type { oid: 5, name: "s.e".into() }));
    assert_eq!(parse(&data(ORIGIN, b"anything")), Ok(Frame::Other));
}

#[test]
fn broken_messages_are_errors() {
    for (payload, error) in [
        (vec![], FrameError::Truncated("kind")),
        (vec![b'x'], FrameError::Tag(b'x')),
        (vec![b'w', 0], FrameError::Truncated("header")),
        (data(b'S', b""), FrameError::Truncated("transaction id")),
        (data(b'E', b""), FrameError::Tag(b'E')),
        (data(b'b', b""), FrameError::Tag(b'b')),
        (data(INSERT, b"\0\0"), FrameError::Truncated("relation")),
        (data(TRUNCATE, b"\xff\xff\xff\xff\0"), FrameError::Count(-1, "relations")),
        (data(TRUNCATE, b"\x7f\xff\xff\xff\0\0\0"), FrameError::Truncated("relations")),
        (data(RELATION, b"\0\0\0\x01p\0t\0d\xff\xff"), FrameError::Count(-1, "columns")),
        (data(RELATION, b"\0\0\0\x01\xff\0t\0d\0\0"), FrameError::Encoding("relation's schema")),
        (data(RELATION, b"\0\0\0\x01p"), FrameError::Truncated("relation's schema")),
    ] {
        assert_eq!(parse(&payload), Err(error));
    }
    // every prefix of every message is an error or a message, never a panic
    let whole = data(RELATION, b"\0\0\0\x01public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff");
    for message in [whole, begin(1), commit(1, 2), truncate(&[1, 2]), keepalive(1), stream_commit(7, 1, 2), stream_abort(7, 8)] {
        for end in 0..message.len() {
            assert!(parse(&message[..end]).is_err(), "{end} of {message:?}");
        }
    }
}

#[test]
fn blocks() {
    assert_eq!(parse(&data(b'S', b"\0\0\0\x07\x01")), Ok(Frame::StreamStart { xid: 7, first: true }));
    assert_eq!(parse(&data(b'S', b"\0\0\0\x07\0")), Ok(Frame::StreamStart { xid: 7, first: false }));
    assert_eq!(parse(&stream_abort(7, 9)), Ok(Frame::StreamAbort { xid: 7, subxid: 9 }));
    let commit = StreamCommit { xid: 7, commit_lsn: 0x10, end_lsn: 0x20, time: EPOCH_2000 };
    assert_eq!(parse(&stream_commit(7, 0x10, 0x20)), Ok(Frame::StreamCommit(commit)));
    let streamed = |tag, body| Ok(Frame::Streamed { xid: 8, tag, body });
    for (payload, expected) in [
        (data(b'E', b""), Ok(Frame::StreamStop)),
        (data(b'I', b"\0\0\0\x08\0\0\0\x09N\0\0"), streamed(b'I', b"\0\0\0\x09N\0\0")),
        (data(b'T', b"\0\0\0\x08"), streamed(b'T', b"")),
        (data(b'M', b""), Ok(Frame::Other)),
        (data(b'O', b""), Ok(Frame::Other)),
        (keepalive(5), Ok(Frame::Keepalive { wal_end: 5, reply: true })),
        (begin(1), Err(FrameError::Tag(b'B'))),
        (data(b'S', b"\0\0\0\x07\x01"), Err(FrameError::Tag(b'S'))),
        (data(b'I', b"\0\0\0"), Err(FrameError::Truncated("transaction id"))),
        (vec![], Err(FrameError::Truncated("kind"))),
    ] {
        assert_eq!(parse_in_block(&payload), expected);
    }
    assert_eq!(message(b"I\0\0\0\x09N\0\0"), Ok(Frame::Change { relation: 9 }));
}

proptest::proptest! {
    #[test]
    fn any_bytes(payload: Vec<u8>) {
        let _ = parse(&payload);
        let _ = parse_in_block(&payload);
        let _ = message(&payload);
        let _ = parse(&data(RELATION, &payload));
        let _ = parse(&data(TRUNCATE, &payload));
    }
}
