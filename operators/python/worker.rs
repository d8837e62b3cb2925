//! A worker: one Python process after the other, fed requests in order.
//!
//! ```text
//! Request ──queue──> keeper ──frames──> Process
//!    ^                  │ again             │
//!    └──── done ────────┴──── reader <──────┘
//! ```
//! # Guarantees
//! - Requests go to the process in the order they came, and each is answered once: by the process, in the order it
//!   likes, or by the error it ends in.
//! - A process that ends, or does not answer in time, is started again, and what it had not answered is sent again: the
//!   user's code sees a batch again. A batch that [`TRIES`] processes did not answer ends in an error.
//! - What is queued here is what callers have outstanding; each of them bounds that.

use super::errors::{PY_DIED, PY_START, PY_TIMEOUT};
use super::frame::Frame;
use super::process::{Launch, Process, ended};
use super::told::Told;
use crate::contract::CodedError;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use metrics::counter;
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Processes that may fail over one request.
const TRIES: u32 = 3;
/// How long `close` may take.
const CLOSE: Duration = Duration::from_secs(5);
/// The first pause before a process is started again; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes the outcome of a request.
pub(crate) type Done = Box<dyn FnOnce(Result<Frame, CodedError>) + Send>;

/// Something for a process.
pub(crate) struct Request {
    /// What is sent.
    pub(crate) frame: Frame,
    /// What it is, for messages: such as `the batch at … of table "…"`.
    pub(crate) subject: String,
    /// Told of the answer.
    pub(crate) done: Done,
    /// Processes that failed over it.
    failures: u32,
    /// What its answer is known by.
    number: u64,
}

impl Request {
    /// A new one.
    pub(crate) fn new(frame: Frame, subject: String, done: Done) -> Self {
        Self { frame, subject, done, failures: 0, number: 0 }
    }
}

/// What was sent and is not answered, and since when the first of it is worked on.
struct Unanswered {
    requests: VecDeque<Request>,
    since: Instant,
    numbers: u64,
}

impl Unanswered {
    /// Notes that a request is on its way; what is sent of it.
    fn sends(&mut self, mut request: Request) -> Frame {
        if self.requests.is_empty() {
            self.since = Instant::now();
        }
        self.numbers += 1;
        request.number = self.numbers;
        let mut frame = request.frame.clone();
        frame.header["number"] = self.numbers.into();
        self.requests.push_back(request);
        frame
    }

    /// The request of an answer.
    fn answered(&mut self, answer: &Frame) -> Option<Request> {
        let number = answer.header.get("number")?.as_u64()?;
        let at = self.requests.iter().position(|request| request.number == number)?;
        self.since = Instant::now();
        self.requests.remove(at)
    }
}

type Shared = Arc<Mutex<Unanswered>>;

fn lock(unanswered: &Shared) -> MutexGuard<'_, Unanswered> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a process fell silent, or ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Late,
    Died,
    /// All callers are gone.
    Closed,
}

/// A worker. Its process ends with it.
pub(crate) struct Worker {
    gone: Arc<AtomicBool>,
    requests: Option<Sender<Request>>,
    keeper: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread that keeps it; the process comes with the first request.
    ///
    /// # Errors
    /// `PY0001` when no thread can be made.
    pub(crate) fn start(launch: Arc<Launch>) -> Result<Self, CodedError> {
        let (requests, queue) = unbounded();
        let node = Arc::clone(&launch.node);
        let gone = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&gone);
        let keeper = thread::Builder::new().name("etl-stream-python".into()).spawn(move || keep(&launch, &queue, &seen));
        let keeper = keeper.map_err(|e| CodedError::transient(PY_START, format!("node \"{node}\" got no thread")).caused_by(e))?;
        Ok(Self { gone, requests: Some(requests), keeper: Some(keeper) })
    }

    /// Asks; `done` is told in any case.
    pub(crate) fn ask(&self, request: Request) {
        if let Some(requests) = &self.requests
            && let Err(refused) = requests.send(request)
        {
            let request = refused.into_inner();
            let error = CodedError::transient(PY_DIED, format!("{}: the worker's thread has ended", request.subject));
            (request.done)(Err(error));
        }
    }

    /// Asks no more: the process is told to end, and nobody waits for that yet.
    pub(crate) fn leave(&mut self) {
        self.gone.store(true, Ordering::Release);
        self.requests = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.leave();
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}

