//! `${NAME}` in string values, after parsing: never in keys, never structure.
//!
//! ```text
//! placeholder = "${" name "}" | "${" name ":-" default "}" | "${" name ":?" message "}" | "$${" (a literal "${")
//! name        = [A-Za-z_][A-Za-z0-9_]*        default, message = anything but "}"
//! ```
//! An empty variable counts as unset for `:-` and `:?`, as in a shell. The value is text; the field's type
//! decides later what a whole value becomes.

use super::problem::Problems;
use super::tree::{Tree, Value};
use super::{Environment, codes};

/// Replaces placeholders in every value of the tree. Values that cannot be known become opaque.
pub(super) fn apply(tree: &mut Tree, environment: &Environment<'_>, pointer: &str, problems: &mut Problems) {
    match &mut tree.value {
        Value::List(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                apply(item, environment, &format!("{pointer}/{at}"), problems);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                apply(&mut entry.value, environment, &super::join(pointer, &entry.key), problems);
            }
        }
        Value::Scalar(scalar) => {
            if !scalar.text.contains("${") {
                return;
            }
            match expand(&scalar.text, environment) {
                Ok(None) => scalar.opaque = true,
                Ok(Some(text)) => scalar.raw = Some(std::mem::replace(&mut scalar.text, text)),
                Err((message, help)) => {
                    problems.error(codes::VARIABLE, pointer, tree.span, message).help = Some(help);
                    scalar.opaque = true;
                }
            }
        }
    }
}

/// The text with its placeholders replaced; `None` when they are to be left alone.
fn expand(text: &str, environment: &Environment<'_>) -> Result<Option<String>, (String, String)> {
    const ESCAPE: &str = "write $${ for a literal ${";
    let mut out = String::with_capacity(text.len());
    let mut known = true;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = from.get(2..).unwrap_or_default();
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = from.get(2..).and_then(|t| t.split_once('}')) else {
            return Err(("a `${` is not closed".into(), ESCAPE.into()));
        };
        rest = after;
        let (name, otherwise) = match inside.find(':') {
            Some(colon) => (inside.get(..colon).unwrap_or_default(), inside.get(colon..)),
            None => (inside, None),
        };
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(word) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err((format!("`${{{name}}}` does not name an environment variable"), ESCAPE.into()));
        }
        let lookup = match environment {
            Environment::Opaque => {
                known = false;
                continue;
            }
            Environment::Lookup(lookup) => lookup,
        };
        let value = lookup(name);
        match (otherwise, value) {
            (None, Some(value)) => out.push_str(&value),
            (None, None) => {
                let help = format!("export {name}=…, or give a default: ${{{name}:-value}}");
                return Err((format!("environment variable {name} is not set"), help));
            }
            (Some(otherwise), value) => match (otherwise.get(..2), value.filter(|v| !v.is_empty())) {
                (Some(":-" | ":?"), Some(value)) => out.push_str(&value),
                (Some(":-"), None) => out.push_str(otherwise.get(2..).unwrap_or_default()),
                (Some(":?"), None) => {
                    let message = otherwise.get(2..).unwrap_or_default();
                    return Err((format!("environment variable {name} is not set: {message}"), format!("export {name}=…")));
                }
                _ => {
                    return Err((
                        format!("`${{{inside}}}` is not a placeholder"),
                        "write ${NAME}, ${NAME:-default} or ${NAME:?message}".into(),
                    ));
                }
            },
        }
    }
    out.push_str(rest);
    Ok(known.then_some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let lookup = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, value) in [
            ("${HOST}", Ok("db")),
            ("a${HOST}b${HOST}", Ok("adbbdb")),
            ("${NO:-x y}", Ok("x y")),
            ("${NO:-}", Ok("")),
            ("${EMPTY}", Ok("")),
            ("${EMPTY:-x}", Ok("x")),
            ("${HOST:?gone}", Ok("db")),
            ("$${HOST}", Ok("${HOST}")),
            ("$$${HOST}", Ok("$${HOST}")),
            ("$HOST $5", Ok("$HOST $5")),
            ("${NO}", Err("environment variable NO is not set")),
            ("${NO:?set it}", Err("environment variable NO is not set: set it")),
            ("${EMPTY:?set it}", Err("environment variable EMPTY is not set: set it")),
            ("${HOST", Err("a `${` is not closed")),
            ("${}", Err("`${}` does not name an environment variable")),
            ("${1A}", Err("`${1A}` does not name an environment variable")),
            ("${HOST:x}", Err("`${HOST:x}` is not a placeholder")),
            ("${ä}", Err("`${ä}` does not name an environment variable")),
        ] {
            let got = expand(text, &Environment::Lookup(&lookup)).map_err(|e| e.0);
            assert_eq!(got, value.map(|v| Some(v.to_owned())).map_err(str::to_owned), "{text}");
        }
        assert_eq!(expand("${NO}", &Environment::Opaque), Ok(None));
        assert_eq!(expand("$${NO}", &Environment::Opaque), Ok(Some("${NO}".into())));
    }
}
