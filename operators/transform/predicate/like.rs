//! LIKE and ILIKE patterns over bytes of UTF-8: `%` any characters, `_` one.
//!
//! Hot path: matching allocates nothing.

use memchr::memmem::Finder;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Byte(u8),
    One,
    Many,
}

enum Shape {
    Equal(Vec<u8>),
    Starts(Vec<u8>),
    Ends(Vec<u8>),
    Contains(Box<Finder<'static>>),
    Steps(Vec<Step>),
}

/// A compiled pattern.
pub(super) struct Pattern {
    shape: Shape,
    fold: bool,
}

impl Pattern {
    /// Compiles; `None` when the pattern ends with its escape character, which PostgreSQL refuses.
    pub(super) fn new(pattern: &str, escape: Option<char>, fold: bool) -> Option<Self> {
        let mut steps = Vec::new();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            let (letter, plain) = if Some(letter) == escape { (letters.next()?, true) } else { (letter, false) };
            match letter {
                '%' if !plain => {
                    if steps.last() != Some(&Step::Many) {
                        steps.push(Step::Many);
                    }
                }
                '_' if !plain => steps.push(Step::One),
                other => {
                    let other = if fold { other.to_ascii_lowercase() } else { other };
                    steps.extend(other.encode_utf8(&mut [0; 4]).bytes().map(Step::Byte));
                }
            }
        }
        let shape = if fold { None } else { Self::simple(&steps) };
        Some(Self { shape: shape.unwrap_or(Shape::Steps(steps)), fold })
    }

    /// The shape of patterns whose only wildcards are a `%` at the start and the end.
    fn simple(steps: &[Step]) -> Option<Shape> {
        let starts = steps.first() == Some(&Step::Many);
        let ends = steps.len() > 1 && steps.last() == Some(&Step::Many);
        let inner = &steps[usize::from(starts)..steps.len() - usize::from(ends)];
        let bytes: Option<Vec<u8>> = inner
            .iter()
            .map(|step| match step {
                Step::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        let bytes = bytes?;
        Some(match (starts, ends) {
            (false, false) => Shape::Equal(bytes),
            (false, true) => Shape::Starts(bytes),
            (true, false) => Shape::Ends(bytes),
            (true, true) => Shape::Contains(Box::new(Finder::new(&bytes).into_owned())),
        })
    }

    /// Whether it matches a whole text.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match &self.shape {
            Shape::Equal(bytes) => text == &bytes[..],
            Shape::Starts(bytes) => text.starts_with(bytes),
            Shape::Ends(bytes) => text.ends_with(bytes),
            Shape::Contains(finder) => finder.find(text).is_some(),
            Shape::Steps(steps) => walk(steps, text, self.fold),
        }
    }
}

/// The length of the character that starts here.
fn width(text: &[u8]) -> usize {
    1 + text.iter().skip(1).take_while(|b| **b & 0xc0 == 0x80).count()
}

/// Walks pattern and text; a mismatch goes back to the last `%` and gives it one character more.
fn walk(steps: &[Step], text: &[u8], fold: bool) -> bool {
    let (mut step, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let moved = match (steps.get(step), rest.first()) {
            (None, None) => return true,
            (Some(Step::Many), _) => {
                back = Some((step + 1, at));
                Some(0)
            }
            (Some(Step::One), Some(_)) => Some(width(rest)),
            (Some(Step::Byte(byte)), Some(first)) => (*byte == if fold { first.to_ascii_lowercase() } else { *first }).then_some(1),
            _ => None,
        };
        if let Some(by) = moved {
            step += 1;
            at += by;
            continue;
        }
        let Some((after, from)) = back else { return false };
        let rest = text.get(from..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let from = from + width(rest);
        back = Some((after, from));
        (step, at) = (after, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, escape, fold, text, expected) in [
            ("abc", Some('\\'), false, "abc", true),
            ("a%", Some('\\'), false, "abc", true),
            ("%c", Some('\\'), false, "abc", true),
            ("%b%", Some('\\'), false, "abc", true),
            ("%", Some('\\'), false, "", true),
            ("%%", Some('\\'), false, "x", true),
            ("_", Some('\\'), false, "é", true),
            ("__", Some('\\'), false, "é", false),
            ("%_é", Some('\\'), false, "ééé", true),
            ("a\\%", Some('\\'), false, "a%", true),
            ("a\\%", Some('\\'), false, "ab", false),
            ("a!_", Some('!'), false, "a_", true),
            ("a\\", None, false, "a\\", true),
            ("A_C%", Some('\\'), true, "abcd", true),
            ("É", Some('\\'), true, "é", false),
            ("a%b%c", Some('\\'), false, "aXbYbZc", true),
            ("a%b%c", Some('\\'), false, "aXbYbZ", false),
            ("", Some('\\'), false, "", true),
            ("", Some('\\'), false, "a", false),
        ] {
            let compiled = Pattern::new(pattern, escape, fold).expect(pattern);
            assert_eq!(compiled.matches(text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(Pattern::new("a\\", Some('\\'), false).is_none());
    }
}
