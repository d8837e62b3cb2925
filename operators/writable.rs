//! Whether files could be made in a folder, found out without leaving any.

use std::io;
use std::path::Path;

/// Looks at the folder, or at the nearest one above it that exists, where it would be made.
///
/// # Errors
/// When a file cannot be made there. A file without a name is tried, which goes with its handle.
pub(crate) fn writable(folder: &Path) -> io::Result<()> {
    for place in folder.ancestors() {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        match std::fs::metadata(place) {
            Ok(found) if found.is_dir() => return tempfile::tempfile_in(place).map(drop),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", place.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for (path, fine) in [
            (folder.path().to_owned(), true),
            (folder.path().join("a/b/c"), true),
            (file.clone(), false),
            (file.join("below"), false),
            ("/proc/nowhere".into(), false),
        ] {
            assert_eq!(writable(&path).is_ok(), fine, "{}", path.display());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left");
    }
}
