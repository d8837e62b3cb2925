//! Fuzz target: the bytes of a binary copy.

use super::tuples::Tuples;
use crate::decode::copy_tuple;

/// A binary copy: wherever the bytes are cut, the rows are the same.
pub(crate) fn copy_stream(bytes: &[u8]) {
    let Some((cut, copy)) = bytes.split_first() else { return };
    let read = |size: usize| {
        let mut tuples = Tuples::new(64);
        let mut rows: Vec<Vec<u8>> = Vec::new();
        let mut fault = None;
        for part in copy.chunks(size.max(1)) {
            if let Err(error) = tuples.push(part) {
                fault = Some(error);
                break;
            }
            let (bytes, found) = tuples.take();
            rows.extend(found.iter().map(|(start, end)| bytes[*start as usize..*end as usize].to_vec()));
        }
        let fault = fault.or(tuples.end().err());
        let (bytes, found) = tuples.take();
        rows.extend(found.iter().map(|(start, end)| bytes[*start as usize..*end as usize].to_vec()));
        (rows, fault)
    };
    let (whole, cut) = (read(copy.len()), read(usize::from(*cut)));
    if whole.1.is_none() || cut.1.is_none() {
        assert_eq!(whole, cut);
    }
    for row in &whole.0 {
        let columns = row.first_chunk::<2>().map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
        let mut cells = Vec::new();
        copy_tuple(row, 0, row.len() as u32, &vec![true; columns], &mut cells).expect("a row that was found whole is one");
        assert_eq!(cells.len(), columns);
    }
}
