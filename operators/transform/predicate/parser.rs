//! The grammar of predicates: a subset of PostgreSQL's, with its precedence.
//!
//! ```text
//! or      := and ('OR' and)*
//! and     := not ('AND' not)*
//! not     := 'NOT' not | is
//! is      := compare ('IS' ['NOT'] ('NULL' | 'TRUE' | 'FALSE' | 'UNKNOWN' | 'DISTINCT' 'FROM' compare))*
//! compare := range [('=' | '<>' | '!=' | '<' | '<=' | '>' | '>=') range]
//! range   := item [['NOT'] ('BETWEEN' item 'AND' item | 'IN' '(' item (',' item)* ')'
//!                           | ('LIKE' | 'ILIKE') item ['ESCAPE' string])]
//! item    := column | literal | '(' or ')'
//! literal := ['+' | '-'] number | string | 'TRUE' | 'FALSE' | 'NULL'
//!          | ('DATE' | 'TIMESTAMP' | 'TIMESTAMPTZ' | 'TIMESTAMP' 'WITH' 'TIME' 'ZONE') string
//! ```

use super::Mistake;
use super::expr::{Expr, Literal, Relation};
use super::lexer::{Lexed, Lexeme, split};
use crate::transform::decimal::Number;
use crate::transform::temporal::{self, Zone};

/// Words that PostgreSQL reserves, or that mean something here: a column of that name is quoted.
const RESERVED: [&str; 34] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "distinct",
    "else",
    "end",
    "escape",
    "from",
    "ilike",
    "in",
    "is",
    "isnull",
    "like",
    "not",
    "notnull",
    "or",
    "overlaps",
    "select",
    "similar",
    "some",
    "symmetric",
    "asymmetric",
    "then",
    "when",
    "where",
];

/// How deep parentheses and NOT may nest.
const DEEPEST: usize = 100;
/// How many IS may follow one another; more say nothing, and each nests the expression once more.
const MOST_TESTS: usize = 3;

/// Parses a whole predicate.
pub(super) fn parse(text: &str) -> Result<Expr, Mistake> {
    let mut parser = Parser { lexed: split(text)?, next: 0, depth: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        Lexeme::End => Ok(expr),
        _ => Err(parser.wants("AND, OR or the end")),
    }
}

struct Parser {
    lexed: Vec<Lexed>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek_at(&self, ahead: usize) -> &Lexeme {
        self.lexed.get(self.next + ahead).map_or(&Lexeme::End, |l| &l.lexeme)
    }

    fn peek(&self) -> &Lexeme {
        self.peek_at(0)
    }

    fn at(&self) -> usize {
        self.lexed.get(self.next).or(self.lexed.last()).map_or(1, |l| l.at)
    }

