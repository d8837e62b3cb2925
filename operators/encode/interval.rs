//! `interval`: the text of `IntervalStyle = postgres`, from binary as `interval_out` writes it.

use super::read::Malformed;
use crate::contract::calendar::write_time;
use crate::decode::Cursor;

// interval := Int64 microseconds, Int32 days, Int32 months
// infinity: all three at their greatest, -infinity: at their least (PostgreSQL 17)

/// Writes the text of `interval_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let (micros, days, months) = (cursor.i64()?, cursor.i32()?, cursor.i32()?);
    cursor.finish()?;
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => out.extend_from_slice(b"infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.extend_from_slice(b"-infinity"),
        _ => write_finite(micros, days, months, out),
    }
    Ok(())
}

fn write_finite(micros: i64, days: i32, months: i32, out: &mut Vec<u8>) {
    let start = out.len();
    // a positive part after a negative one has its sign written
    let mut after_negative = false;
    for (value, unit) in [(months / 12, " year"), (months % 12, " mon"), (days, " day")] {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        if after_negative && value > 0 {
            out.push(b'+');
        }
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        out.extend_from_slice(unit.as_bytes());
        if value != 1 {
            out.push(b's');
        }
        after_negative = value < 0;
    }
    let empty = out.len() == start;
    if empty || micros != 0 {
        if !empty {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if after_negative {
            out.push(b'+');
        }
        write_time(micros.unsigned_abs(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (micros, days, months, expected) in [
            (0, 0, 0, "00:00:00"),
            (14_706_789_000, -3, 14, "1 year 2 mons -3 days +04:05:06.789"),
            (-1, 1, -1, "-1 mons +1 day -00:00:00.000001"),
            (0, 0, -13, "-1 years -1 mons"),
            (i64::MIN, 0, 0, "-2562047788:00:54.775808"),
            (i64::MAX, i32::MAX, i32::MAX, "infinity"),
            (i64::MIN, i32::MIN, i32::MIN, "-infinity"),
        ] {
            let mut bytes = i64::to_be_bytes(micros).to_vec();
            bytes.extend(i32::to_be_bytes(days));
            bytes.extend(i32::to_be_bytes(months));
            let mut out = Vec::new();
            write(&bytes, &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected);
            assert_eq!(write(&bytes[1..], &mut out), Err(Malformed::Form));
        }
    }
}
