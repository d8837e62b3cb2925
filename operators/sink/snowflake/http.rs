//! One HTTP client, and the loop that every request goes through.
//!
//! ```text
//! token ──> send ──> 2xx ──> answer
//!   ^         └──> classify ──> Retry: pause, again · Reauthenticate: new token, again · else: refusal
//!   └───────────────────────────────────┘
//! ```
//! Pauses grow with jitter until the retry settings' deadline. A refusal says whether an earlier try may
//! have been carried out unseen (`ambiguous`).

use super::classify::{Verdict, classify};
use super::errors::{SF_AUTH, SF_MISSING, SF_STREAMING, SF_UNREACHABLE};
use super::jwt::Jwt;
use super::meter::Meter;
use crate::contract::{CodedError, RetrySettings};
use crate::failpoint;
use backon::BackoffBuilder;
use bytes::Bytes;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a token may be refused in a row before the user is.
const TOKENS: u32 = 3;
/// How long a request is tried for which a user waits.
const HURRY: Duration = Duration::from_secs(5);

/// A token and how it is named to Snowflake.
pub(super) trait Bearer: Sync {
    /// The value of `X-Snowflake-Authorization-Token-Type`.
    const KIND: &'static str;
    /// A token that should be accepted.
    fn token(&self) -> impl Future<Output = Result<Arc<str>, Refusal>> + Send;
    /// It was not: the next must be new.
    fn forget(&self);
}

impl Bearer for Jwt {
    const KIND: &'static str = "KEYPAIR_JWT";
    async fn token(&self) -> Result<Arc<str>, Refusal> {
        Self::token(self).map_err(Refusal::own)
    }
    fn forget(&self) {
        Self::forget(self);
    }
}

/// An answer with a status of success.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its body.
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when it is not.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Why a request was not answered as wanted.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What it asks for.
    pub(super) verdict: Verdict,
    /// HTTP status; 0 when there was no answer.
    pub(super) status: u16,
    /// Snowflake's code, or nothing.
    pub(super) code: String,
    /// Its SQL state, or nothing.
    pub(super) sql_state: String,
    /// Snowflake's words, or the transport's.
    pub(super) message: String,
    /// Whether an earlier try of the same request may have been carried out.
    pub(super) ambiguous: bool,
    /// An error of our own, in place of an answer.
    own: Option<CodedError>,
}

impl Refusal {
    fn own(error: CodedError) -> Self {
        Self { own: Some(error), ..Self::transport(String::new(), Verdict::Stop) }
    }

    fn transport(message: String, verdict: Verdict) -> Self {
        Self { verdict, status: 0, code: String::new(), sql_state: String::new(), message, ambiguous: false, own: None }
    }

    /// Reads the body of an answer that is not a success.
    ///
    /// ```text
    /// {"code":"390144","message":"…"}                 SQL API
    /// {"error_code":"ERR_…","message":"…"}            streaming; also {"code":"ERR_…",…}
    /// "ERR_GENERAL_EXCEPTION_RETRY_REQUEST"           streaming, a bare string
    /// ```
    pub(super) fn answered(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        // What is no word is no code: it could be anything, and codes are shown and logged.
        let word = |text: &str| text.len() <= 100 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        let found = [text("code"), text("error_code"), body.as_str().unwrap_or_default()];
        let code = found.into_iter().find(|code| !code.is_empty() && word(code)).unwrap_or_default().to_owned();
        let sql_state = Some(text("sqlState")).filter(|state| word(state)).unwrap_or_default().to_owned();
        Self { verdict: classify(status, &code), status, code, sql_state, message: text("message").to_owned(), ambiguous: false, own: None }
    }

    /// What came back, in a few words.
    pub(super) fn words(&self) -> String {
        match (self.status, self.code.as_str()) {
            (0, _) => self.message.clone(),
            (status, "") => format!("HTTP status {status}"),
            (status, code) => format!("HTTP status {status}, {code}: {}", self.message.lines().next().unwrap_or_default()),
        }
    }

    /// The error this ends in; `doing` says what was attempted.
    pub(super) fn error(self, doing: &str) -> CodedError {
        if let Some(own) = self.own {
            return own;
        }
        let words = self.words();
        match self.verdict {
            Verdict::Retry | Verdict::Uncommitted => {
                CodedError::transient(SF_UNREACHABLE, format!("{doing}: gave up after retries: {words}"))
                    .hint("look at https://status.snowflake.com and the network between; `retry: { give_up_after }` sets how long it is tried")
            }
            Verdict::Reauthenticate | Verdict::Denied => CodedError::definite(SF_AUTH, format!("{doing}: not accepted: {words}"))
                .hint("compare RSA_PUBLIC_KEY_FP of `DESCRIBE USER` with the key's fingerprint, and look at the account, the user and its network policy"),
            Verdict::Missing => CodedError::definite(SF_MISSING, format!("{doing}: {words}"))
                .hint("create what is missing, or grant the role the privileges it lacks"),
            Verdict::Fenced | Verdict::Reopen | Verdict::Stop => CodedError::definite(SF_STREAMING, format!("{doing}: {words}")),
        }
    }
}

