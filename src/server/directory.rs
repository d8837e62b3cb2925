//! The pipelines of the process, by name: what the server answers from, whether there is one or a thousand.

use super::Served;
use super::metrics::Page;
use super::status::Status;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use etl_stream_operators::contract::Connections;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a pipeline of a folder is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its state, its sinks and its dataflows are being made.
    #[default]
    Starting,
    /// It runs; its sources have phases of their own.
    Running,
    /// It failed, and waits to try again.
    Retrying,
    /// It drains, since its file is gone or changed, or a restart was asked for.
    Stopping,
    /// Its sources have come to their ends.
    Ended,
    /// Its file cannot be run, and no earlier version of it does.
    Refused,
}

impl Stage {
    /// The word the user sees.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Refused => "refused",
        }
    }
}

/// A pipeline, as far as it is not a matter of its nodes.
#[derive(Clone, Default)]
pub(crate) struct Member {
    /// Its file, in a folder of pipelines.
    pub(crate) file: Option<PathBuf>,
    pub(crate) stage: Stage,
    /// Why, where the stage does not say it.
    pub(crate) reason: Option<String>,
    /// Why its file, as it stands now, is not what runs.
    pub(crate) file_problem: Option<String>,
    /// How often it has failed.
    pub(crate) failures: u64,
    /// When it is tried again, in seconds since 1970-01-01 00:00:00 UTC.
    pub(crate) tries_again_at: Option<f64>,
    /// Its nodes, while it runs.
    pub(crate) served: Option<Served>,
    /// Asks for a drain and a new start.
    pub(crate) restart: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The pipelines of the process.
#[derive(Default)]
pub(crate) struct Directory {
    members: RwLock<BTreeMap<Arc<str>, Member>>,
    /// Whether there may be several.
    pub(super) many: AtomicBool,
    /// Whether only this machine reaches the server.
    pub(super) loopback: AtomicBool,
    connections: OnceLock<Arc<Connections>>,
}

pub(super) fn refuse(code: StatusCode, message: &str, hint: &str) -> Response {
    (code, Json(json!({ "message": message, "hint": hint }))).into_response()
}

/// The value of a key in a query; names of pipelines need no escapes.
pub(super) fn query<'q>(query: Option<&'q str>, key: &str) -> Option<&'q str> {
    query?.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key)).map(|(_, value)| value)
}

