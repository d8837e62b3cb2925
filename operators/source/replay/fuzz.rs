//! Fuzz target: what a capture file may hold.

use super::file::{Captured, Entry, entry, last, write_end, write_payload, write_table};
use super::reader::CaptureReader;
use crate::contract::TableSchema;

/// All records of bytes that are cut into pieces of `step`, and whether they were a capture as a whole.
fn read(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<TableSchema>, Option<Captured>, bool) {
    let (mut payloads, mut tables, mut end) = (Vec::new(), Vec::new(), None);
    let mut reader = CaptureReader::default();
    for piece in bytes.chunks(step.max(1)) {
        let Ok(records) = reader.push(piece) else { return (payloads, tables, end, false) };
        let payload = |(from, to): &(u32, u32)| records.bytes[*from as usize..*to as usize].to_vec();
        payloads.extend(records.messages.iter().map(payload));
        tables.extend(records.tables);
        end = end.or(records.end);
    }
    (payloads, tables, end, reader.end().is_ok())
}

/// The first byte says where the bytes are cut: wherever that is, a whole capture gives the same records. What is read is
/// written the same.
pub(crate) fn capture_file(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len());
    let cut = read(bytes, usize::from(*step));
    assert_eq!(whole.3, cut.3, "a cut decides nothing");
    if !whole.3 {
        return;
    }
    assert_eq!(whole, cut);
    assert_eq!(last(bytes).ok(), whole.2, "the end stands at the end");
    let mut out = Vec::new();
    for payload in &whole.0 {
        write_payload(payload, &mut out);
    }
    for table in &whole.1 {
        write_table(table, &mut out);
    }
    write_end(whole.2.unwrap_or_default(), &mut out);
    let (mut at, mut payloads, mut tables) = (0, 0, 0);
    while let Ok(Some((entry, next))) = entry(&out, at) {
        match entry {
            Entry::Payload(start, end) => {
                assert_eq!(out[start..end], whole.0[payloads]);
                payloads += 1;
            }
            Entry::Table(table) => {
                assert_eq!(*table, whole.1[tables]);
                tables += 1;
            }
            Entry::End(end) => assert_eq!(Some(end), whole.2),
        }
        at = next;
    }
    assert_eq!((at, payloads, tables), (out.len(), whole.0.len(), whole.1.len()));
}
