//! Tuples of `COPY … (FORMAT binary)` (PostgreSQL manual, `COPY`, "Binary Format").

use super::{Cell, Cursor, Fault};

// tuple := Int16 field count, field*
// field := Int32 length (-1: null), bytes

/// Appends a cell per column of the tuple at `start..end` of `buffer`. `binary` says of each column whether
/// its field has the type's own binary form; the others were selected as `::text`.
///
/// # Errors
/// When the bytes are not one tuple of that many columns; `cells` may then have some of it.
pub fn copy_tuple(buffer: &[u8], start: u32, end: u32, binary: &[bool], cells: &mut Vec<Cell>) -> Result<(), Fault> {
    let mut cursor = Cursor::within(buffer, start, end)?;
    let found = cursor.i16()?;
    if usize::try_from(found) != Ok(binary.len()) {
        return Err(Fault::Columns { found });
    }
    let base = cells.len();
    cells.resize(base + binary.len(), Cell::NULL);
    for (binary, cell) in binary.iter().zip(cells.get_mut(base..).unwrap_or_default()) {
        let length = cursor.i32()?;
        if length != -1 {
            let (start, length) = cursor.value(length)?;
            *cell = if *binary { Cell::binary(start, length) } else { Cell::text(start, length) };
        }
    }
    cursor.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Field;

    #[test]
    fn tuples() {
        let bytes = b"..\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0";
        let mut cells = Vec::new();
        copy_tuple(bytes, 2, bytes.len() as u32, &[false, true, true], &mut cells).unwrap();
        let fields: Vec<Field<'_>> = cells.iter().map(|c| c.field(bytes)).collect();
        assert_eq!(fields, [Field::Text(b"hi"), Field::Null, Field::Binary(b"")]);
        for cut in 2..bytes.len() as u32 {
            assert_eq!(copy_tuple(bytes, 2, cut, &[false; 3], &mut cells), Err(Fault::Cut), "{cut}");
        }
        let expect = |bytes: &[u8], columns: usize, fault| {
            assert_eq!(copy_tuple(bytes, 0, bytes.len() as u32, &vec![true; columns], &mut Vec::new()), Err(fault));
        };
        expect(b"\0\x01\0\0\0\x01a", 2, Fault::Columns { found: 1 });
        expect(b"\xff\xff", 2, Fault::Columns { found: -1 });
        expect(b"\0\x01\xff\xff\xff\xfe", 1, Fault::Shape);
        expect(b"\0\x01\x3f\xff\xff\xffa", 1, Fault::Cut);
        // no value is that long
        expect(b"\0\x01\x40\0\0\0a", 1, Fault::Shape);
        expect(b"\0\x01\0\0\0\x01ab", 1, Fault::Long);
        assert_eq!(copy_tuple(bytes, 9, 2, &[], &mut Vec::new()), Err(Fault::Cut));
    }
}
