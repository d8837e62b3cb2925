//! An array's JSON, as the encoder writes it, as PostgreSQL's array text (PostgreSQL manual, "Array Input
//! and Output Syntax").
//!
//! ```text
//! [1,null,[2]]  ->  {1,NULL,{2}}        ["a b","","null"]  ->  {"a b","","null"}
//! ```

use crate::contract::ColumnType;
use crate::contract::float::write_float;

/// Writes the array text. `None`: the text is not a JSON array, `out` then holds part of it.
pub(super) fn write(json: &[u8], element: &ColumnType, out: &mut Vec<u8>) -> Option<()> {
    let mut walk = Walk { rest: json, element, scratch: Vec::new() };
    walk.space();
    walk.array(0, out)?;
    walk.space();
    walk.rest.is_empty().then_some(())
}

struct Walk<'a> {
    rest: &'a [u8],
    element: &'a ColumnType,
    scratch: Vec<u8>,
}

/// PostgreSQL's limit of dimensions; the walk never goes deeper.
const MOST_DIMENSIONS: usize = 6;

impl<'a> Walk<'a> {
    fn space(&mut self) {
        while let Some((b' ' | b'\n' | b'\r' | b'\t', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.rest.first() == Some(&byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn array(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        if depth >= MOST_DIMENSIONS || !self.eat(b'[') {
            return None;
        }
        out.push(b'{');
        self.space();
        if !self.eat(b']') {
            loop {
                self.space();
                self.value(depth, out)?;
                self.space();
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return None;
                }
                out.push(b',');
            }
        }
        out.push(b'}');
        Some(())
    }

    fn value(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        if matches!(self.element, ColumnType::Json | ColumnType::Jsonb) {
            let document = self.document()?;
            if document == b"null" {
                out.extend_from_slice(b"NULL")
            } else {
                quote(document, out)
            }
            return Some(());
        }
        match *self.rest.first()? {
            b'[' => self.array(depth + 1, out),
            b'"' => {
                self.string()?;
                let text = std::mem::take(&mut self.scratch);
                self.element_text(&text, out);
                self.scratch = text;
                Some(())
            }
            _ => {
                let length = self.rest.iter().take_while(|b| !matches!(b, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')).count();
                let (word, rest) = self.rest.split_at(length);
                self.rest = rest;
                match word {
                    b"null" => out.extend_from_slice(b"NULL"),
                    b"true" => out.push(b't'),
                    b"false" => out.push(b'f'),
                    _ => self.number(word, out)?,
                }
                Some(())
            }
        }
    }

    fn number(&self, word: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let text = std::str::from_utf8(word).ok()?;
        match self.element {
            ColumnType::Float4 => write_float::<f32>(text.parse().ok()?, out),
            ColumnType::Float8 => write_float::<f64>(text.parse().ok()?, out),
            _ => out.extend_from_slice(word),
        }
        Some(())
    }

    fn element_text(&self, text: &[u8], out: &mut Vec<u8>) {
        let is_instant = matches!(self.element, ColumnType::Timestamp | ColumnType::TimestampTz);
        let (Some(at), true) = (text.iter().position(|b| *b == b'T'), is_instant) else { return quote(text, out) };
        // JSON has ISO 8601: `2024-01-01T00:00:00+00:00 BC`
        let (date, clock) = (&text[..at], &text[at + 1..]);
        let mut spelled = [date, b" ", clock].concat();
        if let Some(zone) = spelled.windows(6).position(|w| w == b"+00:00") {
            spelled.drain(zone + 3..zone + 6);
        }
        quote(&spelled, out);
    }

    /// One JSON value's bytes, whatever it is.
    fn document(&mut self) -> Option<&'a [u8]> {
        let (mut depth, mut quoted, mut at) = (0_usize, false, 0);
        while let Some(byte) = self.rest.get(at) {
            match byte {
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                b'[' | b'{' if !quoted => depth += 1,
                b']' | b',' if !quoted && depth == 0 => break,
                b']' | b'}' if !quoted => depth = depth.checked_sub(1)?,
                _ => {}
            }
            at += 1;
        }
        let (document, rest) = self.rest.split_at_checked(at)?;
        self.rest = rest;
        Some(document.trim_ascii_end())
    }

    /// A string's characters, unescaped, into the scratch buffer.
    fn string(&mut self) -> Option<()> {
        self.scratch.clear();
        self.rest = self.rest.get(1..)?;
        loop {
            let plain = self.rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
            self.scratch.extend_from_slice(self.rest.get(..plain)?);
            let mark = *self.rest.get(plain)?;
            self.rest = self.rest.get(plain + 1..)?;
            if mark == b'"' {
                return Some(());
            }
            let (letter, rest) = self.rest.split_first()?;
            self.rest = rest;
            match letter {
                b'n' => self.scratch.push(b'\n'),
                b't' => self.scratch.push(b'\t'),
                b'r' => self.scratch.push(b'\r'),
                b'b' => self.scratch.push(8),
                b'f' => self.scratch.push(12),
                b'u' => self.unicode()?,
                other => self.scratch.push(*other),
            }
        }
    }

    fn unicode(&mut self) -> Option<()> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            self.rest = self.rest.strip_prefix(b"\\u")?;
            0x1_0000 + ((first - 0xd800) << 10) + self.hex()?.checked_sub(0xdc00)?
        } else {
            first
        };
        self.scratch.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Writes an element, quoted where `array_out` quotes.
fn quote(text: &[u8], out: &mut Vec<u8>) {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 11 | 12);
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case(b"null")
        && !text.iter().any(|b| space(b) || matches!(b, b'{' | b'}' | b'"' | b'\\' | b','));
    if plain {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
