//! A place of the budget that is given back when the server's end of a connection is gone too.
//!
//! A server counts a connection until its process has ended, a moment after the socket was closed here. Who gave the place away
//! at once would have one more there than the budget allows.

use super::socket::Socket;
use crate::contract::Permit;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

/// How long a server may take to end its process. One that is gone says nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The place, and a second handle of the socket to see the server leave by.
#[derive(Debug)]
pub(super) struct Ending {
    permit: Option<Permit>,
    socket: Option<socket2::Socket>,
}

impl Ending {
    /// Of a connection that is to be closed before this is dropped, or just after.
    pub(super) fn new(permit: Permit, socket: Option<socket2::Socket>) -> Self {
        Self { permit: Some(permit), socket }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (Some(permit), Some(socket), Ok(runtime)) = (self.permit.take(), self.socket.take(), Handle::try_current()) else { return };
        // The handle keeps the socket open: the server hears of the end by this.
        let _ = socket.shutdown(Shutdown::Write);
        runtime.spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, gone(socket)).await;
            drop(permit);
        });
    }
}

/// Reads what still comes, up to the end.
async fn gone(socket: socket2::Socket) -> io::Result<()> {
    let is_unix = socket.domain()? == socket2::Domain::UNIX;
    let socket = OwnedFd::from(socket);
    let mut rest: Box<dyn AsyncRead + Send + Unpin> =
        if is_unix { Box::new(UnixStream::from_std(socket.into())?) } else { Box::new(TcpStream::from_std(socket.into())?) };
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(drop)
}

impl Socket {
    /// A second handle of it; `None` when none can be had.
    pub(super) fn second(&self) -> Option<socket2::Socket> {
        let socket = match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).try_clone(),
            Self::Tls(tls) => socket2::SockRef::from(tls.get_ref().0).try_clone(),
            Self::Unix(unix) => socket2::SockRef::from(unix).try_clone(),
        };
        socket.ok()
    }
}