/// The client.
pub(super) struct Http {
    client: reqwest::Client,
    retry: RetrySettings,
    /// Whether somebody waits for the answer, so that faults are not waited out.
    hurried: AtomicBool,
    /// What it counts.
    pub(super) meter: Meter,
}

impl Http {
    /// Makes it; `timeout` bounds one try of one request.
    pub(super) fn new(retry: RetrySettings, timeout: Duration, meter: Meter) -> Result<Self, CodedError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("etl-stream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(50))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_while_idle(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| CodedError::definite(SF_UNREACHABLE, "the HTTP client was not made").caused_by(e))?;
        Ok(Self { client, retry, hurried: AtomicBool::new(false), meter })
    }

    /// From here on requests are given up soon: a user waits for what comes of them.
    pub(super) fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Pauses between tries: exponential, with jitter, until the deadline.
    pub(super) fn pauses(&self) -> Pauses {
        let pauses = backon::ExponentialBuilder::new()
            .with_min_delay(self.retry.initial.0)
            .with_max_delay(self.retry.max.0)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        let most = if self.hurried.load(Ordering::Relaxed) { HURRY } else { Duration::MAX };
        Pauses { pauses, deadline: Instant::now() + self.retry.give_up_after.0.min(most) }
    }

    /// Sends a request until it is answered, refused, or given up. `build` gets the number of the try, from 0.
    pub(super) async fn call<B: Bearer>(
        &self,
        bearer: &B,
        build: impl Fn(&reqwest::Client, u32) -> reqwest::RequestBuilder + Send + Sync,
    ) -> Result<Answer, Refusal> {
        let mut pauses = self.pauses();
        let (mut tries, mut denied, mut ambiguous) = (0, 0, false);
        loop {
            let token = bearer.token().await?;
            let request = build(&self.client, tries).bearer_auth(token).header("X-Snowflake-Authorization-Token-Type", B::KIND);
            tries += 1;
            let (mut refusal, wait) = match self.once(request).await {
                Ok(answer) => {
                    self.meter.answered();
                    return Ok(answer);
                }
                Err(refused) => refused,
            };
            refusal.ambiguous |= ambiguous;
            match refusal.verdict {
                Verdict::Retry => {
                    // A refusal may hide that the request was carried out, unless it never left.
                    ambiguous |= refusal.ambiguous || refusal.status >= 500 || refusal.status == 408;
                    let Some(pause) = pauses.next() else { return Err(self.refused(refusal)) };
                    tracing::debug!(status = refusal.status, code = refusal.code, "request goes out again");
                    self.meter.retried();
                    tokio::time::sleep(pause.max(wait)).await;
                }
                Verdict::Reauthenticate if denied < TOKENS => {
                    denied += 1;
                    bearer.forget();
                    self.meter.retried();
                    tokio::time::sleep(self.retry.initial.0 * (denied - 1)).await;
                }
                _ => return Err(self.refused(refusal)),
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        self.meter.refused();
        refusal
    }

    async fn once(&self, request: reqwest::RequestBuilder) -> Result<Answer, (Refusal, Duration)> {
        let lost = |error: reqwest::Error| {
            let unsent = error.is_connect() || error.is_builder();
            let verdict = if error.is_builder() { Verdict::Stop } else { Verdict::Retry };
            let mut message = error.without_url().to_string();
            if unsent {
                message = format!("no connection: {message}");
            }
            (Refusal { ambiguous: !unsent, ..Refusal::transport(message, verdict) }, Duration::ZERO)
        };
        failpoint::reach("snowflake.request");
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = Duration::from_secs(wait.unwrap_or(0)).min(self.retry.max.0);
        let body = response.bytes().await.map_err(lost)?;
        failpoint::reach("snowflake.answer");
        // The service has answered a wish for another try as a bare string with any status.
        if status.is_success() && body.first() != Some(&b'"') {
            return Ok(Answer { status: status.as_u16(), body });
        }
        Err((Refusal::answered(status.as_u16(), &body), wait))
    }
}

/// See [`Http::pauses`].
pub(super) struct Pauses {
    pauses: backon::ExponentialBackoff,
    deadline: Instant,
}

impl Iterator for Pauses {
    type Item = Duration;

    /// The next pause; `None` when it would pass the deadline.
    fn next(&mut self) -> Option<Duration> {
        let pause = self.pauses.next()?;
        (Instant::now() + pause <= self.deadline).then_some(pause)
    }
}