    fn wants(&self, expected: &str) -> Mistake {
        Mistake::new(self.at(), expected)
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Lexeme::Word(w) if w == word)
    }

    fn word(&mut self, word: &str) -> bool {
        let there = self.is_word(0, word);
        self.next += usize::from(there);
        there
    }

    fn sign(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Lexeme::Sign(s) if *s == sign);
        self.next += usize::from(there);
        there
    }

    fn need_word(&mut self, word: &str) -> Result<(), Mistake> {
        if self.word(word) { Ok(()) } else { Err(self.wants(&word.to_uppercase())) }
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), Mistake> {
        if self.sign(sign) { Ok(()) } else { Err(self.wants(&format!("`{sign}`"))) }
    }

    fn or(&mut self) -> Result<Expr, Mistake> {
        let mut parts = vec![self.and()?];
        while self.word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Result<Expr, Mistake> {
        let mut parts = vec![self.not()?];
        while self.word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Result<Expr, Mistake> {
        if self.word("not") {
            let inner = self.deeper(Self::not)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        self.is()
    }

    fn deeper(&mut self, inner: fn(&mut Self) -> Result<Expr, Mistake>) -> Result<Expr, Mistake> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Mistake::outside(self.at(), "deeper nesting"));
        }
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn is(&mut self) -> Result<Expr, Mistake> {
        let mut expr = self.compare()?;
        for tests in 0.. {
            let at = self.at();
            if !self.word("is") {
                break;
            }
            if tests == MOST_TESTS {
                return Err(Mistake::outside(at, "deeper nesting"));
            }
            let negated = self.word("not");
            let inner = Box::new(expr);
            expr = if self.word("null") || self.word("unknown") {
                Expr::IsNull(inner)
            } else if self.word("true") {
                Expr::IsBool { inner, value: true }
            } else if self.word("false") {
                Expr::IsBool { inner, value: false }
            } else if self.word("distinct") {
                self.need_word("from")?;
                Expr::Distinct { left: inner, right: Box::new(self.compare()?), at }
            } else {
                return Err(self.wants("NULL, TRUE, FALSE, UNKNOWN or DISTINCT FROM"));
            };
            if negated {
                expr = Expr::Not(Box::new(expr));
            }
        }
        Ok(expr)
    }

    fn compare(&mut self) -> Result<Expr, Mistake> {
        let left = self.range()?;
        let at = self.at();
        let relation = match self.peek() {
            Lexeme::Sign("=") => Relation::Equal,
            Lexeme::Sign("<>" | "!=") => Relation::NotEqual,
            Lexeme::Sign("<") => Relation::Less,
            Lexeme::Sign("<=") => Relation::LessEqual,
            Lexeme::Sign(">") => Relation::Greater,
            Lexeme::Sign(">=") => Relation::GreaterEqual,
            _ => return Ok(left),
        };
        self.next += 1;
        let right = self.range()?;
        Ok(Expr::Compare { relation, left: Box::new(left), right: Box::new(right), at })
    }

    fn range(&mut self) -> Result<Expr, Mistake> {
        let left = self.item()?;
        let at = self.at();
        let follows = ["between", "in", "like", "ilike"];
        let negated = self.is_word(0, "not") && follows.iter().any(|w| self.is_word(1, w));
        self.next += usize::from(negated);
        let left = Box::new(left);
        let expr = if self.word("between") {
            // its left side stands twice in what it means, so it must be small
            if !matches!(*left, Expr::Column { .. } | Expr::Literal { .. }) {
                return Err(Mistake::outside(at, "BETWEEN after a condition"));
            }
            let low = self.item()?;
            self.need_word("and")?;
            let high = self.item()?;
            let part = |relation, right| Expr::Compare { relation, left: left.clone(), right: Box::new(right), at };
            Expr::And(vec![part(Relation::GreaterEqual, low), part(Relation::LessEqual, high)])
        } else if self.word("in") {
            self.need_sign("(")?;
            let mut items = vec![self.item()?];
            while self.sign(",") {
                items.push(self.item()?);
            }
            self.need_sign(")")?;
            Expr::In { left, items, at }
        } else if self.is_word(0, "like") || self.is_word(0, "ilike") {
            let fold = self.is_word(0, "ilike");
            self.next += 1;
            let pattern = Box::new(self.item()?);
            let mut escape = Some('\\');
            if self.word("escape") {
                let Lexeme::Text(text) = self.peek() else { return Err(self.wants("a string of one character")) };
                let mut letters = text.chars();
                escape = letters.next();
                if letters.next().is_some() {
                    return Err(self.wants("a string of one character"));
                }
                self.next += 1;
            }
            Expr::Like { left, pattern, escape, fold, at }
        } else {
            return Ok(*left);
        };
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn item(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let lexeme = self.peek().clone();
        self.next += 1;
        let literal = |value| Ok(Expr::Literal { value, at });
        match lexeme {
            Lexeme::Quoted(name) => self.column(name, at),
            Lexeme::Text(text) => literal(Literal::Text(text)),
            Lexeme::Number(text) => literal(number(&text, at)?),
            Lexeme::Sign(sign @ ("+" | "-")) => {
                let Lexeme::Number(text) = self.peek().clone() else { return Err(Mistake::outside(at, "arithmetic")) };
                self.next += 1;
                literal(match number(&text, at)? {
                    Literal::Number(number, whole) if sign == "-" => Literal::Number(number.negated(), whole),
                    other => other,
                })
            }
            Lexeme::Sign("(") => {
                let inner = self.deeper(Self::or)?;
                if matches!(self.peek(), Lexeme::Sign(",")) {
                    return Err(Mistake::outside(self.at(), "a row of values"));
                }
                self.need_sign(")")?;
                Ok(inner)
            }
            Lexeme::Word(word) => self.named(word, at),
            _ => {
                self.next -= 1;
                Err(self.wants("a column, a literal, NOT or `(`"))
            }
        }
    }

    fn named(&mut self, word: String, at: usize) -> Result<Expr, Mistake> {
        let literal = |value| Ok(Expr::Literal { value, at });
        match word.as_str() {
            "null" => return literal(Literal::Null),
            "true" => return literal(Literal::Bool(true)),
            "false" => return literal(Literal::Bool(false)),
            "timestamp" if self.is_word(0, "with") && self.is_word(1, "time") && self.is_word(2, "zone") => {
                self.next += 3;
                let Lexeme::Text(text) = self.peek().clone() else { return Err(self.wants("a string")) };
                self.next += 1;
                return zoned(text, at);
            }
            _ => {}
        }
        if let Lexeme::Text(text) = self.peek().clone() {
            self.next += 1;
            return match word.as_str() {
                "date" if temporal::date(text.as_bytes()).is_some() => literal(Literal::Date(text)),
                "date" => Err(Mistake::new(at, "DATE 'YYYY-MM-DD'")),
                "timestamp" if zone_of(&text).is_some_and(|z| z != Zone::Offset) => literal(Literal::Timestamp(text)),
                "timestamp" => Err(Mistake::new(at, "TIMESTAMP 'YYYY-MM-DD HH:MM:SS', without a zone")),
                "timestamptz" => zoned(text, at),
                _ => Err(Mistake::outside(at, &format!("a literal of type {word}; DATE, TIMESTAMP and TIMESTAMPTZ are there"))),
            };
        }
        if RESERVED.contains(&word.as_str()) {
            self.next -= 1;
            let message = format!("a column, a literal, NOT or `(` (a column named {word} is written \"{word}\")");
            return Err(self.wants(&message));
        }
        self.column(word, at)
    }

    fn column(&mut self, name: String, at: usize) -> Result<Expr, Mistake> {
        match self.peek() {
            Lexeme::Sign("(") => Err(Mistake::outside(at, "a function")),
            Lexeme::Sign("+" | "-") => Err(Mistake::outside(self.at(), "arithmetic")),
            _ => Ok(Expr::Column { name, at }),
        }
    }
}

fn zone_of(text: &str) -> Option<Zone> {
    temporal::timestamp(text.as_bytes()).map(|(_, zone)| zone)
}

fn zoned(text: String, at: usize) -> Result<Expr, Mistake> {
    if zone_of(&text).is_some_and(|z| z != Zone::None) {
        return Ok(Expr::Literal { value: Literal::TimestampTz(text), at });
    }
    Err(Mistake::new(at, "TIMESTAMPTZ 'YYYY-MM-DD HH:MM:SS+00', with its offset from UTC"))
}

fn number(text: &str, at: usize) -> Result<Literal, Mistake> {
    let whole = text.bytes().all(|b| b.is_ascii_digit());
    Number::parse(text.as_bytes()).map(|n| Literal::Number(n, whole)).ok_or_else(|| Mistake::new(at, "a number that numeric can hold"))
}
