//! SQL identifiers and string constants.
//!
//! Guarantee: whatever a name holds, it stays one name (PostgreSQL manual, "Lexical Structure").

/// Quotes an identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a table's name.
pub(super) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// Quotes a string constant that reads the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Quotes a string constant of a replication command, whose grammar knows no backslash escapes.
pub(super) fn replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings() {
        for (name, quoted) in [("a", "\"a\""), ("A b", "\"A b\""), ("a\"; DROP", "\"a\"\"; DROP\""), ("né", "\"né\"")] {
            assert_eq!(identifier(name), quoted);
        }
        assert_eq!(table("s", "a.b"), "\"s\".\"a.b\"");
        for (text, quoted) in [("a", "'a'"), ("a'b", "'a''b'"), ("a\\'b", " E'a\\\\''b'")] {
            assert_eq!(literal(text), quoted);
        }
        assert_eq!(replication_literal("a\\'b"), "'a\\''b'");
    }
}
