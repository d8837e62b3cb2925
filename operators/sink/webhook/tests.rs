//! The sink against a receiver that answers as it is told to.

use super::super::testing::{Acks, batch, context, deliver, table};
use super::*;
use crate::contract::{Item, Mark};
use aws_lc_rs::hmac;
use serde_json::json;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request: its header lines, lower case, and its body.
type Request = (Vec<String>, String);

#[derive(Default)]
struct Script {
    /// Statuses of the next answers; 200 when there are no more. 0 closes the connection without one.
    answers: VecDeque<u16>,
    requests: Vec<Request>,
}

/// Listens, and answers by the script.
async fn receiver(answers: &[u16]) -> (String, Arc<Mutex<Script>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rows?key=hidden", listener.local_addr().unwrap());
    let script = Arc::new(Mutex::new(Script { answers: answers.iter().copied().collect(), requests: Vec::new() }));
    let shared = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&shared)));
        }
    });
    (url, script)
}

async fn serve(mut socket: TcpStream, script: Arc<Mutex<Script>>) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            (body.len() >= length).then(|| (head.lines().map(str::to_lowercase).collect::<Vec<_>>(), body.to_owned()))
        });
        let Some(request) = whole else {
            if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        bytes.clear();
        let status = {
            let mut script = script.lock().unwrap();
            script.requests.push(request);
            script.answers.pop_front().unwrap_or(200)
        };
        if status == 0 {
            return;
        }
        let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn sink(url: &str, more: &serde_json::Value) -> Result<Arc<dyn Sink>, CodedError> {
    let mut settings = json!({ "url": { "plain": url }, "retry": { "initial": "1ms", "max": "5ms", "give_up_after": "10s" } });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: WebhookConfig = serde_json::from_value(settings).unwrap();
    config.build(&BuildContext {
        pipeline: "p".into(),
        node: "out".into(),
        folder: Path::new("/").into(),
        peers: crate::contract::Peers::default(),
    })
}

async fn run(url: &str, more: &serde_json::Value, items: Vec<Item>) -> (Result<(), CodedError>, Vec<u64>, WriterContext) {
    let (acks, cx) = (Acks::default(), context());
    let deliveries = deliver(items, &acks);
    let result = sink(url, more).unwrap().writer(cx.clone()).run(deliveries).await;
    (result, acks.durable(), cx)
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.0.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn lines_marks_headers_and_signature() {
    let (url, script) = receiver(&[]).await;
    let begin = Mark::SnapshotBegin { table: table("public", "t"), lsn: 7, replaces: Some(5) };
    let end = Mark::SnapshotEnd { table: table("public", "t"), lsn: 7 };
    let items = vec![
        Item::Mark(begin),
        batch("public", "t", 7, 0..2).into(),
        Item::Mark(end),
        Item::Mark(Mark::Schema { table: table("public", "t") }),
        batch("public", "t", 8, 3..4).into(),
    ];
    let more = json!({ "secret": { "plain": "key" }, "headers": { "Authorization": { "plain": "Bearer x" } } });
    let (result, acks, cx) = run(&url, &more, items).await;
    result.unwrap();
    assert_eq!(acks, [0, 1, 2, 3, 4]);
    let requests = std::mem::take(&mut script.lock().unwrap().requests);
    let bodies: Vec<&str> = requests.iter().map(|(_, body)| body.as_str()).collect();
    let at = |lsn, ordinal| format!("{lsn:016x}/{ordinal:016x}");
    let row = |lsn: u64, ordinal: u64| {
        format!(
            "{{\"_table\":\"public.t\",\"_op\":\"i\",\"_seq\":\"{}\",\"_commit_ts\":\"1970-01-01T00:00:00.00000{lsn}+00:00\",\"id\":{},\"note\":\"row {ordinal}\"}}\n",
            at(lsn, ordinal),
            lsn * 1000 + ordinal
        )
    };
    assert_eq!(
        bodies,
        [
            format!("{{\"_table\":\"public.t\",\"_mark\":\"snapshot_begin\",\"_seq\":\"{}\",\"_replaces\":\"{}\"}}\n", at(7, 0), at(5, 0)),
            row(7, 0) + &row(7, 1),
            format!("{{\"_table\":\"public.t\",\"_mark\":\"snapshot_end\",\"_seq\":\"{}\"}}\n", at(7, 0)),
            row(8, 3),
        ]
    );
    assert_eq!(header(&requests[1], "x-etl-stream-table"), Some("public.t"));
    assert_eq!(header(&requests[1], "x-etl-stream-first"), Some(&*at(7, 0)));
    assert_eq!(header(&requests[1], "x-etl-stream-last"), Some(&*at(7, 1)));
    assert_eq!(header(&requests[1], "authorization"), Some("bearer x"));
    for request in &requests {
        let signed = format!("{}.{}", header(request, "x-etl-stream-timestamp").unwrap(), request.1);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), signed.as_bytes());
        let expected: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(header(request, "x-etl-stream-signature"), Some(&*format!("sha256={expected}")));
    }
    assert_eq!(cx.status.sink("out").rows.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn tries_again_in_order_and_acknowledges_what_was_taken() {
    let (url, script) = receiver(&[503, 429, 0, 200, 500]).await;
    let items = vec![batch("public", "t", 1, 0..1).into(), batch("public", "t", 2, 0..1).into()];
    let (result, acks, _) = run(&url, &json!({}), items).await;
    result.unwrap();
    assert_eq!(acks, [0, 1]);
    let firsts: Vec<String> =
        script.lock().unwrap().requests.iter().map(|request| header(request, "x-etl-stream-first").unwrap()[..16].to_owned()).collect();
    let expected: Vec<String> = [1, 1, 1, 1, 2, 2].iter().map(|lsn| format!("{lsn:016x}")).collect();
    assert_eq!(firsts, expected);
}

#[tokio::test]
async fn a_refusal_ends_the_run_and_nothing_more_is_acknowledged() {
    let (url, script) = receiver(&[200, 400]).await;
    let items = (1..=3).map(|lsn| batch("public", "t", lsn, 0..1).into()).collect();
    let (result, acks, _) = run(&url, &json!({}), items).await;
    let error = result.unwrap_err();
    assert_eq!(error.code, REFUSED);
    assert!(error.message.contains("public.t") && error.message.contains("400"), "{}", error.message);
    assert!(!error.message.contains("hidden") && !error.message.contains("row 0"), "no secret and no value: {}", error.message);
    assert_eq!((acks, script.lock().unwrap().requests.len()), (vec![0], 2));

    let (url, _) = receiver(&[503; 64]).await;
    let gone = json!({ "retry": { "initial": "1ms", "max": "2ms", "give_up_after": "20ms" } });
    let (result, acks, _) = run(&url, &gone, vec![batch("public", "t", 1, 0..1).into()]).await;
    assert_eq!((result.unwrap_err().code, acks), (GAVE_UP, vec![]));
}

#[test]
fn settings_that_cannot_be_used() {
    for (url, more) in [
        ("not a url", json!({})),
        ("ftp://host/", json!({})),
        ("http://127.0.0.1/", json!({ "headers": { "X-A": { "plain": "two\nlines" } } })),
    ] {
        assert_eq!(sink(url, &more).err().map(|e| e.code), Some(SETTING), "{url} {more}");
    }
    let config: WebhookConfig = serde_json::from_value(json!({
        "url": { "plain": "http://h/" }, "connections": 0, "headers": { "Content-Type": { "plain": "x" }, "a b": { "plain": "x" } }
    }))
    .unwrap();
    let mut findings = Findings::default();
    config.check(&mut findings);
    let pointers: Vec<&str> = findings.0.iter().map(|f| f.pointer.as_str()).collect();
    assert_eq!(pointers, ["/connections", "/headers/Content-Type", "/headers/a b"]);
}
