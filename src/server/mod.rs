//! HTTP: health, readiness, metrics and status. Loopback by default.
//!
//! `/health` answers while the process lives; lag never affects it. `/ready` answers 200 when every source
//! is copying or streaming, else 503 with the reasons. `/metrics` is Prometheus text.
//! `POST /api/v1/resync` marks tables to be copied anew; it takes JSON only, which a foreign web page cannot send.

pub(crate) mod client;
mod metrics;
mod monitor;

use crate::checkpoint::Resync;
use crate::config::ServerSettings;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use etl_stream_operators::contract::{Code, CodedError, Exit, Phase, PipelineStatus, StateStore};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

#[derive(Clone)]
struct Served {
    pipeline: Arc<str>,
    status: Arc<PipelineStatus>,
    state: Arc<dyn StateStore>,
    metrics: metrics::Page,
}

impl Server {
    /// Starts to listen; `None` for no address. The default address is done without when another has it.
    ///
    /// # Errors
    /// `RUN0006` when an address of the user's cannot be listened on.
    pub async fn start(
        listen: Option<SocketAddr>,
        pipeline: &Arc<str>,
        status: Arc<PipelineStatus>,
        state: Arc<dyn StateStore>,
    ) -> Result<Option<Self>, CodedError> {
        let metrics = metrics::Page::install(pipeline);
        let Some(address) = listen else { return Ok(None) };
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
        let served = Served { pipeline: Arc::clone(pipeline), status, state, metrics };
        let router = Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/readyz", get(ready))
            .route("/metrics", get(show_metrics))
            .route("/api/v1/status", get(status_json))
            .route("/api/v1/alerts", get(alerts_json))
            .route("/api/v1/resync", post(resync))
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
            (!matches!(phase, Phase::Snapshot | Phase::Streaming)).then(|| json!({ "node": name, "phase": phase.word(), "reason": reason }))
        })
        .collect();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

async fn resync(State(served): State<Served>, Json(resync): Json<Resync>) -> impl IntoResponse {
    if resync.pipeline != *served.pipeline {
        return (StatusCode::NOT_FOUND, Json(json!({ "message": format!("pipeline \"{}\" runs here", served.pipeline) })));
    }
    let sources: Vec<String> = served.status.sources().into_keys().collect();
    // Short, and the state's calls may block.
    let done = tokio::task::spawn_blocking(move || resync.request(&*served.state, sources.iter().map(String::as_str))).await;
    match done {
        Ok(Ok(found)) => (StatusCode::OK, Json(json!(found))),
        Ok(Err(error)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "code": error.code.id, "message": error.to_string(), "hint": error.hint })))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": error.to_string() }))),
    }
}

async fn show_metrics(State(served): State<Served>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], served.metrics.render(&served.status))
}

async fn status_json(State(served): State<Served>) -> Json<Value> {
    let sources: Vec<Value> = served
        .status
        .sources()
        .iter()
        .map(|(name, source)| {
            let (phase, reason) = source.phase();
            let tables: Vec<Value> = source
                .tables()
                .iter()
                .map(|(table, t)| json!({ "table": table, "phase": t.phase.word(), "snapshot_rows": t.snapshot_rows, "estimated_rows": t.estimated_rows, "failed": t.failed.as_ref().map(|e| e.to_string()) }))
                .collect();
            json!({
                "source": name, "phase": phase.word(), "reason": reason, "lag_bytes": source.lag_bytes(),
                "confirmed_lsn": etl_stream_operators::contract::Lsn(source.confirmed_lsn.load(Ordering::Relaxed)).to_string(),
                "changes": source.changes.load(Ordering::Relaxed), "transactions": source.transactions.load(Ordering::Relaxed),
                "bytes": source.bytes.load(Ordering::Relaxed),
                "open_transactions": source.open_transactions.load(Ordering::Relaxed),
                "held_bytes": source.held_bytes.load(Ordering::Relaxed),
                "spilled_bytes": source.spilled_bytes.load(Ordering::Relaxed),
                "streamed_transactions": source.streamed_transactions.load(Ordering::Relaxed), "tables": tables,
            })
        })
        .collect();
    let sinks: Vec<Value> = served
        .status
        .sinks()
        .iter()
        .map(|(name, sink)| {
            let stopped: Vec<Value> = sink
                .stopped()
                .iter()
                .map(|((source, table), t)| {
                    json!({ "source": source, "table": table, "since": t.since.to_string(), "discarded_rows": t.discarded_rows,
                            "code": t.error.code.id, "reason": t.error.message, "hint": t.error.hint })
                })
                .collect();
            json!({ "sink": name, "rows": sink.rows.load(Ordering::Relaxed), "bytes": sink.bytes.load(Ordering::Relaxed),
                    "rejected_rows": sink.rejected_rows.load(Ordering::Relaxed),
                    "dead_letter_rows": sink.dead_letter_rows.load(Ordering::Relaxed), "retries": sink.retries.load(Ordering::Relaxed),
                    "stopped_tables": stopped })
        })
        .collect();
    Json(json!({
        "pipeline": &*served.pipeline, "sources": sources, "sinks": sinks, "servers": monitor::servers(&served.status),
        "alerts": monitor::alerts(&served.status), "connections": monitor::connections(&served.status),
    }))
}

async fn alerts_json(State(served): State<Served>) -> Json<Value> {
    Json(json!({ "pipeline": &*served.pipeline, "alerts": monitor::alerts(&served.status) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::MemoryState;

    #[tokio::test]
    async fn ready_says_no_while_a_source_is_trying_again() {
        let pipeline: Arc<str> = "p".into();
        let status = Arc::new(PipelineStatus::default());
        let served = Served {
            metrics: metrics::Page::install(&pipeline),
            pipeline,
            status: Arc::clone(&status),
            state: Arc::<MemoryState>::default(),
        };
        for (phase, reason, code) in [
            (Phase::Starting, None, StatusCode::SERVICE_UNAVAILABLE),
            (Phase::Snapshot, None, StatusCode::OK),
            (Phase::Streaming, None, StatusCode::OK),
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
