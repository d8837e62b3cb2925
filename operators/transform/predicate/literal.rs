//! Literals as keys: everything of fixed width compares as an integer.

use super::expr::{Literal, Relation};
use crate::contract::ColumnType;
use crate::transform::decimal::Number;
use crate::transform::parse::boolean;
use crate::transform::temporal::{self, DAY, FUTURE, PAST, Zone};

/// Keys from `low` to `high`; everything of fixed width compares as an integer key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) low: i128,
    pub(super) high: i128,
    pub(super) negate: bool,
}

/// A float's place in PostgreSQL's order: -0 equals 0, NaN is the greatest and equal to itself.
pub(super) fn float_key(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    let bits = (value + 0.0).to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The keys for which a relation to a literal holds; an inexact literal lies just above its key.
pub(super) fn range(relation: Relation, key: i128, exact: bool) -> Range {
    let (low, high, negate) = match relation {
        Relation::Equal if exact => (key, key, false),
        Relation::NotEqual if exact => (key, key, true),
        Relation::Equal => (1, 0, false),
        Relation::NotEqual => (1, 0, true),
        Relation::Less | Relation::LessEqual if !exact => (i128::MIN, key, false),
        Relation::LessEqual => (i128::MIN, key, false),
        Relation::Less => key.checked_sub(1).map_or((1, 0, false), |high| (i128::MIN, high, false)),
        Relation::GreaterEqual if exact => (key, i128::MAX, false),
        Relation::Greater | Relation::GreaterEqual => key.checked_add(1).map_or((1, 0, false), |low| (low, i128::MAX, false)),
    };
    Range { low, high, negate }
}

/// A literal's key in a column's domain, rounded down, and whether it is exact; or why it has none.
pub(super) fn key(ty: &ColumnType, literal: &Literal, listed: bool) -> Result<(i128, bool), &'static str> {
    use ColumnType as T;
    let whole = |text: &str| {
        let number = Number::parse(text.trim_ascii().as_bytes()).filter(|_| !text.contains(['.', 'e', 'E']));
        number.map(|n| n.view().scaled(0).0).filter(|n| *n > i128::from(i64::MIN) - 1 && *n <= i128::from(i64::MAX))
    };
    let within = |text: &str, low: i64, high: i64| {
        let value = whole(text).filter(|v| (i128::from(low)..=i128::from(high)).contains(v));
        value.map(|v| (v, true)).ok_or("the string is not such a number")
    };
    let float = |value: Option<f64>| value.map(|f| (i128::from(float_key(f)), true)).ok_or("the literal is not such a number");
    match (ty, literal) {
        (T::Bool, Literal::Bool(value)) => Ok((i128::from(*value), true)),
        (T::Bool, Literal::Text(text)) => {
            boolean(text.trim_ascii().as_bytes()).map(|v| (i128::from(v), true)).ok_or("the string is not a boolean")
        }
        (T::Int2 | T::Int4 | T::Int8, Literal::Number(number, _)) => Ok(number.view().scaled(0)),
        (T::Int2, Literal::Text(text)) => within(text, i64::from(i16::MIN), i64::from(i16::MAX)),
        (T::Int4, Literal::Text(text)) => within(text, i64::from(i32::MIN), i64::from(i32::MAX)),
        (T::Int8, Literal::Text(text)) => within(text, i64::MIN, i64::MAX),
        (T::Oid, Literal::Text(text)) => within(text, 0, i64::from(u32::MAX)),
        (T::Oid, Literal::Number(number, true)) => {
            let (value, _) = number.view().scaled(0);
            (0..=i128::from(u32::MAX)).contains(&value).then_some((value, true)).ok_or("the number is not an object id")
        }
        (T::Numeric { scale, .. }, Literal::Number(number, _)) => Ok(number.view().scaled(*scale)),
        (T::Numeric { scale, .. }, Literal::Text(text)) => {
            Number::parse(text.trim_ascii().as_bytes()).map(|n| n.view().scaled(*scale)).ok_or("the string is not a number")
        }
        (T::Float4, Literal::Number(number, _)) if listed => float(number.to_f32().map(f64::from)),
        (T::Float4 | T::Float8, Literal::Number(number, _)) => float(number.to_f64()),
        (T::Float4, Literal::Text(text)) => float(Number::parse(text.trim_ascii().as_bytes()).and_then(|n| n.to_f32()).map(f64::from)),
        (T::Float8, Literal::Text(text)) => float(Number::parse(text.trim_ascii().as_bytes()).and_then(|n| n.to_f64())),
        (T::Date, Literal::Date(text) | Literal::Text(text)) => {
            temporal::date(text.as_bytes()).map(|days| (days, true)).ok_or("the string is not a date as YYYY-MM-DD")
        }
        (T::Date, Literal::Timestamp(text)) => match temporal::timestamp(text.as_bytes()) {
            Some((bound @ (PAST | FUTURE), _)) => Ok((bound, true)),
            Some((micros, _)) => Ok((micros.div_euclid(i128::from(DAY)), micros.rem_euclid(i128::from(DAY)) == 0)),
            None => Err("the literal is not a timestamp"),
        },
        (T::Timestamp, Literal::Date(text)) => match temporal::date(text.as_bytes()) {
            Some(bound @ (PAST | FUTURE)) => Ok((bound, true)),
            Some(days) => Ok((days * i128::from(DAY), true)),
            None => Err("the literal is not a date"),
        },
        (T::Timestamp, Literal::Timestamp(text) | Literal::Text(text)) => match temporal::timestamp(text.as_bytes()) {
            Some((micros, Zone::None | Zone::Any)) => Ok((micros, true)),
            _ => Err("the string is not a timestamp as YYYY-MM-DD HH:MM:SS without zone"),
        },
        (T::TimestampTz, Literal::TimestampTz(text) | Literal::Text(text)) => match temporal::timestamp(text.as_bytes()) {
            Some((micros, Zone::Offset | Zone::Any)) => Ok((micros, true)),
            _ => Err("the string is not a timestamp with its offset as YYYY-MM-DD HH:MM:SS+00"),
        },
        (T::Time, Literal::Text(text)) => {
            temporal::time(text.as_bytes()).map(|micros| (i128::from(micros), true)).ok_or("the string is not a time as HH:MM:SS")
        }
        (T::Timestamp | T::TimestampTz | T::Date, Literal::TimestampTz(_) | Literal::Timestamp(_) | Literal::Date(_)) => {
            Err("the literal differs in having a time zone, so the answer would hang on a session's setting")
        }
        (_, Literal::Text(_)) => Err("the literal is text"),
        (_, Literal::Number(..)) => Err("the literal is a number"),
        (_, Literal::Bool(_)) => Err("the literal is boolean"),
        _ => Err("the literal is a date or timestamp"),
    }
}
