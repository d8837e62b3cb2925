//! Intervals from PostgreSQL's `postgres` style to ISO 8601.
//!
//! ```text
//! interval = [ part *( " " part ) ] [ " " ] [ time ]
//! part     = sign digits " " unit            unit = year | years | mon | mons | day | days
//! time     = sign hours ":" 2DIGIT ":" 2DIGIT [ "." 1*6DIGIT ]
//! sign     = [ "+" | "-" ]                   an interval of nothing is 00:00:00
//! ```
//! (PostgreSQL manual, "Interval Output")

/// Appends the ISO 8601 text that `SET intervalstyle = iso_8601` gives, without quotes: each field with a
/// sign of its own, fields of zero left out, `PT0S` for nothing.
///
/// Says false, with `out` as it was, when the text is not in the `postgres` style.
pub fn interval_iso8601(text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let written = convert(text, out);
    if written.is_none() {
        out.truncate(start);
    }
    written.is_some()
}

fn convert(text: &str, out: &mut Vec<u8>) -> Option<()> {
    out.push(b'P');
    let nothing = out.len();
    let mut words = text.split(' ');
    let mut order = 0;
    while let Some(word) = words.next() {
        if word.contains(':') {
            write_time(word, out)?;
            words.next().is_none().then_some(())?;
            break;
        }
        let (place, letter) = match words.next()? {
            "year" | "years" => (1, b'Y'),
            "mon" | "mons" => (2, b'M'),
            "day" | "days" => (3, b'D'),
            _ => return None,
        };
        (place > order).then_some(())?;
        order = place;
        write_field(word, letter, out)?;
    }
    if out.len() == nothing {
        out.extend_from_slice(b"T0S");
    }
    Some(())
}

/// The sign of a number and its digits.
fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn is_number(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Writes a field that is not zero, without leading zeros.
fn write_field(number: &str, letter: u8, out: &mut Vec<u8>) -> Option<()> {
    let (negative, digits) = signed(number);
    is_number(digits).then_some(())?;
    push(negative, digits, letter, out);
    Some(())
}

fn push(negative: bool, digits: &str, letter: u8, out: &mut Vec<u8>) {
    let digits = digits.trim_start_matches('0');
    if !digits.is_empty() {
        if negative {
            out.push(b'-');
        }
        out.extend_from_slice(digits.as_bytes());
        out.push(letter);
    }
}

fn write_time(time: &str, out: &mut Vec<u8>) -> Option<()> {
    let (negative, digits) = signed(time);
    let mut fields = digits.split(':');
    let (hours, minutes, seconds) = (fields.next()?, fields.next()?, fields.next()?);
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let form = fields.next().is_none() && [hours, minutes, whole, fraction].into_iter().all(is_number);
    form.then_some(())?;
    let fraction = fraction.trim_end_matches('0');
    let start = out.len();
    out.push(b'T');
    push(negative, hours, b'H', out);
    push(negative, minutes, b'M', out);
    let whole = whole.trim_start_matches('0');
    if !whole.is_empty() || !fraction.is_empty() {
        if negative {
            out.push(b'-');
        }
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
        out.push(b'S');
    }
    if out.len() == start + 1 {
        out.pop();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::postgres::Postgres;

    #[test]
    fn what_is_not_postgres_style_is_refused() {
        for text in
            ["infinity", "P1Y", "1 fortnight", "1", "1 day 2", "1:2", "a:b:c", "1 day 1 year", "00:00:00 1 day", "@ 1 year", "1 day "]
        {
            let mut out = b"before".to_vec();
            assert!(!interval_iso8601(text, &mut out), "{text}");
            assert_eq!(out, b"before");
        }
    }

    #[tokio::test]
    async fn equals_postgresql() {
        let postgres = Postgres::start();
        let client = postgres.client("postgres").await;
        client
            .batch_execute(
                "CREATE TABLE t AS SELECT make_interval(y, m, 0, d) + t AS i
                   FROM unnest(ARRAY[0, 1, -1, 178000000]) y, unnest(ARRAY[0, 1, -11, 7]) m, unnest(ARRAY[0, 1, -1, 100, -2147483648]) d,
                        unnest(ARRAY['0', '1 us', '-1 us', '-0.5 s', '10 s', '1 min', '-1 hour', '04:05:06.789', '-04:05:06.7', '2562047788:00:54.775807',
                                     '-100:00:00.000010']::interval[]) t",
            )
            .await
            .expect("a table of intervals");
        let mut styles = Vec::new();
        for style in ["postgres", "iso_8601"] {
            client.batch_execute(&format!("SET intervalstyle = {style}")).await.expect("a setting");
            let rows = client.query("SELECT i::text FROM t ORDER BY ctid", &[]).await.expect("intervals");
            styles.push(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>());
        }
        assert_eq!(styles[0].len(), 4 * 4 * 5 * 11);
        for (text, expected) in styles[0].iter().zip(&styles[1]) {
            let mut out = Vec::new();
            assert!(interval_iso8601(text, &mut out), "{text}");
            assert_eq!(String::from_utf8_lossy(&out), *expected, "{text}");
        }
    }
}
