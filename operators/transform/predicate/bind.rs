//! Fits a parsed predicate to a table's types, as PostgreSQL resolves operators.

use super::expr::{Expr, Literal, Relation};
use super::like::Pattern;
use super::literal::{Range, key, range};
use super::{FALSE, NULL, TRUE, Truth};
use crate::contract::{CodedError, Column, ColumnType, TableSchema};
use crate::transform::CFG_TYPE;
use crate::transform::decimal::Number;
use crate::transform::parse::hex;
use crate::transform::scope::missing;

/// A test of one column's values; null gives null, but for `IsNull`.
pub(super) enum Test {
    IsNull,
    Keys(Range),
    /// In ascending order.
    KeySet(Vec<i128>),
    Number(Relation, Number),
    /// Bytes; `trim`: without trailing spaces (`character(n)`).
    Bytes {
        relation: Relation,
        literal: Vec<u8>,
        trim: bool,
    },
    /// In ascending order.
    ByteSet {
        literals: Vec<Vec<u8>>,
        trim: bool,
    },
    Like(Pattern),
}

/// How two columns compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pair {
    /// Keys as they are.
    Keys,
    /// Keys with so many digits after the point on each side.
    Scaled(u8, u8),
    /// Dates on the left or right, timestamps on the other side.
    DateLeft,
    DateRight,
    /// Both as `double precision`.
    Floats,
    /// Decimal texts.
    Numbers,
    /// Bytes, trimmed of trailing spaces on each side or not.
    Bytes(bool, bool),
}

/// A predicate by column index.
pub(super) enum Node {
    Always(Truth),
    Leaf { column: usize, test: Box<Test> },
    Columns { left: usize, right: usize, relation: Relation, pair: Pair },
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    IsNull(Box<Node>),
    IsBool(Box<Node>, bool),
}

impl Node {
    fn leaf(column: usize, test: Test) -> Self {
        Self::Leaf { column, test: Box::new(test) }
    }

    /// Adds the columns it reads.
    pub(super) fn columns(&self, to: &mut Vec<usize>) {
        match self {
            Self::Always(_) => {}
            Self::Leaf { column, .. } => to.push(*column),
            Self::Columns { left, right, .. } => to.extend([*left, *right]),
            Self::Not(inner) | Self::IsNull(inner) | Self::IsBool(inner, _) => inner.columns(to),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.columns(to)),
        }
    }
}

/// `pg_type.oid` of `text`, `character(n)` and `character varying`.
const TEXT: u32 = 25;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;

/// What a column's text compares as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Plain,
    /// `character(n)`: trailing spaces say nothing.
    Padded,
    /// An enum or another type of its own: only whether two are equal is known here.
    Own,
}

struct Binder<'a> {
    table: &'a TableSchema,
}

pub(super) fn bind(expr: &Expr, table: &TableSchema) -> Result<Node, CodedError> {
    Binder { table }.truth(expr)
}

impl<'a> Binder<'a> {
    fn refuse(&self, at: usize, why: &str) -> CodedError {
        let message = format!("the predicate does not fit table \"{}\", at character {at}: {why}", self.table.full_name());
        CodedError::definite(CFG_TYPE, message).hint("compare like with like, quote text, or write an operator for it")
    }

    fn column(&self, name: &str) -> Result<(usize, &'a Column), CodedError> {
        let index = self.table.column(name).ok_or_else(|| missing(self.table, name))?;
        Ok((index, &self.table.columns[index]))
    }

