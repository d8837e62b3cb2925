//! The value that rows written before a column existed read as, as an SQL expression of the column's type.
//!
//! PostgreSQL keeps it as the type's text (`pg_attribute.attmissingval`); so it never needs to read old rows
//! again when a column with a default is added, and neither does this sink.

use super::sql::literal;
use super::types::SfType;
use crate::contract::ColumnType;

/// The expression; `None` when the text has no value in the column's Snowflake type.
pub(super) fn expression(ty: &ColumnType, text: &str) -> Option<String> {
    let cast = |text: &str| Some(format!("{}::{}", literal(text), SfType::of(ty)));
    match ty {
        ColumnType::Bool => match text {
            "t" | "true" => Some("TRUE".into()),
            "f" | "false" => Some("FALSE".into()),
            _ => None,
        },
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => text.parse::<i64>().ok().map(|n| n.to_string()),
        ColumnType::Numeric { .. } => is_decimal(text).then(|| cast(text)).flatten(),
        ColumnType::Float4 | ColumnType::Float8 => match text {
            "NaN" => cast("NaN"),
            "Infinity" => cast("inf"),
            "-Infinity" => cast("-inf"),
            text => text.parse::<f64>().is_ok().then(|| cast(text)).flatten(),
        },
        ColumnType::Bytea => {
            let hex = text.strip_prefix("\\x")?;
            hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| format!("TO_BINARY({}, 'HEX')", literal(hex)))
        }
        ColumnType::Date | ColumnType::Time | ColumnType::Timestamp => plain_time(text).then(|| cast(text)).flatten(),
        ColumnType::TimestampTz => plain_time(text).then(|| cast(&with_minutes(text))).flatten(),
        ColumnType::Json | ColumnType::Jsonb => Some(format!("PARSE_JSON({})", literal(text))),
        ColumnType::Array(element) => array_json(text, element).map(|json| format!("PARSE_JSON({})::ARRAY", literal(&json))),
        ColumnType::NumericText | ColumnType::Text | ColumnType::TimeTz | ColumnType::Interval | ColumnType::Uuid | ColumnType::Other => {
            cast(text)
        }
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// A date or time of ISO style within years 1 to 9999; not `infinity`, not `24:00:00`, not BC.
fn plain_time(text: &str) -> bool {
    let year = text.bytes().take_while(u8::is_ascii_digit).count();
    (year == 4 || year == 2) && !text.ends_with("BC") && !text.starts_with("24:")
}

/// `… 10:00:00+02` as `… 10:00:00+02:00`.
fn with_minutes(text: &str) -> String {
    let bytes = text.as_bytes();
    let short = text.len() > 3 && matches!(bytes[text.len() - 3], b'+' | b'-') && text.len() > 13;
    if short { format!("{text}:00") } else { text.to_owned() }
}

/// Reads an array's text as JSON (PostgreSQL manual, "Array Input and Output Syntax").
///
/// ```text
/// array   = "{" [ item { "," item } ] "}"
/// item    = array | '"' { char | "\" char } '"' | "NULL" | bare
/// ```
/// `None` when it is not one, or has bounds of its own, which JSON has no place for.
fn array_json(text: &str, element: &ColumnType) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    read_array(&mut rest, element, &mut out, 0)?;
    rest.is_empty().then_some(out)
}

fn read_array(rest: &mut &str, element: &ColumnType, out: &mut String, depth: u8) -> Option<()> {
    *rest = rest.strip_prefix('{')?;
    out.push('[');
    if depth > 6 {
        return None;
    }
    let mut first = true;
    loop {
        if let Some(tail) = rest.strip_prefix('}') {
            *rest = tail;
            out.push(']');
            return Some(());
        }
        if !first {
            *rest = rest.strip_prefix(',')?;
            out.push(',');
        }
        first = false;
        if rest.starts_with('{') {
            read_array(rest, element, out, depth + 1)?;
        } else if let Some(tail) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = tail.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(chars.next()?.1),
                    (_, c) => value.push(c),
                }
            };
            *rest = tail.get(end + 1..)?;
            push_element(&value, element, out)?;
        } else {
            let end = rest.find([',', '}'])?;
            let (value, tail) = rest.split_at(end);
            *rest = tail;
            if value.eq_ignore_ascii_case("null") { out.push_str("null") } else { push_element(value, element, out)? }
        }
    }
}

fn push_element(value: &str, element: &ColumnType, out: &mut String) -> Option<()> {
    match element {
        ColumnType::Bool => out.push_str(if value == "t" { "true" } else { "false" }),
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => out.push_str(&value.parse::<i64>().ok()?.to_string()),
        ColumnType::Numeric { .. } | ColumnType::NumericText if is_decimal(value) => out.push_str(value),
        ColumnType::Json | ColumnType::Jsonb => out.push_str(value),
        ColumnType::Timestamp => out.push_str(&serde_json::Value::from(value.replacen(' ', "T", 1)).to_string()),
        ColumnType::TimestampTz => out.push_str(&serde_json::Value::from(with_minutes(value).replacen(' ', "T", 1)).to_string()),
        ColumnType::Float4 | ColumnType::Float8 if value.parse::<f64>().is_ok_and(f64::is_finite) => out.push_str(value),
        _ => out.push_str(&serde_json::Value::from(value).to_string()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let array = |element| ColumnType::Array(Box::new(element));
        for (ty, text, sql) in [
            (ColumnType::Bool, "t", Some("TRUE")),
            (ColumnType::Int4, "-7", Some("-7")),
            (ColumnType::Int4, "7; DROP", None),
            (ColumnType::Numeric { precision: 10, scale: 2 }, "1.50", Some("'1.50'::NUMBER(10,2)")),
            (ColumnType::Numeric { precision: 10, scale: 2 }, "NaN", None),
            (ColumnType::Float8, "Infinity", Some("'inf'::FLOAT")),
            (ColumnType::Text, "o'b", Some("'o''b'::VARCHAR(134217728)")),
            (ColumnType::Bytea, "\\x00ff", Some("TO_BINARY('00ff', 'HEX')")),
            (ColumnType::Bytea, "\\xzz", None),
            (ColumnType::Date, "2024-01-31", Some("'2024-01-31'::DATE")),
            (ColumnType::Date, "infinity", None),
            (ColumnType::Date, "0044-03-15 BC", None),
            (ColumnType::Time, "24:00:00", None),
            (ColumnType::TimestampTz, "2024-01-31 10:00:00+02", Some("'2024-01-31 10:00:00+02:00'::TIMESTAMP_TZ(6)")),
            (ColumnType::Jsonb, "{\"a\": 1}", Some("PARSE_JSON('{\"a\": 1}')")),
            (array(ColumnType::Text), "{}", Some("PARSE_JSON('[]')::ARRAY")),
            (array(ColumnType::Text), "{a,\"b\\\"c\",NULL}", Some("PARSE_JSON('[\"a\",\"b\\\\\"c\",null]')::ARRAY")),
            (array(ColumnType::Int4), "{{1,2},{3,4}}", Some("PARSE_JSON('[[1,2],[3,4]]')::ARRAY")),
            (array(ColumnType::Int4), "[0:1]={1,2}", None),
            (array(ColumnType::Int4), "{1", None),
        ] {
            assert_eq!(expression(&ty, text).as_deref(), sql, "{ty:?} {text}");
        }
    }
}
