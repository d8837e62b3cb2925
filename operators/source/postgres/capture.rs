//! Records a stream from a live slot: each payload as the server sent it, and before a relation's message the schema
//! that the running source would make of it.
//!
//! ```text
//! slot ──CopyData payloads──> catalog (relations) ──Record──> a file
//! ```
//! # Guarantees
//! Nothing is confirmed: the position of a slot that stays is where it was. What is recorded ends with a commit.
//! Transactions come when they have committed (`streaming` is not asked for).

use super::catalog::{Catalog, published};
use super::connect::{ConnectSettings, classify};
use super::frame::{self, Frame};
use super::quote::identifier;
use super::run::{stopped, within};
use super::stream::{READ_MOST, command};
use super::{codes, setup};
use crate::contract::{CodedError, Lsn, SecretString, TableSchema};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the server is told that somebody is there.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The server and its database.
    pub url: SecretString,
    /// A slot that is there; nothing: one that ends with the recording.
    pub slot: Option<String>,
    /// The publication.
    pub publication: String,
    /// Changes after which the next commit ends the recording.
    pub rows: u64,
}

/// A part of a recording.
#[derive(Clone, Debug)]
pub(crate) enum Record<'a> {
    /// The stream has started.
    Started,
    /// What the next payload's relation stands for.
    Table(Arc<TableSchema>),
    /// A payload: `w` and what follows.
    Payload(&'a [u8]),
}

/// Records until there are enough changes or `stop`. Gives changes, transactions, and where the last one ends.
///
/// # Errors
/// The server's, and `write`'s.
pub(crate) async fn capture(
    what: &Capture,
    mut stop: watch::Receiver<bool>,
    mut write: impl FnMut(Record<'_>) -> Result<(), CodedError> + Send,
) -> Result<(u64, u64, u64), CodedError> {
    let settings = ConnectSettings { url: Some(what.url.clone()), ..ConnectSettings::default() };
    let endpoint = settings.resolve(Path::new("."))?;
    let client = endpoint.query("capture").await?;
    let server = within(PATIENCE, "reading the server's settings", setup::server(&client)).await?;
    let tables = published(&client, &what.publication).await.map_err(|e| classify(&e, "reading the publication"))?;
    if tables.is_empty() {
        let message = format!("publication \"{}\" is not there, or has no table", what.publication);
        return Err(CodedError::definite(codes::PUBLICATION, message).hint("CREATE PUBLICATION … FOR TABLE … makes one"));
    }
    let mut catalog = Catalog::new("capture".into(), super::config::Keys::default());
    let mut replication = endpoint.replicate("capture").await?;
    let slot = match &what.slot {
        Some(slot) => slot.clone(),
        None => {
            let slot = format!("etl_stream_capture_{}", std::process::id());
            replication.simple_query(&format!("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput", identifier(&slot))).await?;
            slot
        }
    };
    let start = command(&slot, &what.publication, 0, server.version, false);
    let (mut reader, mut writer) = within(PATIENCE, "starting to stream", replication.start(&start)).await?.split();
    write(Record::Started)?;
    let (mut changes, mut transactions, mut end, mut heard) = (0_u64, 0_u64, 0_u64, 0_u64);
    // Changes of the open transaction.
    let mut open = 0_u64;
    let mut told = tokio::time::interval(STATUS_EVERY);
    'reading: loop {
        let chunk = tokio::select! {
            // Between two transactions only: a recording ends with a commit.
            () = stopped(&mut stop), if open == 0 => break,
            _ = told.tick() => {
                writer.send_status(Lsn(heard), Lsn(0), Lsn(0), false).await?;
                continue;
            }
            chunk = within(PATIENCE * 60, "sending changes", reader.read(READ_MOST)) => chunk?,
        };
        for (from, to) in &chunk.messages {
            let payload = chunk.bytes.get(*from as usize..*to as usize).unwrap_or_default();
            match frame::parse(payload).map_err(super::assemble::StreamError::from)? {
                Frame::Keepalive { wal_end, reply } => {
                    heard = heard.max(wal_end);
                    if reply {
                        writer.send_status(Lsn(heard), Lsn(0), Lsn(0), false).await?;
                    }
                    continue;
                }
                Frame::Relation(relation) => {
                    let looked = catalog.reconcile(&client, &relation);
                    write(Record::Table(within(PATIENCE, "describing a table", looked).await?))?;
                }
                Frame::Type { oid, name } => catalog.announce(oid, name),
                Frame::Change { .. } => open += 1,
                Frame::Truncate(relations) => open += relations.iter().count() as u64,
                Frame::Commit { end_lsn, .. } => {
                    write(Record::Payload(payload))?;
                    changes += std::mem::take(&mut open);
                    transactions += 1;
                    (end, heard) = (end_lsn, heard.max(end_lsn));
                    if changes >= what.rows || *stop.borrow() {
                        break 'reading;
                    }
                    continue;
                }
                _ => {}
            }
            write(Record::Payload(payload))?;
        }
        if chunk.ended {
            return Err(CodedError::transient(codes::STREAM, "the server ended the replication stream"));
        }
    }
    // The slot of a connection that is closed ends with it.
    let _ = writer.finish().await;
    Ok((changes, transactions, end))
}
