//! The reference drain: what the walsender can send to a reader that does nothing with it.
//!
//! ```text
//! walsender ──socket──> late, large reads ──> count messages by tag ──> thrown away
//! ```
//! It is the limit that the engine is measured against (`METHODOLOGY.md`). It knows no TLS and no password: it is for
//! a private server that trusts local connections. One program of one file on the standard library alone, so
//! that it is the same everywhere: `rustc -O --edition 2024 drain.rs`.
//!
//! `drain --at HOST:PORT|SOCKET --slot S --publication P --until LSN [--low-water BYTES] [--wait-us N]
//! [--receive-buffer BYTES] [--read BYTES] [--streaming]` prints one line of JSON.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the server is told that we are there.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Bytes before the pgoutput message: copy data's tag and length, then an XLogData header.
const HEADER: usize = 5 + 25;

/// What to do, from the command line.
#[derive(Debug)]
struct Options {
    at: String,
    user: String,
    database: String,
    slot: String,
    publication: String,
    until: u64,
    /// `SO_RCVLOWAT`; 0 leaves it at one byte.
    low_water: i32,
    /// Waited whenever there is nothing to read; all that is there is then read, and what the sender kept back follows.
    wait: Duration,
    /// `SO_RCVBUF`; 0 leaves it to the kernel.
    receive_buffer: i32,
    /// Most bytes of a read.
    read: usize,
    streaming: bool,
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        at: String::new(),
        user: "postgres".into(),
        database: "postgres".into(),
        slot: String::new(),
        publication: String::new(),
        until: 0,
        low_water: 0,
        wait: Duration::ZERO,
        receive_buffer: 0,
        read: 1 << 20,
        streaming: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--streaming" {
            options.streaming = true;
            continue;
        }
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || value.parse::<u32>().map_err(|e| format!("{word} {value}: {e}"));
        match word.as_str() {
            "--at" => options.at = value,
            "--user" => options.user = value,
            "--database" => options.database = value,
            "--slot" => options.slot = value,
            "--publication" => options.publication = value,
            "--until" => options.until = lsn(&value).ok_or(format!("{value} is no LSN"))?,
            "--low-water" => options.low_water = number()?.min(i32::MAX as u32) as i32,
            "--wait-us" => options.wait = Duration::from_micros(number()?.into()),
            "--receive-buffer" => options.receive_buffer = number()?.min(i32::MAX as u32) as i32,
            "--read" => options.read = (number()? as usize).max(4096),
            _ => return Err(format!("{word} is unknown")),
        }
    }
    if options.at.is_empty() || options.slot.is_empty() || options.publication.is_empty() || options.until == 0 {
        return Err("--at, --slot, --publication and --until are needed".into());
    }
    Ok(options)
}

#[expect(unsafe_code, reason = "two calls of the C library, without a crate for them")]
unsafe extern "C" {
    fn setsockopt(socket: i32, level: i32, name: i32, value: *const i32, length: u32) -> i32;
    fn getrusage(who: i32, usage: *mut [i64; 18]) -> i32;
}

const SOL_SOCKET: i32 = 1;
const SO_RCVBUF: i32 = 8;
const SO_RCVLOWAT: i32 = 18;

