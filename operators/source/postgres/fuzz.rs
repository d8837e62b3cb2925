//! Fuzz targets: what a server, a password file and a connection string may hold.

use super::assemble::Assembler;
use super::frame::{DATA_HEADER, Frame, message, parse, parse_in_block};
use crate::contract::{CodedError, Format, TableSchema};
use crate::decode::{Cell, Field, change};
use crate::fuzzing::{Feed, RELATION, raws, table};
use bytes::Bytes;
use std::sync::Arc;

pub(crate) use super::connect::fuzz::{conninfo, passfile, replication_stream, startup};
pub(crate) use super::snapshot::fuzz::copy_stream;

/// Payloads of a session, one after the other: framed, assembled, each row decoded.
///
/// Each payload has its length in front. A byte of 0 ends a chunk.
pub(crate) fn pgoutput_stream(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let mut assembler = Assembler::new();
    assembler.start(u64::from(feed.byte()));
    let known = table(vec![crate::contract::ColumnType::Int4, crate::contract::ColumnType::Text]);
    assembler.relation(RELATION, Some(Arc::clone(&known)));
    let mut upper = crate::contract::Ts::default();
    while let Some(payload) = feed.piece() {
        if let Ok(Frame::Streamed { tag, body, .. }) = parse_in_block(payload) {
            let _ = message(&[&[tag][..], body].concat());
        }
        let Ok(frame) = parse(payload) else { continue };
        if let Frame::Relation(relation) = &frame {
            assert!(relation.columns.len() * 10 <= payload.len(), "a column has at least ten bytes");
            let table = TableSchema { id: relation.id, name: relation.name.as_str().into(), ..(*known).clone() };
            assembler.relation(relation.id, Some(Arc::new(table)));
        }
        let shared = Bytes::copy_from_slice(payload);
        if assembler.frame(&frame, &shared, DATA_HEADER as u32, payload.len() as u32).is_err() {
            return;
        }
        if feed.byte() == 0 {
            let made = assembler.finish();
            assert!(made.upper >= upper, "time goes on");
            upper = made.upper;
            for raw in raws(&made.items) {
                assert_eq!(raw.format, Format::PgOutput);
                let mut cells = Vec::new();
                for row in &raw.rows {
                    assert!((row.commit as usize) < raw.commits.len());
                    // a row's bytes are of this chunk's first payload only when it was the only one
                    if change(&raw.bytes, row.start, row.end, raw.table.id, raw.table.columns.len(), &mut cells).is_ok() {
                        let known = |cell: &Cell| cell.is_unchanged() == (cell.field(&raw.bytes) == Field::Unchanged);
                        assert!(cells.iter().all(known));
                    }
                    cells.clear();
                }
            }
        }
    }
}

/// An error that may be shown: it has the secret nowhere, but in the name of an option that is called so.
pub(super) fn shown(error: &CodedError) {
    let report = error.report();
    assert!(!report.split('"').step_by(2).any(|part| part.contains("hunter2")), "{report}");
}
