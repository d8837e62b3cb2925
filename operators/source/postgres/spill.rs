//! The spill file of one transaction in progress.
//!
//! ```text
//! file   := record*
//! record := length:int32 xid:int32 message      message: `length` bytes of pgoutput, tag first, no transaction id
//! integers are big-endian; `xid` is the subtransaction that made the change, or the transaction
//! ```
//! # Guarantees
//! A file is its process's alone: it is new when made, only its owner's user may read it, and it goes with the value.
//! Files of a process that was killed go at the next start. Its bytes are not trusted when they come back: what does
//! not fit is `PG0031`, never a row less. Reading and writing leave the runtime's threads alone.

use super::codes;
use crate::contract::{ByteSize, CodedError};
use bytes::{BufMut, Bytes, BytesMut};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;

/// Bytes of a record before its message.
pub(super) const RECORD_HEADER: usize = 8;

/// Appends a record.
pub(super) fn record(out: &mut Vec<u8>, xid: u32, tag: u8, body: &[u8]) {
    // A message of the protocol is shorter than 1 GiB: its own length is an int32.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).saturating_add(1);
    out.reserve(RECORD_HEADER + 1 + body.len());
    out.put_u32(length);
    out.put_u32(xid);
    out.put_u8(tag);
    out.put_slice(body);
}

/// A record's transaction and the length of its message, when the whole header is there.
pub(super) fn header(bytes: &[u8]) -> Option<(u32, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (xid, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*xid), u32::from_be_bytes(*length) as usize))
}

/// Where a source's files are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// What their names start with.
    pub name: String,
}

impl Place {
    fn path(&self, xid: u32) -> PathBuf {
        self.folder.join(format!("{}-{xid}.spill", self.name))
    }

    /// Removes what a process that was killed left. Only the one that has the slot may do so.
    pub(super) fn clean(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".spill"));
            if ours.is_some_and(|xid| xid.bytes().all(|b| b.is_ascii_digit())) {
                remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(file = %path.display(), %error, "a spill file was not removed; it is removed at the next start");
    }
}

/// A file that is there as long as the value.
#[derive(Debug)]
pub(super) struct SpillFile {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl SpillFile {
    /// Makes the file of a transaction.
    pub(super) fn create(place: &Place, xid: u32) -> Result<Self, CodedError> {
        let path = place.path(xid);
        let folder = DirBuilder::new().recursive(true).mode(0o700).create(&place.folder);
        let file = folder.and_then(|()| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path));
        match file {
            Ok(file) => Ok(Self { path, file: Arc::new(file), length: 0 }),
            Err(error) => Err(failed(&path, "making", error)),
        }
    }

    /// Its length, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes at its end.
    pub(super) async fn append(&mut self, bytes: Vec<u8>) -> Result<(), CodedError> {
        let (file, at, more) = (Arc::clone(&self.file), self.length, bytes.len() as u64);
        let written = blocking(move || file.write_all_at(&bytes, at)).await;
        written.map_err(|error| failed(&self.path, "writing", error))?;
        self.length += more;
        Ok(())
    }

    /// Forgets what is past `length`.
    pub(super) fn truncate(&mut self, length: u64) -> Result<(), CodedError> {
        self.file.set_len(length).map_err(|error| failed(&self.path, "shortening", error))?;
        self.length = length;
        Ok(())
    }

    /// Reads `want` bytes, which the file must have.
    pub(super) async fn read(&self, at: u64, want: usize) -> Result<Bytes, CodedError> {
        let file = Arc::clone(&self.file);
        let read = blocking(move || {
            let mut buffer = BytesMut::zeroed(want);
            file.read_exact_at(&mut buffer, at).map(|()| buffer.freeze())
        });
        read.await.map_err(|error| failed(&self.path, "reading", error))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

/// The records are not those that were written.
pub(super) fn broken(xid: u32, why: &str) -> CodedError {
    CodedError::transient(codes::SPILL, format!("what was held of transaction {xid} is not what was written: {why}"))
        .hint("the transaction is read from the server again; keep other programs out of `spill.folder`, and check the disk")
}

/// The files may not grow any more.
pub(super) fn full(place: &Place, most: ByteSize, transactions: usize) -> CodedError {
    let folder = place.folder.display();
    let message = format!("transactions in progress ({transactions}) need more than `spill.max_bytes`, {most}, in folder {folder}");
    CodedError::definite(codes::SPILL_FULL, message)
        .hint("raise `spill.max_bytes`, or set `streaming: off` so that the server keeps them on its disk; nothing is lost")
}

fn failed(path: &Path, doing: &str, error: io::Error) -> CodedError {
    let file = path.display();
    let message = format!("{doing} spill file {file}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            CodedError::definite(codes::SPILL_FULL, message).hint(
                "free space, put `spill.folder` on a larger disk, or set `streaming: off` so that the server keeps them; nothing is lost",
            )
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotFound => {
            CodedError::definite(codes::SPILL, message).hint("set `spill.folder` to a folder that this process may write to")
        }
        _ => CodedError::transient(codes::SPILL, message).hint("check the disk of `spill.folder`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_file_is_private_and_goes_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder: folder.path().join("deep/er"), name: "n".into() };
        place.clean();
        let mut file = SpillFile::create(&place, 7).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place.folder), mode(&place.path(7))), (0o700, 0o600));
        file.append(b"abcdef".to_vec()).await.unwrap();
        file.truncate(4).unwrap();
        file.append(b"g".to_vec()).await.unwrap();
        assert_eq!((&file.read(1, 4).await.unwrap()[..], file.length()), (&b"bcdg"[..], 5));
        assert_eq!(file.read(1, 5).await.unwrap_err().code.id, "PG0031");
        assert_eq!(SpillFile::create(&place, 7).unwrap_err().code.id, "PG0031");
        drop(file);
        assert!(!place.path(7).exists());
        // leftovers of this source go, nothing else does
        let names = ["n-12.spill", "n-.spillx", "n-x.spill", "m-12.spill", "n12.spill"];
        names.iter().for_each(|name| std::fs::write(place.folder.join(name), "x").unwrap());
        place.clean();
        let left: Vec<&str> = names.into_iter().filter(|name| place.folder.join(name).exists()).collect();
        assert_eq!(left, &names[1..]);
    }

    #[test]
    fn each_failure_has_its_code() {
        for (kind, code, transient) in [
            (io::ErrorKind::StorageFull, "PG0030", false),
            (io::ErrorKind::QuotaExceeded, "PG0030", false),
            (io::ErrorKind::PermissionDenied, "PG0031", false),
            (io::ErrorKind::UnexpectedEof, "PG0031", true),
        ] {
            let error = failed(Path::new("f"), "writing", kind.into());
            assert_eq!((error.code.id, error.is_transient(), error.hint.is_some()), (code, transient, true));
        }
    }

    #[test]
    fn records() {
        let mut out = Vec::new();
        record(&mut out, 9, b'I', b"xyz");
        assert_eq!(out, b"\0\0\0\x04\0\0\0\x09Ixyz");
        assert_eq!(header(&out), Some((9, 4)));
        assert_eq!(header(&out[..7]), None);
    }
}
