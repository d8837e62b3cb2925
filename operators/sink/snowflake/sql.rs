//! The SQL API (`/api/v2/statements`): statements in, rows of text out.
//!
//! ```text
//! POST ?requestId=…            200 result · 202 running: GET the handle until 200 · 422 the statement failed
//! POST ?requestId=…&retry=true the same request again: answered by the first one's result if it was carried out
//! GET  /<handle>?partition=n   further rows
//! ```
//! # Guarantees
//! A request is carried out once, however often it had to be sent, as long as the account knows it. One that it forgot
//! (404 for the handle of a statement in progress) is sent again: callers send what does no harm twice. An error names Snowflake's code; its
//! words are kept only for kinds that cannot quote a row's value.

use super::classify::Verdict;
use super::errors::{SF_MISSING, SF_STATEMENT, SF_UNKNOWN_VALUE};
use super::fold::UNKNOWN;
use super::http::{Answer, Http, Refusal};
use super::jwt::Jwt;
use crate::contract::CodedError;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Rows as the API writes them: every value a text or null.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// Where statements run.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// The role, unless the user's default is meant.
    pub(super) role: Option<String>,
    /// The warehouse, unless the user's default is meant.
    pub(super) warehouse: Option<String>,
}

/// The SQL API of an account.
pub(super) struct Sql {
    http: Arc<Http>,
    jwt: Arc<Jwt>,
    base: url::Url,
    session: Session,
}

/// Snowflake's code for an object that is there already.
const EXISTS: &str = "002002";
/// How often a statement may lose against other sessions that make the same.
const RACES: u32 = 3;

/// A text as an SQL literal. Snowflake reads backslash escapes in it.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

impl Sql {
    /// At the account's URL.
    pub(super) fn new(http: Arc<Http>, jwt: Arc<Jwt>, base: url::Url, session: Session) -> Self {
        Self { http, jwt, base, session }
    }

    /// Runs one statement with texts bound to its question marks, and fetches all its rows.
    pub(super) async fn query(&self, doing: &str, statement: &str, binds: &[&str]) -> Result<Rows, CodedError> {
        let mut bindings = Map::new();
        for (at, value) in binds.iter().enumerate() {
            bindings.insert((at + 1).to_string(), json!({ "type": "TEXT", "value": value }));
        }
        let answer = self.run(statement, Value::Object(bindings), 1).await.map_err(|r| failed(r, doing))?;
        self.rows(answer).await.map_err(|r| failed(r, doing))
    }

    /// Runs several statements in one session, in order, until one fails. Gives their handles.
    pub(super) async fn run_all(&self, doing: &str, statements: &[String]) -> Result<Vec<String>, CodedError> {
        if let [statement] = statements {
            let answer = self.run(statement, json!({}), 1).await.map_err(|r| failed(r, doing))?;
            return Ok(answer.get("statementHandle").and_then(Value::as_str).map(str::to_owned).into_iter().collect());
        }
        let answer = self.run(&statements.join(";\n"), json!({}), statements.len()).await.map_err(|r| failed(r, doing))?;
        let handles = answer.get("statementHandles").and_then(Value::as_array);
        Ok(handles.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Runs statements in one transaction. Gives their handles, that of `BEGIN` first and of `COMMIT` last.
    pub(super) async fn transaction(&self, doing: &str, statements: Vec<String>) -> Result<Vec<String>, CodedError> {
        let mut all = vec!["BEGIN TRANSACTION".to_owned()];
        all.extend(statements);
        all.push("COMMIT".into());
        self.run_all(doing, &all).await
    }

    /// The rows of a statement that was run before.
    pub(super) async fn rows_of(&self, doing: &str, handle: &str) -> Result<Rows, CodedError> {
        let answer = self.get(handle, None).await.map_err(|r| failed(r, doing))?;
        let answer = self.finished(answer).await.map_err(|r| failed(r, doing))?;
        self.rows(answer).await.map_err(|r| failed(r, doing))
    }

    fn url(&self, path: &[&str]) -> url::Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v2", "statements"]).extend(path);
        }
        url
    }

    /// A new request.
    fn request(&self) -> url::Url {
        let mut url = self.url(&[]);
        url.query_pairs_mut().append_pair("requestId", &uuid::Uuid::new_v4().to_string());
        url
    }

