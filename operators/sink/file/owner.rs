//! Whose rows a table's folder holds: the pipeline and the source, in a file `.owner`.
//!
//! # Guarantees
//! The first source that opens a folder owns it from then on, whatever process it runs in. The file is locked while it is
//! looked at: of two that come at once, one is refused. Folders from before there were owners go to the first who comes.
//!
//! Calls block.

use super::codes::{FOLDER_OF_ANOTHER, failed};
use super::folder::sync_folder;
use crate::contract::{CodedError, TableSchema};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// The file.
const OWNER: &str = ".owner";
/// No source's name is longer.
const MOST: u64 = 4_096;

/// Takes the folder for the table's source, which `owner` names with its pipeline.
///
/// # Errors
/// `FS0004` when it is another's; `FS0001` when that could not be found out.
pub(super) fn claim(folder: &Path, table: &TableSchema, owner: &str) -> Result<(), CodedError> {
    let path = folder.join(OWNER);
    let there = match settle(&path, owner).map_err(|e| failed("settling the owner in", &path, e))? {
        None => return sync_folder(folder),
        Some(there) if there == owner => return Ok(()),
        Some(there) => there,
    };
    let message = format!("the folder of table \"{}\" holds rows of source \"{there}\", not of \"{owner}\"", table.full_name());
    let hint = format!(
        "give each source a `file` sink with a path of its own; if the pipeline or source was renamed, write \"{owner}\" into \"{}\"",
        path.display()
    );
    Err(CodedError::definite(FOLDER_OF_ANOTHER, message).hint(hint))
}

/// The owner that there was; if there was none, it is the one that asks from now on.
fn settle(path: &Path, asks: &str) -> io::Result<Option<String>> {
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    // Let go when the file is closed.
    file.lock()?;
    let mut owner = String::new();
    (&file).take(MOST).read_to_string(&mut owner)?;
    // A name that a crash cut short has no line's end.
    if let Some(owner) = owner.strip_suffix('\n') {
        return Ok(Some(owner.trim().to_owned()));
    }
    file.set_len(0)?;
    io::Seek::rewind(&mut file)?;
    writeln!(file, "{asks}")?;
    file.sync_all()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ReplicaIdentity;
    use std::fs;

    fn claim(folder: &Path, owner: &str) -> Result<(), CodedError> {
        let (schema, name) = ("public".into(), "t".into());
        let table =
            TableSchema { source: "s".into(), id: 1, schema, name, columns: vec![], identity: ReplicaIdentity::Default, storage: None };
        super::claim(folder, &table, owner)
    }

    #[test]
    fn the_first_has_it() {
        for (there, source, owner) in [
            (None, "a", "a"),
            (Some("a\n"), "a", "a"),
            (Some("a \r\n"), "a", "a"),
            (Some("shop-of-the-no"), "a", "a"),
            (Some(""), "a", "a"),
            (Some("b\n"), "a", "b"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            if let Some(there) = there {
                fs::write(folder.path().join(OWNER), there).expect("written");
            }
            let claimed = claim(folder.path(), source);
            assert_eq!(claimed.map_err(|error| error.code.id), if owner == source { Ok(()) } else { Err("FS0004") }, "{there:?}");
            let other = claim(folder.path(), "c").expect_err("it is taken");
            assert!(other.to_string().contains(&format!("source \"{owner}\"")), "{other}");
        }
    }

    #[test]
    fn one_of_many_that_come_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let claims = |name: String| claim(folder.path(), &name).is_ok();
        let taken = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..16).map(|n| scope.spawn(move || claims(format!("source{n}")))).collect();
            tasks.into_iter().map(|task| task.join().expect("no panic")).filter(|taken| *taken).count()
        });
        assert_eq!(taken, 1);
    }
}
