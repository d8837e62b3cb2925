//! Servers that lie: whatever they send, there is a typed error and no panic.

use super::super::socket::Socket;
use super::super::stream::ReplicationStream;
use super::super::wire::Wire;
use super::super::*;
use super::{endpoint, secret};
use crate::contract::{Class, Code, CodedError};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// Frame of a tag and a body.
fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend((body.len() as u32 + 4).to_be_bytes());
    frame.extend(body);
    frame
}

#[tokio::test]
async fn startup_of_a_liar() {
    let ok = frame(b'R', &[0, 0, 0, 0]);
    let sasl = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
    let scram = |step: &[u8]| [frame(b'R', &sasl), frame(b'R', &[&11_u32.to_be_bytes()[..], step].concat())].concat();
    let answers: Vec<(&str, Vec<u8>, &[Code])> = vec![
        ("nothing", vec![], &[PG_UNREACHABLE]),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), &[PG_UNREACHABLE, PG_AUTHENTICATION]),
        ("half a frame", ok[..7].to_vec(), &[PG_UNREACHABLE]),
        ("a negative length", b"R\xff\xff\xff\xff".to_vec(), &[PG_UNREACHABLE]),
        ("a length too short", b"R\0\0\0\x03".to_vec(), &[PG_UNREACHABLE]),
        ("a length too long", b"R\x7f\xff\xff\xff".to_vec(), &[PG_UNREACHABLE]),
        ("no kind", frame(b'R', b""), &[PG_UNREACHABLE]),
        ("a kind of its own", frame(b'R', &[0, 0, 0, 99]), &[PG_AUTHENTICATION]),
        ("MD5 without salt", frame(b'R', &[0, 0, 0, 5, 1]), &[PG_UNREACHABLE]),
        ("SASL without a mechanism", frame(b'R', &[0, 0, 0, 10]), &[PG_AUTHENTICATION]),
        ("SASL without an end", frame(b'R', &[0, 0, 0, 10, b'S']), &[PG_UNREACHABLE]),
        ("SCRAM cut short by success", [frame(b'R', &sasl), ok.clone()].concat(), &[PG_AUTHENTICATION]),
        ("SCRAM with another nonce", scram(b"r=x,s=QSXCR+Q6sek8bf92,i=4096"), &[PG_AUTHENTICATION]),
        ("SCRAM of noise", scram(b"\xff\0,,"), &[PG_AUTHENTICATION]),
        ("SCRAM without end", scram(b"r=x,s=QSXCR+Q6sek8bf92,i=4294967295"), &[PG_AUTHENTICATION]),
        ("a parameter without end", [ok.clone(), frame(b'S', b"server_version")].concat(), &[PG_UNREACHABLE]),
        ("a short key", [ok.clone(), frame(b'K', b"\0")].concat(), &[PG_UNREACHABLE]),
        ("a row too early", [ok.clone(), frame(b'D', b"\0\0")].concat(), &[PG_UNREACHABLE]),
        ("an empty error", frame(b'E', b""), &[PG_QUERY]),
        ("a short row", [ok, frame(b'Z', b"I"), frame(b'D', b"\0\x05")].concat(), &[PG_LOST]),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:hunter2@127.0.0.1:{}/d?sslmode=disable", listener.local_addr().unwrap().port());
    let endpoint = endpoint(&ConnectSettings { url: secret(&url), ..ConnectSettings::default() }).unwrap();
    for (name, answer, codes) in answers {
        let serve = async |bytes: &[u8]| {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(bytes).await;
            let _ = socket.shutdown().await;
            let _ = socket.read_to_end(&mut Vec::new()).await;
        };
        let (result, ()) = tokio::join!(endpoint.replicate("test"), serve(&answer));
        let error = result.expect_err(name);
        assert!(codes.contains(&error.code), "{name}: {error:?}");
        assert!(!error.report().contains("hunter2"), "{name}: {error:?}");
        let (result, ()) = tokio::join!(endpoint.query("test"), serve(&answer));
        let error = result.err().unwrap_or_else(|| panic!("{name}"));
        assert!(error.code.id.starts_with("PG00") && !error.report().contains("hunter2"), "{name}: {error:?}");
    }
}

/// A stream whose server is the other end of the pair.
fn pair() -> (UnixStream, ReplicationReader, ReplicationWriter) {
    let (server, ours) = UnixStream::pair().unwrap();
    let (reader, writer) = ReplicationStream::new(Wire::new(Socket::Unix(ours)), "a test".into()).split();
    (server, reader, writer)
}

