//! Requests that change a running pipeline. They take JSON only, which a foreign web page cannot send.

use super::Served;
use crate::checkpoint::{Pause, Resync, Wish};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use etl_stream_operators::contract::CodedError;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = (StatusCode, Json<Value>);

/// Marks tables to be copied anew.
pub(super) async fn resync(State(served): State<Served>, Json(resync): Json<Resync>) -> impl IntoResponse {
    let sources: Vec<String> = served.status.sources().into_keys().collect();
    let pipeline = resync.pipeline.clone();
    let state = Arc::clone(&served.state);
    answer(&served, &pipeline, move || resync.request(&*state, sources.iter().map(String::as_str))).await
}

/// Has sources read no more.
pub(super) async fn pause(State(served): State<Served>, Json(pause): Json<Pause>) -> impl IntoResponse {
    tell(served, Wish::Pause, pause).await
}

/// Has sources go on.
pub(super) async fn resume(State(served): State<Served>, Json(pause): Json<Pause>) -> impl IntoResponse {
    tell(served, Wish::Resume, pause).await
}

async fn tell(served: Served, wish: Wish, pause: Pause) -> Answer {
    let (pipeline, pauses) = (pause.pipeline.clone(), Arc::clone(&served.pauses));
    answer(&served, &pipeline, move || pauses.tell(wish, &pause)).await
}

/// Does what was asked of this pipeline, beside the async threads: it is short, and the state's calls may block.
async fn answer<T: Serialize + Send + 'static>(
    served: &Served,
    pipeline: &str,
    work: impl FnOnce() -> Result<T, CodedError> + Send + 'static,
) -> Answer {
    if *pipeline != *served.pipeline {
        return (StatusCode::NOT_FOUND, Json(json!({ "message": format!("pipeline \"{}\" runs here", served.pipeline) })));
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => (StatusCode::OK, Json(json!(done))),
        Ok(Err(error)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "code": error.code.id, "message": error.message, "hint": error.hint })))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": error.to_string() }))),
    }
}
