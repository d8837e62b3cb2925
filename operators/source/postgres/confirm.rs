//! From what is durable to what the server is told: `confirmed_flush_lsn`.
//!
//! ```text
//! stream ──(Ts, lsn)──> Confirm <── durable Ts          Confirm ──confirmed──> status updates
//! ```
//! # Guarantees
//! An LSN is confirmed only when everything sent before it is durable in every sink and only when it was
//! received; it never goes back. Locked once a read and once a status, never once a row.

use crate::contract::Ts;
use std::collections::VecDeque;

/// Positions waiting to become durable.
#[derive(Debug, Default)]
pub(super) struct Confirm {
    waiting: VecDeque<(Ts, u64)>,
    last: Ts,
    received: u64,
    confirmed: u64,
    /// Whether a keepalive was asked for and has not come.
    pub asked: bool,
}

impl Confirm {
    /// Takes the position that the slot has.
    pub(super) fn start(&mut self, lsn: u64) {
        self.confirmed = self.confirmed.max(lsn);
        self.received = self.received.max(lsn);
        self.asked = false;
    }

    /// Notes that the server has sent everything before `lsn`.
    pub(super) fn received(&mut self, lsn: u64) {
        self.received = self.received.max(lsn);
    }

    /// When everything before `ts` is durable, `lsn` can be confirmed.
    pub(super) fn when(&mut self, ts: Ts, lsn: u64) {
        self.received(lsn);
        if ts > self.last {
            self.last = ts;
            self.waiting.push_back((ts, lsn));
        }
    }

    /// Learns what is durable.
    pub(super) fn durable(&mut self, upper: Ts) {
        while let Some((ts, lsn)) = self.waiting.front()
            && *ts <= upper
        {
            self.confirmed = self.confirmed.max((*lsn).min(self.received));
            self.waiting.pop_front();
        }
    }

    /// Learns that everything sent is durable.
    pub(super) fn all_durable(&mut self) {
        self.durable(self.last);
    }

    /// What the server may forget.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// How far the server has been read.
    pub(super) fn read_to(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_what_is_durable_and_no_more() {
        let mut confirm = Confirm::default();
        confirm.start(100);
        confirm.when(Ts::after(110), 120);
        confirm.when(Ts::after(130), 140);
        for (upper, confirmed) in
            [(Ts::new(0, 0), 100), (Ts::new(110, 9), 100), (Ts::after(110), 120), (Ts::new(0, 0), 120), (Ts::new(130, 2), 120)]
        {
            confirm.durable(upper);
            assert_eq!(confirm.confirmed(), confirmed, "{upper:?}");
        }
        // a second session reads the transaction again, and starts no further than is confirmed
        confirm.start(90);
        confirm.when(Ts::after(130), 140);
        assert_eq!((confirm.confirmed(), confirm.read_to()), (120, 140));
        confirm.all_durable();
        confirm.when(Ts::new(150, 0), 150);
        assert_eq!(confirm.confirmed(), 140);
    }
}
