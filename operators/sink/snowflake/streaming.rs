//! Snowpipe Streaming's REST interface: the ingest host, its token, and the requests of a channel.
//!
//! ```text
//! GET  /v2/streaming/hostname                                     JWT      -> ingest host, plain text or JSON
//! POST /oauth/token  grant_type=…jwt-bearer&scope=<host>          JWT      -> a scoped token
//! PUT  …/pipes/<pipe>/channels/<channel>                          scoped   -> continuation token, status
//! POST /v2/streaming/data/…/channels/<channel>/rows               scoped   -> next continuation token
//! POST …/pipes/<pipe>:bulk-channel-status                         scoped   -> status of many channels
//! ```
//! An answer of 200 to rows means accepted, not durable: only the committed offset token says that.

use super::classify::{Verdict, classify};
use super::errors::{SF_STREAMING, SF_UNREACHABLE};
use super::http::{Bearer, Http, Refusal};
use super::jwt::{Jwt, expiry, now};
use super::sdk::Sdk;
use crate::contract::{CodedError, Token};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// What may stand unencoded in a path segment (RFC 3986, "unreserved").
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How long a token that does not say when it ends is used.
const UNSAID_LIFE: u64 = 10 * 60;
const RENEW_BEFORE: u64 = 60;

/// The default pipe of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipe {
    path: String,
    /// Database, schema and pipe.
    pub(super) names: [String; 3],
    /// For messages.
    pub(super) table: String,
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

impl Pipe {
    /// The pipe of a table, by its exact names.
    pub(super) fn of(database: &str, schema: &str, table: &str) -> Self {
        let pipe = format!("{table}-STREAMING");
        Self {
            path: format!("databases/{}/schemas/{}/pipes/{}", segment(database), segment(schema), segment(&pipe)),
            names: [database.to_owned(), schema.to_owned(), pipe],
            table: format!("{schema}.{table}"),
        }
    }
}

/// What a channel says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChannelStatus {
    /// Whether rows may be appended as before.
    pub(super) valid: bool,
    /// Whether another client has taken it.
    pub(super) taken: bool,
    /// Everything up to it is in the table.
    pub(super) committed: Token,
    /// Rows that were accepted and then rejected, since the channel was made.
    pub(super) rejected: u64,
    /// The code of the last rejection, without its values.
    pub(super) last_error: String,
    /// A token at or after the last rejected row.
    pub(super) last_error_bound: String,
}

/// A code or the first words of a rejection; its text may hold values, which are never shown.
fn error_kind(message: &str) -> String {
    let kind: String = message.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ' ')).take(60).collect();
    kind.split(' ').find(|word| word.starts_with("ERR_")).map_or_else(|| "no code given".into(), str::to_owned)
}

impl ChannelStatus {
    pub(super) fn read(status: &Value) -> Result<Self, CodedError> {
        let text = |names: &[&str]| names.iter().find_map(|name| status.get(name).and_then(Value::as_str)).unwrap_or_default().to_owned();
        let number = |names: &[&str]| names.iter().find_map(|name| status.get(name).and_then(Value::as_u64)).unwrap_or(0);
        let code = text(&["channel_status_code", "status_code"]);
        let token = text(&["last_committed_offset_token", "latest_committed_offset_token"]);
        let committed = match token.as_str() {
            "" => Token::ZERO,
            token => token.parse().map_err(|_| {
                CodedError::definite(SF_STREAMING, "the channel's committed offset token was not written by this program")
                    .hint("drop the channel, or name the pipeline differently")
            })?,
        };
        Ok(Self {
            valid: matches!(code.as_str(), "" | "SUCCESS" | "ACTIVE"),
            taken: classify(409, &code) == Verdict::Fenced,
            committed,
            rejected: number(&["rows_error_count", "rows_errors"]),
            last_error: error_kind(&text(&["last_error_message"])),
            last_error_bound: text(&["last_error_offset_upper_bound", "last_error_offset_token_upper_bound"]),
        })
    }
}

/// The token for the ingest host.
struct Scoped {
    http: Arc<Http>,
    jwt: Arc<Jwt>,
    url: url::Url,
    scope: String,
    current: Mutex<Option<(Arc<str>, u64)>>,
    renewing: tokio::sync::Mutex<()>,
}

impl Scoped {
    fn kept(&self) -> Option<Arc<str>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|(_, ends)| now() + RENEW_BEFORE < *ends).map(|(token, _)| Arc::clone(token))
    }
}

impl Bearer for Scoped {
    const KIND: &'static str = "OAUTH";

