//! libpq's connection options by name (PostgreSQL manual, 34.1.2): which are known, each given once.

use super::conninfo::{Pairs, called};
use super::error::settings;
use crate::contract::CodedError;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Options that mean something here.
const KNOWN: [&str; 32] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "keepalives_retries",
];

/// Options of libpq that are not supported, and why or what instead.
const REFUSED: [(&str, &str); 12] = [
    ("gssdelegation", "GSSAPI is not supported"),
    ("gsslib", "GSSAPI is not supported"),
    ("krbsrvname", "GSSAPI is not supported"),
    ("replication", "the kind of connection is chosen by what it is for"),
    ("require_auth", "use `channel_binding` or the server's pg_hba.conf"),
    ("requirepeer", "it is not supported"),
    ("requiressl", "use `sslmode`"),
    ("service", "service files are not read; write the options out"),
    ("sslcrl", "revocation lists are not supported"),
    ("sslcrldir", "revocation lists are not supported"),
    ("sslpassword", "keys with a passphrase are not supported; the key file's mode protects it"),
    ("sslkeylogfile", "it is not supported"),
];

/// Options by name; each at most once.
#[derive(Default, Hash)]
pub(super) struct Options(BTreeMap<String, String>);

impl Options {
    /// Takes the pairs of a connection string.
    pub(super) fn of(pairs: Pairs) -> Result<Self, CodedError> {
        let mut options = Self::default();
        for (name, value) in pairs {
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(settings(format!("{} of the connection string is not supported: {why}", called(&name))));
            }
            if !KNOWN.contains(&name.as_str()) {
                let nearest = KNOWN.iter().find(|known| known.replace('_', "") == name.replace(['_', '-'], "").to_ascii_lowercase());
                let error = settings(format!("{} of the connection string is not one PostgreSQL has", called(&name)));
                return Err(match nearest {
                    Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                    None => error.hint("the PostgreSQL manual, 34.1.2, lists them"),
                });
            }
            options.put(&name, value, "the connection string")?;
        }
        Ok(options)
    }

    /// Adds one that stands elsewhere.
    pub(super) fn put(&mut self, name: &str, value: String, place: &str) -> Result<(), CodedError> {
        match self.0.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(settings(format!("{} is given twice, the second time in {place}", called(name))).hint("keep one of them")),
        }
    }

    /// Takes an option; empty counts as absent, as in libpq.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// Takes an option that is a number.
    pub(super) fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, CodedError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| settings(format!("{} is not a whole number of the right size", called(name))))
    }

    /// Takes an option that is a time in seconds; none or less than one: not set.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, CodedError> {
        Ok(self.number::<i32>(name)?.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0).map(Duration::from_secs))
    }

    /// Takes an option that is one of several words.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, CodedError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(settings(format!("{} has a value that is not supported", called(name))).hint(format!("one of: {}", list.join(", "))))
            }
        }
    }
}
