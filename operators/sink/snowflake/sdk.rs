//! `via: sdk`: the streaming interface through Snowflake's official SDK, in worker processes.
//!
//! ```text
//! streaming ──open, append, statuses──> Pool ──> python3: snowpipe-streaming ──> Snowflake
//! ```
//! # Guarantees
//! As the native way: the same channels, tokens, counts and landing tables. A channel belongs to one process, by its name;
//! one that a process had which is gone, or that another client took, is told as invalid, and opened again with what is
//! not committed. The private key goes to the processes through their socket and is in memory only.

use super::errors::SF_SDK;
use super::http::Refusal;
use super::streaming::{ChannelStatus, Pipe};
use crate::contract::{CodedError, Token};
use crate::python::pool::Pool;
use crate::python::process::{Launch, default_python};
use crate::python::worker::Request;
use crate::python::{Frame, Told};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The worker's code.
const SCRIPT: &str = concat!(include_str!("../../python/worker/frames.py"), "\n", include_str!("../../python/worker/sdk.py"));
/// What a compressed body begins with (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Which way rows go to Snowpipe Streaming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Its REST interface, from this process.
    #[default]
    Rest,
    /// Snowflake's official Python SDK, `snowpipe-streaming`, in processes of its own. Slower; may be changed at any time.
    Sdk,
}

/// Processes of the SDK.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SdkSettings {
    /// Processes, 1 to 64. A channel belongs to one of them.
    pub workers: u16,
    /// The interpreter, which must have snowpipe-streaming 1.9. Default: `python3` beside the program, or the first of the path.
    pub python: Option<PathBuf>,
    /// The URL the SDK is given, always https. Default: the account's.
    pub url: Option<String>,
    /// Certificates that are trusted instead of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
}

impl Default for SdkSettings {
    fn default() -> Self {
        Self { workers: 2, python: None, url: None, ca_file: None }
    }
}

/// What the SDK logs in with.
pub(super) struct Login {
    pub(super) account: String,
    pub(super) user: String,
    pub(super) role: Option<String>,
    /// The private key as PEM, not encrypted.
    pub(super) key: crate::contract::SecretString,
    pub(super) url: String,
}

/// The SDK's processes.
pub(super) struct Sdk {
    pool: Pool,
}