    fn truth(&self, expr: &Expr) -> Result<Node, CodedError> {
        Ok(match expr {
            Expr::Column { name, at } => {
                let (column, found) = self.column(name)?;
                if found.ty != ColumnType::Bool {
                    return Err(self.refuse(*at, &format!("column \"{name}\" is {}, not boolean", found.pg_type.name)));
                }
                Node::leaf(column, Test::Keys(Range { low: 1, high: 1, negate: false }))
            }
            Expr::Literal { value, at } => Node::Always(match value {
                Literal::Null => NULL,
                Literal::Bool(true) => TRUE,
                Literal::Bool(false) => FALSE,
                _ => return Err(self.refuse(*at, "a literal that is not TRUE, FALSE or NULL stands where a condition must")),
            }),
            Expr::Not(inner) => Node::Not(Box::new(self.truth(inner)?)),
            Expr::And(parts) => Node::And(self.truths(parts)?),
            Expr::Or(parts) => Node::Or(self.truths(parts)?),
            Expr::Compare { relation, left, right, at } => self.compare(*relation, left, right, *at)?,
            Expr::Distinct { left, right, at } => self.distinct(left, right, *at)?,
            Expr::In { left, items, at } => self.among(left, items, *at)?,
            Expr::Like { left, pattern, escape, fold, at } => self.like(left, pattern, *escape, *fold, *at)?,
            Expr::IsNull(inner) => match &**inner {
                Expr::Column { name, .. } => Node::leaf(self.column(name)?.0, Test::IsNull),
                Expr::Literal { value, .. } => Node::Always(if matches!(value, Literal::Null) { TRUE } else { FALSE }),
                other => Node::IsNull(Box::new(self.truth(other)?)),
            },
            Expr::IsBool { inner, value } => Node::IsBool(Box::new(self.truth(inner)?), *value),
        })
    }

    fn truths(&self, parts: &[Expr]) -> Result<Vec<Node>, CodedError> {
        parts.iter().map(|part| self.truth(part)).collect()
    }

    fn compare(&self, relation: Relation, left: &Expr, right: &Expr, at: usize) -> Result<Node, CodedError> {
        match (left, right) {
            (Expr::Column { name, .. }, Expr::Literal { value, at }) => self.with_literal(relation, name, value, false, *at),
            (Expr::Literal { value, at }, Expr::Column { name, .. }) => self.with_literal(relation.turned(), name, value, false, *at),
            (Expr::Column { name: a, .. }, Expr::Column { name: b, .. }) => self.pair(relation, a, b, at),
            (Expr::Literal { .. }, Expr::Literal { .. }) => Err(self.refuse(at, "two literals are compared; one side must be a column")),
            _ => Err(self.refuse(at, "a condition is compared; only columns and literals can be")),
        }
    }

    fn distinct(&self, left: &Expr, right: &Expr, at: usize) -> Result<Node, CodedError> {
        let null = |expr: &Expr| matches!(expr, Expr::Literal { value: Literal::Null, .. });
        let is_null = |name: &str| -> Result<Node, CodedError> { Ok(Node::leaf(self.column(name)?.0, Test::IsNull)) };
        let equal = match (left, right) {
            (Expr::Column { name, .. }, other) | (other, Expr::Column { name, .. }) if null(other) => is_null(name)?,
            (Expr::Column { name: a, .. }, Expr::Column { name: b, .. }) => Node::Or(vec![
                Node::IsBool(Box::new(self.pair(Relation::Equal, a, b, at)?), true),
                Node::And(vec![is_null(a)?, is_null(b)?]),
            ]),
            _ => Node::IsBool(Box::new(self.compare(Relation::Equal, left, right, at)?), true),
        };
        Ok(Node::Not(Box::new(equal)))
    }