/// Now, in seconds since 1970-01-01 00:00:00 UTC.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Directory {
    /// Says that there may be several pipelines, so that requests must name one.
    pub(crate) fn for_many(self: Arc<Self>) -> Arc<Self> {
        self.many.store(true, Ordering::Relaxed);
        self
    }

    /// Says which connections the pipelines draw from; the first word counts.
    pub(crate) fn set_connections(&self, connections: &Arc<Connections>) {
        let _ = self.connections.set(Arc::clone(connections));
    }

    pub(super) fn connections(&self) -> Option<&Arc<Connections>> {
        self.connections.get()
    }

    /// Changes what is said of a pipeline, which is there from the first time on.
    pub(crate) fn change(&self, pipeline: &Arc<str>, change: impl FnOnce(&mut Member)) {
        change(self.members.write().unwrap_or_else(PoisonError::into_inner).entry(Arc::clone(pipeline)).or_default());
    }

    /// Forgets a pipeline.
    pub(crate) fn remove(&self, pipeline: &str) {
        let _ = self.members.write().unwrap_or_else(PoisonError::into_inner).remove(pipeline);
    }

    /// Every pipeline.
    pub(crate) fn members(&self) -> BTreeMap<Arc<str>, Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every pipeline that has nodes now.
    pub(super) fn served(&self) -> Vec<Served> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).values().filter_map(|member| member.served.clone()).collect()
    }

    /// The pipeline that a request names, or the only one.
    #[expect(clippy::result_large_err, reason = "an answer, made once a request")]
    pub(super) fn member(&self, name: Option<&str>) -> Result<(Arc<str>, Member), Response> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let found = match name {
            Some(name) => members.get_key_value(name),
            None if members.len() == 1 && !self.many.load(Ordering::Relaxed) => members.first_key_value(),
            None => None,
        };
        found.map(|(name, member)| (Arc::clone(name), member.clone())).ok_or_else(|| {
            let names: Vec<&str> = members.keys().take(12).map(|name| &**name).collect();
            let here = format!("{} pipelines run here, such as {}", members.len(), names.join(", "));
            match name {
                Some(name) => refuse(StatusCode::NOT_FOUND, &format!("pipeline \"{name}\" does not run here"), &here),
                None => refuse(StatusCode::BAD_REQUEST, "the request names no pipeline", &format!("add ?pipeline=NAME: {here}")),
            }
        })
    }

    /// The nodes of the pipeline that a request names, or of the only one.
    #[expect(clippy::result_large_err, reason = "an answer, made once a request")]
    pub(super) fn nodes(&self, name: Option<&str>) -> Result<Served, Response> {
        let (name, member) = self.member(name)?;
        member.served.ok_or_else(|| {
            let message = format!("pipeline \"{name}\" does not run now: it is {}", member.stage.word());
            refuse(StatusCode::SERVICE_UNAVAILABLE, &message, member.reason.as_deref().unwrap_or("ask again in a moment"))
        })
    }

    /// What `/api/v1/status` says of a pipeline.
    pub(super) fn status(name: &str, member: &Member) -> Status {
        let mut status = match &member.served {
            Some(served) => Status::of(name, &served.status),
            None => Status { pipeline: name.to_owned(), ..Status::default() },
        };
        status.state = member.stage.word().to_owned();
        status.reason.clone_from(&member.reason);
        status.file_problem.clone_from(&member.file_problem);
        status
    }

    /// What `/api/v1/pipelines` says.
    pub(super) fn list(&self) -> Vec<Value> {
        let one = |(name, member): (&Arc<str>, &Member)| {
            let status = Self::status(name, member);
            let sources = status.sources.iter().map(|s| json!({ "source": s.source, "phase": s.phase, "reason": s.reason }));
            json!({
                "pipeline": &**name,
                "file": member.file.as_ref().map(|file| file.display().to_string()),
                "state": member.stage.word(),
                "reason": member.reason,
                "file_problem": member.file_problem,
                "failures": member.failures,
                "tries_again_at": member.tries_again_at,
                "sources": sources.collect::<Vec<_>>(),
                "lag_bytes": status.sources.iter().map(|s| s.lag_bytes).sum::<u64>(),
                "rows": status.sinks.iter().map(|s| s.rows).sum::<u64>(),
            })
        };
        self.members().iter().map(one).collect()
    }

    /// The metrics page.
    pub(super) fn metrics(&self, page: &Page) -> String {
        page.render(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_found_without_its_name_and_one_of_many_is_not() {
        let code = |answer: Result<(Arc<str>, Member), Response>| answer.map(|(name, _)| name.to_string()).map_err(|r| r.status().as_u16());
        let directory = Arc::new(Directory::default());
        directory.change(&"a".into(), |member| member.stage = Stage::Running);
        assert_eq!(code(directory.member(None)), Ok("a".into()));
        assert_eq!(code(directory.member(Some("b"))), Err(404));
        let directory = directory.for_many();
        assert_eq!(code(directory.member(None)), Err(400));
        assert_eq!(code(directory.member(Some("a"))), Ok("a".into()));
        assert_eq!(directory.nodes(Some("a")).err().map(|r| r.status().as_u16()), Some(503), "it has no nodes yet");
        directory.change(&"a".into(), |member| (member.stage, member.reason) = (Stage::Retrying, Some("no slot".into())));
        let said = directory.list().remove(0);
        assert_eq!((said["state"].as_str(), said["reason"].as_str()), (Some("retrying"), Some("no slot")));
        directory.remove("a");
        assert!(directory.members().is_empty());
    }

    #[test]
    fn queries() {
        for (text, expected) in
            [(None, None), (Some("pipeline=a-b"), Some("a-b")), (Some("x=1&pipeline=b"), Some("b")), (Some("pipeline"), None)]
        {
            assert_eq!(query(text, "pipeline"), expected, "{text:?}");
        }
    }
}