/// A stable hash of a channel's name (FNV-1a).
fn route(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

impl Sdk {
    /// Starts them; each with its first request.
    ///
    /// # Errors
    /// When there are no threads.
    pub(super) fn start(
        node: &Arc<str>,
        settings: &SdkSettings,
        login: Login,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, CodedError> {
        use secrecy::ExposeSecret;
        let mut properties = json!({
            "account": login.account, "user": login.user, "url": login.url, "private_key": login.key.expose_secret(),
        });
        if let Some(role) = login.role {
            properties["role"] = role.into();
        }
        let mut environment = vec![("SS_LOG_LEVEL".to_owned(), "warn".to_owned())];
        if let Some(file) = &settings.ca_file {
            environment.push(("SSL_CERT_FILE".into(), file.display().to_string()));
        }
        let launch = Launch {
            node: Arc::clone(node),
            python: settings.python.clone().unwrap_or_else(default_python),
            script: SCRIPT,
            settings: json!({ "properties": properties, "patience": patience.as_secs_f64() }),
            environment,
            // The SDK waits by itself for what is in flight when a channel is opened.
            timeout: timeout + patience,
        };
        Ok(Self { pool: Pool::start(launch, usize::from(settings.workers))? })
    }

    async fn ask(&self, worker: usize, subject: &str, header: Value, body: Bytes) -> Result<Result<Value, Refusal>, CodedError> {
        let (done, answer) = oneshot::channel();
        let done = Box::new(move |it| drop(done.send(it)));
        self.pool.ask(worker, Request::new(Frame { header, body }, subject.to_owned(), done));
        let ended = |_| CodedError::transient(SF_SDK, format!("{subject}: the worker has ended"));
        let answer = answer.await.map_err(ended)?.map_err(with_hint)?;
        if let Some(told) = Told::of(&answer.header) {
            return Err(CodedError::definite(SF_SDK, format!("{subject}: the SDK's worker failed")).caused_by(told));
        }
        Ok(match answer.header.get("refused") {
            Some(refused) => Err(refusal(refused)),
            None => Ok(answer.header),
        })
    }

    /// Sees whether the SDK is there.
    pub(super) async fn reach(&self) -> Result<(), CodedError> {
        let subject = "looking for Snowflake's streaming SDK";
        self.ask(0, subject, json!({ "call": "reach" }), Bytes::new()).await?.map(|_| ()).map_err(|refusal| refusal.error(subject))
    }

    /// As [`super::streaming::Streaming::open`].
    pub(super) async fn open(&self, pipe: &Pipe, channel: &str) -> Result<Result<(String, ChannelStatus), Refusal>, CodedError> {
        let header = json!({ "call": "open", "pipe": pipe.names, "channel": channel });
        let answer = match self.ask(self.worker(channel), &format!("opening channel \"{channel}\""), header, Bytes::new()).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let status = ChannelStatus::read(answer.get("status").unwrap_or(&Value::Null))?;
        let continuation = answer.get("continuation").and_then(Value::as_str).unwrap_or_default();
        Ok(Ok((continuation.to_owned(), status)))
    }

    /// As [`super::streaming::Streaming::append`]; the rows are buffered by the SDK when it returns.
    pub(super) async fn append(
        &self,
        pipe: &Pipe,
        channel: &str,
        continuation: &str,
        (first, last): (Token, Token),
        body: Bytes,
    ) -> Result<Result<String, Refusal>, CodedError> {
        let body = if body.starts_with(&ZSTD) {
            zstd::decode_all(&body[..]).map_err(|e| CodedError::definite(SF_SDK, "rows were not decompressed").caused_by(e))?.into()
        } else {
            body
        };
        let header = json!({
            "call": "append", "pipe": pipe.names, "channel": channel, "continuation": continuation,
            "first": first.to_string(), "last": last.to_string(),
        });
        let sent = self.ask(self.worker(channel), &format!("appending rows to channel \"{channel}\""), header, body).await?;
        Ok(sent.map(|_| continuation.to_owned()))
    }

    /// The channels that are no longer the processes' that had them, each with the service's code for it. What is committed
    /// the service is asked itself: the SDK tells what it heard, which it asks for about once a second.
    pub(super) async fn lost(&self, pipe: &Pipe, channels: &[String]) -> Result<serde_json::Map<String, Value>, CodedError> {
        let subject = format!("asking whose channels table \"{}\" has", pipe.table);
        let mut workers: Vec<usize> = channels.iter().map(|name| self.worker(name)).collect();
        workers.sort_unstable();
        workers.dedup();
        let questions = workers.into_iter().map(|worker| {
            let own: Vec<&String> = channels.iter().filter(|name| self.worker(name) == worker).collect();
            let header = json!({ "call": "lost", "pipe": pipe.names, "channels": own });
            self.ask(worker, &subject, header, Bytes::new())
        });
        let mut found = serde_json::Map::new();
        for answer in futures::future::try_join_all(questions).await? {
            let mut answer = answer.map_err(|refusal| refusal.error(&subject))?;
            if let Some(Value::Object(lost)) = answer.get_mut("lost").map(Value::take) {
                found.extend(lost);
            }
        }
        Ok(found)
    }

    /// The worker of a channel, whose name ends in its number.
    fn worker(&self, channel: &str) -> usize {
        let (table, number) = channel.rsplit_once('.').unwrap_or((channel, ""));
        self.pool.worker_of_part(route(table), number.parse().unwrap_or(0))
    }
}

/// What the service or the SDK answered, as a refusal.
fn refusal(refused: &Value) -> Refusal {
    let text = |name: &str| refused.get(name).and_then(Value::as_str).unwrap_or_default();
    let status = refused.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
    let code = match (text("service"), text("code")) {
        (
            "",
            "InvalidChannelError"
            | "ClosedChannelError"
            | "ChannelClosedByUser"
            | "InvalidClientError"
            | "ClosedClientError"
            | "ChannelNotFound",
        ) => "ERR_CHANNEL_MUST_BE_REOPENED",
        ("", "SfApiAuthError" | "AuthTokenError") => "390144",
        ("", "SfApiNotFoundError") => "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED",
        ("", code) => code,
        (service, _) => service,
    };
    Refusal::answered(status, json!({ "code": code, "message": "told by the SDK" }).to_string().as_bytes())
}

/// Says where the SDK comes from.
fn with_hint(error: CodedError) -> CodedError {
    if error.code != crate::python::PY_START || error.cause.is_none() {
        return error;
    }
    let message = error.message.clone();
    CodedError { class: error.class, ..CodedError::definite(SF_SDK, message) }
        .hint("install it beside the interpreter: `<python> -m pip install snowpipe-streaming==1.9.1`, or set `sdk: { python }` to one that has it")
}

#[cfg(test)]
mod tests {
    use super::super::classify::Verdict;
    use super::*;

    #[test]
    fn errors_of_the_sdk_ask_for_what_the_service_s_do() {
        for (code, service, status, verdict) in [
            ("InvalidChannelError", "STALE_CONTINUATION_TOKEN_SEQUENCER", 409, Verdict::Fenced),
            ("InvalidChannelError", "ERR_CHANNEL_MUST_BE_REOPENED", 409, Verdict::Reopen),
            ("InvalidChannelError", "", 409, Verdict::Reopen),
            ("ClosedClientError", "", 409, Verdict::Reopen),
            ("SfApiNotFoundError", "", 404, Verdict::Missing),
            ("SfApiNotFoundError", "ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", 404, Verdict::Missing),
            ("SfApiAuthError", "", 401, Verdict::Reauthenticate),
            ("ReceiverSaturated", "", 429, Verdict::Retry),
            ("HttpRetryableClientError", "", 503, Verdict::Retry),
            ("InvalidArgument", "", 400, Verdict::Stop),
        ] {
            let refusal = refusal(&json!({ "code": code, "service": service, "status": status }));
            assert_eq!(refusal.verdict, verdict, "{code} {service}");
        }
    }
}
