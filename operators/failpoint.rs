//! Named places between the socket and the confirmation, where a test can end or hinder the process.
//!
//! ```text
//! ETL_STREAM_FAILPOINTS="file.rename=kill@3,state.store=enospc@2x5"
//!                        name       action@first hit, and for how many hits
//! ```
//! `kill` ends the process by SIGKILL; `enospc` is the error of a full disk, where the place can fail.
//!
//! # Guarantees
//! Without the feature `failpoints`, which only tests of the root package turn on, every function here is
//! empty and no name is in the binary. No place stands in a loop over rows.

use std::io;

/// Every place, in the order the data flows.
pub const ALL: &[&str] = &[
    "snapshot.slot",
    "snapshot.begin",
    "snapshot.range",
    "snapshot.end",
    "snapshot.durable",
    "snapshot.complete",
    "source.read",
    "source.send",
    "source.sent",
    "decode.done",
    "batch.seal",
    "sink.deliver",
    "sink.ack",
    "file.snapshot",
    "file.create",
    "file.write",
    "file.fsync",
    "file.rename",
    "file.renamed",
    "file.synced",
    "snowflake.request",
    "snowflake.answer",
    "snowflake.open",
    "snowflake.rows",
    "snowflake.accepted",
    "snowflake.committed",
    "snowflake.merge",
    "snowflake.merged",
    "snowflake.snapshot",
    "snowflake.emptied",
    "snowflake.stopped",
    "state.store",
    "state.commit",
    "state.stored",
    "confirm.send",
    "confirm.sent",
];

/// The places that can fail as on a full disk.
pub const DISK: &[&str] = &["file.create", "file.write", "file.fsync", "file.rename", "state.store", "state.commit"];

/// Ends the process here when a test asks for it.
#[inline(always)]
pub fn reach(name: &'static str) {
    let _ = fails(name);
}

/// As [`reach`], or fails as a full disk does.
///
/// # Errors
/// `ENOSPC`, when a test asks for it.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn fails(_: &'static str) -> io::Result<()> {
    Ok(())
}

/// As [`reach`], or fails as a full disk does.
///
/// # Errors
/// `ENOSPC`, when a test asks for it.
#[cfg(feature = "failpoints")]
pub fn fails(name: &'static str) -> io::Result<()> {
    planned::fails(name)
}

#[cfg(feature = "failpoints")]
mod planned {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Planned {
        name: String,
        kills: bool,
        first: u64,
        times: u64,
        hits: AtomicU64,
    }

    static PLAN: OnceLock<Vec<Planned>> = OnceLock::new();

    /// A mistyped plan would test nothing.
    fn read(text: &str) -> Option<Planned> {
        let (name, rest) = text.split_once('=')?;
        let (action, hits) = rest.split_once('@').unwrap_or((rest, "1"));
        let (first, times) = hits.split_once('x').unwrap_or((hits, "1"));
        let known = super::ALL.contains(&name) && matches!(action, "kill" | "enospc");
        let (first, times) = (first.parse().ok()?, times.parse().ok()?);
        known.then(|| Planned { name: name.into(), kills: action == "kill", first, times, hits: AtomicU64::new(0) })
    }

    pub(super) fn fails(name: &'static str) -> io::Result<()> {
        let plan = PLAN.get_or_init(|| {
            let text = std::env::var("ETL_STREAM_FAILPOINTS").unwrap_or_default();
            let plan = text.split(',').filter(|one| !one.is_empty());
            plan.map(|one| read(one).unwrap_or_else(|| panic!("{one:?} is no failpoint"))).collect()
        });
        debug_assert!(super::ALL.contains(&name), "{name} is not listed");
        for planned in plan.iter().filter(|planned| planned.name == name) {
            let hit = planned.hits.fetch_add(1, Ordering::SeqCst) + 1;
            if hit < planned.first || hit >= planned.first.saturating_add(planned.times) {
                continue;
            }
            if !planned.kills {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            // SAFETY: raise has no preconditions.
            #[expect(unsafe_code, reason = "libc call without preconditions; SIGKILL runs no destructor, as a crash runs none")]
            unsafe {
                libc::raise(libc::SIGKILL);
            }
        }
        Ok(())
    }
}
