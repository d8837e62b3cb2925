//! Values out of thin air through both wire forms and back. A failure prints its seed and its least case.

use super::spelled::spelled;
use super::{Sent, values};
use crate::contract::ColumnType;
use arrow::array::AsArray;
use proptest::prelude::*;

fn both_forms(ty: &ColumnType, text: &str, binary: &[u8]) -> Result<(), TestCaseError> {
    let batch = values(ty, &[Sent::Text(text.as_bytes()), Sent::Binary(binary)]);
    for row in 0..2 {
        prop_assert_eq!(spelled(&batch, row), Some(text.to_owned()), "{:?} row {}", ty, row);
    }
    prop_assert_eq!(batch.columns[0].slice(0, 1).to_data(), batch.columns[0].slice(1, 1).to_data());
    Ok(())
}

/// `numeric_send` of a decimal text, the long way.
fn numeric_send(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = fraction.len() as i16;
    let mut all = "0".repeat((4 - whole.len() % 4) % 4) + whole;
    let mut weight = (all.len() / 4) as i16 - 1;
    all += fraction;
    all += &"0".repeat((4 - all.len() % 4) % 4);
    let mut groups: Vec<i16> = all.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap().parse().unwrap()).collect();
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if text.starts_with('-') { 0x4000 } else { 0 };
    [groups.len() as i16, weight, sign, scale].into_iter().chain(groups).flat_map(i16::to_be_bytes).collect()
}

/// An array's text as `array_out` writes it.
fn array_out(rows: &[Vec<Option<String>>]) -> String {
    let quote = |item: &Option<String>| match item {
        None => "NULL".to_owned(),
        Some(text)
            if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(['{', '}', ',', '"', '\\', ' ', '\n', '\t']) =>
        {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Some(text) => text.clone(),
    };
    let row = |row: &Vec<Option<String>>| format!("{{{}}}", row.iter().map(quote).collect::<Vec<_>>().join(","));
    format!("{{{}}}", rows.iter().map(row).collect::<Vec<_>>().join(","))
}

/// An array's `array_send`.
fn array_send(rows: &[Vec<Option<String>>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [2, 0, 25, rows.len() as i32, 1, rows[0].len() as i32, 1].into_iter().flat_map(i32::to_be_bytes).collect();
    for item in rows.iter().flatten() {
        match item {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                bytes.extend((text.len() as i32).to_be_bytes());
                bytes.extend(text.bytes());
            }
        }
    }
    bytes
}

proptest! {
    #[test]
    fn decimals(value in any::<i128>().prop_map(|v| v % 10_i128.pow(18)), shift in 0_u32..18) {
        let value = value / 10_i128.pow(shift);
        let (whole, fraction) = (value.unsigned_abs() / 10_000, value.unsigned_abs() % 10_000);
        let text = format!("{}{whole}.{fraction:04}", if value < 0 { "-" } else { "" });
        both_forms(&ColumnType::Numeric { precision: 18, scale: 4 }, &text, &numeric_send(&text))?;
    }

    #[test]
    fn wide_decimals(digits in "[1-9][0-9]{0,37}", negative: bool) {
        let sign = if negative { "-" } else { "" };
        let whole = format!("{sign}{digits}");
        both_forms(&ColumnType::Numeric { precision: 38, scale: 0 }, &whole, &numeric_send(&whole))?;
        let (head, tail) = digits.split_at(1);
        let small = format!("{sign}{head}.{tail:0<37}");
        both_forms(&ColumnType::Numeric { precision: 38, scale: 37 }, &small, &numeric_send(&small))?;
    }

    #[test]
    fn numeric_texts(text in "-?(0|[1-9][0-9]{0,60})(\\.[0-9]{1,60})?") {
        prop_assume!(!text.starts_with('-') || text.contains(|c: char| ('1'..='9').contains(&c)));
        both_forms(&ColumnType::NumericText, &text, &numeric_send(&text))?;
        // into a decimal it goes whole or not at all
        let ty = ColumnType::Numeric { precision: 30, scale: 12 };
        let batch = values(&ty, &[Sent::Text(text.as_bytes()), Sent::Binary(&numeric_send(&text))]);
        prop_assert_eq!(batch.exact.get(0, 0), batch.exact.get(1, 0));
        if batch.exact.is_empty() {
            let plain = |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() };
            for row in 0..2 {
                prop_assert_eq!(plain(&spelled(&batch, row).unwrap()), plain(&text));
            }
        }
    }

    #[test]
    fn timestamps(micros in prop_oneof![-211_813_488_000_000_000_i64..9_223_371_331_200_000_000, -63_113_904_000_000_000_i64..252_455_616_000_000_000]) {
        for (ty, zone) in [(ColumnType::Timestamp, false), (ColumnType::TimestampTz, true)] {
            let mut text = Vec::new();
            crate::encode::timestamp::write(&micros.to_be_bytes(), zone, false, &mut text).unwrap();
            both_forms(&ty, std::str::from_utf8(&text).unwrap(), &micros.to_be_bytes())?;
        }
    }

    #[test]
    fn dates(day in prop_oneof![-2_451_545_i32..2_145_031_948, -800_000_i32..3_000_000]) {
        let mut text = Vec::new();
        crate::encode::date::write(&day.to_be_bytes(), &mut text).unwrap();
        both_forms(&ColumnType::Date, std::str::from_utf8(&text).unwrap(), &day.to_be_bytes())?;
    }

    #[test]
    fn floats(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(!value.is_nan());
        let mut text = Vec::new();
        crate::encode::float::write_text(&value.to_be_bytes(), &mut text).unwrap();
        both_forms(&ColumnType::Float8, std::str::from_utf8(&text).unwrap(), &value.to_be_bytes())?;
    }

    #[test]
    fn text_arrays(rows in (1_usize..4, 1_usize..4).prop_flat_map(|(rows, columns)| {
        let item = prop_oneof![Just(None), Just(Some("null".to_owned())), "[a-z{},\"\\\\ \n\té😀]{0,12}".prop_map(Some)];
        prop::collection::vec(prop::collection::vec(item, columns), rows)
    })) {
        let (text, binary) = (array_out(&rows), array_send(&rows));
        let ty = ColumnType::Array(Box::new(ColumnType::Text));
        let batch = values(&ty, &[Sent::Text(text.as_bytes()), Sent::Binary(&binary)]);
        prop_assert!(batch.exact.is_empty());
        let column = batch.columns[0].as_string::<i32>();
        prop_assert_eq!(column.value(0), column.value(1));
        prop_assert!(!column.value(0).contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Vec<Vec<Option<String>>>>(column.value(0)).unwrap(), rows);
    }
}
