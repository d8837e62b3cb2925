//! A folder of pipeline files, looked at again and again: what was written, and what is gone.
//!
//! A file that is being written is taken when it has stood still from one look to the next; those that are there at the
//! first look are taken at once. Files whose names begin with a dot are not looked at, nor are folders in the folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

/// A file as it was last seen, and as it was last taken.
struct Seen {
    stamp: Stamp,
    taken: Option<Stamp>,
}

/// What has happened to a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// It is new, or has other contents.
    Written(PathBuf),
    /// It is there no more.
    Gone(PathBuf),
}

/// A folder.
pub(super) struct Folder {
    path: PathBuf,
    /// By file name.
    seen: BTreeMap<OsString, Seen>,
    looked: bool,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: BTreeMap::new(), looked: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What has changed since the look before, by file name.
    ///
    /// # Errors
    /// When the folder is not readable; nothing has changed then.
    pub(super) fn look(&mut self) -> io::Result<Vec<Change>> {
        let now = self.list()?;
        let gone = self.seen.keys().filter(|name| !now.contains_key(*name));
        let mut changes: Vec<Change> = gone.map(|name| Change::Gone(self.path.join(name))).collect();
        self.seen.retain(|name, _| now.contains_key(name));
        let first = !std::mem::replace(&mut self.looked, true);
        for (name, stamp) in now {
            let path = self.path.join(&name);
            let mut before = None;
            let seen = self.seen.entry(name).and_modify(|seen| before = Some(seen.stamp)).or_insert(Seen { stamp, taken: None });
            seen.stamp = stamp;
            let stands = first || before == Some(stamp);
            if stands && seen.taken != Some(stamp) {
                seen.taken = Some(stamp);
                changes.push(Change::Written(path));
            }
        }
        Ok(changes)
    }

    fn list(&self) -> io::Result<BTreeMap<OsString, Stamp>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let bytes = name.as_bytes();
            if bytes.starts_with(b".") || !(bytes.ends_with(b".yaml") || bytes.ends_with(b".yml")) {
                continue;
            }
            match fs::metadata(self.path.join(&name)) {
                Ok(about) if about.is_file() => {
                    let stamp = Stamp {
                        modified: (about.mtime(), about.mtime_nsec()),
                        changed: (about.ctime(), about.ctime_nsec()),
                        size: about.size(),
                        inode: about.ino(),
                    };
                    found.insert(name, stamp);
                }
                Ok(_) => {}
                // Removed between the two calls, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_change_and_go() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        let mut folder = Folder::new(place.path());
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt"] {
            write(name, "1");
        }
        fs::create_dir(at("folder.yaml")).unwrap();
        let written = |name: &str| Change::Written(at(name));
        assert_eq!(folder.look().unwrap(), [written("a.yml"), written("b.yaml")]);
        assert_eq!(folder.look().unwrap(), []);
        write("b.yaml", "22");
        write("c.yaml", "1");
        assert_eq!(folder.look().unwrap(), [], "both may still be being written");
        write("c.yaml", "333");
        assert_eq!(folder.look().unwrap(), [written("b.yaml")]);
        assert_eq!(folder.look().unwrap(), [written("c.yaml")]);
        fs::rename(at("c.yaml"), at("d.yaml")).unwrap();
        fs::remove_file(at("a.yml")).unwrap();
        assert_eq!(folder.look().unwrap(), [Change::Gone(at("a.yml")), Change::Gone(at("c.yaml"))]);
        assert_eq!(folder.look().unwrap(), [written("d.yaml")]);
        let moved = place.path().with_extension("moved");
        fs::rename(place.path(), &moved).unwrap();
        assert!(folder.look().is_err());
        fs::rename(&moved, place.path()).unwrap();
        assert_eq!(folder.look().unwrap(), [], "a folder that was not there for a moment has lost nothing");
    }
}
