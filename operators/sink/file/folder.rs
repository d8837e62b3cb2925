//! A table's folder: rows become files there, each of them once.
//!
//! ```text
//! batch ──after(last token)──> .….tmp ──fsync──> rename ──fsync folder──> durable
//! ```
//!
//! # Guarantees
//! A file has its name only when it is complete and on disk. Its name says what it holds, so that the folder
//! itself is the record of what need not be written again: whatever batches come after a crash, each row
//! stands in one file. A snapshot is removed as a whole before another begins, unless changes have followed it:
//! `.snapshot` says, from before its first row until the first change, which one it is. Its end alone does not
//! settle it: the source may die before it has noted that the snapshot is complete, and then takes another. Where
//! changes come with the snapshot the source says itself from which attempt on all is to be removed.
//!
//! Calls block.

use super::codes::{FOLDER_OF_ANOTHER, ROWS_REFUSED, failed};
use super::encode::Encoder;
use super::{names, owner};
use crate::contract::{CodedError, Lsn, Mark, RowBatch, TableId, TableSchema, Token};
use crate::failpoint;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The file that says which snapshot no change has followed yet: its LSN in hexadecimal.
const MARKER: &str = ".snapshot";

/// What a write has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Rows in the new file.
    pub(super) rows: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// Values that went beside their column.
    pub(super) exact: u64,
}

/// A table's folder, open for writing.
pub(super) struct TableFolder {
    path: PathBuf,
    /// The last row that is in a file.
    last: Token,
    /// The last row that was delivered since the folder was opened; at or after `last` only when rows came.
    delivered: Option<Token>,
    /// The relation whose rows come, and those before it that had the same name.
    relations: Vec<TableId>,
    /// What the marker says.
    marker: Option<u64>,
    encoder: Encoder,
}

/// Makes everything that a folder lists durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), CodedError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| failed("syncing folder", path, e))
}

/// A place where a crash is tried out by tests.
#[cfg(not(test))]
#[inline]
const fn step() {}
#[cfg(test)]
use super::tests::step;

