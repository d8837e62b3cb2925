//! Requests that change a running pipeline. They take JSON only, which a foreign web page cannot send.

use super::directory::Directory;
use super::{House, Served};
use crate::checkpoint::{Pause, Resync, Wish};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use etl_stream_operators::contract::CodedError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = (StatusCode, Json<Value>);

/// Which pipeline is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meant {
    pipeline: String,
}

/// Marks tables to be copied anew.
pub(super) async fn resync(State(directory): House, Json(resync): Json<Resync>) -> Response {
    let served = match directory.nodes(Some(&resync.pipeline)) {
        Ok(served) => served,
        Err(refusal) => return refusal,
    };
    let sources: Vec<String> = served.status.sources().into_keys().collect();
    let state = Arc::clone(&served.state);
    answer(move || resync.request(&*state, sources.iter().map(String::as_str))).await.into_response()
}

/// Has sources read no more.
pub(super) async fn pause(State(directory): House, Json(pause): Json<Pause>) -> Response {
    tell(&directory, Wish::Pause, pause).await
}

/// Has sources go on.
pub(super) async fn resume(State(directory): House, Json(pause): Json<Pause>) -> Response {
    tell(&directory, Wish::Resume, pause).await
}

/// Has one pipeline drain and start again, with its secrets read anew.
pub(super) async fn restart(State(directory): House, Json(meant): Json<Meant>) -> Response {
    match directory.member(Some(&meant.pipeline)).map(|(_, member)| member.restart) {
        Ok(Some(restart)) => {
            restart();
            (StatusCode::OK, Json(json!(meant.pipeline))).into_response()
        }
        Ok(None) => {
            let hint = "stop the process and start it again; pipelines of a folder (`etl-stream run DIR`) restart one by one";
            let message = format!("pipeline \"{}\" has its process to itself", meant.pipeline);
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "message": message, "hint": hint }))).into_response()
        }
        Err(refusal) => refusal,
    }
}

async fn tell(directory: &Directory, wish: Wish, pause: Pause) -> Response {
    match directory.nodes(Some(&pause.pipeline)) {
        Ok(Served { pauses, .. }) => answer(move || pauses.tell(wish, &pause)).await.into_response(),
        Err(refusal) => refusal,
    }
}

/// Does what was asked of a pipeline, beside the async threads: it is short, and the state's calls may block.
async fn answer<T: Serialize + Send + 'static>(work: impl FnOnce() -> Result<T, CodedError> + Send + 'static) -> Answer {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => (StatusCode::OK, Json(json!(done))),
        Ok(Err(error)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "code": error.code.id, "message": error.message, "hint": error.hint })))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": error.to_string() }))),
    }
}