    fn among(&self, left: &Expr, items: &[Expr], at: usize) -> Result<Node, CodedError> {
        let Expr::Column { name, .. } = left else { return Err(self.refuse(at, "IN needs a column on its left")) };
        // PostgreSQL gives a list of several literals the type of a real column, and a single one double precision
        let listed = items.len() > 1;
        let mut parts = Vec::new();
        let (mut keys, mut bytes, mut column_trim) = (Vec::new(), Vec::new(), false);
        for item in items {
            let node = match item {
                Expr::Literal { value, at } => self.with_literal(Relation::Equal, name, value, listed, *at)?,
                _ => self.compare(Relation::Equal, left, item, at)?,
            };
            match node {
                Node::Leaf { column, test } => match *test {
                    Test::Keys(Range { low, high, negate: false }) if low == high => keys.push(low),
                    Test::Bytes { literal, trim, .. } => {
                        column_trim = trim;
                        bytes.push(literal);
                    }
                    test => parts.push(Node::leaf(column, test)),
                },
                other => parts.push(other),
            }
        }
        let column = self.column(name)?.0;
        if !keys.is_empty() {
            keys.sort_unstable();
            keys.dedup();
            parts.push(Node::leaf(column, Test::KeySet(keys)));
        }
        if !bytes.is_empty() {
            bytes.sort_unstable();
            bytes.dedup();
            parts.push(Node::leaf(column, Test::ByteSet { literals: bytes, trim: column_trim }));
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Or(parts) })
    }

    fn like(&self, left: &Expr, pattern: &Expr, escape: Option<char>, fold: bool, at: usize) -> Result<Node, CodedError> {
        let Expr::Column { name, .. } = left else { return Err(self.refuse(at, "LIKE needs a column on its left")) };
        let (column, found) = self.column(name)?;
        let is_text = found.ty == ColumnType::Text && self.text_kind(found, at)? != TextKind::Own;
        if !is_text {
            return Err(self.refuse(at, &format!("column \"{name}\" is {}, and LIKE is for text", found.pg_type.name)));
        }
        match pattern {
            Expr::Literal { value: Literal::Null, .. } => Ok(Node::Always(NULL)),
            Expr::Literal { value: Literal::Text(text), at } => match Pattern::new(text, escape, fold) {
                Some(pattern) => Ok(Node::leaf(column, Test::Like(pattern))),
                None => Err(self.refuse(*at, "a LIKE pattern ends with its escape character")),
            },
            _ => Err(self.refuse(at, "the pattern of LIKE must be a string")),
        }
    }

    fn text_kind(&self, column: &Column, at: usize) -> Result<TextKind, CodedError> {
        let name = &*column.pg_type.name;
        if name == "citext" || name.ends_with(".citext") {
            return Err(self.refuse(at, &format!("column \"{}\" is citext, which compares by rules of its own", column.name)));
        }
        Ok(match column.pg_type.oid {
            // "char" and name are 18 and 19
            18 | 19 | TEXT | VARCHAR => TextKind::Plain,
            BPCHAR => TextKind::Padded,
            _ => TextKind::Own,
        })
    }

    fn with_literal(&self, relation: Relation, name: &str, literal: &Literal, listed: bool, at: usize) -> Result<Node, CodedError> {
        let (index, column) = self.column(name)?;
        let leaf = |test| Ok(Node::leaf(index, test));
        let mismatch = |literal: &str| self.refuse(at, &format!("column \"{name}\" is {} and {literal}", column.pg_type.name));
        let comparable = !matches!(
            column.ty,
            ColumnType::TimeTz | ColumnType::Interval | ColumnType::Json | ColumnType::Jsonb | ColumnType::Array(_) | ColumnType::Other
        );
        if !comparable {
            return Err(mismatch("only IS NULL is there for that type"));
        }
        if matches!(literal, Literal::Null) {
            return Ok(Node::Always(NULL));
        }
        match (&column.ty, literal) {
            (ColumnType::Text, Literal::Text(text)) => {
                let kind = self.text_kind(column, at)?;
                if kind == TextKind::Own && !matches!(relation, Relation::Equal | Relation::NotEqual) {
                    return Err(mismatch("its order is not that of its text"));
                }
                let trim = kind == TextKind::Padded;
                let literal = if trim { text.trim_end_matches(' ') } else { text }.as_bytes().to_vec();
                leaf(Test::Bytes { relation, literal, trim })
            }
            (ColumnType::Uuid, Literal::Text(text)) => match uuid::Uuid::try_parse(text) {
                Ok(uuid) if !text.starts_with("urn") => {
                    leaf(Test::Bytes { relation, literal: uuid.hyphenated().to_string().into_bytes(), trim: false })
                }
                _ => Err(mismatch("the string is not a uuid")),
            },
            (ColumnType::Bytea, Literal::Text(text)) => {
                let mut literal = Vec::new();
                text.strip_prefix("\\x")
                    .and_then(|digits| hex(digits.as_bytes(), &mut literal))
                    .ok_or_else(|| mismatch("the string is not '\\x' and hexadecimal digits"))?;
                leaf(Test::Bytes { relation, literal, trim: false })
            }
            (ColumnType::NumericText, Literal::Number(number, _)) => leaf(Test::Number(relation, number.clone())),
            (ColumnType::NumericText, Literal::Text(text)) => match Number::parse(text.trim_ascii().as_bytes()) {
                Some(number) => leaf(Test::Number(relation, number)),
                None => Err(mismatch("the string is not a number")),
            },
            (ty, literal) => match key(ty, literal, listed) {
                Ok((key, exact)) => leaf(Test::Keys(range(relation, key, exact))),
                Err(why) => Err(mismatch(why)),
            },
        }
    }

    fn pair(&self, relation: Relation, left: &str, right: &str, at: usize) -> Result<Node, CodedError> {
        use ColumnType as T;
        let ((left, a), (right, b)) = (self.column(left)?, self.column(right)?);
        let scale = |ty: &T| match ty {
            T::Int2 | T::Int4 | T::Int8 => Some(0),
            T::Numeric { scale, .. } => Some(*scale),
            _ => None,
        };
        let is_float = |ty: &T| matches!(ty, T::Float4 | T::Float8);
        let is_number = |ty: &T| scale(ty).is_some() || *ty == T::NumericText;
        let pair = match (&a.ty, &b.ty) {
            (x, y) if is_float(x) && (is_float(y) || is_number(y)) || is_float(y) && is_number(x) => Some(Pair::Floats),
            (T::NumericText, y) if is_number(y) => Some(Pair::Numbers),
            (x, T::NumericText) if is_number(x) => Some(Pair::Numbers),
            (T::Date, T::Timestamp) => Some(Pair::DateLeft),
            (T::Timestamp, T::Date) => Some(Pair::DateRight),
            (T::Uuid, T::Uuid) | (T::Bytea, T::Bytea) => Some(Pair::Bytes(false, false)),
            (T::Text, T::Text) => match (self.text_kind(a, at)?, self.text_kind(b, at)?) {
                (TextKind::Own, TextKind::Own) => {
                    let equality = matches!(relation, Relation::Equal | Relation::NotEqual);
                    (equality && a.pg_type.oid == b.pg_type.oid).then_some(Pair::Bytes(false, false))
                }
                (TextKind::Plain, TextKind::Plain) => Some(Pair::Bytes(false, false)),
                // beside varchar the operator is that of character(n), beside text that of text
                (TextKind::Padded, _) if matches!(b.pg_type.oid, BPCHAR | VARCHAR) => Some(Pair::Bytes(true, true)),
                (_, TextKind::Padded) if a.pg_type.oid == VARCHAR => Some(Pair::Bytes(true, true)),
                (TextKind::Padded, _) if b.pg_type.oid == TEXT => Some(Pair::Bytes(true, false)),
                (_, TextKind::Padded) if a.pg_type.oid == TEXT => Some(Pair::Bytes(false, true)),
                _ => None,
            },
            (x, y) => match (scale(x), scale(y)) {
                (Some(x), Some(y)) if x == y => Some(Pair::Keys),
                (Some(x), Some(y)) => Some(Pair::Scaled(x, y)),
                _ => (x == y && matches!(x, T::Bool | T::Oid | T::Date | T::Time | T::Timestamp | T::TimestampTz)).then_some(Pair::Keys),
            },
        };
        let why = || format!("\"{}\" is {} and \"{}\" is {}", a.name, a.pg_type.name, b.name, b.pg_type.name);
        Ok(Node::Columns { left, right, relation, pair: pair.ok_or_else(|| self.refuse(at, &why()))? })
    }
}
