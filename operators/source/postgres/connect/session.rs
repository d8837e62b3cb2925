//! What each session is set to, so that a value is spelled the same whatever the server, database or role says.

use super::settings::TargetSession;
use std::fmt::Write;

/// The major version in `server_version`, such as 15 of `15.18 (Debian 15.18-0+deb12u1)`.
pub(super) fn major(server_version: &str) -> u32 {
    let digits = server_version.bytes().take_while(u8::is_ascii_digit).count();
    server_version.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Statements that set a new session up.
///
/// A statement waits at most 30 s for a lock; a walsender as long as it takes, since making a slot waits
/// for running transactions.
pub(super) fn statements(major: u32, replication: bool) -> String {
    let mut sql = String::from(
        "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
         SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET standard_conforming_strings = on; \
         SET search_path = 'pg_catalog'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; ",
    );
    for (since, name) in [(14, "idle_session_timeout"), (17, "transaction_timeout")] {
        if major >= since {
            let _ = write!(sql, "SET {name} = 0; ");
        }
    }
    let _ = write!(sql, "SET lock_timeout = '{}'", if replication { "0" } else { "30s" });
    sql
}

/// Asks a session whether its server is in recovery and whether it is read only.
pub(super) const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";

/// Whether a server that answered [`ROLE`] so is the one wanted; the error says what it is.
pub(super) fn suits(target: TargetSession, recovery: Option<&str>, read_only: Option<&str>) -> Result<(), &'static str> {
    let (standby, read_only) = (recovery == Some("t"), read_only == Some("on"));
    match target {
        TargetSession::Any | TargetSession::PreferStandby => Ok(()),
        TargetSession::Primary if standby => Err("a standby"),
        TargetSession::Standby if !standby => Err("a primary"),
        TargetSession::ReadWrite if standby || read_only => Err("read only"),
        TargetSession::ReadOnly if !standby && !read_only => Err("not read only"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, number) in [("15.18 (Debian 15.18-0+deb12u1)", 15), ("17beta1", 17), ("9.6.3", 9), ("", 0), ("x", 0)] {
            assert_eq!(major(text), number, "{text}");
        }
        assert!(!statements(13, false).contains("idle_session_timeout"));
        assert!(statements(17, true).contains("transaction_timeout"));
    }

    #[test]
    fn targets() {
        use TargetSession::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        for (target, primary, standby, primary_read_only) in [
            (Any, true, true, true),
            (PreferStandby, true, true, true),
            (Primary, true, false, true),
            (Standby, false, true, false),
            (ReadWrite, true, false, false),
            (ReadOnly, false, true, true),
        ] {
            assert_eq!(suits(target, Some("f"), Some("off")).is_ok(), primary, "{target:?}");
            assert_eq!(suits(target, Some("t"), Some("on")).is_ok(), standby, "{target:?}");
            assert_eq!(suits(target, Some("f"), Some("on")).is_ok(), primary_read_only, "{target:?}");
        }
    }
}
