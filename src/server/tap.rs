//! `GET /api/v1/tap/<node>`: rows that leave a node, as NDJSON, for as long as somebody reads.
//!
//! # Guarantees
//! Rows are values, so they are shown only where the pipeline file says `server: { tap: true }`, or where the server
//! listens on a loopback address and the request says that values are wanted, with a header that a foreign web page
//! cannot send. A reader that is slow gets less, and keeps nobody waiting.

use super::House;
use super::directory::{query, refuse};
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use etl_stream_operators::contract::{CodedError, RowBatch};
use etl_stream_operators::sink::line::LineWriter;
use futures::stream;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::Receiver;

/// The header that says that row values are wanted.
pub(crate) const CONSENT: &str = "x-etl-stream-show-values";

/// Rows to show, of `limit=N`; all without it.
fn limit(text: Option<&str>) -> Option<u64> {
    query(text, "limit").map_or(Some(u64::MAX), |number| number.parse().ok())
}

/// Whether the request was sent to this machine's own address: a name of somebody else's may lead here too.
fn local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

/// Shows rows.
pub(super) async fn tap(State(directory): House, Path(node): Path<String>, RawQuery(text): RawQuery, headers: HeaderMap) -> Response {
    let served = match directory.nodes(query(text.as_deref(), "pipeline")) {
        Ok(served) => served,
        Err(refusal) => return refusal,
    };
    let consented = directory.loopback.load(Ordering::Relaxed) && headers.contains_key(CONSENT) && local(&headers);
    if !served.tap && !consented {
        let hint =
            "on this machine, with a server on a loopback address, `etl-stream tap --show-values` does; elsewhere `server: { tap: true }`";
        return refuse(StatusCode::FORBIDDEN, "rows are values, and are not shown unasked", hint);
    }
    let Some(tap) = served.taps.get(&node) else {
        let names: Vec<&str> = served.taps.names().collect();
        return refuse(StatusCode::NOT_FOUND, &format!("there is no \"{node}\" to tap"), &format!("valid here: {}", names.join(", ")));
    };
    let Some(limit) = limit(text.as_deref()) else {
        return refuse(StatusCode::BAD_REQUEST, "`limit` is no number", "write limit=100");
    };
    let lines = stream::unfold((tap.listen(), limit), next);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// The lines of the next batch.
async fn next((mut listener, left): (Receiver<RowBatch>, u64)) -> Option<(Result<Bytes, CodedError>, (Receiver<RowBatch>, u64))> {
    if left == 0 {
        return None;
    }
    let batch = listener.recv().await?;
    let shown = usize::try_from(left).unwrap_or(usize::MAX).min(batch.len());
    let lines = lines(&batch.slice(0, shown));
    let left = if lines.is_ok() { left - shown as u64 } else { 0 };
    Some((lines, (listener, left)))
}

fn lines(batch: &RowBatch) -> Result<Bytes, CodedError> {
    let writer = LineWriter::new(&batch.table, true)?;
    let bound = writer.bind(batch);
    let mut text = Vec::new();
    (0..batch.len()).for_each(|row| bound.write(row, &mut text));
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_this_machine() {
        for (host, here) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("evil.example:8080", false),
            ("", false),
            ("localhost.evil", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            assert_eq!(local(&headers), here, "{host}");
        }
        assert!(!local(&HeaderMap::new()));
        for (query, expected) in
            [(None, Some(u64::MAX)), (Some("limit=7"), Some(7)), (Some("a=1&limit=0"), Some(0)), (Some("limit=x"), None)]
        {
            assert_eq!(limit(query), expected, "{query:?}");
        }
    }
}
