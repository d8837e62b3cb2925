//! What a command asks of a running pipeline's server. Blocks; loopback, so that a second is long.

use crate::checkpoint::{Requested, Resync};
use etl_stream_operators::contract::{Code, CodedError, Exit};
use serde::Deserialize;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, and each read of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer.
const LONGEST: u64 = 16 << 20;

/// The running pipeline refused.
pub(crate) const RESYNC_REFUSED: Code = Code::new("RUN0013", Exit::Usage);

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
    hint: Option<String>,
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
    let body = serde_json::to_vec(resync).ok()?;
    let (status, body) = post(reached(listen), "/api/v1/resync", &body)?;
    match status {
        200 => serde_json::from_slice(&body).ok().map(Ok),
        422 => {
            let refusal: Refusal = serde_json::from_slice(&body).ok()?;
            let error = CodedError::definite(RESYNC_REFUSED, format!("the running pipeline refused: {}", refusal.message));
            Some(Err(match refusal.hint {
                Some(hint) => error.hint(hint),
                None => error,
            }))
        }
        // Another pipeline's server, or no server of ours.
        _ => None,
    }
}

/// An HTTP/1.1 exchange: the status and the body of the answer.
fn post(address: SocketAddr, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()?;
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