#[expect(unsafe_code, reason = "a system call")]
fn set(socket: RawFd, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; the pointer and the length describe a live integer.
    let result = unsafe { setsockopt(socket, SOL_SOCKET, name, &raw const value, 4) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// User and system time of this process so far, in seconds.
#[expect(unsafe_code, reason = "a system call")]
fn cpu() -> (f64, f64) {
    let mut usage = [0_i64; 18];
    // SAFETY: the array is as large as `struct rusage` on 64-bit Linux, whose first four words are two `timeval`.
    let result = unsafe { getrusage(0, &raw mut usage) };
    let time = |at: usize| usage[at] as f64 + usage[at + 1] as f64 / 1e6;
    if result == 0 { (time(0), time(2)) } else { (0.0, 0.0) }
}

trait Socket: Read + Write {
    fn wait_at_most(&self, wait: Option<Duration>) -> io::Result<()>;
    fn never_wait(&self) -> io::Result<()>;
    fn fd(&self) -> RawFd;
}

impl Socket for TcpStream {
    fn wait_at_most(&self, wait: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(wait)
    }
    fn never_wait(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Socket for UnixStream {
    fn wait_at_most(&self, wait: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(wait)
    }
    fn never_wait(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads one message of the protocol before streaming: its tag and body.
fn message(socket: &mut dyn Socket) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    socket.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut body = vec![0; length.checked_sub(4).ok_or(garbled("a message without a length"))?];
    socket.read_exact(&mut body)?;
    if head[0] == b'E' {
        return Err(garbled(&format!("the server refused: {}", String::from_utf8_lossy(&body).replace('\0', " "))));
    }
    Ok((head[0], body))
}

fn connect(options: &Options) -> io::Result<(Box<dyn Socket>, i32)> {
    let mut socket: Box<dyn Socket> = if options.at.starts_with('/') {
        Box::new(UnixStream::connect(&options.at)?)
    } else {
        let tcp = TcpStream::connect(&options.at)?;
        tcp.set_nodelay(true)?;
        Box::new(tcp)
    };
    if options.receive_buffer > 0 {
        set(socket.fd(), SO_RCVBUF, options.receive_buffer)?;
    }
    let mut startup = 196_608_i32.to_be_bytes().to_vec();
    for (name, value) in [("user", &*options.user), ("database", &*options.database), ("replication", "database")] {
        startup.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    startup.push(0);
    socket.write_all(&(startup.len() as u32 + 4).to_be_bytes())?;
    socket.write_all(&startup)?;
    let mut pid = 0;
    loop {
        match message(&mut *socket)? {
            (b'R', body) if body.starts_with(&[0; 4]) => {}
            (b'R', _) => return Err(garbled("the server asks for a password")),
            (b'K', body) => pid = body.first_chunk::<4>().map_or(0, |pid| i32::from_be_bytes(*pid)),
            (b'Z', _) => break,
            _ => {}
        }
    }
    let (version, streaming) = if options.streaming { (2, ", streaming 'on'") } else { (1, "") };
    let command = format!(
        "START_REPLICATION SLOT \"{}\" LOGICAL 0/0 (proto_version '{version}', publication_names '\"{}\"'{streaming})\0",
        options.slot, options.publication
    );
    socket.write_all(b"Q")?;
    socket.write_all(&(command.len() as u32 + 4).to_be_bytes())?;
    socket.write_all(command.as_bytes())?;
    while message(&mut *socket)?.0 != b'W' {}
    if options.low_water > 0 {
        set(socket.fd(), SO_RCVLOWAT, options.low_water)?;
        // A read that gets less than the mark ends then: the end of the backlog is no full gulp.
        socket.wait_at_most(Some(Duration::from_millis(20)))?;
    }
    if !options.wait.is_zero() {
        socket.never_wait()?;
    }
    Ok((socket, pid))
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    changes: u64,
    commits: u64,
    bytes: u64,
    reads: u64,
    /// Where the stream has come to.
    lsn: u64,
}

impl Seen {
    /// Walks the whole messages of `bytes`; returns how many bytes they are.
    fn walk(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let word = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |word| u64::from_be_bytes(*word));
        let mut at = 0;
        while let Some(length) = bytes.get(at + 1..).and_then(|rest| rest.first_chunk::<4>()) {
            let end = at + 1 + u32::from_be_bytes(*length) as usize;
            if end > bytes.len() {
                break;
            }
            match (bytes[at], bytes.get(at + 5)) {
                (b'd', Some(b'w')) => match bytes.get(at + HEADER) {
                    Some(b'I' | b'U' | b'D' | b'T') => self.changes += 1,
                    // flags, commit LSN, end LSN; the commit of a streamed transaction has its number before them
                    Some(b'C') => (self.commits, self.lsn) = (self.commits + 1, word(at + HEADER + 10)),
                    Some(b'c') => (self.commits, self.lsn) = (self.commits + 1, word(at + HEADER + 14)),
                    _ => {}
                },
                (b'd', Some(b'k')) => self.lsn = self.lsn.max(word(at + 6)),
                (b'd', _) => return Err(garbled("copy data of an unknown kind")),
                _ => return Err(garbled(&format!("the stream ended: {}", String::from_utf8_lossy(&bytes[at..end])))),
            }
            at = end;
        }
        Ok(at)
    }
}

fn status(socket: &mut dyn Socket) -> io::Result<()> {
    // Nothing is confirmed: the slot stays where it is.
    let mut update = vec![b'd', 0, 0, 0, 38, b'r'];
    update.resize(39, 0);
    socket.write_all(&update)
}

fn run(options: &Options) -> io::Result<String> {
    let (mut socket, pid) = connect(options)?;
    let mut buffer = vec![0_u8; options.read.max(64 << 10) * 2];
    let (mut filled, mut seen) = (0, Seen::default());
    let start = Instant::now();
    let (user, system) = cpu();
    let mut first = None;
    let mut told = start;
    while seen.lsn < options.until {
        if told.elapsed() >= STATUS_EVERY {
            status(&mut *socket)?;
            told = Instant::now();
        }
        if buffer.len() - filled < options.read {
            buffer.resize(buffer.len() * 2, 0);
        }
        let got = match socket.read(&mut buffer[filled..filled + options.read]) {
            Ok(0) => return Err(garbled("the server closed the connection")),
            Ok(got) => got,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                std::thread::sleep(options.wait);
                0
            }
            Err(error) => return Err(error),
        };
        seen.reads += 1;
        seen.bytes += got as u64;
        filled += got;
        let walked = seen.walk(&buffer[..filled])?;
        buffer.copy_within(walked..filled, 0);
        filled -= walked;
        if first.is_none() && seen.changes > 0 {
            first = Some(start.elapsed());
        }
    }
    let wall = start.elapsed();
    let (user_end, system_end) = cpu();
    Ok(format!(
        "{{\"walsender\": {pid}, \"changes\": {}, \"commits\": {}, \"bytes\": {}, \"reads\": {}, \"seconds\": {:.6}, \"first\": {:.6}, \"user\": {:.6}, \"system\": {:.6}}}",
        seen.changes,
        seen.commits,
        seen.bytes,
        seen.reads,
        wall.as_secs_f64(),
        first.unwrap_or(wall).as_secs_f64(),
        user_end - user,
        system_end - system
    ))
}

fn main() -> ExitCode {
    let result = options().and_then(|options| run(&options).map_err(|e| e.to_string()));
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("drain: {why}");
            ExitCode::FAILURE
        }
    }
}
