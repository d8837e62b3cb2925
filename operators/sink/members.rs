//! Reads a line of [`super::line`]: its members, as they were written.
//!
//! ```text
//! line := '{' (member (',' member)*)? '}' '\n'?       member := string ':' value
//! ```
//! Names and values are slices of the line, escapes included: the same writer writes the same value the same way. A value's
//! own form is not looked at beyond its strings and brackets.

use crate::contract::{Op, Token};

/// The line is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is not one that etl-stream wrote")]
pub struct NoLine;

/// The members of a line, in order: the name between its quotes, and the value.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    first: bool,
}

impl<'a> Members<'a> {
    /// Of a line.
    ///
    /// # Errors
    /// When it is no object.
    pub fn of(line: &'a [u8]) -> Result<Self, NoLine> {
        let object = line.strip_suffix(b"\n").unwrap_or(line);
        let rest = object.strip_prefix(b"{").and_then(|line| line.strip_suffix(b"}")).ok_or(NoLine)?;
        Ok(Self { rest, first: true })
    }

    fn member(&mut self) -> Result<(&'a [u8], &'a [u8]), NoLine> {
        if !self.first {
            self.rest = self.rest.strip_prefix(b",").ok_or(NoLine)?;
        }
        self.first = false;
        let end = string_end(self.rest).ok_or(NoLine)?;
        let name = self.rest.get(1..end - 1).ok_or(NoLine)?;
        let rest = self.rest.get(end..).and_then(|rest| rest.strip_prefix(b":")).ok_or(NoLine)?;
        let end = value_end(rest).ok_or(NoLine)?;
        let (value, rest) = rest.split_at_checked(end).ok_or(NoLine)?;
        self.rest = rest;
        Ok((name, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), NoLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let member = self.member();
        if member.is_err() {
            self.rest = &[];
        }
        Some(member)
    }
}

/// Where a string that starts here ends, its closing quote included.
fn string_end(text: &[u8]) -> Option<usize> {
    let body = text.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        if body.get(at) == Some(&b'"') {
            return Some(at + 2);
        }
        at += 2;
    }
}

/// Where a value that starts here ends.
fn value_end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at) {
            Some(b'"') => {
                at += string_end(text.get(at..)?)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            Some(b',') if depth == 0 => return (at > 0).then_some(at),
            None => return (depth == 0 && at > 0).then_some(at),
            Some(_) => {}
        }
        at += 1;
    }
}

/// The names in a list of strings without escapes beyond those of their writer, such as `_unchanged`.
pub fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list.strip_prefix(b"[").unwrap_or_default();
    std::iter::from_fn(move || {
        rest = rest.strip_prefix(b",").unwrap_or(rest);
        let end = string_end(rest)?;
        let name = rest.get(1..end - 1)?;
        rest = rest.get(end..)?;
        Some(name)
    })
}

/// What a line says of its row's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What happened.
    pub op: Op,
    /// When.
    pub token: Token,
}

/// The place of a line's row.
///
/// # Errors
/// When it does not say it.
pub fn place(line: &[u8]) -> Result<Place, NoLine> {
    let (mut op, mut token) = (None, None);
    for member in Members::of(line)? {
        match member? {
            (b"_op", [b'"', letter, b'"']) => op = Op::from_letter(*letter),
            (b"_seq", value) => {
                let text = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).ok_or(NoLine)?;
                token = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
        if let (Some(op), Some(token)) = (op, token) {
            return Ok(Place { op, token });
        }
    }
    Err(NoLine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Members::of(line.as_bytes()).ok()?.map(|m| m.map(|(name, value)| (text(name), text(value))).ok()).collect()
    }

    #[test]
    fn members_are_slices() {
        let line = r#"{"a":1,"b\"":"x,}\"\\","c":{"d":[1,"]"],"e":{}},"f":null,"":[]}"#;
        let expected = [("a", "1"), ("b\\\"", r#""x,}\"\\""#), ("c", r#"{"d":[1,"]"],"e":{}}"#), ("f", "null"), ("", "[]")];
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read(line), Some(expected.clone()));
        assert_eq!(read(&format!("{line}\n")), Some(expected));
        assert_eq!(read("{}"), Some(vec![]));
        for wrong in
            ["", "{", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":1 \"b\":2}x", "{a:1}", "{\"a\":\"x}", "{\"a\":[1}", "{\"a\":1,}", "{\"a\\\":1}"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(names(br#"["a","b\"c"]"#).collect::<Vec<_>>(), [b"a".as_slice(), br#"b\"c"#]);
        assert_eq!(names(b"null").count() + names(b"[").count() + names(b"[\"a").count(), 0);
    }

    #[test]
    fn places() {
        let line = br#"{"_table":"a.b","_op":"u","_seq":"00000000000000ff/0000000000000002","id":1}"#;
        assert_eq!(place(line), Ok(Place { op: Op::Update, token: Token::new(255, 2) }));
        for wrong in [&b"{}"[..], br#"{"_op":"x","_seq":"00000000000000ff/0000000000000002"}"#, br#"{"_op":"u","_seq":"1"}"#, b"no"] {
            assert_eq!(place(wrong), Err(NoLine));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_no_panic(bytes in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\ax1\n".to_vec()), 0..40)) {
            if let Ok(members) = Members::of(&bytes) {
                let _ = members.count();
            }
            let _ = (names(&bytes).count(), place(&bytes));
        }
    }
}
