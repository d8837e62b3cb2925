//! Fuzz target: names in a folder that others can write to as well, and the folders of tables.

use super::FileFormat;
use super::encode::Encoder;
use super::folder::TableFolder;
use super::names;
use crate::fuzzing::table;
use std::cell::OnceCell;
use std::fs;

thread_local! {
    static ROOT: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// The first byte chooses: one name, two tables' folders, or a folder with a marker and files of the names that follow.
pub(crate) fn names(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match choice % 16 {
        0 => scan(text),
        choice if choice % 2 == 1 => {
            if let Some((first, last)) = names::tokens(text).filter(|_| !text.contains('/')) {
                let extension = text.rsplit('.').next().unwrap_or_default();
                let (temporary, name) = names::file(first, last, extension);
                assert_eq!(name, text);
                assert!(names::is_temporary(&temporary) && !names::is_temporary(&name));
            }
        }
        _ => {
            let parts: Vec<&str> = text.splitn(4, '\n').collect();
            if let [a, b, c, d] = parts[..] {
                let (one, other) = (names::folder(a, b), names::folder(c, d));
                assert_eq!(one == other, (a, b) == (c, d), "{one} {other}");
                assert!(!one.starts_with('.') && !one.contains(['/', '\0']) && one.len() <= 3 * (a.len() + b.len()) + 3);
            }
        }
    }
}

fn scan(text: &str) {
    let mut lines = text.split('\n');
    let marker = lines.next().unwrap_or_default();
    ROOT.with(|root| {
        let root = root.get_or_init(|| tempfile::tempdir().expect("a private folder")).path();
        let schema = table(Vec::new());
        let folder = root.join(names::folder(&schema.schema, &schema.name));
        fs::create_dir_all(&folder).expect("the folder is made");
        if !marker.is_empty() {
            fs::write(folder.join(".snapshot"), marker).expect("the marker is written");
        }
        let good = |name: &&str| !name.is_empty() && name.len() < 200 && !name.contains(['/', '\0']) && ![".", ".."].contains(name);
        for name in lines.take(8).filter(good) {
            fs::write(folder.join(name), b"").expect("a file is written");
        }
        let opened = TableFolder::open(root, &schema, "p/s", Encoder::new(FileFormat::Ndjson, 3));
        if opened.is_ok() {
            for entry in fs::read_dir(&folder).expect("the folder is there") {
                let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
                assert!(!names::is_temporary(&name), "what was half written is gone: {name}");
            }
        }
        drop(opened);
        fs::remove_dir_all(&folder).expect("the folder is removed");
    });
}
