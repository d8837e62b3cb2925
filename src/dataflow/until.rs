//! When a run with `--until` has reached its end.

use super::options::Until;
use etl_stream_operators::contract::{Durable, Lsn, Phase, SourceStatus, Ts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// How often a status is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until everything the run is for is read: the drain that follows makes it durable, and seals batches
/// that would wait for their age. Returns at once when the source's stream has ended.
///
/// `CaughtUp` takes the first position that the source hears from its server.
pub(crate) async fn reached(until: Until, status: Arc<SourceStatus>, mut durable: watch::Receiver<Durable>) {
    let target = match until {
        Until::Lsn(lsn) => lsn,
        Until::CaughtUp => loop {
            let position = status.server_lsn.load(Ordering::Relaxed);
            if position > 0 || durable.borrow().finished {
                break Lsn(position);
            }
            tokio::time::sleep(LOOK).await;
        },
    };
    // The times of a snapshot lie at its LSN, which may be past the target before all rows are copied.
    let read = |durable: Durable| durable.upper >= Ts::new(target.0, 0) || status.received_lsn.load(Ordering::Relaxed) >= target.0;
    // Tables that are new or are to be copied anew belong to what the run is for.
    let whole = || status.phase().0 == Phase::Streaming && status.joining.load(Ordering::Relaxed) == 0;
    let arrived = |durable: Durable| durable.finished || (read(durable) && whole());
    while !arrived(*durable.borrow_and_update()) {
        tokio::select! {
            // The engine's end is gone only when the run is over anyway.
            changed = durable.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
