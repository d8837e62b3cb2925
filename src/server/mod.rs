//! HTTP: health, readiness, metrics, status, and requests to running pipelines. Loopback by default.
//!
//! `/health` answers while the process lives; lag never affects it. `/ready` answers 200 when every source of every pipeline
//! is copying, streaming or paused, else 503 with the reasons: a pause is somebody's wish, and no restart mends it.
//! `/metrics` is Prometheus text, `/` a page for people, `/api/v1/status` the same as JSON, `/api/v1/pipelines` the list
//! of pipelines. Where several run, `?pipeline=NAME` names one.
//! `POST /api/v1/resync`, `pause`, `resume` and `restart` are in `control`, `GET /api/v1/tap/<node>` is in `tap`.

pub(crate) mod client;
mod control;
pub(crate) mod directory;
mod metrics;
mod monitor;
mod page;
pub(crate) mod status;
mod tap;

use crate::config::ServerSettings;
use crate::dataflow::{Pauses, Taps};
use crate::graph::Graph;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use directory::{Directory, query};
use etl_stream_operators::contract::{Code, CodedError, Exit, Phase, PipelineStatus, StateStore};
use serde_json::{Value, json};
use status::Status;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// The address cannot be listened on.
pub const RUN_LISTEN: Code = Code::new("RUN0006", Exit::Environment);

/// Has the process's metrics kept from here on.
pub(crate) fn listen_to_metrics() {
    let _ = metrics::Page::install();
}

/// A running server.
pub struct Server {
    task: JoinHandle<()>,
}

/// What is served of a pipeline.
#[derive(Clone)]
pub struct Served {
    pipeline: Arc<str>,
    status: Arc<PipelineStatus>,
    state: Arc<dyn StateStore>,
    pauses: Arc<Pauses>,
    taps: Arc<Taps>,
    /// A picture of the pipeline.
    graph: Arc<str>,
    /// Whether the file has row values shown.
    tap: bool,
}

impl Served {
    /// A running pipeline.
    #[must_use]
    pub fn new(graph: &Graph, status: Arc<PipelineStatus>, state: Arc<dyn StateStore>, pauses: Arc<Pauses>, taps: Arc<Taps>) -> Self {
        Self {
            pipeline: Arc::clone(&graph.pipeline),
            status,
            state,
            pauses,
            taps,
            graph: graph.svg().into(),
            tap: graph.server.is_some_and(|server| server.tap),
        }
    }
}

impl Server {
    /// Starts to listen; `None` for no address. The default address is done without when another has it.
    ///
    /// # Errors
    /// `RUN0006` when an address of the user's cannot be listened on.
    pub(crate) async fn start(settings: Option<ServerSettings>, directory: Arc<Directory>) -> Result<Option<Self>, CodedError> {
        let Some(ServerSettings { listen: address, .. }) = settings else { return Ok(None) };
        directory.loopback.store(address.ip().is_loopback(), Ordering::Relaxed);
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
            .route("/api/v1/pipelines", get(pipelines_json))
            .route("/api/v1/status", get(status_json))
            .route("/api/v1/alerts", get(alerts_json))
            .route("/api/v1/servers", get(servers_json))
            .route("/api/v1/resync", post(control::resync))
            .route("/api/v1/pause", post(control::pause))
            .route("/api/v1/resume", post(control::resume))
            .route("/api/v1/restart", post(control::restart))
            .route("/api/v1/tap/{node}", get(tap::tap))
            .with_state(directory);
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

type House = State<Arc<Directory>>;

async fn ready(State(directory): House) -> impl IntoResponse {
    let mut reasons: Vec<Value> = Vec::new();
    for (pipeline, member) in directory.members() {
        match &member.served {
            Some(served) => reasons.extend(served.status.sources().iter().filter_map(|(name, source)| {
                let (phase, reason) = source.phase();
                (!matches!(phase, Phase::Snapshot | Phase::Streaming | Phase::Paused))
                    .then(|| json!({ "pipeline": &*pipeline, "node": name, "phase": phase.word(), "reason": reason }))
            })),
            None => reasons.push(json!({ "pipeline": &*pipeline, "node": null, "phase": member.stage.word(), "reason": member.reason })),
        }
    }
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

async fn show_metrics(State(directory): House) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], directory.metrics(&metrics::Page::install()))
}

async fn pipelines_json(State(directory): House) -> Json<Value> {
    Json(json!({ "pipelines": directory.list() }))
}

async fn status_json(State(directory): House, RawQuery(text): RawQuery) -> Result<Json<Status>, Response> {
    let (name, member) = directory.member(query(text.as_deref(), "pipeline"))?;
    Ok(Json(Directory::status(&name, &member)))
}

async fn alerts_json(State(directory): House, RawQuery(text): RawQuery) -> Result<Json<Value>, Response> {
    let served = directory.nodes(query(text.as_deref(), "pipeline"))?;
    Ok(Json(json!({ "pipeline": &*served.pipeline, "alerts": monitor::alerts(&served.status) })))
}

async fn servers_json(State(directory): House, RawQuery(text): RawQuery) -> Result<Json<Value>, Response> {
    let served = directory.nodes(query(text.as_deref(), "pipeline"))?;
    let (servers, connections) = (monitor::servers(&served.status), monitor::connections(&served.status));
    Ok(Json(json!({ "pipeline": &*served.pipeline, "servers": servers, "connections": connections })))
}

async fn show_page(State(directory): House, RawQuery(text): RawQuery) -> Result<impl IntoResponse, Response> {
    let named = query(text.as_deref(), "pipeline");
    let page = if named.is_none() && directory.many.load(Ordering::Relaxed) {
        page::list(&directory.members())
    } else {
        let (name, member) = directory.member(named)?;
        page::page(&Directory::status(&name, &member), member.served.as_ref().map_or("", |served| &served.graph))
    };
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, page::POLICY)];
    Ok((headers, page))
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
            pauses: Arc::new(Pauses::load(&pipeline, Arc::clone(&state), Arc::clone(&status), [("shop", true)].into_iter()).unwrap()),
            pipeline,
            status: Arc::clone(&status),
            state,
            taps: Arc::default(),
            graph: "".into(),
            tap: false,
        };
        let directory = Arc::new(Directory::default());
        directory.change(&"p".into(), |member| member.served = Some(served));
        for (phase, reason, code) in [
            (Phase::Starting, None, StatusCode::SERVICE_UNAVAILABLE),
            (Phase::Snapshot, None, StatusCode::OK),
            (Phase::Streaming, None, StatusCode::OK),
            (Phase::Paused, None, StatusCode::OK),
            (Phase::Retrying, Some("the server is gone"), StatusCode::SERVICE_UNAVAILABLE),
            (Phase::Stopped, None, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            status.source("shop").set_phase(phase, reason.map(str::to_owned));
            let answer = ready(State(Arc::clone(&directory))).await.into_response();
            assert_eq!(answer.status(), code, "{}", phase.word());
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["ready"], code == StatusCode::OK);
            assert_eq!(body["reasons"][0]["reason"].as_str(), reason);
        }
        status.source("shop").set_phase(Phase::Streaming, None);
        directory.change(&"q".into(), |member| member.stage = directory::Stage::Retrying);
        assert_eq!(
            ready(State(directory)).await.into_response().status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "another pipeline is not there"
        );
    }
}