impl TableFolder {
    /// Opens the folder of `table` in `root` for its owner, making it if need be: removes what a crash left half written
    /// and finds the last row that is there.
    ///
    /// # Errors
    /// `FS0001`; `FS0004` when it is the folder of another source.
    pub(super) fn open(root: &Path, table: &TableSchema, owner: &str, encoder: Encoder) -> Result<Self, CodedError> {
        let path = root.join(names::folder(&table.schema, &table.name));
        match fs::create_dir(&path) {
            Ok(()) => sync_folder(root)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("creating folder", &path, error)),
        }
        owner::claim(&path, table, owner)?;
        let mut folder = Self { path, last: Token::ZERO, delivered: None, relations: vec![table.id], marker: None, encoder };
        for name in folder.list()? {
            if names::is_temporary(&name) {
                folder.remove(&name)?;
            }
        }
        folder.last = folder.find_last()?;
        folder.marker = folder.read_marker()?;
        folder.settle_snapshot()?;
        Ok(folder)
    }

    /// Names of the files, those that are not UTF-8 left out: they are not ours.
    fn list(&self) -> Result<Vec<String>, CodedError> {
        let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok()).transpose();
        let names = fs::read_dir(&self.path).and_then(|entries| entries.filter_map(name).collect());
        names.map_err(|e| failed("listing folder", &self.path, e))
    }

    fn files(&self) -> Result<Vec<(String, Token, Token)>, CodedError> {
        let file = |name: String| names::tokens(&name).map(|(first, last)| (name, first, last));
        Ok(self.list()?.into_iter().filter_map(file).collect())
    }

    fn find_last(&self) -> Result<Token, CodedError> {
        Ok(self.files()?.into_iter().map(|(_, _, last)| last).max().unwrap_or(Token::ZERO))
    }

    fn remove(&self, name: &str) -> Result<(), CodedError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing file", &path, error)),
            _ => Ok(()),
        }
    }

    /// Writes the rows that are not in a file yet as a new one.
    ///
    /// # Errors
    /// `FS0001` when a file could not be written, with nothing changed: the same call may follow. `FS0005`
    /// when the rows are not after those delivered before.
    pub(super) fn write(&mut self, batch: &RowBatch) -> Result<Written, CodedError> {
        self.check_relation(&batch.table)?;
        let (Some(first), Some(last)) = (batch.first_token(), batch.last_token()) else { return Ok(Written::default()) };
        if self.delivered.is_some_and(|delivered| first <= delivered) {
            let message = format!("rows of table \"{}\" were delivered from {first} on, after later ones", batch.table.full_name());
            return Err(CodedError::definite(ROWS_REFUSED, message).hint("this is a defect of a source or an operator: please report it"));
        }
        let batch = batch.after(self.last);
        let mut written = Written::default();
        if let Some(first) = batch.first_token() {
            written = Written { rows: batch.len() as u64, bytes: self.write_file(&batch, first, last)?, exact: batch.exact.len() as u64 };
            self.last = last;
            self.settle_snapshot()?;
        }
        self.delivered = Some(last);
        Ok(written)
    }

    fn write_file(&mut self, batch: &RowBatch, first: Token, last: Token) -> Result<u64, CodedError> {
        let (temporary, name) = names::file(first, last, self.encoder.extension());
        let (temporary, path) = (self.path.join(temporary), self.path.join(name));
        let complete = self.write_temporary(&temporary, batch).and_then(|bytes| {
            step();
            let rename = failpoint::fails("file.rename").and_then(|()| fs::rename(&temporary, &path));
            rename.map_err(|e| failed("renaming a complete file to", &path, e))?;
            Ok(bytes)
        });
        if complete.is_err() {
            // Best effort: its space may be what is missing. Opening the folder removes it in any case.
            let _ = fs::remove_file(&temporary);
        }
        step();
        failpoint::reach("file.renamed");
        let bytes = complete?;
        if let Err(error) = sync_folder(&self.path) {
            // Not known to last, so it must be written anew: the next attempt replaces it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        step();
        failpoint::reach("file.synced");
        Ok(bytes)
    }

    fn write_temporary(&mut self, path: &Path, batch: &RowBatch) -> Result<u64, CodedError> {
        let created = failpoint::fails("file.create").and_then(|()| File::create(path));
        let mut file = created.map_err(|e| failed("creating file", path, e))?;
        step();
        failpoint::fails("file.write").map_err(|e| failed("writing file", path, e))?;
        self.encoder.write(batch, &mut file, path)?;
        step();
        let written = failpoint::fails("file.fsync");
        written
            .and_then(|()| file.sync_all())
            .and_then(|()| file.metadata())
            .map(|data| data.len())
            .map_err(|e| failed("syncing file", path, e))
    }

    /// Acts on a mark of the table.
    ///
    /// # Errors
    /// `FS0001`; `FS0004` when the folder has rows that this database cannot have given.
    pub(super) fn mark(&mut self, mark: &Mark) -> Result<(), CodedError> {
        self.check_relation(mark.table())?;
        match mark {
            Mark::SnapshotBegin { table, lsn, replaces } => self.begin_snapshot(table, *lsn, *replaces),
            Mark::SnapshotEnd { .. } | Mark::Schema { .. } => Ok(()),
        }
    }

    fn begin_snapshot(&mut self, table: &TableSchema, lsn: u64, replaces: Option<u64>) -> Result<(), CodedError> {
        // From here on rows may come again: those that are in files are known by their tokens.
        self.delivered = None;
        let before = self.marker;
        if before == Some(lsn) {
            return Ok(());
        }
        // A file begins where its snapshot does: the mark sealed what came before.
        let unfinished =
            |first: &Token| Some(first.commit_lsn) == before || replaces.is_some_and(|attempt| (attempt..lsn).contains(&first.commit_lsn));
        let (removed, files): (Vec<_>, Vec<_>) = self.files()?.into_iter().partition(|(_, first, _)| unfinished(first));
        for (name, ..) in &removed {
            self.remove(name)?;
            step();
        }
        if before.is_some() || !removed.is_empty() {
            // Gone for good before the marker stops saying what they were.
            sync_folder(&self.path)?;
            step();
        }
        if let Some((_, first, _)) = files.iter().find(|(_, first, _)| first.commit_lsn > lsn)
            && !files.iter().any(|(_, first, _)| first.commit_lsn == lsn)
        {
            let message = format!(
                "a snapshot of table \"{}\" at {} begins, and folder \"{}\" has changes from {} on already",
                table.full_name(),
                Lsn(lsn),
                self.path.display(),
                Lsn(first.commit_lsn)
            );
            return Err(CodedError::definite(FOLDER_OF_ANOTHER, message)
                .hint("the folder was written from another database; give the sink an empty path, or move the table's folder away"));
        }
        failpoint::reach("file.snapshot");
        self.set_marker(lsn)?;
        self.marker = Some(lsn);
        step();
        self.last = self.find_last()?;
        self.settle_snapshot()
    }

    /// Takes the marker away once changes have followed the snapshot.
    fn settle_snapshot(&mut self) -> Result<(), CodedError> {
        if self.marker.is_some_and(|snapshot| self.last.commit_lsn > snapshot) {
            self.remove(MARKER)?;
            step();
            sync_folder(&self.path)?;
            self.marker = None;
        }
        Ok(())
    }

    /// The snapshot that no change has followed.
    fn read_marker(&self) -> Result<Option<u64>, CodedError> {
        let path = self.path.join(MARKER);
        match fs::read_to_string(&path) {
            Ok(text) => match u64::from_str_radix(text.trim_end(), 16) {
                Ok(lsn) => Ok(Some(lsn)),
                Err(_) => {
                    let message = format!("file \"{}\" does not say which snapshot is under way", path.display());
                    Err(CodedError::definite(FOLDER_OF_ANOTHER, message).hint("it was changed by hand; move the table's folder away"))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading file", &path, error)),
        }
    }

    fn set_marker(&self, lsn: u64) -> Result<(), CodedError> {
        let (path, temporary) = (self.path.join(MARKER), self.path.join(format!("{MARKER}.tmp")));
        let write = || {
            let mut file = File::create(&temporary)?;
            io::Write::write_all(&mut file, format!("{lsn:016x}\n").as_bytes())?;
            step();
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|e| failed("writing file", &path, e))?;
        sync_folder(&self.path)
    }

    /// Sees that one relation at a time has the folder: rows of two would look like replays of each other.
    /// A table that was dropped and made again is another relation, and the first never comes back.
    fn check_relation(&mut self, table: &TableSchema) -> Result<(), CodedError> {
        if self.relations.last() == Some(&table.id) {
            return Ok(());
        }
        if self.relations.contains(&table.id) {
            let message = format!("two tables come as \"{}\", and would be mixed in folder \"{}\"", table.full_name(), self.path.display());
            return Err(
                CodedError::definite(FOLDER_OF_ANOTHER, message).hint("rename them to different names, or send them to different sinks")
            );
        }
        self.relations.push(table.id);
        Ok(())
    }
}
