//! Fuzz targets: hostile servers, connection strings, password files.

use super::super::fuzz::shown;
use super::authentication::Login;
use super::settings::{ConnectSettings, Surroundings};
use super::socket::Socket;
use super::stream::ReplicationStream;
use super::wire::{self, Fields, Wire};
use super::{conninfo, passfile as lines};
use crate::contract::CodedError;
use crate::fuzzing::Feed;
use bytes::Bytes;
use secrecy::SecretString;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime is made");
}

/// Connection strings: what was read, quoted again, reads the same; nothing shows the password.
pub(crate) fn conninfo(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let pairs = match conninfo::parse(text) {
        Ok(pairs) => pairs,
        Err(error) => return shown(&error),
    };
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    if pairs.iter().all(|(name, _)| !name.contains(|c: char| c == '=' || c.is_ascii_whitespace()) && !name.contains("://")) {
        let again: Vec<String> = pairs.iter().map(|(name, value)| format!("{name} = '{}'", quoted(value))).collect();
        let again = again.join(" ");
        if !again.starts_with("postgres://") && !again.starts_with("postgresql://") && !again.contains("://") {
            assert_eq!(conninfo::parse(&again).expect("it was quoted"), pairs);
        }
    }
    // files are read as they are named, so strings that name some stop here
    let files = ["sslrootcert", "sslcert", "sslkey", "passfile"];
    if pairs.iter().any(|(name, _)| files.contains(&name.as_str())) {
        return;
    }
    let settings = ConnectSettings { url: Some(SecretString::from(text)), ..ConnectSettings::default() };
    match settings.resolve_in(Path::new("/nowhere"), &Surroundings::default()) {
        Ok(endpoint) => drop(endpoint),
        Err(error) if pairs.iter().any(|(name, value)| name == "password" && value == "hunter2") => shown(&error),
        Err(_) => {}
    }
}

/// Lines of a password file. An entry that was written with its escapes is found again.
pub(crate) fn passfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        let _ = lines::matched(line, ["db.example", "5432", "shop", "loader"]);
    }
    let fields: Vec<&str> = text.splitn(5, '\n').collect();
    if let [host, port, database, user, password] = fields[..] {
        let escaped: Vec<String> = fields.iter().map(|field| field.replace('\\', "\\\\").replace(':', "\\:")).collect();
        assert_eq!(lines::matched(&escaped.join(":"), [host, port, database, user]).as_deref(), Some(password));
    }
}

/// What a server sends while it streams: wherever it is cut, the messages and the end are the same.
pub(crate) fn replication_stream(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let step = usize::from(feed.byte()).max(1);
    // a read for each step: not too many
    let sent = &feed.0[..feed.0.len().min(128 * step)];
    let drain = async |max: usize| {
        let (mut server, ours) = UnixStream::pair().expect("a pair of sockets");
        let (mut reader, _writer) = ReplicationStream::new(Wire::new(Socket::Unix(ours)), "a test".into()).split();
        server.write_all(sent).await.expect("the pair holds as much");
        drop(server);
        let mut messages: Vec<Vec<u8>> = Vec::new();
        loop {
            match reader.read(max).await {
                Err(error) => return (messages, Some(error.code)),
                Ok(chunk) => {
                    messages.extend(chunk.messages.iter().map(|(start, end)| chunk.bytes[*start as usize..*end as usize].to_vec()));
                    if chunk.ended {
                        return (messages, None);
                    }
                }
            }
        }
    };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (whole, cut) = (drain(1 << 20).await, drain(step).await);
            assert_eq!(whole, cut);
        });
    });
    // the same bytes as the answers to a query
    let _ = wire::row(Bytes::copy_from_slice(feed.0));
    let _ = Fields::parse(feed.0);
}

/// A server during start-up. Its answers have lengths in front; `<nonce>` in one becomes the client's own, which a
/// server must repeat to get any further.
pub(crate) fn startup(bytes: &[u8]) {
    const NONCE: &[u8] = b"<nonce>";
    let mut feed = Feed(bytes);
    let flags = feed.byte();
    let mut answers = Vec::new();
    while let Some(piece) = feed.piece() {
        answers.push(piece);
    }
    let password = SecretString::from("hunter2");
    let login = Login {
        user: "loader",
        password: (flags & 1 == 0).then_some(&password),
        require_binding: [None, Some(false), Some(true)][usize::from(flags >> 1) % 3],
        parameters: vec![("user", "loader"), ("database", "shop"), ("replication", "database")],
        doing: "a test",
    };
    let run = async {
        let (mut server, ours) = UnixStream::pair().expect("a pair of sockets");
        let client = async {
            let mut wire = Wire::new(Socket::Unix(ours));
            login.start(&mut wire).await.map(|session| session.parameters.len())
        };
        let serve = async {
            let (mut nonce, mut said) = (Vec::new(), vec![0; 4096]);
            for answer in answers {
                // one answer for each thing the client says, or soon when it says nothing
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    let Ok(length) = server.try_read(&mut said) else { continue };
                    let heard = &said[..length];
                    if let Some(at) = heard.windows(2).position(|two| two == b"r=") {
                        nonce = heard[at + 2..].iter().copied().take_while(|byte| *byte != b',').collect();
                    }
                    break;
                }
                let mut out = answer.to_vec();
                if let Some(at) = answer.windows(NONCE.len()).position(|part| part == NONCE) {
                    out.splice(at..at + NONCE.len(), nonce.iter().copied());
                    // the frame's length, if it was right before
                    if let Some(length) = out.get_mut(1..5).and_then(|bytes| <&mut [u8; 4]>::try_from(bytes).ok()) {
                        let grown = u32::from_be_bytes(*length).wrapping_add(nonce.len() as u32).wrapping_sub(NONCE.len() as u32);
                        *length = grown.to_be_bytes();
                    }
                }
                if server.write_all(&out).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(server);
        };
        tokio::join!(client, serve).0
    };
    let started: Result<usize, CodedError> = RUNTIME.with(|runtime| runtime.block_on(run));
    if let Err(error) = started {
        shown(&error);
    }
}
