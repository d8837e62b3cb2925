//! A webhook: a POST of JSON, signed, tried again until its receiver takes it or its time is over.
//!
//! ```text
//! X-Etl-Stream-Timestamp: <seconds since 1970-01-01 00:00:00 UTC>
//! X-Etl-Stream-Signature: sha256=<hexadecimal HMAC-SHA256 of "<timestamp>.<body>" by the secret>
//! ```
//! A receiver that answers 2xx has it. No answer, 408, 425, 429 and 5xx are tried again, not before `Retry-After`; any other
//! answer is final. Redirects are not followed: they would carry the message elsewhere.

use super::queue::Queue;
use super::{NOTIFIER, Notification, payload};
use crate::config::{NotifierSettings, PayloadFormat};
use aws_lc_rs::hmac;
use backon::{BackoffBuilder, ExponentialBuilder};
use etl_stream_operators::contract::{CodedError, RetrySettings};
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tracing::{error, warn};

/// Notifications by notifier and what became of them.
const NOTIFICATIONS: &str = "etl_stream_notifications_total";

/// Who is told, and how: pipelines whose notifiers agree in it share one webhook.
pub(super) struct Address {
    url: SecretString,
    secret: Option<SecretString>,
    format: PayloadFormat,
    retry: RetrySettings,
    queue: u32,
    timeout: Duration,
}

impl Address {
    /// Reads the secrets of a notifier's settings.
    ///
    /// # Errors
    /// `CFG0020`.
    pub(super) fn read(settings: &NotifierSettings, folder: &Path) -> Result<Self, CodedError> {
        Ok(Self {
            url: settings.url.read(folder)?,
            secret: settings.secret.as_ref().map(|secret| secret.read(folder)).transpose()?,
            format: settings.format,
            retry: settings.retry,
            queue: settings.queue,
            timeout: settings.timeout.0,
        })
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        let secret = |address: &Self| address.secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        self.url.expose_secret() == other.url.expose_secret()
            && secret(self) == secret(other)
            && (self.format, self.retry, self.queue, self.timeout) == (other.format, other.retry, other.queue, other.timeout)
    }
}

/// A webhook.
pub(super) struct Webhook {
    name: String,
    pub(super) address: Address,
    url: Url,
    key: Option<hmac::Key>,
    client: Client,
    queue: Queue<Arc<Notification>>,
    /// How many notifications have come, and how many of them are told, given up or dropped.
    came: AtomicU64,
    gone: watch::Sender<u64>,
}

/// Why a receiver does not have it.
enum Refusal {
    /// Worth another try, not before this time has passed.
    Later(String, Duration),
    /// Not worth one.
    Final(String),
}

impl Webhook {
    /// Makes it.
    ///
    /// # Errors
    /// `CFG0063`.
    pub(super) fn new(name: &str, address: Address) -> Result<Self, CodedError> {
        let wrong = |what: &str| {
            CodedError::definite(NOTIFIER, format!("notifier \"{name}\": {what}"))
                .hint("give `url` as https://host/path, or http:// where the network is trusted")
        };
        // The parser's error could quote what may be a secret.
        let url: Url = address.url.expose_secret().parse().map_err(|_| wrong("its url is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("its url is not one of http or https"));
        }
        let client = Client::builder()
            .user_agent(concat!("etl-stream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(address.timeout)
            .timeout(address.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| CodedError::definite(NOTIFIER, format!("notifier \"{name}\": the HTTP client was not made")).caused_by(e))?;
        Ok(Self {
            name: name.to_owned(),
            url,
            key: address.secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())),
            client,
            queue: Queue::new(address.queue as usize),
            came: AtomicU64::new(0),
            gone: watch::channel(0).0,
            address,
        })
    }

    fn count(&self, notification: &Notification, outcome: &'static str) {
        let labels = [("pipeline", notification.pipeline.to_string()), ("notifier", self.name.clone()), ("outcome", outcome.to_owned())];
        metrics::counter!(NOTIFICATIONS, &labels).increment(1);
        self.gone.send_modify(|gone| *gone += 1);
    }

    /// Puts a notification into the queue.
    pub(super) fn send(&self, notification: &Arc<Notification>) {
        self.came.fetch_add(1, Ordering::Relaxed);
        if let Some(dropped) = self.queue.push(Arc::clone(notification)) {
            self.count(&dropped, "dropped");
            warn!(notifier = self.name, alert = dropped.alert, "the notifier's queue is full: its oldest entry is dropped");
        }
    }

    /// Waits until everything that has come so far is told, given up or dropped.
    pub(super) async fn settled(&self) {
        let came = self.came.load(Ordering::Relaxed);
        // Whoever counts is this.
        let _ = self.gone.subscribe().wait_for(|gone| *gone >= came).await;
    }

    /// Says that nothing more comes.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Tells what is in the queue until it is closed and empty.
    pub(super) async fn run(self: Arc<Self>) {
        while let Some(notification) = self.queue.pop().await {
            match self.tell(&notification).await {
                Ok(()) => self.count(&notification, "sent"),
                Err(why) => {
                    self.count(&notification, "failed");
                    error!(notifier = self.name, alert = notification.alert, event = notification.event.word(), "nobody was told: {why}");
                }
            }
        }
    }

    /// Tries until it is taken, refused, or its time is over.
    async fn tell(&self, notification: &Notification) -> Result<(), String> {
        let body = payload::body(self.address.format, notification).to_string();
        let pauses = ExponentialBuilder::default().with_min_delay(self.address.retry.initial.0).with_max_delay(self.address.retry.max.0);
        let mut pauses = pauses.with_jitter().without_max_times().build();
        let deadline = Instant::now() + self.address.retry.give_up_after.0;
        let mut told = false;
        loop {
            let (why, least) = match self.post(&notification.id, &body).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Final(why)) => return Err(why),
                Err(Refusal::Later(why, least)) => (why, least),
            };
            let pause = pauses.next().unwrap_or(self.address.retry.max.0).max(least);
            if Instant::now() + pause > deadline {
                return Err(format!("given up after retries: {why}"));
            }
            if !std::mem::replace(&mut told, true) {
                warn!(notifier = self.name, alert = notification.alert, "told in vain, trying again: {why}");
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn post(&self, id: &str, body: &str) -> Result<(), Refusal> {
        let mut request =
            self.client.post(self.url.clone()).header("content-type", "application/json").header("x-etl-stream-id", header(id));
        if let Some(key) = &self.key {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header("x-etl-stream-timestamp", now).header("x-etl-stream-signature", signature(key, now, body));
        }
        let response = request.body(body.to_owned()).send().await;
        let response = response.map_err(|error| Refusal::Later(error.without_url().to_string(), Duration::ZERO))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("the receiver answered {status}");
        let later = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        if !later {
            return Err(Refusal::Final(why));
        }
        let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Refusal::Later(why, Duration::from_secs(wait.unwrap_or(0)).min(self.address.retry.max.0)))
    }
}

/// What a header can hold of a text.
fn header(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
}

fn signature(key: &hmac::Key, timestamp: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{timestamp}.{body}").as_bytes());
    let mut text = String::from("sha256=");
    for byte in tag.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
