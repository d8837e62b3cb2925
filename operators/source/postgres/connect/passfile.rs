//! The password file (PostgreSQL manual, 34.16).
//!
//! ```text
//! line = host ":" port ":" database ":" user ":" password      * fits anything; \ escapes : and \
//! ```
//! The first line that fits decides. A unix socket's host is `localhost` when its folder is the default, else the folder.

use secrecy::SecretString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Splits the next field off a line, without its escapes.
fn field(line: &mut std::str::Chars<'_>) -> Option<(String, bool)> {
    let (mut text, mut plain) = (String::new(), true);
    loop {
        match line.next() {
            Some(':') => return Some((text, plain)),
            Some('\\') => {
                plain = false;
                text.extend(line.next());
            }
            Some(letter) => text.push(letter),
            None => return None,
        }
    }
}

/// The password of a line that fits.
pub(super) fn matched(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut rest = line.chars();
    for want in wanted {
        let (text, plain) = field(&mut rest)?;
        if text != want && !(plain && text == "*") {
            return None;
        }
    }
    let mut password = String::new();
    while let Some(letter) = rest.next() {
        match letter {
            // Further fields are for later versions.
            ':' => break,
            '\\' => password.extend(rest.next()),
            _ => password.push(letter),
        }
    }
    Some(password)
}

/// Looks a password up in a file. A file that is absent, no plain file, or readable by others is passed over
/// with a warning in the log, as libpq does.
pub(super) fn find(path: &Path, host: &str, port: u16, database: &str, user: &str) -> Option<SecretString> {
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() {
        tracing::warn!(file = %path.display(), "the password file is not a plain file and was not read");
        return None;
    }
    if meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the password file can be read by others and was not read; its mode must be 0600 or less");
        return None;
    }
    let text = fs::read_to_string(path)
        .inspect_err(|error| tracing::warn!(file = %path.display(), %error, "the password file was not read"))
        .ok()?;
    let port = port.to_string();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| matched(line, [host, &port, database, user]))
        .filter(|password| !password.is_empty())
        .map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::io::Write;

    #[test]
    fn lines() {
        for (line, password) in [
            ("h:5432:d:u:secret", Some("secret")),
            ("*:*:*:*:secret", Some("secret")),
            ("*:*:*:u:a\\:b\\\\c", Some("a:b\\c")),
            ("h:5432:d:u:secret:later", Some("secret")),
            ("h:5433:d:u:secret", None),
            ("\\*:5432:d:u:secret", None),
            ("h:5432:d:u", None),
            ("", None),
            ("h:5432:d:u:", Some("")),
        ] {
            assert_eq!(matched(line, ["h", "5432", "d", "u"]).as_deref(), password, "{line}");
        }
        assert_eq!(matched("::1:5432:d:u:x", ["::1", "5432", "d", "u"]), None, "colons of a host need a \\");
        assert_eq!(matched("\\:\\:1:5432:d:u:x", ["::1", "5432", "d", "u"]).as_deref(), Some("x"));
    }

    #[test]
    fn permissions_and_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# other:*:*:*:no\nother:*:*:*:first\n*:*:*:*:second\n").unwrap();
        let look = |host: &str| find(file.path(), host, 5432, "d", "u").map(|secret| secret.expose_secret().to_owned());
        assert_eq!(look("other").as_deref(), Some("first"));
        assert_eq!(look("h").as_deref(), Some("second"));
        for mode in [0o640, 0o604, 0o777] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look("h"), None, "{mode:o}");
        }
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(look("h").as_deref(), Some("second"));
        assert!(find(Path::new("/nowhere/.pgpass"), "h", 5432, "d", "u").is_none());
    }
}
