//! Names of folders and files, and what they say.
//!
//! ```text
//! <schema>.<table>/<first token>-<last token>.ndjson      token = {commit_lsn:016x}_{ordinal:016x}
//! <schema>.<table>/.<file's name>.tmp                     being written
//! <schema>.<table>/.snapshot                              LSN of a snapshot that no change has followed
//! <schema>.<table>/.owner                                 the pipeline and source whose rows they are
//! ```
//! A folder's name has `%XX` for bytes that a file name cannot or should not have, and for dots of the
//! schema: its first dot stands between schema and table, so that no two tables share a folder.

use crate::contract::Token;
use std::fmt::Write;

/// The name of a table's folder.
pub(super) fn folder(schema: &str, table: &str) -> String {
    let mut name = String::with_capacity(schema.len() + table.len() + 1);
    escape(schema, true, &mut name);
    name.push('.');
    escape(table, false, &mut name);
    name
}

fn escape(part: &str, dots: bool, name: &mut String) {
    if part.is_empty() {
        // A lone `%` stands for nothing, and keeps the folder from being hidden.
        name.push('%');
    }
    for letter in part.chars() {
        match letter {
            '/' | '\\' | '%' | '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(name, "%{:02X}", letter as u32);
            }
            '.' if dots => name.push_str("%2E"),
            _ => name.push(letter),
        }
    }
}

/// The name of a file of rows, before it is complete and after.
pub(super) fn file(first: Token, last: Token, extension: &str) -> (String, String) {
    let name = format!("{:016x}_{:016x}-{:016x}_{:016x}.{extension}", first.commit_lsn, first.ordinal, last.commit_lsn, last.ordinal);
    (format!(".{name}.tmp"), name)
}

/// The first and last token of a complete file of rows, of either format.
pub(super) fn tokens(name: &str) -> Option<(Token, Token)> {
    let stem = name.strip_suffix(".ndjson").or_else(|| name.strip_suffix(".parquet"))?;
    let (first, last) = stem.split_once('-')?;
    let token = |text: &str| text.replace('_', "/").parse::<Token>().ok();
    Some((token(first)?, token(last)?))
}

/// Whether a file was being written when its writer ended.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).is_some_and(|name| tokens(name).is_some() || name == "snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        for (schema, table, expected) in [
            ("public", "orders", "public.orders"),
            ("a.b", "c", "a%2Eb.c"),
            ("a", "b.c", "a.b.c"),
            (".", "..", "%2E..."),
            ("", "t", "%.t"),
            ("s", "", "s.%"),
            ("a/b", "c\0\n\\", "a%2Fb.c%00%0A%5C"),
            ("a%2Eb", "Ä b", "a%252Eb.Ä b"),
        ] {
            assert_eq!(folder(schema, table), expected);
        }
    }

    #[test]
    fn files() {
        let (first, last) = (Token::new(0x16_b374_d848, 0), Token::new(0x16_b374_d900, 12));
        let (temporary, name) = file(first, last, "ndjson");
        assert_eq!(name, "00000016b374d848_0000000000000000-00000016b374d900_000000000000000c.ndjson");
        assert_eq!(tokens(&name), Some((first, last)));
        assert!(is_temporary(&temporary) && !is_temporary(&name) && tokens(&temporary).is_none());
        assert!(is_temporary(".snapshot.tmp"));
        for other in ["", ".snapshot", "x.ndjson", "notes.txt", &name.replace(".ndjson", ".csv"), ".editor.tmp"] {
            assert!(tokens(other).is_none() && !is_temporary(other), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_two_tables_share_a_folder(a in "[ab./%\\x00E2]{0,3}", b in "[ab./%\\x00E2]{0,3}", c in "[ab./%\\x00E2]{0,3}", d in "[ab./%\\x00E2]{0,3}") {
            let (one, other) = (folder(&a, &b), folder(&c, &d));
            proptest::prop_assert_eq!(one == other, (a, b) == (c, d));
            proptest::prop_assert!(!one.starts_with('.') && !one.contains(['/', '\0']));
        }
    }
}
