//! A webhook against a server on this machine that answers as it is told.

use super::*;
use crate::alerts::Event;
use crate::config::AlertSeverity;
use crate::notify::{Notifiers, Webhooks};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// What came, and what is still to be answered (200 when nothing is).
#[derive(Clone, Default)]
struct Receiver {
    requests: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    port: u16,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = u16>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Self { port, answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
            receiver.requests.lock().unwrap().push((headers, String::from_utf8(body.to_vec()).unwrap()));
            let status = receiver.answers.lock().unwrap().pop_front().unwrap_or(200);
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")])
        }
        let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn bodies(&self) -> Vec<Value> {
        self.requests.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }
}

fn settings(port: u16, more: Value) -> NotifierSettings {
    let mut settings = json!({ "type": "webhook", "url": { "plain": format!("http://127.0.0.1:{port}/hook") },
                               "retry": { "initial": "5ms", "max": "20ms", "give_up_after": "30s" } });
    more.as_object().unwrap().iter().for_each(|(key, value)| settings[key] = value.clone());
    serde_json::from_value(settings).unwrap()
}

fn notification(alert: &str, event: Event) -> Arc<Notification> {
    Arc::new(Notification {
        id: format!("p/{alert}/é"),
        pipeline: "p".into(),
        alert: alert.into(),
        event,
        severity: AlertSeverity::Warn,
        kind: crate::config::SubjectKind::Slot,
        name: "db:5432".into(),
        slot: Some("s".into()),
        server: None,
        when: serde_json::from_value(json!("slot.retained_wal > 1GiB")).unwrap(),
        reading: None,
        since: 0.0,
        at: 1.0,
        message: "m".into(),
        hint: "h".into(),
    })
}

async fn tell(settings: NotifierSettings, alerts: &[&str]) {
    let settings = BTreeMap::from([("ops".to_owned(), settings)]);
    let notifiers = Notifiers::start(&settings, Path::new("/"), &Arc::default()).unwrap();
    alerts.iter().for_each(|alert| notifiers.send("ops", &notification(alert, Event::Started)));
    tokio::time::timeout(Duration::from_secs(60), notifiers.end()).await.expect("everything is told or given up");
}

#[tokio::test]
async fn told_in_order_and_again_until_it_is_taken() {
    let receiver = Receiver::start([503, 429, 200, 500]).await;
    tell(settings(receiver.port, json!({})), &["a", "b", "c"]).await;
    let alerts: Vec<String> = receiver.bodies().iter().map(|body| body["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(alerts, ["a", "a", "a", "b", "b", "c"]);
    let requests = receiver.requests.lock().unwrap();
    assert!(requests.iter().take(3).all(|(headers, body)| headers["x-etl-stream-id"] == "p/a/_" && *body == requests[0].1));
    assert!(requests.iter().all(|(headers, _)| !headers.contains_key("x-etl-stream-signature")));
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again() {
    for status in [400, 401, 404, 301, 307] {
        let receiver = Receiver::start([status]).await;
        tell(settings(receiver.port, json!({})), &["a", "b"]).await;
        let alerts: Vec<Value> = receiver.bodies().iter().map(|body| body["alert"].clone()).collect();
        assert_eq!(alerts, ["a", "b"], "{status}");
    }
}

#[tokio::test]
async fn given_up_when_its_time_is_over() {
    let receiver = Receiver::start(std::iter::repeat_n(500, 10_000)).await;
    let retry = json!({ "retry": { "initial": "5ms", "max": "5ms", "give_up_after": "50ms" } });
    tell(settings(receiver.port, retry), &["a", "b"]).await;
    let alerts: Vec<Value> = receiver.bodies().iter().map(|body| body["alert"].clone()).collect();
    assert!(alerts.first() == Some(&json!("a")) && alerts.last() == Some(&json!("b")) && alerts.len() > 2, "{alerts:?}");
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest() {
    // Nobody listens there: the first stays at the head while it is tried.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let webhook = Webhook::new("ops", Address::read(&settings(port, json!({ "queue": 2 })), Path::new("/")).unwrap()).unwrap();
    for alert in ["a", "b", "c"] {
        webhook.send(&notification(alert, Event::Started));
    }
    let kept = [webhook.queue.pop().await.unwrap(), webhook.queue.pop().await.unwrap()];
    assert_eq!(kept.map(|n| n.alert.clone()), ["b", "c"]);
}

#[tokio::test]
async fn pipelines_that_agree_share_a_webhook() {
    let receiver = Receiver::start([]).await;
    let all = Arc::<Webhooks>::default();
    let start = |further: Value| {
        let settings = BTreeMap::from([("ops".to_owned(), settings(receiver.port, further))]);
        Notifiers::start(&settings, Path::new("/"), &all).unwrap()
    };
    let (one, two, other) = (start(json!({})), start(json!({})), start(json!({ "queue": 7 })));
    assert_eq!(all.0.lock().unwrap().iter().map(|running| running.pipelines).collect::<Vec<_>>(), [2, 1]);
    one.send("ops", &notification("a", Event::Started));
    two.send("ops", &notification("b", Event::Started));
    one.end().await;
    assert_eq!(receiver.bodies().first().map(|body| body["alert"].clone()), Some(json!("a")), "what was sent before the end is told");
    drop(other);
    assert_eq!(all.0.lock().unwrap().len(), 1);
    two.end().await;
    assert_eq!((receiver.bodies().len(), all.0.lock().unwrap().len()), (2, 0));
}

#[tokio::test]
async fn signed() {
    let receiver = Receiver::start([]).await;
    tell(settings(receiver.port, json!({ "secret": { "plain": "key" } })), &["a"]).await;
    let requests = receiver.requests.lock().unwrap();
    let (headers, body) = &requests[0];
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let message = format!("{}.{body}", header("x-etl-stream-timestamp"));
    let tag = header("x-etl-stream-signature");
    let hex = tag.strip_prefix("sha256=").unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    hmac::verify(&key, message.as_bytes(), &bytes).expect("the signature is the receiver's too");
    // Made with another implementation of HMAC.
    let known = signature(&key, 0, "{}");
    assert_eq!(known, "sha256=7314351dd949aa7ec06f50fc2c96e618291447672c9b7f10b49d1ce46dad00b3");
}

#[test]
fn urls_that_are_none() {
    for url in ["", "ops", "ftp://host/x", "http://", "/hook"] {
        let settings: NotifierSettings = serde_json::from_value(json!({ "type": "webhook", "url": { "plain": url } })).unwrap();
        let error = Webhook::new("ops", Address::read(&settings, Path::new("/")).unwrap()).err().expect(url);
        assert_eq!(error.code.id, "CFG0063", "{url}");
    }
    let secret = "http//secret-token";
    let settings: NotifierSettings = serde_json::from_value(json!({ "type": "webhook", "url": { "plain": secret } })).unwrap();
    let error = Webhook::new("ops", Address::read(&settings, Path::new("/")).unwrap()).err().expect("no URL");
    assert!(!error.report().contains("secret-token"));
}
