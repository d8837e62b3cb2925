//! `numeric` without a precision that a 128-bit decimal holds: its exact decimal text, as `numeric_out` prints it.

use super::numeric::{Binary, Sign};
use super::read::Malformed;
use crate::contract::double_holds;

/// Writes the text of `numeric_send`'s bytes.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let number = Binary::read(bytes)?;
    match number.sign {
        Sign::Special => {
            out.extend_from_slice(number.special.as_bytes());
            return Ok(());
        }
        Sign::Minus => out.push(b'-'),
        Sign::Plus => {}
    }
    if number.weight < 0 {
        out.push(b'0');
    }
    let mut leads = true;
    for power in (0..=i32::from(number.weight)).rev() {
        let group = number.group(power);
        if leads && group == 0 && power > 0 {
            continue;
        }
        let digits = four_digits(group);
        let leading = if leads { digits.iter().take(3).take_while(|b| **b == b'0').count() } else { 0 };
        out.extend(digits.into_iter().skip(leading));
        leads = false;
    }
    let scale = usize::from(number.scale);
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + scale;
        let mut power = -1;
        while out.len() < end {
            out.extend_from_slice(&four_digits(number.group(power)));
            power -= 1;
        }
        out.truncate(end);
    }
    Ok(())
}

fn four_digits(group: u16) -> [u8; 4] {
    [1000, 100, 10, 1].map(|unit| b'0' + (group / unit % 10) as u8)
}

/// Writes a numeric's text as JSON: a number when every reader keeps it, or else a string.
pub(super) fn text_to_json(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let number = match digits {
        b"NaN" | b"Infinity" => false,
        _ => {
            let mut parts = digits.split(|b| *b == b'.');
            // JSON has no leading zeros, and PostgreSQL writes none
            let plain =
                |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit) && (part.len() == 1 || part.first() != Some(&b'0'));
            let whole = parts.next().is_some_and(plain);
            let fraction = parts.next().is_none_or(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
            if !whole || !fraction || parts.next().is_some() {
                return Err(Malformed::Form);
            }
            double_holds(text)
        }
    };
    if number {
        out.extend_from_slice(text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
    Ok(())
}