    async fn token(&self) -> Result<Arc<str>, Refusal> {
        if let Some(token) = self.kept() {
            return Ok(token);
        }
        let _renewing = self.renewing.lock().await;
        if let Some(token) = self.kept() {
            return Ok(token);
        }
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let form = format!("grant_type={}&scope={}", segment(grant), segment(&self.scope));
        let answer = self
            .http
            .call(&*self.jwt, |client, _| {
                client.post(self.url.clone()).header("Content-Type", "application/x-www-form-urlencoded").body(form.clone())
            })
            .await?;
        let text = match answer.json().get("access_token").and_then(Value::as_str) {
            Some(token) => token.to_owned(),
            None => String::from_utf8_lossy(&answer.body).trim().to_owned(),
        };
        let token: Arc<str> = text.into();
        let life = expiry(&token).unwrap_or_else(|| now() + UNSAID_LIFE);
        // One that ends at once is used once.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&token), life));
        Ok(token)
    }

    fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The streaming interface of an account.
pub(super) struct Streaming {
    http: Arc<Http>,
    jwt: Arc<Jwt>,
    base: url::Url,
    ingest: tokio::sync::OnceCell<(url::Url, Scoped)>,
    /// With `via: sdk`.
    sdk: Option<Sdk>,
}

impl Streaming {
    /// At the account's URL.
    pub(super) fn new(http: Arc<Http>, jwt: Arc<Jwt>, base: url::Url, sdk: Option<Sdk>) -> Self {
        Self { http, jwt, base, ingest: tokio::sync::OnceCell::new(), sdk }
    }

    /// Whether rows go as plain text, which whoever sends them compresses.
    pub(super) fn plain(&self) -> bool {
        self.sdk.is_some()
    }

    /// Sees whether there is an ingest host, and a token for it.
    pub(super) async fn reach(&self) -> Result<(), CodedError> {
        if let Some(sdk) = &self.sdk {
            sdk.reach().await?;
        }
        let (_, scoped) = self.ingest().await?;
        scoped.token().await.map(|_| ()).map_err(|refusal| refusal.error("asking for a token of the ingest host"))
    }

    /// Finds the ingest host, once.
    async fn ingest(&self) -> Result<&(url::Url, Scoped), CodedError> {
        let doing = "finding the ingest host";
        let find = || async {
            let url = self.base.join("/v2/streaming/hostname").map_err(|e| host_error(&e))?;
            let answer = self.http.call(&*self.jwt, |client, _| client.get(url.clone())).await.map_err(|r| r.error(doing))?;
            let body = answer.json();
            let named = body.get("hostname").or_else(|| body.get("host")).and_then(Value::as_str);
            let text = String::from_utf8_lossy(&answer.body);
            // Host names of accounts with an underscore come with it; certificates have a hyphen.
            let host = named.unwrap_or(text.trim()).replace('_', "-");
            let mut ingest = self.base.clone();
            ingest.set_host(Some(&host)).map_err(|e| host_error(&e))?;
            let scoped = Scoped {
                http: Arc::clone(&self.http),
                jwt: Arc::clone(&self.jwt),
                url: self.base.join("/oauth/token").map_err(|e| host_error(&e))?,
                scope: host,
                current: Mutex::new(None),
                renewing: tokio::sync::Mutex::new(()),
            };
            Ok((ingest, scoped))
        };
        self.ingest.get_or_try_init(find).await
    }

