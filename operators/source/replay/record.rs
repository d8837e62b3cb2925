//! Records a live stream into a file: `etl-stream bench capture`.

use super::file::{Captured, MAGIC, write_end, write_payload, write_table};
use super::{NOT_WRITTEN, file_error};
use crate::contract::CodedError;
use crate::source::postgres::{self, Record};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use tokio::sync::watch;

pub use crate::source::postgres::Capture;

/// Bytes written at a time.
const PIECE: usize = 256 << 10;

/// Records into a new file until there are enough changes or `stop`; `started` is called when changes made from then on
/// will be in it.
///
/// # Errors
/// The server's; `REC0003` when the file is there already or cannot be written.
pub async fn record(
    what: &Capture,
    path: &Path,
    stop: watch::Receiver<bool>,
    mut started: impl FnMut() + Send,
) -> Result<Captured, CodedError> {
    let failed = |error: io::Error| file_error(NOT_WRITTEN, path, "was not written", error);
    // Never over another one: a recording takes long to make.
    let mut file = File::create_new(path).map_err(failed)?;
    let mut pending = MAGIC.to_vec();
    let (changes, transactions, end_lsn) = postgres::capture(what, stop, |record| {
        match record {
            Record::Started => started(),
            Record::Table(table) => write_table(&table, &mut pending),
            Record::Payload(payload) => write_payload(payload, &mut pending),
        }
        if pending.len() >= PIECE {
            file.write_all(&pending).map_err(failed)?;
            pending.clear();
        }
        Ok(())
    })
    .await?;
    let captured = Captured { changes, transactions, end_lsn };
    write_end(captured, &mut pending);
    file.write_all(&pending).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(captured)
}
