//! Fuzz target: what Snowflake, or whatever answers in its place, may say.

use super::classify::classify;
use super::http::Refusal;
use super::jwt::expiry;
use super::progress;
use super::sql::{failed, take_rows};
use super::streaming::ChannelStatus;
use serde_json::Value;

/// An answer: its status in two bytes, then its body.
pub(crate) fn response(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_first_chunk::<2>() else { return };
    let status = 100 + u16::from_be_bytes(*status) % 500;
    let answered = || Refusal::answered(status, body);
    let refusal = answered();
    assert_eq!(refusal.verdict, classify(status, &refusal.code));
    assert!(!refusal.words().contains('\n'), "one line");
    let values = status == 422 && !["42", "57"].iter().any(|class| refusal.sql_state.starts_with(class));
    let error = failed(answered(), "a test");
    if values && refusal.message.len() > 20 && !refusal.code.contains(&refusal.message) && !refusal.sql_state.contains(&refusal.message) {
        assert!(!error.report().contains(&refusal.message), "words that may quote a value are left out: {}", error.report());
    }
    assert!(answered().error("a test").report().contains(answered().error("a test").code.id));

    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    for status in [&json, json.get("channel_status").unwrap_or(&Value::Null)] {
        if let Ok(status) = ChannelStatus::read(status) {
            let word = status.last_error.starts_with("ERR_") && status.last_error.len() <= 60;
            assert!(word || status.last_error == "no code given", "{}", status.last_error);
            assert!(status.last_error.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ')));
        }
    }
    let mut rows = Vec::new();
    take_rows(&json, &mut rows);
    assert!(rows.len() * 2 <= body.len());
    for row in &rows {
        assert!(progress::read(row).1.channels >= 1);
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = expiry(text);
    }
}
