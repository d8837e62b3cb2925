//! `on_limit: pause` of a WAL monitor: a source whose slot has come to hold back too much is told not to read.
//!
//! ```text
//! status (slots, by the monitor) ──> Limits ──> Pauses
//! ```
//! Once for each time that a slot passes the limit: whoever resumes the source while the slot is still beyond it is not
//! overruled.

use super::pause::Pauses;
use crate::checkpoint::{Pause, Wish};
use etl_stream_operators::contract::{PipelineStatus, WalServer, together};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

/// How often slots are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The sources whose slots are beyond the limit.
#[derive(Default)]
struct Limits(BTreeSet<String>);

impl Limits {
    /// The sources whose slots have come to be, and why they are to be paused.
    fn look<'a>(&mut self, servers: impl Iterator<Item = &'a WalServer>) -> Vec<(String, String)> {
        let mut to_pause = Vec::new();
        for server in servers {
            for (source, slot) in server.slots.iter().filter_map(|slot| Some((slot.source.as_deref()?, slot))) {
                if !slot.pause {
                    self.0.remove(source);
                } else if self.0.insert(source.to_owned()) {
                    let bytes = slot.retained_bytes.unwrap_or(0);
                    let why = format!("slot \"{}\" retains {bytes} bytes, more than `retained_wal_limit`", slot.name);
                    to_pause.push((source.to_owned(), why));
                }
            }
        }
        to_pause
    }
}

/// Looks until it is aborted.
pub(crate) async fn watch(pipeline: Arc<str>, status: Arc<PipelineStatus>, pauses: Arc<Pauses>) {
    let mut limits = Limits::default();
    let mut tick = together(LOOK);
    loop {
        tick.tick().await;
        for (source, why) in limits.look(status.servers().values().map(|server| &**server)) {
            let pause = Pause { why, ..Pause::asked(&pipeline, vec![source.clone()]) };
            if let Err(error) = pauses.tell(Wish::Pause, &pause) {
                error!(source, %error, "the source was not paused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::WalSlot;

    #[test]
    fn paused_once_each_time_the_limit_is_passed() {
        let server = |pause: bool| WalServer {
            slots: vec![
                WalSlot { name: "s".into(), source: Some("shop".into()), retained_bytes: Some(7), pause, ..WalSlot::default() },
                WalSlot { name: "t".into(), pause, ..WalSlot::default() },
            ],
            ..WalServer::default()
        };
        let mut limits = Limits::default();
        for (pause, expected) in [(false, 0), (true, 1), (true, 0), (false, 0), (true, 1)] {
            let found = limits.look(std::iter::once(&server(pause)));
            assert_eq!(found.len(), expected);
            assert!(found.iter().all(|(source, why)| source == "shop" && why.contains("\"s\" retains 7 bytes")));
        }
    }
}
