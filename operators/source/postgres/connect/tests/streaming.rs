//! A stream of changes from a real walsender: over TCP, a unix socket and TLS.

use super::super::*;
use super::certificates::{Authority, ELLIPTIC, Request};
use super::{endpoint, put, reload, settings, tls};
use crate::contract::{Class, Lsn};
use crate::testing::postgres::Postgres;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

const ROWS: usize = 20_000;
const LONG: usize = 20 << 20;

/// The pgoutput message of WAL data: what follows `w start:u64 end:u64 clock:i64`.
fn output(payload: &[u8]) -> Option<&[u8]> {
    (payload.first() == Some(&b'w')).then(|| payload.get(25..)).flatten()
}

async fn stream(endpoint: &Endpoint, slot: &str) -> (ReplicationReader, ReplicationWriter, i32) {
    let mut walsender = endpoint.replicate(slot).await.unwrap();
    walsender.simple_query(&format!("CREATE_REPLICATION_SLOT \"{slot}\" LOGICAL pgoutput NOEXPORT_SNAPSHOT")).await.unwrap();
    let pid = walsender.backend_pid();
    let command = format!("START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'everything')");
    let (reader, writer) = walsender.start(&command).await.unwrap().split();
    (reader, writer, pid)
}

async fn confirmed(client: &Client, slot: &str) -> Lsn {
    let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    client.query_one(sql, &[&slot]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

/// Reads until a number of commits; returns the numbers inserted, the longest message and the end of the last commit.
async fn until_commits(reader: &mut ReplicationReader, mut commits: usize, max: usize) -> (Vec<usize>, usize, Lsn) {
    let (mut numbers, mut longest, mut end) = (Vec::new(), 0, Lsn(0));
    let deadline = Instant::now() + Duration::from_secs(120);
    while commits > 0 {
        assert!(Instant::now() < deadline, "{commits} commits are missing");
        // Given up now and then: nothing may be lost by it.
        let Ok(chunk) = tokio::time::timeout(Duration::from_millis(1), reader.read(max)).await else { continue };
        let chunk = chunk.unwrap();
        assert!(!chunk.ended);
        for (start, stop) in &chunk.messages {
            let payload = &chunk.bytes[*start as usize..*stop as usize];
            assert!(matches!(payload[0], b'w' | b'k'));
            longest = longest.max(payload.len());
            match output(payload) {
                // 'I' relation:u32 'N' columns:u16 't' length:u32 digits
                Some([b'I', _, _, _, _, b'N', _, _, b't', a, b, c, d, text @ ..]) => {
                    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                    numbers.push(std::str::from_utf8(&text[..length]).unwrap().parse().unwrap());
                }
                // 'C' flags:u8 commit:u64 end:u64 clock:i64
                Some([b'C', _, rest @ ..]) => {
                    end = Lsn(u64::from_be_bytes(rest[8..16].try_into().unwrap()));
                    commits -= 1;
                }
                _ => {}
            }
        }
    }
    (numbers, longest, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_over_every_kind_of_socket() {
    let mut postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    client.batch_execute("CREATE TABLE t (n int, x text); CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let authority = Authority::new();
    authority.sign(&Request { name: "server", key: ELLIPTIC, sign: &[], common_name: "x", extensions: "subjectAltName=DNS:localhost" });
    put(&postgres, "server.crt", &authority.read("server.crt"));
    put(&postgres, "server.key", &authority.read("server.key"));
    put(&postgres, "postgresql.auto.conf", b"ssl = on\n");
    reload(&postgres).await;

    let folder = postgres.data().parent().unwrap().display().to_string();
    let mut ends = Vec::new();
    for (slot, host, mode) in
        [("tcp", "127.0.0.1", TlsMode::Disable), ("unix", &folder, TlsMode::Disable), ("tls", "localhost", TlsMode::VerifyFull)]
    {
        let mut settings = settings(&postgres, host, "postgres");
        settings.tls = tls(mode, Some(&authority.path("ca.crt")));
        let (mut reader, mut writer, pid) = stream(&endpoint(&settings).unwrap(), slot).await;

        // Many small transactions, then one long value, read in pieces far smaller than it.
        let small = "DO $$ BEGIN FOR i IN 1..1000 LOOP INSERT INTO public.t VALUES (i, repeat('x', 100)); COMMIT; END LOOP; END $$";
        client.batch_execute(small).await.unwrap();
        let (numbers, _, _) = until_commits(&mut reader, 1000, 1 << 20).await;
        assert!(numbers.into_iter().eq(1..=1000), "{slot}");
        client.batch_execute(&format!("INSERT INTO public.t SELECT n, repeat('y', 200) FROM generate_series(1, {ROWS}) n")).await.unwrap();
        let (numbers, _, _) = until_commits(&mut reader, 1, 1 << 20).await;
        assert!(numbers.into_iter().eq(1..=ROWS), "{slot}");
        client.batch_execute(&format!("INSERT INTO public.t VALUES (7, repeat('z', {LONG}))")).await.unwrap();
        let (numbers, longest, end) = until_commits(&mut reader, 1, 64 << 10).await;
        assert_eq!(numbers, [7]);
        assert!(longest > LONG, "{longest}");
        assert_eq!(reader.buffered(), 0);

        // Status goes out although nobody reads.
        assert!(confirmed(&client, slot).await < end);
        writer.send_status(end, end, end, false).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while confirmed(&client, slot).await < end {
            assert!(Instant::now() < deadline, "{slot}: the confirmed position stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ends.push((slot, reader, writer, pid));
    }
    three_ways_to_end(&mut postgres, &client, ends).await;
}

/// One ends in good order, one is killed, one sees the server shut down.
async fn three_ways_to_end(postgres: &mut Postgres, client: &Client, mut ends: Vec<(&str, ReplicationReader, ReplicationWriter, i32)>) {
    let (_, mut reader, writer, _) = ends.pop().unwrap();
    writer.finish().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reader.read(1 << 20).await.unwrap().ended {
        assert!(Instant::now() < deadline);
    }
    assert!(reader.read(1 << 20).await.unwrap().ended, "it stays so");

    let (_, mut reader, _writer, pid) = ends.pop().unwrap();
    client.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await.unwrap();
    let error = loop {
        match reader.read(1 << 20).await {
            Ok(chunk) => assert!(!chunk.ended),
            Err(error) => break error,
        }
    };
    assert_eq!((error.code, error.class, sqlstate(&error)), (PG_LOST, Class::Transient, Some("57P01")), "{error:?}");

    let (_, mut reader, mut writer, _) = ends.pop().unwrap();
    let reading = tokio::spawn(async move {
        loop {
            let chunk = match reader.read(1 << 20).await {
                Ok(chunk) => chunk,
                Err(error) => return error,
            };
            // A shutdown waits until all is confirmed.
            for (start, _) in &chunk.messages {
                let position = chunk.bytes.get(*start as usize + 1..*start as usize + 9).unwrap().try_into().unwrap();
                let position = Lsn(u64::from_be_bytes(position));
                let _ = writer.send_status(position, position, position, false).await;
            }
        }
    });
    postgres.stop();
    let error = reading.await.unwrap();
    assert_eq!((error.code, error.class), (PG_LOST, Class::Transient), "{error:?}");
}