    /// Opens a channel: fences its earlier writer, and gives the first continuation token. Refused while rows
    /// that were accepted before are not committed.
    pub(super) async fn open(&self, pipe: &Pipe, channel: &str) -> Result<Result<(String, ChannelStatus), Refusal>, CodedError> {
        if let Some(sdk) = &self.sdk {
            return sdk.open(pipe, channel).await;
        }
        let (base, token) = self.ingest().await?;
        let url = at(base, &format!("v2/streaming/{}/channels/{}", pipe_path(pipe), segment(channel)))?;
        let sent = self.http.call(token, |client, _| client.put(url.clone()).json(&json!({ "fail_on_uncommitted_rows": true }))).await;
        let answer = match sent {
            Ok(answer) => answer.json(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let status = ChannelStatus::read(answer.get("channel_status").unwrap_or(&Value::Null))?;
        let continuation = answer.get("next_continuation_token").and_then(Value::as_str).ok_or_else(no_continuation)?;
        Ok(Ok((continuation.to_owned(), status)))
    }

    /// Appends rows: zstd-compressed NDJSON. Gives the next continuation token.
    pub(super) async fn append(
        &self,
        pipe: &Pipe,
        channel: &str,
        continuation: &str,
        (first, last): (Token, Token),
        body: Bytes,
    ) -> Result<Result<String, Refusal>, CodedError> {
        if let Some(sdk) = &self.sdk {
            let bytes = body.len() as u64;
            let sent = sdk.append(pipe, channel, continuation, (first, last), body).await?;
            if sent.is_ok() {
                self.http.meter.sent(bytes);
            }
            return Ok(sent);
        }
        let (base, token) = self.ingest().await?;
        let mut url = at(base, &format!("v2/streaming/data/{}/channels/{}/rows", pipe_path(pipe), segment(channel)))?;
        url.query_pairs_mut()
            .append_pair("continuationToken", continuation)
            .append_pair("startOffsetToken", &first.to_string())
            .append_pair("endOffsetToken", &last.to_string());
        let sent = self
            .http
            .call(token, |client, _| {
                client
                    .post(url.clone())
                    .header("Content-Type", "application/x-ndjson")
                    .header("Content-Encoding", "zstd")
                    .body(body.clone())
            })
            .await;
        let answer = match sent {
            Ok(answer) => answer.json(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.http.meter.sent(body.len() as u64);
        let next = answer.get("next_continuation_token").and_then(Value::as_str).ok_or_else(no_continuation)?;
        Ok(Ok(next.to_owned()))
    }

    /// The status of a pipe's channels, in their order; `None` for one that does not exist.
    pub(super) async fn statuses(&self, pipe: &Pipe, channels: &[String]) -> Result<Vec<Option<ChannelStatus>>, CodedError> {
        let (base, token) = self.ingest().await?;
        let url = at(base, &format!("v2/streaming/{}:bulk-channel-status", pipe_path(pipe)))?;
        let body = json!({ "channel_names": channels });
        let asked = self.http.call(token, |client, _| client.post(url.clone()).json(&body));
        let answer = asked.await.map_err(|r| r.error(&format!("asking what is committed of table \"{}\"", pipe.table)))?;
        let mut found = match answer.json().get_mut("channel_statuses").map(Value::take) {
            Some(Value::Object(found)) => found,
            _ => serde_json::Map::new(),
        };
        if let Some(sdk) = &self.sdk {
            // Asked after the service: what it told of a channel that was another's by then is not believed.
            for (name, code) in sdk.lost(pipe, channels).await? {
                match found.get_mut(&name) {
                    Some(Value::Object(status)) => drop(status.insert("channel_status_code".into(), code)),
                    _ => drop(found.insert(name, json!({ "channel_status_code": code }))),
                }
            }
        }
        channels.iter().map(|name| found.get(name).map(ChannelStatus::read).transpose()).collect()
    }
}

fn pipe_path(pipe: &Pipe) -> &str {
    &pipe.path
}

/// A URL whose path is already encoded.
fn at(base: &url::Url, path: &str) -> Result<url::Url, CodedError> {
    base.join(&format!("/{path}")).map_err(|e| host_error(&e))
}

fn host_error(error: &url::ParseError) -> CodedError {
    CodedError::definite(SF_UNREACHABLE, format!("the ingest host's name was not understood: {error}"))
}

fn no_continuation() -> CodedError {
    CodedError::definite(SF_STREAMING, "the answer has no continuation token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        let pipe = Pipe::of("RAW", "My Schema", "a/b?\"c\"%é");
        assert_eq!(pipe.path, "databases/RAW/schemas/My%20Schema/pipes/a%2Fb%3F%22c%22%25%C3%A9-STREAMING");
        let url = at(&"https://h:1/x".parse().unwrap(), &format!("v2/{}", pipe.path)).unwrap();
        assert_eq!(url.path(), format!("/v2/{}", pipe.path));
    }

    #[test]
    fn statuses_are_read() {
        let status = ChannelStatus::read(&json!({
            "channel_status_code": "SUCCESS", "last_committed_offset_token": Token::new(1, 2).to_string(),
            "rows_errors": 3, "last_error_message": "ERR_CAST column 'A': value 'x'",
        }))
        .unwrap();
        assert!(status.valid);
        assert_eq!((status.committed, status.rejected, status.last_error.as_str()), (Token::new(1, 2), 3, "ERR_CAST"));
        assert_eq!(ChannelStatus::read(&json!({})).unwrap().committed, Token::ZERO);
        assert!(!ChannelStatus::read(&json!({ "channel_status_code": "ERR_CHANNEL_MUST_BE_REOPENED" })).unwrap().valid);
        assert!(ChannelStatus::read(&json!({ "last_committed_offset_token": "17" })).is_err());
        for (message, kind) in [
            ("Numeric value 'secret' is wrong", "no code given"),
            ("", "no code given"),
            ("bad: ERR_X", "no code given"),
            ("ERR_CAST x", "ERR_CAST"),
        ] {
            assert_eq!(error_kind(message), kind);
        }
    }
}
