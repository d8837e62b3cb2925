//! Row changes of the logical replication stream (PostgreSQL manual, "Logical Replication Message Formats"),
//! protocol version 1: no transaction id in front of the relation id.

use super::{Cell, Cursor, Fault};

// Insert   := 'I' Int32 relation  'N' tuple
// Update   := 'U' Int32 relation [('K' | 'O') tuple] 'N' tuple
// Delete   := 'D' Int32 relation  ('K' | 'O') tuple
// Truncate := 'T' Int32 count, Int8 options, Int32 relation*
// tuple    := Int16 columns, column*
// column   := 'n' | 'u' | ('t' | 'b') Int32 length bytes

/// What a message changes, and which tuples [`change`] appended for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One tuple: the new row.
    Insert,
    /// One tuple: the new row, its key as before.
    Update,
    /// Two tuples: the old key, nulls elsewhere, then the new row.
    UpdateKey,
    /// Two tuples: the whole old row, then the new row.
    UpdateFull,
    /// One tuple: the old key, nulls elsewhere, or the whole old row.
    Delete,
    /// No tuple.
    Truncate,
}

/// Reads the message at `start..end` of `buffer` and appends a cell per column of each of its tuples; gives also whether
/// some of its values were not sent, being unchanged.
///
/// # Errors
/// When the bytes are not one such message about `relation` with tuples of `columns` columns; `cells` may then
/// have some of it.
pub fn change(buffer: &[u8], start: u32, end: u32, relation: u32, columns: usize, cells: &mut Vec<Cell>) -> Result<(Change, bool), Fault> {
    let mut cursor = Cursor::within(buffer, start, end)?;
    let tag = cursor.u8()?;
    if tag == b'T' {
        // which relations it names is the source's matter: there is a row for each
        return Ok((Change::Truncate, false));
    }
    if !matches!(tag, b'I' | b'U' | b'D') {
        return Err(Fault::Shape);
    }
    let found = cursor.i32()?.cast_unsigned();
    if found != relation {
        return Err(Fault::Relation { found });
    }
    let change = match (tag, cursor.u8()?) {
        (b'I', b'N') => Change::Insert,
        (b'U', b'N') => Change::Update,
        (b'D', b'K' | b'O') => Change::Delete,
        (b'U', old @ (b'K' | b'O')) => {
            tuple(&mut cursor, columns, cells)?;
            if cursor.u8()? != b'N' {
                return Err(Fault::Shape);
            }
            if old == b'K' { Change::UpdateKey } else { Change::UpdateFull }
        }
        _ => return Err(Fault::Shape),
    };
    let unchanged = tuple(&mut cursor, columns, cells)?;
    cursor.finish()?;
    Ok((change, unchanged))
}

/// Appends a tuple's cells; gives whether one was not sent.
#[inline]
fn tuple(cursor: &mut Cursor<'_>, columns: usize, cells: &mut Vec<Cell>) -> Result<bool, Fault> {
    let found = cursor.i16()?;
    if usize::try_from(found) != Ok(columns) {
        return Err(Fault::Columns { found });
    }
    let (base, mut unchanged) = (cells.len(), false);
    cells.resize(base + columns, Cell::NULL);
    for cell in cells.get_mut(base..).unwrap_or_default() {
        *cell = match cursor.u8()? {
            b't' => cursor.value_of_length().map(|(start, length)| Cell::text(start, length))?,
            b'b' => cursor.value_of_length().map(|(start, length)| Cell::binary(start, length))?,
            b'n' => Cell::NULL,
            b'u' => {
                unchanged = true;
                Cell::UNCHANGED
            }
            _ => return Err(Fault::Shape),
        };
    }
    Ok(unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Field;
    use proptest::prelude::*;

    const ROW: &[u8] = b"\0\x04t\0\0\0\x02hinub\0\0\0\x01\x07";

    fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![tag, 0, 0, 0, 9];
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn messages() {
        let fields = [Field::Text(b"hi"), Field::Null, Field::Unchanged, Field::Binary(b"\x07")];
        for (bytes, expected) in [
            (message(b'I', &[b"N", ROW]), Change::Insert),
            (message(b'U', &[b"N", ROW]), Change::Update),
            (message(b'U', &[b"K", ROW, b"N", ROW]), Change::UpdateKey),
            (message(b'U', &[b"O", ROW, b"N", ROW]), Change::UpdateFull),
            (message(b'D', &[b"K", ROW]), Change::Delete),
            (message(b'D', &[b"O", ROW]), Change::Delete),
        ] {
            let mut cells = Vec::new();
            assert_eq!(change(&bytes, 0, bytes.len() as u32, 9, 4, &mut cells), Ok((expected, true)));
            for tuple in cells.chunks(4) {
                assert_eq!(tuple.iter().map(|c| c.field(&bytes)).collect::<Vec<_>>(), fields, "{expected:?}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(change(&bytes, 0, cut as u32, 9, 4, &mut cells), Err(Fault::Cut), "{expected:?} {cut}");
            }
            let mut long = bytes.clone();
            long.push(0);
            assert_eq!(change(&long, 0, long.len() as u32, 9, 4, &mut cells), Err(Fault::Long));
            assert_eq!(change(&bytes, 0, bytes.len() as u32, 9, 5, &mut cells), Err(Fault::Columns { found: 4 }));
            assert_eq!(change(&bytes, 0, bytes.len() as u32, 8, 4, &mut cells), Err(Fault::Relation { found: 9 }));
        }
        assert_eq!(change(b"T\0\0\0\x01\0\0\0\0\x09", 0, 10, 9, 4, &mut Vec::new()), Ok((Change::Truncate, false)));
        for bytes in [b"X\0\0\0\x09N".to_vec(), message(b'I', &[b"K", ROW]), message(b'D', &[b"N", ROW]), message(b'I', &[b"N\0\x01x"])] {
            let columns = if bytes.len() == 9 { 1 } else { 4 };
            assert_eq!(change(&bytes, 0, bytes.len() as u32, 9, columns, &mut Vec::new()), Err(Fault::Shape));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_change_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in prop::sample::select(b"IUDT".to_vec())) {
            let bytes = message(tag, &[&bytes]);
            let _ = change(&bytes, 0, bytes.len() as u32, 9, 1, &mut Vec::new());
        }
    }
}