/// Everything a stream gives, to its end.
async fn drain(reader: &mut ReplicationReader, max: usize) -> (Vec<Vec<u8>>, Result<(), CodedError>) {
    let mut messages = Vec::new();
    loop {
        match reader.read(max).await {
            Err(error) => return (messages, Err(error)),
            Ok(chunk) => {
                messages.extend(chunk.messages.iter().map(|(start, end)| chunk.bytes[*start as usize..*end as usize].to_vec()));
                if chunk.ended {
                    return (messages, Ok(()));
                }
            }
        }
    }
}

#[tokio::test]
async fn messages_before_an_error_come_first() {
    let data = |text: &str| frame(b'd', text.as_bytes());
    let refusal = frame(b'E', b"SERROR\0C42704\0Mpublication \"p\" does not exist\0Da-value\0\0");
    for (name, bytes, code, class) in [
        ("an error", refusal.clone(), PG_QUERY, Class::Definite),
        ("a shutdown", frame(b'E', b"C57P01\0Mterminating\0\0"), PG_LOST, Class::Transient),
        ("the end of the bytes", vec![], PG_LOST, Class::Transient),
        ("half a message", b"d\0\0\0\x09abc".to_vec(), PG_LOST, Class::Transient),
        ("a negative length", b"d\x80\0\0\0".to_vec(), PG_LOST, Class::Transient),
        ("a length too long", b"d\x7f\xff\xff\xff".to_vec(), PG_LOST, Class::Transient),
        ("another tag", frame(b'!', b""), PG_LOST, Class::Transient),
        ("a row", frame(b'D', b"\0\0"), PG_LOST, Class::Transient),
        ("the command's end", frame(b'C', b"COPY 0\0"), PG_LOST, Class::Transient),
    ] {
        let (mut server, mut reader, _writer) = pair();
        let all = [data("w1"), frame(b'N', b"Mnotice\0\0"), data("k2"), frame(b'S', b"a\0b\0"), bytes].concat();
        server.write_all(&all).await.unwrap();
        drop(server);
        let (messages, result) = drain(&mut reader, 1 << 20).await;
        assert_eq!(messages, [b"w1", b"k2"], "{name}");
        let error = result.expect_err(name);
        assert_eq!((error.code, error.class), (code, class), "{name}: {error:?}");
        assert!(!error.report().contains("a-value"));
    }
}

#[tokio::test]
async fn a_status_is_what_the_manual_says() {
    let (mut server, _reader, mut writer) = pair();
    writer.send_status(crate::contract::Lsn(1), crate::contract::Lsn(2), crate::contract::Lsn(3), true).await.unwrap();
    writer.finish().await.unwrap();
    let mut bytes = vec![0; 39 + 5 + 5];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes[..6], *b"d\0\0\0\x26r");
    assert_eq!(bytes[6..30], [[0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0, 0, 3]].concat());
    assert_eq!(bytes[38], 1);
    assert_eq!(bytes[39..], *b"c\0\0\0\x04X\0\0\0\x04");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut, the messages are the same.
    #[test]
    fn cuts_do_not_matter(lengths in prop::collection::vec(0_usize..3000, 0..40), cuts in prop::collection::vec(1_usize..5000, 1..20), max in 1_usize..9000) {
        let messages: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, length)| vec![at as u8; *length]).collect();
        let mut bytes: Vec<u8> = messages.iter().flat_map(|message| frame(b'd', message)).collect();
        bytes.extend(frame(b'c', b""));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(async {
            let (mut server, mut reader, _writer) = pair();
            let send = async {
                let mut rest = &bytes[..];
                for cut in cuts.iter().cycle() {
                    let (now, later) = rest.split_at((*cut).min(rest.len()));
                    server.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
            };
            tokio::join!(send, drain(&mut reader, max)).1
        });
        prop_assert!(found.1.is_ok());
        prop_assert_eq!(found.0, messages);
    }

    /// Any bytes at all end in an end or an error.
    #[test]
    fn noise_is_an_error(noise in prop::collection::vec(any::<u8>(), 0..400), max in 1_usize..600) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, mut reader, _writer) = pair();
            server.write_all(&noise).await.unwrap();
            drop(server);
            let _ = drain(&mut reader, max).await;
        });
    }
}