/// Keeps a process for as long as there are callers.
fn keep(launch: &Launch, queue: &Receiver<Request>, gone: &AtomicBool) {
    let mut waiting: VecDeque<Request> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match queue.recv() {
                Ok(request) => waiting.push_back(request),
                Err(_) => return,
            }
        }
        let process = match Process::start(launch, gone) {
            Ok(process) => Arc::new(process),
            Err(error) => {
                if error.is_transient() && fail_first(&mut waiting) < TRIES {
                    continue;
                }
                // The next request tries again: what is missing may have been installed.
                for request in waiting.drain(..).chain(queue.try_iter()) {
                    (request.done)(Err(again(&error)));
                }
                continue;
            }
        };
        let (end, left) = feed(&process, launch, queue, std::mem::take(&mut waiting));
        waiting = left;
        if end == End::Closed {
            process.kill();
            return;
        }
        let status = process.end();
        let why = if end == End::Late { format!("it did not answer within {} s", launch.timeout.as_secs()) } else { ended(status) };
        counter!("etl_stream_python_restarts_total", "node" => launch.node.to_string()).increment(1);
        tracing::warn!(node = &*launch.node, why, requests = waiting.len(), "a Python process is started again, and asked again");
        if fail_first(&mut waiting) >= TRIES
            && let Some(request) = waiting.pop_front()
        {
            let code = if end == End::Late { PY_TIMEOUT } else { PY_DIED };
            let what = if end == End::Late { "did not answer over" } else { "ended over" };
            let message = format!("{TRIES} Python processes of node \"{}\" {what} {}: {why}", launch.node, request.subject);
            let hint = if end == End::Late {
                "`timeout` sets how long one batch may take"
            } else {
                "the log has what it wrote; a kill by signal 9 is often the kernel's, for memory"
            };
            (request.done)(Err(CodedError::definite(code, message).hint(hint)));
        }
    }
}

/// Counts a failure against what was worked on, and pauses.
fn fail_first(waiting: &mut VecDeque<Request>) -> u32 {
    let Some(first) = waiting.front_mut() else { return 0 };
    first.failures += 1;
    thread::sleep(PAUSE * (1 << first.failures.min(6)));
    first.failures
}

/// The same error for each request.
fn again(error: &CodedError) -> CodedError {
    let mut copy = CodedError { class: error.class, ..CodedError::definite(error.code, error.message.clone()) };
    copy.hint.clone_from(&error.hint);
    if let Some(cause) = &error.cause {
        copy = copy.caused_by(cause.to_string());
    }
    copy
}

/// Feeds a process until it ends or there are no more callers. Gives what it did not answer.
fn feed(process: &Arc<Process>, launch: &Launch, queue: &Receiver<Request>, waiting: VecDeque<Request>) -> (End, VecDeque<Request>) {
    let mut sent = Unanswered { requests: VecDeque::new(), since: Instant::now(), numbers: 0 };
    let frames: Vec<Frame> = waiting.into_iter().map(|request| sent.sends(request)).collect();
    let unanswered: Shared = Arc::new(Mutex::new(sent));
    let (ended, end) = unbounded();
    let (at_work, read, timeout) = (Arc::clone(process), Arc::clone(&unanswered), launch.timeout);
    let reader = thread::Builder::new().name("etl-stream-python-answers".into()).spawn(move || {
        let _ = ended.send(answers(&at_work, &read, timeout));
    });
    let mut why = if reader.is_ok() { None } else { Some(End::Died) };
    for frame in frames {
        if why.is_none() && frame.write(&mut &process.socket).is_err() {
            why = Some(end.recv().unwrap_or(End::Died));
        }
    }
    let why = loop {
        if let Some(why) = why {
            break why;
        }
        select! {
            recv(queue) -> request => match request {
                Ok(request) => {
                    let frame = lock(&unanswered).sends(request);
                    if frame.write(&mut &process.socket).is_err() {
                        why = Some(end.recv().unwrap_or(End::Died));
                    }
                }
                Err(_) => why = Some(End::Closed),
            },
            recv(end) -> ended => why = Some(ended.unwrap_or(End::Died)),
        }
    };
    // Who has asked and not waited was stopped: there is nothing to close in order.
    if why == End::Closed && lock(&unanswered).requests.is_empty() {
        let node = Arc::clone(&launch.node);
        let done: Done = Box::new(move |answer| {
            if let Some(told) = answer.ok().and_then(|answer| Told::of(&answer.header)) {
                tracing::warn!(node = &*node, error = %told, "`close` failed");
            }
        });
        let request = Request::new(Frame::of(json!({ "call": "close" })), "`close`".into(), done);
        let frame = lock(&unanswered).sends(request);
        if frame.write(&mut &process.socket).is_ok() {
            let _ = end.recv_timeout(CLOSE);
        }
    }
    let left = std::mem::take(&mut lock(&unanswered).requests);
    (why, left)
}

/// Reads answers until there are none, or one is late: then the process is killed, which ends whoever writes to it.
fn answers(process: &Process, unanswered: &Shared, timeout: Duration) -> End {
    let late = || {
        let sent = lock(unanswered);
        !sent.requests.is_empty() && sent.since.elapsed() > timeout
    };
    loop {
        match process.read(&late) {
            Ok(Some(answer)) => {
                let Some(request) = lock(unanswered).answered(&answer) else {
                    process.kill();
                    return End::Died;
                };
                (request.done)(Ok(answer));
            }
            Ok(None) => return End::Died,
            Err(error) => {
                process.kill();
                return if error.kind() == io::ErrorKind::TimedOut { End::Late } else { End::Died };
            }
        }
    }
}
