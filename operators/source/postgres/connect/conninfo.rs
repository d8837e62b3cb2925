//! Connection strings: URLs and libpq's `key=value` form, as pairs of libpq's option names and values.
//!
//! ```text
//! url      = ("postgres" | "postgresql") "://" [ user [ ":" password ] "@" ] [ host { "," host } ] [ "/" database ]
//!            [ "?" name "=" value { "&" name "=" value } ]
//! host     = ( name | "[" IPv6 "]" | percent-encoded folder ) [ ":" port ]
//! conninfo = { name [space] "=" [space] ( word | "'" quoted "'" ) }          \ escapes in both
//! ```
//! Guarantees: no error quotes any part of the text but an option's name, since the rest may hold a password.

use super::error::settings;
use crate::contract::CodedError;
use percent_encoding::percent_decode_str;

/// Option names and values, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// Reads a connection string.
pub(super) fn parse(text: &str) -> Result<Pairs, CodedError> {
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => url(rest),
        None if text.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric())) => {
            Err(settings("the connection URL has another scheme than postgres:// or postgresql://"))
        }
        None => key_values(text),
    }
}

/// How messages call an option; anything that does not look like a name may be part of a secret.
pub(super) fn called(name: &str) -> String {
    let is_name = name.len() <= 40 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name { format!("option \"{name}\"") } else { "an option".to_owned() }
}

fn decoded(part: &str, what: &str) -> Result<String, CodedError> {
    let wrong = |why: &str| settings(format!("the {what} in the connection URL {why}"));
    let bytes = part.as_bytes();
    for (at, _) in part.match_indices('%') {
        if !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(wrong("has a % that is not followed by two hexadecimal digits").hint("write % itself as %25"));
        }
    }
    let text = percent_decode_str(part).decode_utf8().map_err(|_| wrong("is not UTF-8"))?;
    if text.contains('\0') { Err(wrong("holds a zero byte")) } else { Ok(text.into_owned()) }
}

fn url(rest: &str) -> Result<Pairs, CodedError> {
    let mut pairs = Pairs::new();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (user_part, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    if let Some(part) = user_part {
        let (user, password) = part.split_once(':').map_or((part, None), |(user, password)| (user, Some(password)));
        for (name, value) in [("user", Some(user)), ("password", password)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                pairs.push((name.into(), decoded(value, name)?));
            }
        }
    }
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[').map(|host| host.split_once(']')) {
                Some(Some((name, port))) => (name, port.strip_prefix(':').unwrap_or(port)),
                Some(None) => return Err(settings("a host in the connection URL has a [ without its ]")),
                None => host.split_once(':').unwrap_or((host, "")),
            };
            names.push(decoded(name, "host")?);
            ports.push(decoded(port, "port")?);
        }
        if names.iter().any(|name| !name.is_empty()) {
            pairs.push(("host".into(), names.join(",")));
        }
        if ports.iter().any(|port| !port.is_empty()) {
            pairs.push(("port".into(), ports.join(",")));
        }
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(database) = path.strip_prefix('/').filter(|path| !path.is_empty()) {
        pairs.push(("dbname".into(), decoded(database, "database")?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| settings("an option of the connection URL has no value"))?;
        let name = decoded(name, "name of an option")?;
        let value = decoded(value, &called(&name))?;
        // As JDBC writes it and libpq accepts it.
        let (name, value) = if name == "ssl" && value == "true" { ("sslmode".into(), "require".into()) } else { (name, value) };
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn key_values(text: &str) -> Result<Pairs, CodedError> {
    let mut pairs = Pairs::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        if letters.peek().is_none() {
            return Ok(pairs);
        }
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            name.push(letter);
        }
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        if letters.next() != Some('=') {
            let message = "the connection string is neither a postgres:// URL nor a list of key=value";
            return Err(settings(message).hint("an example: postgres://loader@db.example:5432/shop"));
        }
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        let mut value = String::new();
        let quoted = letters.next_if_eq(&'\'').is_some();
        loop {
            match letters.next() {
                Some('\\') => value.extend(letters.next()),
                Some('\'') if quoted => break,
                Some(letter) if quoted || !letter.is_ascii_whitespace() => value.push(letter),
                None if quoted => return Err(settings(format!("{} of the connection string has a quote without its end", called(&name)))),
                _ => break,
            }
        }
        pairs.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let pairs = parse(text).map_err(|error| error.message)?;
        Ok(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn connection_strings() {
        for (text, expected) in [
            ("postgres://", ""),
            ("postgresql://localhost", "host=localhost"),
            ("postgres://u@h:5433/d", "user=u | host=h | port=5433 | dbname=d"),
            ("postgres://u:p%40%2F%25@h/d", "user=u | password=p@/% | host=h | dbname=d"),
            ("postgres://u:a@b@h/d", "user=u | password=a@b | host=h | dbname=d"),
            ("postgres://u:a:b@h", "user=u | password=a:b | host=h"),
            ("postgres://[::1]:5433,[fe80::1]/d", "host=::1,fe80::1 | port=5433, | dbname=d"),
            ("postgres://a:1,b,c:3/d", "host=a,b,c | port=1,,3 | dbname=d"),
            ("postgres://%2Fvar%2Frun/d", "host=/var/run | dbname=d"),
            ("postgres:///d?host=/tmp&port=1", "dbname=d | host=/tmp | port=1"),
            ("postgres://h?sslmode=verify-full&options=-c%20a%3Db", "host=h | sslmode=verify-full | options=-c a=b"),
            ("postgres://h/d?ssl=true", "host=h | dbname=d | sslmode=require"),
            ("postgres://%C3%BC@h/%C3%9F", "user=ü | host=h | dbname=ß"),
            ("", ""),
            ("host=h port = 5433 password='it\\'s a \\\\' dbname=d\\ e", "host=h | port=5433 | password=it's a \\ | dbname=d e"),
            ("password='' user=u", "password= | user=u"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2%zz@h/d",
            "postgres://u:hunter2%@h/d",
            "postgres://u:hunter2%00@h/d",
            "postgres://u:hunter2%ff@h/d",
            "postgres://u:hunter2@[::1/d",
            "postgres://u:hunter2@h/d?sslmode",
            "hunter2",
            "user=u password='hunter2",
        ] {
            let error = parsed(text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
