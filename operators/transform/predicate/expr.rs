//! What a predicate's text says: its syntax tree, of no table yet.

use crate::transform::decimal::Number;

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Relation {
    /// The same comparison with its sides changed over.
    pub(super) const fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            other => other,
        }
    }

    /// Whether it holds for an order.
    pub(super) const fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEqual => order.is_ge(),
        }
    }
}

/// A constant.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// A number, and whether it was written without point and exponent.
    Number(Number, bool),
    Text(String),
    Date(String),
    Timestamp(String),
    TimestampTz(String),
}

/// A parsed predicate; columns by name, `at` is where it stands.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Column {
        name: String,
        at: usize,
    },
    Literal {
        value: Literal,
        at: usize,
    },
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare {
        relation: Relation,
        left: Box<Expr>,
        right: Box<Expr>,
        at: usize,
    },
    Distinct {
        left: Box<Expr>,
        right: Box<Expr>,
        at: usize,
    },
    In {
        left: Box<Expr>,
        items: Vec<Expr>,
        at: usize,
    },
    Like {
        left: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<char>,
        fold: bool,
        at: usize,
    },
    /// `IS NULL`, or `IS UNKNOWN`.
    IsNull(Box<Expr>),
    /// `IS TRUE`, `IS FALSE`.
    IsBool {
        inner: Box<Expr>,
        value: bool,
    },
}
