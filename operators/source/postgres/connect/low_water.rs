//! `SO_RCVLOWAT`: how many bytes must wait in a TCP socket before it counts as readable.
//!
//! Why it is here: a walsender sends every row by itself. Woken for each, both sides spend their time in system
//! calls; woken for none while the reader rests, the walsender spends two thirds as much a row.

use bytes::{BufMut, BytesMut};
use socket2::{SockRef, Socket};
use std::io;
use std::os::fd::AsRawFd;

/// A second handle of a TCP socket: to set its low-water mark, and to read what waits below it.
#[derive(Debug)]
pub(super) struct LowWater {
    socket: Socket,
    /// Its bytes are the protocol's, not TLS's.
    plain: bool,
    /// The mark is raised.
    raised: bool,
}

impl LowWater {
    /// A mark that a socket reaches when it is full: the system bounds it by what the socket holds.
    pub(super) const HIGH: u32 = 1 << 20;
    /// What a socket of the loopback holds. The loopback has no delay that more of it would bridge.
    const LITTLE: usize = 64 << 10;

    /// Of this socket; `None` when no second handle can be had.
    pub(super) fn of(tcp: &tokio::net::TcpStream, plain: bool) -> Option<Self> {
        SockRef::from(tcp).try_clone().ok().map(|socket| Self { socket, plain, raised: false })
    }

    /// Has the socket hold little, if its peer is on the loopback.
    pub(super) fn hold_little(&self) {
        let peer = self.socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        if peer.is_some_and(|peer| peer.ip().is_loopback()) {
            // It works without, only slower.
            let _ = self.socket.set_recv_buffer_size(Self::LITTLE);
        }
    }

    /// Reads what is there now, at most `most` bytes; nothing when nothing is, or when only TLS can read it. `Some(0)` is
    /// the end.
    #[expect(unsafe_code, reason = "reads into room that holds nothing yet")]
    pub(super) fn read(&self, buffer: &mut BytesMut, most: usize) -> io::Result<Option<usize>> {
        let before = buffer.len();
        let mut total = 0;
        while self.plain && total < most {
            let spare = buffer.spare_capacity_mut();
            let length = spare.len().min(most - total);
            match self.socket.recv(spare.get_mut(..length).unwrap_or_default()) {
                Ok(0) if total == 0 => return Ok(Some(0)),
                Ok(0) => break,
                // SAFETY: the system wrote this many bytes to the start of the spare room.
                Ok(read) => unsafe { buffer.advance_mut(read) },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || total > 0 => break,
                Err(error) => return Err(error),
            }
            total = buffer.len() - before;
        }
        Ok((total > 0).then_some(total))
    }

    /// Raises the mark unless it is raised; whether it is.
    pub(super) fn raise(&mut self, bytes: u32) -> bool {
        self.raised = self.raised || self.set(bytes).is_ok();
        self.raised
    }

    /// Lowers the mark if it is raised: a reader is woken at once for whatever waits already.
    pub(super) fn lower(&mut self) {
        if std::mem::take(&mut self.raised) {
            let _ = self.set(1);
        }
    }

    /// Whether the mark is raised.
    pub(super) fn is_raised(&self) -> bool {
        self.raised
    }

    /// Sets the mark.
    #[expect(unsafe_code, reason = "socket2 has no setter of SO_RCVLOWAT")]
    fn set(&self, bytes: u32) -> io::Result<()> {
        let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open while `self` lives; the pointer and the length describe a live integer.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
