//! Several processes that run one pipeline: timely's own cluster mode, over connections made here.
//!
//! ```text
//! process I ──connects──> 0 … I-1      hello: what runs, as which process, with how many workers
//!           <─accepts──── I+1 … N-1    then timely's own protocol, unencrypted: a private network
//! ```
//! Sources are spread over all workers by a hash of their names, tables by a hash of theirs. All processes start, end and fail
//! together: there is no membership (`docs/adr/0006-processes-fail-together.md`).
//!
//! # Guarantees
//! - Processes that do not run the same pipeline in the same way refuse each other before any row is read.
//! - The end of a process, however it ends, ends the others: what was not durable is read again by the next run.
//! - A stop that one process is asked for reaches all.

use super::failure::Failures;
use super::plan::Plan;
use super::together::{StopAll, together};
use super::workers::{Alarm, RUN_WORKERS, Workers};
use crate::graph::Graph;
use etl_stream_operators::contract::{Code, CodedError, Exit};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use timely::WorkerConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks};
use tracing::info;

/// The other processes were not reached.
pub(crate) const CLUSTER_JOIN: Code = Code::new("RUN0050", Exit::Environment);
/// Another process is gone.
pub(crate) const CLUSTER_LOST: Code = Code::new("RUN0051", Exit::Failure);
/// The processes do not run the same.
pub(crate) const CLUSTER_UNLIKE: Code = Code::new("RUN0052", Exit::Usage);
/// The pipeline cannot be spread over processes as its file is.
pub(crate) const CLUSTER_FILE: Code = Code::new("RUN0053", Exit::Usage);

/// How long the others are waited for at the start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts, and the longest wait for a hello.
const PAUSE: Duration = Duration::from_millis(100);
const HELLO: Duration = Duration::from_secs(5);
/// What a hello begins with.
const MAGIC: u64 = 0x6574_6c2d_7374_7231;

/// A process's place among its peers.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Which of them it is.
    pub process: usize,
    /// Where each listens, `host:port`.
    pub addresses: Vec<String>,
}

/// What processes that belong together agree in.
fn fingerprint(graph: &Graph, processes: usize) -> u64 {
    let text = format!("{} {} {processes} {} {:?}", env!("CARGO_PKG_VERSION"), graph.pipeline, graph.engine.workers, graph.nodes);
    hash(&text)
}

/// FNV-1a, mixed: the same in every process, and names that differ in a letter are far apart.
pub(super) fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

impl Cluster {
    /// How many processes there are.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// Whether the pipeline can be run so.
    ///
    /// # Errors
    /// `RUN0053`.
    pub fn fits(&self, graph: &Graph) -> Result<(), CodedError> {
        if graph.state.is_shared() {
            return Ok(());
        }
        Err(CodedError::definite(CLUSTER_FILE, "several processes cannot share a state file")
            .hint("set `state: { type: postgres, url: { env: STATE_URL } }` in the pipeline file"))
    }

    /// Connects to the others and starts this process's worker threads with these dataflows. Blocks until all are there.
    ///
    /// # Errors
    /// `RUN0050` when they are not there in time, `RUN0052` when they are others, `RUN0004`.
    pub(super) fn start(&self, graph: &Graph, plans: Vec<Plan>, failures: Failures, stop: StopAll) -> Result<Workers, CodedError> {
        let threads = graph.engine.workers.max(1);
        let sockets = self.connect(fingerprint(graph, self.processes()), PATIENCE)?;
        let failed = |why: String| CodedError::definite(RUN_WORKERS, format!("{threads} worker threads were not started: {why}"));
        let hooks = Hooks::default();
        let builders = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
        let (builders, others) =
            initialize_networking_from_sockets(builders, sockets, self.process, threads, hooks).map_err(|e| failed(e.to_string()))?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        let abort = Arc::new(AtomicBool::new(false));
        let leave = Arc::clone(&abort);
        let first = self.process * threads;
        let guards = timely::execute::execute_from(builders, Box::new(others), WorkerConfig::default(), move |worker| {
            let _alarm = Alarm::of_cluster(failures.clone());
            let all = worker.next_dataflow_index();
            together(worker, &stop, first);
            plans.iter().for_each(|plan| plan.build(worker));
            // Every source's dataflow ends everywhere at once, or not at all.
            while worker.installed_dataflows().iter().any(|dataflow| *dataflow != all) && !leave.load(Ordering::Acquire) {
                worker.step_or_park(None);
            }
            worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
        })
        .map_err(failed)?;
        info!(process = self.process, processes = self.processes(), "all processes are there");
        Ok(Workers::Own { guards, abort })
    }

