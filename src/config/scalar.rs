//! What a scalar without quotes is, by the YAML 1.2 core schema (YAML 1.2.2, 10.3.2): `no` and `on` are texts.

use serde_json::Value as Json;

/// The value of a plain scalar.
///
/// Integers beyond 64 bits, infinities and NaN stay text: JSON numbers cannot hold them.
pub(super) fn resolve(text: &str) -> serde_json::Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |part: &str, is: fn(&u8) -> bool| !part.is_empty() && part.bytes().all(|b| is(&b));
    if all(digits, u8::is_ascii_digit) {
        let signed = text.strip_prefix('+').unwrap_or(text);
        return signed.parse::<u64>().map(Json::from).or_else(|_| signed.parse::<i64>().map(Json::from)).unwrap_or_else(|_| text.into());
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && digits.bytes().all(|b| char::from(b).is_digit(radix))
        {
            return u64::from_str_radix(digits, radix).map_or_else(|_| text.into(), Json::from);
        }
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let float = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        && (!whole.is_empty() || !fraction.is_empty())
        && exponent.is_none_or(|e| all(e.strip_prefix(['-', '+']).unwrap_or(e), u8::is_ascii_digit));
    if float && let Some(number) = text.parse().ok().and_then(serde_json::Number::from_f64) {
        return Json::Number(number);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn core_schema() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("no", json!("no")),
            ("on", json!("on")),
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("012", json!(12)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("1_000", json!("1_000")),
            (".inf", json!(".inf")),
            (".", json!(".")),
            ("1.2.3", json!("1.2.3")),
            ("1:30", json!("1:30")),
            ("inf", json!("inf")),
            ("0x", json!("0x")),
            ("-", json!("-")),
            ("99999999999999999999", json!("99999999999999999999")),
        ] {
            assert_eq!(resolve(text), value, "{text:?}");
        }
    }
}
