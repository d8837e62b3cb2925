//! The words of a predicate, as PostgreSQL splits them (PostgreSQL manual, "Lexical Structure").
//!
//! ```text
//! word   := letter (letter | digit | '$')*         folded to lower case
//! quoted := '"' (any but '"' | '""')+ '"'          as it stands
//! string := '\'' (any but '\'' | '\'\'')* '\''
//! number := digits ['.' digits*] [exponent] | '.' digits [exponent]
//! sign   := = <> != < <= > >= ( ) , + -
//! ```

use super::Mistake;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lexeme {
    /// An unquoted word, folded.
    Word(String),
    /// A quoted name.
    Quoted(String),
    /// A string's characters.
    Text(String),
    /// A number as written, without sign.
    Number(String),
    /// An operator or a mark.
    Sign(&'static str),
    /// The end.
    End,
}

/// A token and where it starts, in characters from 1.
#[derive(Clone, Debug)]
pub(super) struct Lexed {
    pub(super) at: usize,
    pub(super) lexeme: Lexeme,
}

const SIGNS: [&str; 12] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-"];

/// Splits a predicate.
pub(super) fn split(text: &str) -> Result<Vec<Lexed>, Mistake> {
    let mut lexed = Vec::new();
    let mut rest = text;
    let mut at = 1;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c', '\x0b']);
        // white space is one byte a character
        at += rest.len() - trimmed.len();
        rest = trimmed;
        let Some(first) = rest.chars().next() else {
            lexed.push(Lexed { at, lexeme: Lexeme::End });
            return Ok(lexed);
        };
        let (lexeme, length) = one(rest, first, at)?;
        lexed.push(Lexed { at, lexeme });
        let (taken, after) = rest.split_at(length);
        at += taken.chars().count();
        rest = after;
    }
}

fn one(rest: &str, first: char, at: usize) -> Result<(Lexeme, usize), Mistake> {
    let starts_word = |c: char| c == '_' || c.is_ascii_alphabetic() || !c.is_ascii();
    if starts_word(first) {
        let length = rest.find(|c: char| !(starts_word(c) || c.is_ascii_digit() || c == '$')).unwrap_or(rest.len());
        let word = rest[..length].to_ascii_lowercase();
        return match (word.as_str(), rest.as_bytes().get(length)) {
            ("e" | "b" | "x" | "n", Some(b'\'')) => Err(Mistake::outside(at, "a string with a prefix; write '…' with '' for a quote")),
            ("u", Some(b'&')) => Err(Mistake::outside(at, "a string with a prefix; write '…' with '' for a quote")),
            _ => Ok((Lexeme::Word(word), length)),
        };
    }
    match first {
        '\'' => delimited(rest, '\'').map(|(text, n)| (Lexeme::Text(text), n)).ok_or_else(|| Mistake::new(at, "a string that ends with '")),
        '"' => match delimited(rest, '"') {
            Some((name, n)) if !name.is_empty() => Ok((Lexeme::Quoted(name), n)),
            _ => Err(Mistake::new(at, "a quoted column name that ends with \"")),
        },
        '0'..='9' | '.' => number(rest, at),
        _ if rest.starts_with("--") || rest.starts_with("/*") => Err(Mistake::outside(at, "a comment")),
        _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => Ok((Lexeme::Sign(sign), sign.len())),
            None => Err(Mistake::outside(at, &format!("`{first}`"))),
        },
    }
}

/// The text between two marks, doubled marks made single, and the length with the marks.
fn delimited(rest: &str, mark: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != mark {
            text.push(letter);
        } else if letters.next_if(|(_, next)| *next == mark).is_some() {
            text.push(mark);
        } else {
            return Some((text, at + 1));
        }
    }
    None
}

fn number(rest: &str, at: usize) -> Result<(Lexeme, usize), Mistake> {
    let bytes = rest.as_bytes();
    let run = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let mut length = run(0);
    let mut digits = length;
    if bytes.get(length) == Some(&b'.') {
        digits += run(length + 1);
        length += 1 + run(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = run(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let joined = rest[length..].starts_with(|c: char| c == '_' || c == '.' || c.is_ascii_alphanumeric() || !c.is_ascii());
    if digits == 0 || joined {
        return Err(Mistake::new(at, "a decimal number"));
    }
    Ok((Lexeme::Number(rest[..length].into()), length))
}
