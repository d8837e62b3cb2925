//! What a payload is to its transaction, and another commit time for it: a recorded stream may be played at a pace.

use super::frame::{self, DATA_HEADER, Frame};

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// Where Begin has its commit time, after `B` and the final LSN, and Commit, after `C`, flags and two LSNs.
const BEGIN_TIME: usize = DATA_HEADER + 9;
const COMMIT_TIME: usize = DATA_HEADER + 18;

/// A payload's part in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It starts one that commits there.
    Begin(u64),
    /// It changes a row, or truncates.
    Change,
    /// It ends one.
    Commit,
    /// Something else, or nothing that is known.
    Other,
}

/// What a payload is.
pub(crate) fn part(payload: &[u8]) -> Part {
    match frame::parse(payload) {
        Ok(Frame::Begin { commit_lsn, .. }) => Part::Begin(commit_lsn),
        Ok(Frame::Change { .. } | Frame::Truncate(_)) => Part::Change,
        Ok(Frame::Commit { .. }) => Part::Commit,
        _ => Part::Other,
    }
}

/// Sets the commit time of a Begin or a Commit, in microseconds since 1970.
pub(crate) fn stamp(payload: &mut [u8], time: i64) {
    let at = match part(payload) {
        Part::Begin(_) => BEGIN_TIME,
        Part::Commit => COMMIT_TIME,
        Part::Change | Part::Other => return,
    };
    if let Some(field) = payload.get_mut(at..at + 8) {
        field.copy_from_slice(&time.saturating_sub(EPOCH_2000).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{begin, commit, insert, keepalive};
    use super::*;

    #[test]
    fn only_the_time_changes() {
        for (mut payload, what) in
            [(begin(16), Part::Begin(16)), (commit(16, 20), Part::Commit), (insert(9), Part::Change), (keepalive(5), Part::Other)]
        {
            let before = payload.clone();
            assert_eq!(part(&payload), what);
            stamp(&mut payload, EPOCH_2000 + 0x0102);
            assert_eq!(part(&payload), what);
            let changed: Vec<u8> = payload.iter().zip(&before).filter(|(a, b)| a != b).map(|(a, _)| *a).collect();
            assert_eq!(changed, if matches!(what, Part::Begin(_) | Part::Commit) { vec![1, 2] } else { vec![] });
            if let Part::Begin(_) = what {
                assert_eq!(frame::parse(&payload), Ok(Frame::Begin { commit_lsn: 16, time: EPOCH_2000 + 0x0102 }));
            }
        }
    }
}
