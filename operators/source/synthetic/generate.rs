//! Makes the bytes of a workload, piece by piece.

use super::pgoutput::{CHANGE_LSNS, Messages, Row};
use super::workload::Workload;
use crate::contract::Op;
use std::sync::Arc;

/// How a binary copy begins (PostgreSQL manual, `COPY`, "Binary Format"): signature, flags, no extension.
const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: [u8; 2] = [0xff, 0xff];

/// A set of values, written.
struct Tuple {
    /// Every column after the key but the last.
    middle: Vec<u8>,
    /// The last column.
    last: Vec<u8>,
}

/// Writes a workload from some change on.
pub(super) struct Generator {
    workload: Arc<Workload>,
    tuples: Vec<Tuple>,
    /// What a delete has after its key.
    nulls: Vec<u8>,
    /// The next change.
    next: u64,
    /// The open transaction and its commit time.
    open: Option<(u64, i64)>,
    /// Tables that have been described.
    described: Vec<bool>,
    /// Whether a copy's header or trailer is written.
    framed: (bool, bool),
}

impl Generator {
    /// Starts with change number `next`, the first of its transaction.
    pub(super) fn new(workload: Arc<Workload>, next: u64) -> Self {
        let binary = workload.is_copy();
        let field = |column: usize, value: &super::value::Value| {
            let kind = workload.kinds()[column];
            let mut bytes = Vec::new();
            if binary {
                kind.binary(value, &mut bytes)
            } else {
                kind.text(value, &mut bytes)
            }
            let mut field = if binary { Vec::new() } else { vec![b't'] };
            field.extend((bytes.len() as u32).to_be_bytes());
            field.extend(bytes);
            field
        };
        let tuple = |variant: usize| {
            let mut fields: Vec<Vec<u8>> = workload.values(variant).iter().zip(1..).map(|(value, column)| field(column, value)).collect();
            let last = fields.pop().unwrap_or_default();
            Tuple { middle: fields.concat(), last }
        };
        let tuples = (0..workload.variants()).map(tuple).collect();
        let nulls = vec![b'n'; workload.kinds().len() - 1];
        let described = vec![false; workload.tables().len()];
        Self { tuples, nulls, next, open: None, described, framed: (false, false), workload }
    }

    /// The next change.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether every change has been written.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_none() && self.workload.rows().is_some_and(|rows| self.next >= rows)
    }

    /// Appends messages until there are `most` bytes or more, or nothing is due. `commit_time` is asked of each
    /// transaction's first change: nothing, and it is not due yet.
    pub(super) fn fill(&mut self, most: usize, commit_time: impl Fn(u64) -> Option<i64>, out: &mut Messages) {
        let columns = self.workload.kinds().len() as u16;
        let length = self.workload.transaction();
        while out.bytes.len() < most && !self.is_done() {
            let (transaction, time) = match self.open {
                Some(open) => open,
                None => {
                    let Some(time) = commit_time(self.next) else { return };
                    let transaction = self.next / length;
                    out.begin(self.workload.begin_lsn(transaction), self.workload.commit_lsn(transaction), time, transaction);
                    *self.open.insert((transaction, time))
                }
            };
            if self.next / length > transaction || self.workload.rows().is_some_and(|rows| self.next >= rows) {
                out.commit(self.workload.commit_lsn(transaction), self.workload.end_lsn(transaction), time);
                self.open = None;
                continue;
            }
            let change = self.workload.change(self.next);
            let table = &self.workload.tables()[change.table];
            if !std::mem::replace(&mut self.described[change.table], true) {
                out.relation(table);
            }
            let tuple = &self.tuples[change.variant];
            let rest: [&[u8]; 2] = match (change.op, change.unchanged) {
                (Op::Delete, _) => [&self.nulls, b""],
                (_, true) => [&tuple.middle, b"u"],
                (_, false) => [&tuple.middle, &tuple.last],
            };
            let lsn = self.workload.begin_lsn(transaction) + self.next % length * CHANGE_LSNS;
            out.change(lsn, time, &Row { relation: table.id, op: change.op, columns, key: change.key, rest });
            self.next += 1;
        }
    }

    /// The next piece of a copy, about `most` bytes; nothing after its end.
    pub(super) fn copy(&mut self, most: usize) -> Option<Vec<u8>> {
        if self.framed.1 {
            return None;
        }
        let mut out = Vec::with_capacity(most + 1024);
        if !std::mem::replace(&mut self.framed.0, true) {
            out.extend_from_slice(COPY_HEADER);
        }
        let columns = self.workload.kinds().len() as u16;
        while out.len() < most && !self.is_done() {
            let change = self.workload.change(self.next);
            let tuple = &self.tuples[change.variant];
            out.extend_from_slice(&columns.to_be_bytes());
            out.extend_from_slice(&8_u32.to_be_bytes());
            out.extend_from_slice(&change.key.to_be_bytes());
            out.extend_from_slice(&tuple.middle);
            out.extend_from_slice(&tuple.last);
            self.next += 1;
        }
        if self.is_done() {
            out.extend_from_slice(&COPY_TRAILER);
            self.framed.1 = true;
        }
        Some(out)
    }
}
