//! Frames in, items with their order out.

use super::super::frame::tests::{begin, commit, insert, keepalive, truncate};
use super::super::frame::{DATA_HEADER, parse};
use super::*;
use crate::contract::ReplicaIdentity;

fn table(id: u32) -> Arc<TableSchema> {
    let name = format!("t{id}").as_str().into();
    Arc::new(TableSchema {
        source: "s".into(),
        id,
        schema: "p".into(),
        name,
        columns: Vec::new(),
        identity: ReplicaIdentity::Full,
        storage: None,
    })
}

/// Feeds payloads as one read.
fn read(assembler: &mut Assembler, payloads: &[Vec<u8>]) -> Result<Assembled, StreamError> {
    let bytes = Bytes::from(payloads.concat());
    let mut start = 0;
    for payload in payloads {
        let end = start + payload.len();
        assembler.frame(&parse(&bytes[start..end])?, &bytes, (start + DATA_HEADER) as u32, end as u32)?;
        start = end;
    }
    Ok(assembler.finish())
}

/// Items as text: `M` a mark, else the table with its tokens.
fn shape(made: &Assembled) -> Vec<String> {
    let item = |item: &RawItem| match item {
        RawItem::Raw(raw) => {
            assert!(raw.rows.iter().all(|r| b"IUDT".contains(&raw.bytes[r.start as usize])));
            let token = |r: &RawRow| format!("{:x}/{}", raw.commits[r.commit as usize].lsn, r.ordinal);
            format!("{}:{}", raw.table.name, raw.rows.iter().map(token).collect::<Vec<_>>().join(","))
        }
        RawItem::Ready(item) => format!("M {}", item.table().name),
    };
    made.items.iter().map(item).collect()
}

fn session(ids: &[u32]) -> Assembler {
    let mut assembler = Assembler::new();
    assembler.start(1);
    for id in ids {
        assembler.sent_as(&table(*id));
        assembler.relation(*id, Some(table(*id)));
    }
    assembler
}

#[test]
fn groups_orders_and_reaches() {
    let mut a = session(&[1, 2]);
    a.relation(3, None);
    let made = read(&mut a, &[begin(16), insert(1), insert(3), insert(2), insert(1), commit(16, 20), begin(32), insert(1)]).unwrap();
    assert_eq!(shape(&made), ["t1:10/0,10/6,20/0", "t2:10/4"]);
    assert_eq!((made.upper, made.confirm, made.changes), (Ts::new(32, 2), Some((Ts::after(16), 20)), 4));
    // a keepalive inside a transaction says nothing; outside it does
    let made = read(&mut a, &[keepalive(90), truncate(&[2, 3, 1]), commit(32, 40)]).unwrap();
    assert_eq!(shape(&made), ["t2:20/2", "t1:20/6"]);
    assert_eq!((made.upper, made.confirm), (Ts::after(32), Some((Ts::after(32), 40))));
    let made = read(&mut a, &[keepalive(90)]).unwrap();
    assert_eq!((made.upper, made.confirm, made.items.len()), (Ts::new(90, 0), Some((Ts::new(90, 0), 90)), 0));
    let made = read(&mut a, &[keepalive(50)]).unwrap();
    assert_eq!((made.upper, made.confirm), (Ts::new(90, 0), None));
}

#[test]
fn a_session_skips_what_the_last_one_sent() {
    let mut a = session(&[1]);
    let first = [begin(16), insert(1), insert(1)];
    assert_eq!(shape(&read(&mut a, &first).unwrap()), ["t1:10/0,10/2"]);
    a.start(1);
    a.relation(1, Some(table(1)));
    let again = [begin(16), insert(1), insert(1), insert(1), commit(16, 20), begin(24), insert(1), commit(24, 30)];
    assert_eq!(shape(&read(&mut a, &again).unwrap()), ["t1:10/4,18/0"]);
    a.start(1);
    a.relation(1, Some(table(1)));
    let made = read(&mut a, &again).unwrap();
    assert_eq!((shape(&made), made.upper), (vec![], Ts::after(24)));
}

#[test]
fn a_changed_schema_is_announced_before_its_rows() {
    let mut a = session(&[1]);
    let changed = Arc::new(TableSchema { identity: ReplicaIdentity::Default, ..(*table(1)).clone() });
    let bytes = Bytes::from([begin(16), insert(1)].concat());
    let (at, end) = (begin(16).len(), bytes.len() as u32);
    a.frame(&parse(&bytes[..at]).unwrap(), &bytes, 0, at as u32).unwrap();
    let row = parse(&bytes[at..]).unwrap();
    let at = (at + DATA_HEADER) as u32;
    a.frame(&row, &bytes, at, end).unwrap();
    a.relation(1, Some(Arc::clone(&changed)));
    a.frame(&row, &bytes, at, end).unwrap();
    a.relation(1, Some(Arc::new((*changed).clone()))); // said again, unchanged
    a.frame(&row, &bytes, at, end).unwrap();
    assert_eq!(shape(&a.finish()), ["t1:10/0", "M t1", "t1:10/2", "t1:10/4"]);
}

#[test]
fn broken_order_is_an_error() {
    for (payloads, error) in [
        (vec![insert(1)], StreamError::Outside("row")),
        (vec![truncate(&[1])], StreamError::Outside("truncate")),
        (vec![commit(1, 2)], StreamError::Outside("commit")),
        (vec![begin(16), begin(17)], StreamError::Nested),
        (vec![begin(16), commit(17, 18)], StreamError::OtherCommit { open: Lsn(16), got: Lsn(17) }),
        (vec![begin(16), insert(9)], StreamError::Relation(9)),
        (vec![vec![b'w']], StreamError::Frame(FrameError::Truncated("header"))),
    ] {
        assert_eq!(read(&mut session(&[1]), &payloads).unwrap_err(), error);
    }
}
