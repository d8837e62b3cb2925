//! Frames of a worker process, read ahead and written behind, without the interpreter's lock.
//!
//! ```text
//! engine ══socket══> reader thread ──queue──> receive()     a batch comes while the one before it is worked on,
//!    socket <── writer thread <──queue── send()             and the one before that leaves
//! ```
//! `worker/frames.py` has the same in Python, one after the other, for interpreters without the wheel.
//!
//! # Guarantees
//! Frames come and go in order; on each side [`WAITING`] of them wait at the most. A body is not copied on its way in.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyConnectionError, PyEOFError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

const MAGIC: [u8; 4] = *b"ETLS";
/// Frames that wait.
const WAITING: usize = 1;
/// Memory that is taken before its bytes have come.
const AHEAD: u64 = 64 << 20;

type Frame = (Vec<u8>, Vec<u8>);

/// A frame's body, where it was read to: for `pyarrow.foreign_buffer(body.address, len(body), body)`.
#[pyclass(frozen, module = "etl_stream._frames")]
struct Body(Vec<u8>);

#[pymethods]
impl Body {
    /// Where its first byte is.
    #[getter]
    fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0)
    }
}

/// The socket of a worker.
#[pyclass(frozen, module = "etl_stream._frames")]
struct Frames {
    incoming: Mutex<Receiver<Frame>>,
    outgoing: Mutex<Option<SyncSender<Frame>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Frames {
    /// Takes over a socket, by its descriptor, which nobody else may use or close from here on.
    #[new]
    fn new(descriptor: RawFd) -> PyResult<Self> {
        #[expect(unsafe_code, reason = "a descriptor comes as a number")]
        // SAFETY: `worker/frames.py` has made the descriptor with `os.dup` for this call, and keeps no other name for it.
        let socket = unsafe { UnixStream::from_raw_fd(descriptor) };
        let mut from = socket.try_clone()?;
        let mut to = socket;
        let (read, incoming) = sync_channel(WAITING);
        let (outgoing, written) = sync_channel::<Frame>(WAITING);
        thread::Builder::new().name("frames-in".into()).spawn(move || {
            while let Ok(frame) = read_frame(&mut from) {
                if read.send(frame).is_err() {
                    break;
                }
            }
        })?;
        let writer = thread::Builder::new().name("frames-out".into()).spawn(move || {
            while let Ok((header, body)) = written.recv() {
                if write_frame(&mut to, &header, &body).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { incoming: Mutex::new(incoming), outgoing: Mutex::new(Some(outgoing)), writer: Mutex::new(Some(writer)) })
    }

    /// The next header, and its body. `EOFError` when the engine has closed.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Body)> {
        let frame = py.detach(|| self.incoming.lock().unwrap_or_else(PoisonError::into_inner).recv());
        let (header, body) = frame.map_err(|_| PyEOFError::new_err("the engine has closed"))?;
        Ok((PyBytes::new(py, &header), Body(body)))
    }

    /// Sends a frame; it may not have left when this returns. `ConnectionError` when the engine has closed.
    fn send(&self, py: Python<'_>, header: Vec<u8>, parts: Vec<PyBuffer<u8>>) -> PyResult<()> {
        let mut body = vec![0; parts.iter().map(|part| part.item_count()).sum()];
        let mut rest = &mut body[..];
        for part in &parts {
            let (own, after) = rest.split_at_mut(part.item_count());
            part.copy_to_slice(py, own)?;
            rest = after;
        }
        py.detach(|| {
            let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
            outgoing.as_ref().and_then(|outgoing| outgoing.send((header, body)).ok())
        })
        .ok_or_else(|| PyConnectionError::new_err("the engine has closed"))
    }

    /// Waits until everything has left.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).take();
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ = writer.map(JoinHandle::join);
        });
    }
}

fn read_frame(from: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 16];
    from.read_exact(&mut head)?;
    let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _] = head;
    let [_, _, _, _, a, b, c, d, body @ ..] = head;
    if magic != MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let header = part(from, u64::from(u32::from_le_bytes([a, b, c, d])))?;
    let body = part(from, u64::from_le_bytes(body))?;
    Ok((header, body))
}

fn part(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(AHEAD) as usize);
    from.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn write_frame(to: &mut impl Write, header: &[u8], body: &[u8]) -> io::Result<()> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes());
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    head.extend_from_slice(header);
    to.write_all(&head)?;
    to.write_all(body)
}

/// Frames of a worker process; see the crate.
#[pymodule]
fn _frames(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Frames>()?;
    module.add_class::<Body>()
}
