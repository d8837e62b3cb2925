//! Fuzz targets: tokens and positions as text, and containers as another process sends them.

use super::wire::Garbled;
use super::{Format, Item, Items, Lsn, RawItem, RawItems, Token};
use crate::encode::Encoder;
use crate::fuzzing::{Feed, check, families, insert, raw, table};
use timely::dataflow::channels::ContainerBytes;

/// What reads as a token or a position is what it is written as.
pub(crate) fn position(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<Token>() {
        let mut written = [0; 33];
        token.write(&mut written);
        assert_eq!((token.to_string().as_str(), &written[..]), (text, bytes));
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
}

fn bytes_of(container: &impl ContainerBytes) -> Vec<u8> {
    let mut out = Vec::with_capacity(container.length_in_bytes());
    container.into_bytes(&mut out);
    assert_eq!(out.len(), container.length_in_bytes());
    out
}

/// The first byte says what the rest is: bytes of another process, or values that are sent and read again, undecoded
/// rows once more with a few bytes changed. The bytes of a batch's columns are not changed: Arrow's own reader panics
/// at some that no Arrow writer makes, which ends the process as any broken container does.
pub(crate) fn wire(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    if feed.byte() & 1 == 0 {
        let read: Result<RawItems, Garbled> = RawItems::read(feed.0);
        if let Ok(items) = read {
            let again = RawItems::read(&bytes_of(&items)).expect("what was read is written as it is read");
            assert_eq!(bytes_of(&items), bytes_of(&again));
            for item in &items.0 {
                if let RawItem::Ready(Item::Rows(batch)) = item {
                    assert_eq!(batch.columns.len(), batch.table.columns.len());
                    assert!(batch.columns.iter().all(|column| column.len() == batch.len()));
                }
            }
        }
        let _ = Items::read(feed.0);
        return;
    }
    let patches: Vec<[u8; 3]> = (0..feed.byte() % 8).map(|_| [feed.byte(), feed.byte(), feed.byte()]).collect();
    let families = families();
    let types = (0..feed.byte() % 4).map(|_| feed.pick(&families).clone()).collect::<Vec<_>>();
    let table = table(types.clone());
    let mut messages = Vec::new();
    while !feed.0.is_empty() && messages.len() < 50 {
        let values: Vec<Option<&[u8]>> = types.iter().map(|_| feed.piece()).collect();
        messages.push(insert(b't', &values));
        if types.is_empty() {
            break;
        }
    }
    let rows = raw(&table, Format::PgOutput, &messages);
    let mut batches = Vec::new();
    let mut encoder = Encoder::new();
    let encoded = encoder.push(&rows, &mut batches).is_ok();
    encoder.flush(&mut batches);
    let items = RawItems(vec![RawItem::Raw(rows)]);
    let mut sent = bytes_of(&items);
    assert_eq!(bytes_of(&RawItems::read(&sent).expect("raw rows come through")), sent);
    for [high, low, value] in patches {
        if let Some(byte) = sent.get_mut(usize::from(u16::from_be_bytes([high, low]))) {
            *byte = value;
        }
    }
    let _ = RawItems::read(&sent);
    if encoded {
        let items = Items(batches.into_iter().map(Item::Rows).collect());
        let again = Items::read(&bytes_of(&items)).expect("batches come through");
        assert_eq!(items.0.len(), again.0.len());
        for (sent, got) in items.0.iter().zip(&again.0) {
            let (Item::Rows(sent), Item::Rows(got)) = (sent, got) else { panic!("a batch became a mark") };
            check(got);
            assert_eq!(sent.table, got.table);
            assert_eq!((&sent.ops, &sent.commit_lsn, &sent.ordinal), (&got.ops, &got.commit_lsn, &got.ordinal));
            assert_eq!((&sent.commit_time, &sent.unchanged, &sent.exact), (&got.commit_time, &got.unchanged, &got.exact));
            assert!(sent.columns.iter().zip(&got.columns).all(|(a, b)| a.to_data() == b.to_data()), "{:?} {:?}", sent.columns, got.columns);
        }
    }
}
