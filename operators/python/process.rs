//! One Python process, from its start to its end.
//!
//! ```text
//! engine ══unix socket (the process's descriptor 0)══ worker/frames.py ── the user's code
//!    ^                                                                        │
//!    └── log <── standard output and error ───────────────────────────────────┘
//! ```
//! # Guarantees
//! Standard output and error go to the log, whatever is written there; the protocol has a socket of its own. A process
//! ends with its value, and with the engine should that be killed.

use super::errors::{PY_MODULE, PY_PYARROW, PY_START};
use super::frame::Frame;
use super::told::Told;
use crate::contract::CodedError;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the interpreter is started with: it reads the worker's code from the socket, so that a list of processes does not
/// show it. `-c` would look for modules in the current folder first, where anything may be called json.py.
const STUB: &str = "import os, sys
sys.path[:] = [place for place in sys.path if place]
def read(length):
    text = b''
    while len(text) < length:
        part = os.read(0, length - len(text))
        if not part:
            sys.exit(1)
        text += part
    return text
exec(compile(read(int(read(12))), '<etl-stream>', 'exec'))
";
/// How often a reader looks whether it has waited for too long.
const LOOK: Duration = Duration::from_millis(50);
/// How long a start may take at the least: imports take their time on a busy machine, whatever a batch may take.
const START: Duration = Duration::from_secs(60);
/// Bytes of a line of output that are logged as one.
const LINE: u64 = 8 << 10;

/// How the processes of a node are started.
pub(crate) struct Launch {
    /// The node, for messages.
    pub(crate) node: Arc<str>,
    /// The interpreter.
    pub(crate) python: PathBuf,
    /// What it runs: the worker's own code.
    pub(crate) script: &'static str,
    /// The first frame's header, which may hold secrets: it goes through the socket and nowhere else.
    pub(crate) settings: Value,
    /// Variables of the environment.
    pub(crate) environment: Vec<(String, String)>,
    /// How long one answer may take; a start at least [`START`].
    pub(crate) timeout: Duration,
}

/// The interpreter that runs when the settings name none: the one beside this program, where a wheel has put both, or the
/// first `python3` of the path.
pub(crate) fn default_python() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("python3"))).filter(|python| python.is_file());
    beside.unwrap_or_else(|| "python3".into())
}

/// A process that has taken its settings.
pub(crate) struct Process {
    child: Mutex<Child>,
    /// The socket. Its reads come back every [`LOOK`].
    pub(crate) socket: UnixStream,
}

impl Process {
    /// Starts one and waits until it is ready, or nobody needs it any more.
    ///
    /// # Errors
    /// `PY0001` when it does not come up, `PY0002` and `PY0003` for what it does not find. Definite, but for a process
    /// that ended without a word.
    pub(crate) fn start(launch: &Launch, gone: &AtomicBool) -> Result<Self, CodedError> {
        let Launch { node, python, .. } = launch;
        let doing = format!("a Python process of node \"{node}\" did not start");
        let failed = |error: io::Error| CodedError::transient(PY_START, doing.clone()).caused_by(error);
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
        let mut command = Command::new(python);
        command.args(["-c", STUB, "etl-stream-worker", node]).env("PYTHONUNBUFFERED", "1").envs(launch.environment.iter().cloned());
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            CodedError::definite(PY_START, format!("{doing}: {} was not run", python.display()))
                .hint("set `python` to an interpreter that has pyarrow, such as .venv/bin/python")
                .caused_by(error)
        })?;
        // The command holds our copy of the other end: without it the socket tells of the process's end.
        drop(command);
        log_lines(node, child.stdout.take(), "stdout");
        log_lines(node, child.stderr.take(), "stderr");
        let process = Self { child: Mutex::new(child), socket };
        let code = format!("{:012}{}", launch.script.len(), launch.script);
        (&process.socket).write_all(code.as_bytes()).map_err(failed)?;
        let mut settings = launch.settings.clone();
        settings["call"] = json!("start");
        Frame::of(settings).write(&mut &process.socket).map_err(failed)?;
        let allowed = launch.timeout.max(START);
        let deadline = Instant::now() + allowed;
        match process.read(&|| Instant::now() > deadline || gone.load(Ordering::Acquire)) {
            Ok(Some(answer)) => match Told::of(&answer.header) {
                None => Ok(process),
                Some(told) => Err(not_ready(told, &doing)),
            },
            Ok(None) | Err(_) if Instant::now() <= deadline => {
                let status = process.end();
                Err(CodedError::transient(PY_START, format!("{doing}: it ended at once ({})", ended(status)))
                    .hint("the log has what it wrote to standard error"))
            }
            _ => Err(CodedError::definite(PY_START, format!("{doing} within {} s", allowed.as_secs()))
                .hint("look at what the module does when it is imported; `timeout` sets how long it may take")),
        }
    }

    /// Reads a frame, until `late` says that it took too long; nothing when the process has closed the socket.
    ///
    /// # Errors
    /// `TimedOut`, and when what came is no frame.
    pub(crate) fn read(&self, late: &dyn Fn() -> bool) -> io::Result<Option<Frame>> {
        Frame::read(&mut Patient { socket: &self.socket, late })
    }

    /// Kills it, and says how it ended.
    pub(crate) fn end(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // One that ends by itself says why.
        for _ in 0..20 {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        child.wait().ok()
    }

    /// Kills it at once; whoever waits for it sees that.
    pub(crate) fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn not_ready(told: Told, doing: &str) -> CodedError {
    let (code, hint) = match &*told.kind {
        "pyarrow" => {
            (PY_PYARROW, "install it beside the interpreter: `<python> -m pip install pyarrow`, or set `python` to one that has it")
        }
        "module" => (PY_MODULE, "compare `module`, `class` and `function` with the file, and `path` with where it is"),
        _ => (PY_START, "the log has what the process wrote"),
    };
    CodedError::definite(code, format!("{doing}: {}", told.message)).hint(hint).caused_by(told)
}

/// How a process ended, in words.
pub(crate) fn ended(status: Option<ExitStatus>) -> String {
    match status {
        None => "its exit is not known".into(),
        Some(status) => match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit code {}", status.code().unwrap_or(-1)),
        },
    }
}

/// A socket that is read until it is too late.
struct Patient<'a> {
    socket: &'a UnixStream,
    late: &'a dyn Fn() -> bool,
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.socket).read(bytes) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if (self.late)() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                done => return done,
            }
        }
    }
}

/// Passes lines on to the log until the pipe is closed.
fn log_lines(node: &Arc<str>, pipe: Option<impl Read + Send + 'static>, stream: &'static str) {
    let (node, Some(pipe)) = (Arc::clone(node), pipe) else { return };
    let _ = thread::Builder::new().name("etl-stream-log".into()).spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(lines.by_ref().take(LINE).read_until(b'\n', &mut line), Ok(read) if read > 0) {
            tracing::info!(target: "etl_stream::python", node = &*node, stream, "{}", String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    });
}
