//! Sources that are not to read: a mark in the state, so that a restart does not forget it.
//!
//! ```text
//! etl-stream pause ──┬── not running: state file ──> mark ──> the next run's source
//!                    └── running: POST /api/v1/pause ──> mark ──> the source, at once
//! ```

use crate::config::suggest;
use etl_stream_operators::contract::{Code, CodedError, Exit, StateKey, StateStore};
use serde::{Deserialize, Serialize};

/// A source that is to be paused or resumed is not one of the pipeline's.
pub(crate) const PAUSE_SOURCE: Code = Code::new("RUN0030", Exit::Usage);

/// Whether sources are to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// They are not to.
    Pause,
    /// They are to go on.
    Resume,
}

impl Wish {
    /// The path that a running pipeline takes it at.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pause => "/api/v1/pause",
            Self::Resume => "/api/v1/resume",
        }
    }
}

/// Which sources, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The pipeline that is meant.
    pub pipeline: String,
    /// Names of sources; none: all.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Who asked for it, for whoever looks at the status.
    #[serde(default = "asked")]
    pub why: String,
}

fn asked() -> String {
    "asked for".into()
}

impl Pause {
    /// What a user asks for.
    #[must_use]
    pub fn asked(pipeline: &str, sources: Vec<String>) -> Self {
        Self { pipeline: pipeline.to_owned(), sources, why: asked() }
    }

    /// Stores the wish for sources of a pipeline that has `known` ones; gives those it is for. All or none are stored.
    ///
    /// # Errors
    /// `RUN0030` for a source that is not known; as the store.
    pub fn store(&self, wish: Wish, state: &dyn StateStore, known: &[&str]) -> Result<Vec<String>, CodedError> {
        if let Some(unknown) = self.sources.iter().find(|source| !known.contains(&source.as_str())) {
            let error = CodedError::definite(PAUSE_SOURCE, format!("pipeline \"{}\" has no source \"{unknown}\"", self.pipeline));
            return Err(match suggest::help(unknown, known.iter().copied()) {
                Some(help) => error.hint(help),
                None => error.hint("name sources as the pipeline file does, or none for all"),
            });
        }
        let mut sources: Vec<String> =
            if self.sources.is_empty() { known.iter().map(|source| (*source).to_owned()).collect() } else { self.sources.clone() };
        sources.sort_unstable();
        sources.dedup();
        let why = |source: &String| {
            let mark = (wish == Wish::Pause).then(|| self.why.clone().into());
            (StateKey::paused(&self.pipeline, source), mark)
        };
        state.store(&sources.iter().map(why).collect::<Vec<_>>())?;
        Ok(sources)
    }
}

/// Why a source is paused, if it is.
///
/// # Errors
/// As the store.
pub fn paused(state: &dyn StateStore, pipeline: &str, source: &str) -> Result<Option<String>, CodedError> {
    let mark = state.load(&StateKey::paused(pipeline, source))?;
    Ok(mark.map(|why| why.as_str().map_or_else(asked, str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::MemoryState;

    #[test]
    fn wishes_are_kept_until_the_other() {
        let state = MemoryState::default();
        let known = ["shop", "eu"];
        let wish = |wish, sources: &[&str]| {
            let pause = Pause::asked("p", sources.iter().map(|s| (*s).to_owned()).collect());
            pause.store(wish, &state, &known).map(|s| s.join(",")).map_err(|e| (e.code.id, e.hint.unwrap_or_default()))
        };
        let marked = || known.map(|source| paused(&state, "p", source).unwrap());
        assert_eq!(wish(Wish::Pause, &["shop", "shop"]), Ok("shop".into()));
        assert_eq!(marked(), [Some("asked for".into()), None]);
        assert_eq!(wish(Wish::Pause, &["eu", "shp"]).map_err(|(code, _)| code), Err("RUN0030"));
        assert_eq!(marked()[1], None, "all or none");
        assert!(wish(Wish::Resume, &["shp"]).unwrap_err().1.contains("did you mean `shop`"));
        assert_eq!(wish(Wish::Pause, &[]), Ok("eu,shop".into()));
        let other = Pause { why: "log grows".into(), ..Pause::asked("p", vec!["eu".into()]) };
        other.store(Wish::Pause, &state, &known).unwrap();
        assert_eq!(marked(), [Some("asked for".into()), Some("log grows".into())]);
        assert_eq!(wish(Wish::Resume, &[]), Ok("eu,shop".into()));
        assert_eq!(marked(), [None, None]);
    }
}
