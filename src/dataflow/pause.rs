//! Sources that are told, while they run, not to read or to go on.
//!
//! ```text
//! POST /api/v1/pause ──┐
//! a monitor's limit  ──┴──> Pauses ──> state      (a restart remembers)
//!                                └──> Source      (SourceContext::paused)
//! ```

use crate::checkpoint::{Pause, Wish, paused};
use etl_stream_operators::contract::{CodedError, PipelineStatus, StateStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// The pauses of a running pipeline.
pub struct Pauses {
    pipeline: Arc<str>,
    state: Arc<dyn StateStore>,
    status: Arc<PipelineStatus>,
    sources: BTreeMap<String, watch::Sender<bool>>,
    /// Those that run in this process.
    own: BTreeSet<String>,
}

/// How often a state that is shared is looked at.
const FOLLOW: Duration = Duration::from_secs(2);

impl Pauses {
    /// As the state has them. Of each source whether it runs in this process.
    ///
    /// # Errors
    /// As the store.
    pub(crate) fn load<'s>(
        pipeline: &Arc<str>,
        state: Arc<dyn StateStore>,
        status: Arc<PipelineStatus>,
        sources: impl Iterator<Item = (&'s str, bool)>,
    ) -> Result<Self, CodedError> {
        let (mut all, mut own) = (BTreeMap::new(), BTreeSet::new());
        for (source, here) in sources {
            let why = paused(&*state, pipeline, source)?;
            if let Some(why) = &why {
                warn!(source, why, "the source is paused, and its server keeps the log: `etl-stream resume {source}` lets it go on");
            }
            all.insert(source.to_owned(), watch::channel(why.is_some()).0);
            if here {
                status.source(source).set_paused(why);
                own.insert(source.to_owned());
            }
        }
        Ok(Self { pipeline: Arc::clone(pipeline), state, status, sources: all, own })
    }

    /// What a source is told.
    pub(crate) fn receiver(&self, source: &str) -> watch::Receiver<bool> {
        self.sources.get(source).map_or_else(|| watch::channel(false).1, watch::Sender::subscribe)
    }

    /// Tells sources, and has the state remember it. The one way to pause a source that runs: for a server's request
    /// and for a monitor alike. Gives the sources that were told. Blocks for as long as the state takes.
    ///
    /// # Errors
    /// `RUN0030` for a source that is not known; as the store. Nothing has changed then.
    pub fn tell(&self, wish: Wish, pause: &Pause) -> Result<Vec<String>, CodedError> {
        let known: Vec<&str> = self.sources.keys().map(String::as_str).collect();
        let told = pause.store(wish, &*self.state, &known)?;
        for source in &told {
            self.tell_one(source, (wish == Wish::Pause).then(|| pause.why.clone()));
        }
        Ok(told)
    }

    fn tell_one(&self, source: &str, why: Option<String>) {
        let pause = why.is_some();
        if self.own.contains(source) {
            self.status.source(source).set_paused(why.clone());
        }
        if let Some(sender) = self.sources.get(source)
            && sender.send_replace(pause) != pause
        {
            match why {
                Some(why) => warn!(source, why, "paused: the server keeps the log until the source is resumed"),
                None => info!(source, "resumed"),
            }
        }
    }

    /// Does what others have left in a state that is shared, such as the process that was asked. Looks until it is aborted.
    pub(crate) async fn follow(&self) {
        let mut failing = false;
        loop {
            tokio::time::sleep(FOLLOW).await;
            for source in &self.own {
                match paused(&*self.state, &self.pipeline, source) {
                    Ok(why) => {
                        failing = false;
                        self.tell_one(source, why);
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            warn!(source, %error, "the state does not say whether the source is paused");
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::MemoryState;

    #[test]
    fn sources_and_the_state_are_told() {
        let state: Arc<dyn StateStore> = Arc::new(MemoryState::default());
        let load = || {
            let status = Arc::new(PipelineStatus::default());
            (Pauses::load(&"p".into(), Arc::clone(&state), Arc::clone(&status), [("a", true), ("b", true)].into_iter()).unwrap(), status)
        };
        let (pauses, status) = load();
        let heard = pauses.receiver("a");
        assert!(!*heard.borrow());
        let asked = Pause { why: "log grows".into(), ..Pause::asked("p", vec!["a".into()]) };
        assert_eq!(pauses.tell(Wish::Pause, &asked).unwrap(), ["a"]);
        assert_eq!((*heard.borrow(), status.source("a").paused()), (true, Some("log grows".into())));
        assert!(pauses.tell(Wish::Resume, &Pause::asked("p", vec!["c".into()])).is_err());
        let (again, status) = load();
        assert_eq!((*again.receiver("a").borrow(), *again.receiver("b").borrow()), (true, false));
        assert_eq!(status.source("a").paused(), Some("log grows".into()));
        again.tell(Wish::Resume, &asked).unwrap();
        assert_eq!(status.source("a").paused(), None);
        assert!(!*load().0.receiver("a").borrow());
    }
}
