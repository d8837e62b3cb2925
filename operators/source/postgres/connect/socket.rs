//! A connected socket: TCP, TLS over TCP, or a unix socket.

use super::certificate;
use super::error::{PG_TLS, Stage, broken, tls_error, untrusted};
use super::low_water::LowWater;
use crate::contract::CodedError;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream as PostgresTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// When to call a silent peer dead (libpq's `keepalives*` and `tcp_user_timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) on: bool,
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) count: u32,
    pub(super) user_timeout: Option<Duration>,
}

impl Default for Keepalive {
    /// A peer that is gone is noticed within two minutes, whether or not it owes us an acknowledgement; the
    /// system's own defaults are two hours and a quarter of one.
    fn default() -> Self {
        Self {
            on: true,
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 6,
            user_timeout: Some(Duration::from_secs(120)),
        }
    }
}

/// A connected socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Connects over TCP.
    pub(super) async fn tcp(address: SocketAddr, keepalive: &Keepalive) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        if keepalive.on {
            let times = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval).with_retries(keepalive.count);
            socket.set_tcp_keepalive(&times)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(keepalive.user_timeout)?;
        Ok(tcp)
    }

    /// Connects to a unix socket.
    pub(super) async fn unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::Unix)
    }

    /// The socket's low-water mark, where the system has one that works.
    pub(super) fn low_water(&self) -> Option<LowWater> {
        match self {
            Self::Tcp(tcp) => LowWater::of(tcp, true),
            Self::Tls(tls) => LowWater::of(tls.get_ref().0, false),
            Self::Unix(_) => None,
        }
    }

    /// Whether the bytes are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The hash that binds SCRAM to this TLS session (RFC 5929, tls-server-end-point).
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(tls) => certificate::end_point(tls.get_ref().1.peer_certificates()?.first()?),
            _ => None,
        }
    }
}

/// Why TLS was not agreed on.
pub(super) enum NoTls {
    /// The server does not offer it; the connection is as good as one that never asked (PostgreSQL manual, 55.2.11).
    NotOffered(TcpStream),
    /// It failed; without it may work.
    Handshake(CodedError),
    /// It failed, and going on without it would be wrong.
    Final(CodedError),
}

/// Asks for TLS and shakes hands. `direct`: without asking (PostgreSQL 17 and later).
pub(super) async fn encrypt(mut tcp: TcpStream, config: Arc<ClientConfig>, name: &str, direct: bool, doing: &str) -> Result<Socket, NoTls> {
    let stage = Stage::Connecting { replication: false };
    if !direct {
        let mut request = BytesMut::with_capacity(8);
        frontend::ssl_request(&mut request);
        // One byte exactly: bytes that someone in the middle puts behind it are read as TLS, and fail.
        let mut answer = [0];
        let asked = async {
            tcp.write_all(&request).await?;
            tcp.read_exact(&mut answer).await
        };
        asked.await.map_err(|error| NoTls::Final(broken(doing, stage, error)))?;
        match answer {
            [b'S'] => {}
            [b'N'] => return Err(NoTls::NotOffered(tcp)),
            _ => {
                let error =
                    io::Error::new(io::ErrorKind::InvalidData, "what answers is not a PostgreSQL server, or it takes no connections");
                return Err(NoTls::Final(broken(doing, stage, error)));
            }
        }
    }
    let peer = tcp.peer_addr().map_err(|error| NoTls::Final(broken(doing, stage, error)))?;
    // A name that cannot be one in TLS is sent as the address: no mode that checks names accepts it then.
    let name = ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::IpAddress(peer.ip().into()));
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) if direct && stream.get_ref().1.alpn_protocol() != Some(b"postgresql") => {
            let what = format!("{doing}: what answers speaks TLS and not PostgreSQL's (no ALPN `postgresql`)");
            Err(NoTls::Final(CodedError::definite(PG_TLS, what).hint("servers before 17 need `sslnegotiation=postgres`")))
        }
        Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
        Err(error) => Err(match tls_error(&error) {
            Some(tls @ rustls::Error::InvalidCertificate(_)) => NoTls::Final(untrusted(doing, tls)),
            Some(tls) => NoTls::Handshake(untrusted(doing, tls)),
            None => NoTls::Handshake(broken(doing, stage, error)),
        }),
    }
}

macro_rules! each {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($inner) => $call,
            Socket::Tls($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// tokio-postgres takes a socket that is encrypted already and asks it for its channel binding only.
impl PostgresTls for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Hands an encrypted socket on as it is.
pub(super) struct Encrypted;

impl TlsConnect<Socket> for Encrypted {
    type Stream = Socket;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Socket>>;

    fn connect(self, socket: Socket) -> Self::Future {
        std::future::ready(Ok(socket))
    }
}
