//! When a run with `--until` has reached its end.

use super::options::Until;
use etl_stream_operators::contract::{Durable, Lsn, SourceStatus, Ts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Waits until everything the run is for is durable. Returns at once when the source's stream has ended.
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
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
    };
    // The engine's end is gone only when the run is over anyway.
    let _ = durable.wait_for(|durable| durable.finished || durable.upper >= Ts::new(target.0, 0)).await;
}
