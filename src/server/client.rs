//! What a command asks of a running pipeline's server. Blocks; loopback, so that a second is long.

use super::status::Status;
use super::tap::CONSENT;
use crate::checkpoint::{Pause, Requested, Resync, Wish};
use etl_stream_operators::contract::{Code, CodedError, Exit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, and each read of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer.
const LONGEST: u64 = 16 << 20;

/// The running pipeline refused.
pub(crate) const RUN_REFUSED: Code = Code::new("RUN0013", Exit::Usage);
/// The running pipeline was not reached, and has to be.
pub(crate) const NOT_RUNNING: Code = Code::new("RUN0031", Exit::Environment);

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
    hint: Option<String>,
}

fn refused(body: &[u8]) -> Option<CodedError> {
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let error = CodedError::definite(RUN_REFUSED, format!("the running pipeline refused: {}", refusal.message));
    Some(match refusal.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// Where a server that listens on an address is reached from this machine.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks for tables to be copied anew. `None`: the pipeline does not run there.
pub(crate) fn resync(listen: SocketAddr, resync: &Resync) -> Option<Result<Vec<Requested>, CodedError>> {
    ask(listen, "/api/v1/resync", resync)
}

/// Asks for sources to be paused or resumed. `None`: the pipeline does not run there.
pub(crate) fn tell(listen: SocketAddr, wish: Wish, pause: &Pause) -> Option<Result<Vec<String>, CodedError>> {
    ask(listen, wish.path(), pause)
}

/// Asks for a pipeline of a folder to drain and start again. `None`: it does not run there.
pub(crate) fn restart(listen: SocketAddr, pipeline: &str) -> Option<Result<String, CodedError>> {
    ask(listen, "/api/v1/restart", &serde_json::json!({ "pipeline": pipeline }))
}

/// The pipelines of a folder. `None`: nothing of ours listens there.
pub(crate) fn pipelines(listen: SocketAddr) -> Option<Vec<serde_json::Value>> {
    let mut stream = send(reached(listen), "GET", "/api/v1/pipelines", "", &[]).ok()?;
    let (status, body) = answer(&mut stream)?;
    let said: serde_json::Value = serde_json::from_slice(&body).ok().filter(|_| status == 200)?;
    said["pipelines"].as_array().cloned()
}

/// What the pipeline says of itself. `None`: it does not run there.
pub(crate) fn status(listen: SocketAddr, pipeline: &str) -> Option<Status> {
    let mut stream = send(reached(listen), "GET", &format!("/api/v1/status?pipeline={pipeline}"), "", &[]).ok()?;
    let (status, body) = answer(&mut stream)?;
    let said: Status = serde_json::from_slice(&body).ok().filter(|_| status == 200)?;
    (said.pipeline == pipeline).then_some(said)
}

fn ask<T: DeserializeOwned>(listen: SocketAddr, path: &str, question: &impl Serialize) -> Option<Result<T, CodedError>> {
    let body = serde_json::to_vec(question).ok()?;
    let mut stream = send(reached(listen), "POST", path, "Content-Type: application/json\r\n", &body).ok()?;
    let (status, body) = answer(&mut stream)?;
    match status {
        200 => serde_json::from_slice(&body).ok().map(Ok),
        422 | 503 => refused(&body).map(Err),
        // Another pipeline's server, or no server of ours.
        _ => None,
    }
}

/// How following a tap ended.
pub(crate) enum Tapped {
    /// All that was wanted, or all that there will be, is written.
    Done,
    /// The pipeline does not run there.
    NotRunning,
    /// It does, and said no.
    Refused(CodedError),
}

/// Writes rows that leave a node, a line each, until there are `limit` or the pipeline ends. Nothing that comes is held
/// back, so that a reader sees rows as they leave.
///
/// # Errors
/// When `out` is not written.
pub(crate) fn tap(
    (listen, pipeline): (SocketAddr, &str),
    node: &str,
    limit: Option<u64>,
    consent: bool,
    out: &mut dyn Write,
) -> io::Result<Tapped> {
    let query = limit.map_or_else(String::new, |limit| format!("&limit={limit}"));
    let header = if consent { format!("{CONSENT}: yes\r\n") } else { String::new() };
    // No node's name has a character that a path cannot.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !node.chars().all(plain) {
        let error = CodedError::definite(RUN_REFUSED, "a node's name has letters, digits, _ and -");
        return Ok(Tapped::Refused(error.hint("name a node of the pipeline file, or one output of it as node.output")));
    }
    let Ok(stream) = send(reached(listen), "GET", &format!("/api/v1/tap/{node}?pipeline={pipeline}{query}"), &header, &[]) else {
        return Ok(Tapped::NotRunning);
    };
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).is_ok_and(|read| read == 0) || head.len() > 64 << 10 {
            return Ok(Tapped::NotRunning);
        }
    }
    match split(&head) {
        Some((200, _)) => {}
        Some((403 | 404 | 400, _)) => {
            let mut body = Vec::new();
            let _ = stream.take(LONGEST).read_to_end(&mut body);
            return Ok(refused(&body).map_or(Tapped::NotRunning, Tapped::Refused));
        }
        _ => return Ok(Tapped::NotRunning),
    }
    // A quiet table says nothing for as long as it is quiet.
    stream.get_ref().set_read_timeout(None)?;
    loop {
        let Ok(bytes) = stream.fill_buf() else { return Ok(Tapped::Done) };
        if bytes.is_empty() {
            return Ok(Tapped::Done);
        }
        out.write_all(bytes)?;
        out.flush()?;
        let read = bytes.len();
        stream.consume(read);
    }
}

/// Sends a request of HTTP/1.0, whose answer ends with its connection.
fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(stream)
}

/// The status and the body of the answer.
fn answer(stream: &mut TcpStream) -> Option<(u16, Vec<u8>)> {
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).ok()?;
    split(&answer)
}

/// The parts of an answer: `HTTP/1.1 status reason`, header lines, an empty line, the body.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.get(end + 4..)?.to_vec()))
}

/// The error of a command that needs the running pipeline.
pub(crate) fn not_running(pipeline: &str, listen: Option<SocketAddr>) -> CodedError {
    let at = listen.map_or_else(|| "(and its file says `server: none`)".to_owned(), |listen| format!("at {}", reached(listen)));
    CodedError::definite(NOT_RUNNING, format!("pipeline \"{pipeline}\" does not run here {at}"))
        .hint("start it with `etl-stream run`; where it was started with `--listen`, name the same address with --listen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", Some((200, b"[]".to_vec()))),
            ("HTTP/1.0 404 Not Found\r\n\r\n", Some((404, vec![]))),
            ("HTTP/1.1 200 OK\r\n", None),
            ("SSH-2.0\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(split(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(reached("0.0.0.0:80".parse().unwrap()), "127.0.0.1:80".parse().unwrap());
    }
}
