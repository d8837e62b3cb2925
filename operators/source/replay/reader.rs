//! Reads a capture piece by piece, wherever the pieces are cut.

use super::file::{CaptureError, Captured, Entry, MAGIC, entry};
use crate::contract::TableSchema;
use bytes::BytesMut;
use std::collections::VecDeque;

/// What the bytes so far gave.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The bytes of the records.
    pub(super) bytes: BytesMut,
    /// Start and end of each payload.
    pub(super) messages: Vec<(u32, u32)>,
    /// Schemas in the order of the relations' messages among the payloads.
    pub(super) tables: VecDeque<TableSchema>,
    /// The end.
    pub(super) end: Option<Captured>,
}

/// Finds records in bytes as they come.
#[derive(Debug, Default)]
pub(super) struct CaptureReader {
    /// What is not a whole record yet.
    rest: BytesMut,
    begun: bool,
    ended: bool,
}

impl CaptureReader {
    /// Takes bytes and gives what is whole.
    ///
    /// # Errors
    /// When they are no capture.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Records, CaptureError> {
        self.rest.extend_from_slice(bytes);
        if !self.begun {
            let length = self.rest.len().min(MAGIC.len());
            if self.rest.get(..length) != MAGIC.get(..length) {
                return Err(CaptureError::Magic);
            }
            if length < MAGIC.len() {
                return Ok(Records::default());
            }
            let _ = self.rest.split_to(length);
            self.begun = true;
        }
        let mut records = Records::default();
        let mut at = 0;
        while !self.ended {
            let Some((entry, next)) = entry(&self.rest, at)? else { break };
            match entry {
                Entry::Table(table) => records.tables.push_back(*table),
                Entry::Payload(start, end) => match (u32::try_from(start), u32::try_from(end)) {
                    (Ok(start), Ok(end)) => records.messages.push((start, end)),
                    _ => break,
                },
                Entry::End(end) => (records.end, self.ended) = (Some(end), true),
            }
            at = next;
        }
        records.bytes = self.rest.split_to(at);
        if self.ended && !self.rest.is_empty() {
            return Err(CaptureError::Trailing);
        }
        Ok(records)
    }

    /// Says whether the capture came to its end.
    ///
    /// # Errors
    /// When it did not.
    pub(super) fn end(&self) -> Result<(), CaptureError> {
        if self.ended { Ok(()) } else { Err(CaptureError::Unfinished) }
    }
}
