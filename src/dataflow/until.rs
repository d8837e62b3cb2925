//! When a run with `--until` has reached its end, and what it then has not done.

use super::options::Until;
use etl_stream_operators::contract::{CodedError, Durable, Lsn, Phase, PipelineStatus, SourceStatus, Ts};
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

/// The tables that a run leaves behind though it reached its end: those that a sink has stopped, and those whose copy
/// failed and will fail again. `None`: it has done all.
pub(crate) fn shortfall(status: &PipelineStatus) -> Option<CodedError> {
    let mut left: Vec<(String, Arc<CodedError>)> = Vec::new();
    for (source, it) in status.sources() {
        let failed = it.tables().into_iter().filter_map(|(table, it)| Some((table, it.failed?)));
        left.extend(failed.map(|(table, error)| (format!("table \"{table}\" of source \"{source}\" was not copied"), error)));
    }
    let stopped = status.stopped().into_iter();
    left.extend(stopped.map(|(sink, _, table, it)| (format!("table \"{table}\" is stopped in sink \"{sink}\""), it.error)));
    let (what, error) = left.first()?;
    let more = if left.len() > 1 { format!(" (and {} more tables: see the log)", left.len() - 1) } else { String::new() };
    let shown = CodedError::definite(error.code, format!("all else is done, but {what}: {}{more}", error.message));
    Some(match &error.hint {
        Some(hint) => shown.hint(hint),
        None => shown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::{Code, Exit, StoppedTable, Token};

    #[test]
    fn what_is_left() {
        let status = PipelineStatus::default();
        let error = |id, message: &str, hint: &str| Arc::new(CodedError::definite(Code::new(id, Exit::Failure), message).hint(hint));
        let shown = || shortfall(&status).map(|error| (error.code.id, error.message, error.hint.unwrap_or_default()));
        status.source("shop").table("public.t", |_| ());
        assert_eq!(shown(), None);
        let stopped = StoppedTable { error: error("X0002", "it changed", "resync"), since: Token::ZERO, discarded_rows: 0 };
        status.sink("warehouse").stop("shop", "public.t", Some(stopped));
        let is_stopped = "all else is done, but table \"public.t\" is stopped in sink \"warehouse\": it changed";
        assert_eq!(shown(), Some(("X0002", is_stopped.to_owned(), "resync".to_owned())));
        status.source("shop").table("public.n", |table| table.failed = Some(error("X0001", "no slot", "make room")));
        let both = "all else is done, but table \"public.n\" of source \"shop\" was not copied: no slot (and 1 more tables: see the log)";
        assert_eq!(shown(), Some(("X0001", both.to_owned(), "make room".to_owned())));
        status.source("shop").table("public.n", |table| table.failed = None);
        status.source("shop").table("public.t", |table| table.phase = Phase::Removed);
        assert_eq!(shown(), None);
        status.source("shop").table("public.t", |table| table.phase = Phase::Streaming);
        assert!(shown().is_some());
        status.sink("warehouse").stop("shop", "public.t", None);
        assert_eq!(shown(), None);
    }
}
