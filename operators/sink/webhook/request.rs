//! One request: its headers, its signature, and how often it is tried.
//!
//! ```text
//! POST <url>
//! Content-Type: application/x-ndjson
//! X-Etl-Stream-Table: <schema>.<table>            percent-encoded beyond ASCII
//! X-Etl-Stream-First, X-Etl-Stream-Last: tokens of the first and the last line
//! X-Etl-Stream-Timestamp: <seconds since 1970-01-01 00:00:00 UTC>
//! X-Etl-Stream-Signature: sha256=<hexadecimal HMAC-SHA256 of "<timestamp>.<body>" by the secret>
//! ```
//! 2xx: taken. No answer, 408, 425, 429 and 5xx are tried again with growing pauses, not before `Retry-After`, until the
//! retry settings' deadline; any other status is final. Redirects are not followed: they would carry rows elsewhere.

use super::super::tally::Tally;
use super::WebhookConfig;
use crate::contract::{BuildContext, Code, CodedError, Exit, RetrySettings, TableSchema, Token, hex};
use aws_lc_rs::hmac;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tracing::warn;

/// The receiver answered that it will not take rows.
pub const REFUSED: Code = Code::new("WH0001", Exit::Failure);

/// The receiver was not reached, or asked for another try, until the deadline.
pub const GAVE_UP: Code = Code::new("WH0002", Exit::Failure);

/// A setting cannot be used.
pub const SETTING: Code = Code::new("WH0003", Exit::Usage);

/// Lines or a mark, ready to be sent.
pub(super) struct Message {
    pub(super) table: Arc<TableSchema>,
    pub(super) first: Token,
    pub(super) last: Token,
    pub(super) body: Bytes,
}

/// A header that the pipeline file may set.
pub(super) fn header_name(name: &str) -> Option<HeaderName> {
    let own = ["content-type", "content-length", "host", "transfer-encoding"];
    let name: HeaderName = name.parse().ok()?;
    (!own.contains(&name.as_str()) && !name.as_str().starts_with("x-etl-stream-")).then_some(name)
}

/// Where requests go.
pub(super) struct Receiver {
    sink: Arc<str>,
    url: reqwest::Url,
    headers: HeaderMap,
    key: Option<hmac::Key>,
    retry: RetrySettings,
    client: reqwest::Client,
    slots: Semaphore,
}

/// Why a try failed.
enum Refusal {
    /// Worth another, not before this time has passed.
    Later(String, Duration),
    Final(String),
}

impl Receiver {
    /// Reads its secrets; sends nothing.
    pub(super) fn new(config: &WebhookConfig, cx: &BuildContext) -> Result<Self, CodedError> {
        let wrong = |what: &str, hint: &'static str| CodedError::definite(SETTING, format!("sink \"{}\": {what}", cx.node)).hint(hint);
        // The parser's errors could quote what may be secrets.
        let url: reqwest::Url = cx
            .secret(&config.url)?
            .expose_secret()
            .parse()
            .map_err(|_| wrong("its url is not a URL", "give `url` as https://host/path"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("its url is not one of http or https", "give `url` as https://host/path"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let found = header_name(name).zip(HeaderValue::from_str(cx.secret(value)?.expose_secret()).ok());
            let (name, mut value) = found
                .ok_or_else(|| wrong(&format!("header \"{name}\" cannot be sent"), "a header's value is visible ASCII on one line"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("etl-stream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.timeout.0)
            .timeout(config.timeout.0)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| wrong("the HTTP client was not made", "look at the certificates of this machine").caused_by(e))?;
        let key = config.secret.as_ref().map(|secret| cx.secret(secret)).transpose()?;
        Ok(Self {
            sink: Arc::clone(&cx.node),
            url,
            headers,
            key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes())),
            retry: config.retry,
            client,
            slots: Semaphore::new(config.connections.into()),
        })
    }

    /// Sends a message until it is taken.
    pub(super) async fn post(&self, message: &Message, tally: &Tally) -> Result<(), CodedError> {
        let deadline = Instant::now() + self.retry.give_up_after.0;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.retry.initial.0)
            .with_max_delay(self.retry.max.0)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let tried = {
                let _slot = self.slots.acquire().await;
                self.once(message).await
            };
            let (why, wait) = match tried {
                Ok(()) => return Ok(()),
                Err(Refusal::Final(why)) => return Err(self.failed(message, CodedError::definite, REFUSED, &why)),
                Err(Refusal::Later(why, wait)) => (why, wait.min(self.retry.max.0)),
            };
            let pause = pauses.next().unwrap_or(self.retry.max.0).max(wait);
            if Instant::now() + pause > deadline {
                return Err(self.failed(message, CodedError::transient, GAVE_UP, &why));
            }
            tally.retried();
            warn!(sink = &*self.sink, table = message.table.full_name(), "rows are sent again in {} ms: {why}", pause.as_millis());
            tokio::time::sleep(pause).await;
        }
    }

    fn failed(&self, message: &Message, kind: fn(Code, String) -> CodedError, code: Code, why: &str) -> CodedError {
        let (table, sink) = (message.table.full_name(), &self.sink);
        kind(code, format!("sink \"{sink}\": rows of table \"{table}\" from {} to {} were not taken: {why}", message.first, message.last))
            .hint("look at the receiver's log; what it has not taken is sent again at the next start")
    }

    async fn once(&self, message: &Message) -> Result<(), Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let name = message.table.full_name();
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header("Content-Type", "application/x-ndjson")
            .header("X-Etl-Stream-Table", percent_encoding::utf8_percent_encode(&name, percent_encoding::CONTROLS).to_string())
            .header("X-Etl-Stream-First", message.first.to_string())
            .header("X-Etl-Stream-Last", message.last.to_string())
            .header("X-Etl-Stream-Timestamp", &now);
        if let Some(key) = &self.key {
            let mut signing = hmac::Context::with_key(key);
            signing.update(now.as_bytes());
            signing.update(b".");
            signing.update(&message.body);
            let mut signature = b"sha256=".to_vec();
            hex::write(signing.sign().as_ref(), &mut signature);
            request = request.header("X-Etl-Stream-Signature", signature);
        }
        let answer = request.body(message.body.clone()).send().await;
        // Its URL may hold a secret.
        let answer = answer.map_err(|e| Refusal::Later(e.without_url().to_string(), Duration::ZERO))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("HTTP status {}", status.as_u16());
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            let wait = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            return Err(Refusal::Later(why, Duration::from_secs(wait.unwrap_or(0))));
        }
        Err(Refusal::Final(why))
    }
}