    /// A connection to each other process, in their order.
    fn connect(&self, fingerprint: u64, patience: Duration) -> Result<Vec<Option<TcpStream>>, CodedError> {
        let deadline = Instant::now() + patience;
        let own = &self.addresses[self.process];
        let listener = loop {
            match TcpListener::bind(own.as_str()).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
                Ok(listener) => break listener,
                // A process before this one may still be ending.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(error) => {
                    return Err(CodedError::transient(CLUSTER_JOIN, format!("process {} did not listen on {own}", self.process))
                        .caused_by(error)
                        .hint("line I of the host file is where process I listens: an address of its own machine"));
                }
            }
        };
        let hello = [MAGIC, self.process as u64, self.processes() as u64, fingerprint];
        let mut sockets: Vec<Option<TcpStream>> = (0..self.processes()).map(|_| None).collect();
        loop {
            for (peer, socket) in sockets.iter_mut().enumerate().take(self.process) {
                if socket.is_none() {
                    *socket = self.call(peer, hello)?;
                }
            }
            if let Ok((socket, from)) = listener.accept() {
                match greet(socket, hello) {
                    Ok(Some((peer, socket))) if peer > self.process && peer < self.processes() => sockets[peer] = Some(socket),
                    Ok(Some((peer, _))) => return Err(self.unlike(&format!("{from}, which says that it is process {peer}"))),
                    // Not one of ours, or one that is gone already.
                    Ok(None) => {}
                    Err(Unlike) => return Err(self.unlike(&from.to_string())),
                }
                continue;
            }
            let missing: Vec<&str> = sockets
                .iter()
                .zip(&self.addresses)
                .enumerate()
                .filter(|(peer, (socket, _))| *peer != self.process && socket.is_none())
                .map(|(_, (_, address))| address.as_str())
                .collect();
            if missing.is_empty() {
                return Ok(sockets);
            }
            if Instant::now() >= deadline {
                let message = format!("process {} waited {} s in vain for {}", self.process, patience.as_secs(), missing.join(", "));
                return Err(CodedError::transient(CLUSTER_JOIN, message)
                    .hint("start every process of the cluster, with the same host file; their ports must be open to each other"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn unlike(&self, other: &str) -> CodedError {
        CodedError::definite(CLUSTER_UNLIKE, format!("process {} and {other} do not run the same", self.process))
            .hint("give each the same pipeline file, program, host file, --processes and --workers, and an index of its own")
    }

    /// Calls a process; nothing when it is not there yet.
    fn call(&self, peer: usize, hello: [u64; 4]) -> Result<Option<TcpStream>, CodedError> {
        let address = &self.addresses[peer];
        let Some(socket) = address.to_socket_addrs().ok().and_then(|mut all| all.find_map(|a| TcpStream::connect_timeout(&a, HELLO).ok()))
        else {
            return Ok(None);
        };
        match greet(socket, hello) {
            Ok(Some((other, socket))) if other == peer => Ok(Some(socket)),
            Ok(Some((other, _))) => Err(self.unlike(&format!("{address}, which says that it is process {other}"))),
            Ok(None) => Ok(None),
            Err(Unlike) => Err(self.unlike(address)),
        }
    }
}

/// The other end runs something else.
struct Unlike;

/// Says hello and hears the other's: who it is. Nothing when it does not answer as a process of ours does.
fn greet(mut socket: TcpStream, hello: [u64; 4]) -> Result<Option<(usize, TcpStream)>, Unlike> {
    let mut heard = [0_u8; 32];
    let talk = |socket: &mut TcpStream, heard: &mut [u8; 32]| -> io::Result<()> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(HELLO))?;
        socket.set_write_timeout(Some(HELLO))?;
        socket.write_all(&hello.map(u64::to_be_bytes).concat())?;
        socket.read_exact(heard)?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)
    };
    if talk(&mut socket, &mut heard).is_err() {
        return Ok(None);
    }
    let (words, _) = heard.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
    let [magic, process, processes, fingerprint] = words[..] else { return Ok(None) };
    if magic != MAGIC {
        return Ok(None);
    }
    if (processes, fingerprint) != (hello[2], hello[3]) {
        return Err(Unlike);
    }
    Ok(usize::try_from(process).ok().map(|process| (process, socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[test]
    fn processes_that_run_the_same_meet() {
        let addresses: Vec<String> = (0..3).map(|_| free()).collect();
        let join = |process: usize, fingerprint: u64| {
            let cluster = Cluster { process, addresses: addresses.clone() };
            std::thread::spawn(move || cluster.connect(fingerprint, PATIENCE).map_err(|error| error.code.id))
        };
        // Somebody else calls: it is sent away.
        let first = join(0, 7);
        let mut stranger = loop {
            if let Ok(socket) = TcpStream::connect(&addresses[0]) {
                break socket;
            }
        };
        stranger.write_all(b"GET / HTTP/1.0\r\n\r\n0123456789012345").unwrap();
        let others = [join(1, 7), join(2, 7)];
        let sockets = first.join().unwrap().unwrap();
        assert_eq!(sockets.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
        for (at, other) in others.into_iter().enumerate() {
            assert_eq!(other.join().unwrap().unwrap().iter().position(Option::is_none), Some(at + 1));
        }
        let (one, two) = (join(0, 7), join(1, 8));
        assert_eq!((one.join().unwrap().err(), two.join().unwrap().err()), (Some("RUN0052"), Some("RUN0052")));
    }

    #[test]
    fn one_that_nobody_comes_to_ends() {
        for process in 0..2 {
            let alone = Cluster { process, addresses: vec![free(), free()] };
            let error = alone.connect(7, Duration::from_millis(300)).expect_err("nobody is there");
            assert_eq!((error.code, error.message.contains(&alone.addresses[1 - process])), (CLUSTER_JOIN, true), "{error}");
        }
    }
}
