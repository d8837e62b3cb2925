//! HTTP: health, readiness, metrics, status, and requests to a running pipeline. Loopback by default.
//!
//! `/health` answers while the process lives; lag never affects it. `/ready` answers 200 when every source
//! is copying, streaming or paused, else 503 with the reasons: a pause is somebody's wish, and no restart mends it.
//! `/metrics` is Prometheus text, `/` a page for people, `/api/v1/status` the same as JSON.
//! `POST /api/v1/resync`, `pause` and `resume` are in `control`, `GET /api/v1/tap/<node>` is in `tap`.

pub(crate) mod client;
mod control;
mod metrics;
mod monitor;
mod page;
pub(crate) mod status;
mod tap;

use crate::config::ServerSettings;
use crate::dataflow::{Pauses, Taps};
use crate::graph::Graph;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use etl_stream_operators::contract::{Code, CodedError, Exit, Phase, PipelineStatus, StateStore};
use serde_json::{Value, json};
use status::Status;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// The address cannot be listened on.
pub const RUN_LISTEN: Code = Code::new("RUN0006", Exit::Environment);

/// Has the process's metrics kept from here on.
pub(crate) fn listen_to_metrics(pipeline: &Arc<str>) {
    let _ = metrics::Page::install(pipeline);
}

/// A running server.
pub struct Server {
    task: JoinHandle<()>,
}

/// What is served.
#[derive(Clone)]
pub struct Served {
    pipeline: Arc<str>,
    status: Arc<PipelineStatus>,
    state: Arc<dyn StateStore>,
    metrics: metrics::Page,
    pauses: Arc<Pauses>,
    taps: Arc<Taps>,
    /// A picture of the pipeline.
    graph: Arc<str>,
    /// Whether the file has row values shown.
    tap: bool,
    /// Whether only this machine reaches the server.
    loopback: bool,
}

impl Served {
    /// A running pipeline.
    #[must_use]
    pub fn new(graph: &Graph, status: Arc<PipelineStatus>, state: Arc<dyn StateStore>, pauses: Arc<Pauses>, taps: Arc<Taps>) -> Self {
        Self {
            pipeline: Arc::clone(&graph.pipeline),
            status,
            state,
            metrics: metrics::Page::install(&graph.pipeline),
            pauses,
            taps,
            graph: graph.svg().into(),
            tap: graph.server.is_some_and(|server| server.tap),
            loopback: graph.server.is_some_and(|server| server.listen.ip().is_loopback()),
        }
    }
}

impl Server {
    /// Starts to listen; `None` for no address. The default address is done without when another has it.
    ///
    /// # Errors
    /// `RUN0006` when an address of the user's cannot be listened on.
    pub async fn start(settings: Option<ServerSettings>, served: Served) -> Result<Option<Self>, CodedError> {
        let Some(ServerSettings { listen: address, .. }) = settings else { return Ok(None) };
        let bound = TcpListener::bind(address).await;
        if let Err(error) = &bound
            && address == ServerSettings::default().listen
        {
            warn!(%address, %error, "running without health, metrics and status; `server:` in the pipeline file sets another address");
            return Ok(None);
        }
        let listener = bound.map_err(|e| {
            CodedError::definite(RUN_LISTEN, format!("the server did not listen on {address}"))
                .caused_by(e)
                .hint("set `server: { listen: \"127.0.0.1:PORT\" }` to a free port, or `server: none`")
        })?;
        info!(address = %listener.local_addr().map_or_else(|_| address.to_string(), |a| a.to_string()), "listening for health, metrics and status");
        let router = Router::new()
            .route("/", get(show_page))
            .route("/health", get(|| async { "ok\n" }))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/readyz", get(ready))
            .route("/metrics", get(show_metrics))
            .route("/api/v1/status", get(status_json))
            .route("/api/v1/alerts", get(alerts_json))
            .route("/api/v1/servers", get(servers_json))
            .route("/api/v1/resync", post(control::resync))
            .route("/api/v1/pause", post(control::pause))
            .route("/api/v1/resume", post(control::resume))
            .route("/api/v1/tap/{node}", get(tap::tap))
            .with_state(served);
        let task = tokio::spawn(async move {
            // The listener lives as long as the process: an error here ends serving, never the pipeline.
            if let Err(error) = axum::serve(listener, router).await {
                warn!(%error, "the health and metrics server ended");
            }
        });
        Ok(Some(Self { task }))
    }

    /// Ends it.
    pub fn stop(self) {
        self.task.abort();
    }
}

async fn ready(State(served): State<Served>) -> impl IntoResponse {
    let reasons: Vec<Value> = served
        .status
        .sources()
        .iter()
        .filter_map(|(name, source)| {
            let (phase, reason) = source.phase();
            (!matches!(phase, Phase::Snapshot | Phase::Streaming | Phase::Paused))
                .then(|| json!({ "node": name, "phase": phase.word(), "reason": reason }))
        })
        .collect();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

async fn show_metrics(State(served): State<Served>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], served.metrics.render(&served.status))
}

async fn status_json(State(served): State<Served>) -> Json<Status> {
    Json(Status::of(&served.pipeline, &served.status))
}

async fn alerts_json(State(served): State<Served>) -> Json<Value> {
    Json(json!({ "pipeline": &*served.pipeline, "alerts": monitor::alerts(&served.status) }))
}

async fn servers_json(State(served): State<Served>) -> Json<Value> {
    let (servers, connections) = (monitor::servers(&served.status), monitor::connections(&served.status));
    Json(json!({ "pipeline": &*served.pipeline, "servers": servers, "connections": connections }))
}

async fn show_page(State(served): State<Served>) -> impl IntoResponse {
    let page = page::page(&Status::of(&served.pipeline, &served.status), &served.graph);
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, page::POLICY)];
    (headers, page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::MemoryState;

    #[tokio::test]
    async fn ready_says_no_while_a_source_is_trying_again() {
        let pipeline: Arc<str> = "p".into();
        let status = Arc::new(PipelineStatus::default());
        let state: Arc<dyn StateStore> = Arc::<MemoryState>::default();
        let served = Served {
            metrics: metrics::Page::install(&pipeline),
            pauses: Arc::new(Pauses::load(&pipeline, Arc::clone(&state), Arc::clone(&status), ["shop"].into_iter()).unwrap()),
            pipeline,
            status: Arc::clone(&status),
            state,
            taps: Arc::default(),
            graph: "".into(),
            tap: false,
            loopback: true,
        };
        for (phase, reason, code) in [
            (Phase::Starting, None, StatusCode::SERVICE_UNAVAILABLE),
            (Phase::Snapshot, None, StatusCode::OK),
            (Phase::Streaming, None, StatusCode::OK),
            (Phase::Paused, None, StatusCode::OK),
            (Phase::Retrying, Some("the server is gone"), StatusCode::SERVICE_UNAVAILABLE),
            (Phase::Stopped, None, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            status.source("shop").set_phase(phase, reason.map(str::to_owned));
            let answer = ready(State(served.clone())).await.into_response();
            assert_eq!(answer.status(), code, "{}", phase.word());
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["ready"], code == StatusCode::OK);
            assert_eq!(body["reasons"][0]["reason"].as_str(), reason);
        }
    }
}