    async fn run(&self, statement: &str, bindings: Value, count: usize) -> Result<Value, Refusal> {
        let mut body = json!({ "statement": statement, "parameters": { "MULTI_STATEMENT_COUNT": count.to_string() } });
        if bindings.as_object().is_some_and(|b| !b.is_empty()) {
            body["bindings"] = bindings;
        }
        for (name, value) in [("role", &self.session.role), ("warehouse", &self.session.warehouse)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        let body = body.to_string();
        let mut url = self.request();
        let mut pauses = self.http.pauses();
        let (mut again, mut lost) = (false, 0);
        loop {
            let post = |client: &reqwest::Client, tries| {
                let mut url = url.clone();
                if again || tries > 0 {
                    url.query_pairs_mut().append_pair("retry", "true");
                }
                client.post(url).header("Content-Type", "application/json").header("Accept", "application/json").body(body.clone())
            };
            let posted = self.http.call(&*self.jwt, post).await;
            let asked_for = posted.is_ok();
            let outcome = match posted {
                Ok(answer) => self.finished(answer).await,
                Err(refusal) => Err(refusal),
            };
            match outcome {
                Err(refusal) if asked_for && refusal.status == 404 => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(refusal),
                },
                // Every CREATE says IF NOT EXISTS: another session made it at the same moment, and now it is there. It is another
                // request: this one has its answer.
                Err(refusal) if refusal.status == 422 && refusal.code == EXISTS && lost < RACES => {
                    lost += 1;
                    url = self.request();
                    again = false;
                    continue;
                }
                outcome => return outcome,
            }
            again = true;
        }
    }

    async fn get(&self, handle: &str, partition: Option<usize>) -> Result<Answer, Refusal> {
        let mut url = self.url(&[handle]);
        if let Some(partition) = partition {
            url.query_pairs_mut().append_pair("partition", &partition.to_string());
        }
        self.http.call(&*self.jwt, |client, _| client.get(url.clone()).header("Accept", "application/json")).await
    }

    /// Asks until the statement has ended. It may take as long as it takes: Snowflake ends it by its own timeout.
    async fn finished(&self, mut answer: Answer) -> Result<Value, Refusal> {
        let mut pause = Duration::from_millis(100);
        while answer.status == 202 {
            let running = answer.json();
            let handle = running.get("statementHandle").and_then(Value::as_str).unwrap_or_default().to_owned();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            answer = self.get(&handle, None).await?;
        }
        Ok(answer.json())
    }

    async fn rows(&self, answer: Value) -> Result<Rows, Refusal> {
        let mut rows = Vec::new();
        take_rows(&answer, &mut rows);
        let parts = answer.pointer("/resultSetMetaData/partitionInfo").and_then(Value::as_array).map_or(1, Vec::len);
        let handle = answer.get("statementHandle").and_then(Value::as_str).unwrap_or_default();
        for part in 1..parts {
            take_rows(&self.get(handle, Some(part)).await?.json(), &mut rows);
        }
        Ok(rows)
    }
}

pub(super) fn take_rows(answer: &Value, rows: &mut Rows) {
    let found = answer.get("data").and_then(Value::as_array);
    for row in found.into_iter().flatten() {
        let cells = row.as_array().into_iter().flatten();
        rows.push(cells.map(|cell| cell.as_str().map(str::to_owned)).collect());
    }
}

/// The error of a statement. `42…` are errors of names, syntax and privileges; others can quote values.
pub(super) fn failed(mut refusal: Refusal, doing: &str) -> CodedError {
    if refusal.status == 422 && refusal.message.contains(UNKNOWN) {
        let why = "a row left out the unchanged value of a column, and the target has no row that holds it";
        return CodedError::definite(SF_UNKNOWN_VALUE, format!("{doing}: {why}")).hint(
            "run `etl-stream resync` for the table; where a `filter` or `route` lets rows in by an update, set REPLICA IDENTITY FULL first, so that PostgreSQL sends such values",
        );
    }
    let says = refusal.sql_state.starts_with("42") || refusal.sql_state.starts_with("57") || refusal.status != 422;
    if !says {
        refusal.message = format!("SQL state {} (its words may hold a value and are left out)", refusal.sql_state);
    } else if refusal.sql_state.starts_with("42") {
        refusal.message = refusal.message.lines().take(2).collect::<Vec<_>>().join(" ");
    }
    let missing = refusal.status == 422 && matches!(refusal.sql_state.as_str(), "42S02" | "42501" | "02000");
    match refusal.verdict {
        Verdict::Stop if missing => CodedError::definite(SF_MISSING, format!("{doing}: {}", refusal.words()))
            .hint("create what is missing, or grant the role the privileges it lacks"),
        Verdict::Stop | Verdict::Retry if refusal.status == 422 => {
            CodedError::definite(SF_STATEMENT, format!("{doing}: the statement failed: {}", refusal.words()))
                .hint("the query's text and error are in QUERY_HISTORY of the user")
        }
        _ => refusal.error(doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        for (text, sql) in [("a", "'a'"), ("o'b", "'o''b'"), ("a\\", "'a\\\\'"), ("", "''"), ("é\n", "'é\n'")] {
            assert_eq!(literal(text), sql);
        }
    }
}
