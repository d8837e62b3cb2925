//! `SO_RCVLOWAT`: how many bytes must wait in a TCP socket before it counts as readable.
//!
//! Why it is here: a walsender flushes every few hundred bytes. Woken for each, both sides spend their time
//! in system calls; woken for 64 KiB, the walsender spends half as much a row.

use std::io;
use std::os::fd::AsRawFd;

/// A second handle of a TCP socket, to set its low-water mark with.
#[derive(Debug)]
pub(super) struct LowWater(socket2::Socket);

impl LowWater {
    /// Of this socket; `None` when no second handle can be had.
    pub(super) fn of(tcp: &tokio::net::TcpStream) -> Option<Self> {
        socket2::SockRef::from(tcp).try_clone().ok().map(Self)
    }

    /// Sets the mark. One wakes a reader at once for whatever waits already.
    #[expect(unsafe_code, reason = "socket2 has no setter of SO_RCVLOWAT")]
    pub(super) fn set(&self, bytes: u32) -> io::Result<()> {
        let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open while `self` lives; the pointer and the length describe a live integer.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
