//! The pipeline: a child process of this very program, `etl-stream run shop.yaml`, watched over its status.

use super::progress::Progress;
use super::servers::{PIPELINE, Servers};
use super::step;
use etl_stream_operators::contract::{CodedError, Lsn};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How often the status is asked for.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the pipeline may take to stop.
const STOP: Duration = Duration::from_secs(60);

/// What the pipeline says of itself at `/api/v1/status`.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// The source's phase; empty before the pipeline answers.
    pub(super) phase: String,
    pub(super) reason: Option<String>,
    pub(super) confirmed: Lsn,
    pub(super) lag_bytes: u64,
    pub(super) transactions: u64,
    pub(super) changes: u64,
    pub(super) snapshot_rows: u64,
    /// Rows durable in Snowflake.
    pub(super) sink_rows: u64,
    pub(super) rejected_rows: u64,
}

impl Status {
    fn read(answer: &Value) -> Self {
        let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
        let source = &answer["sources"][0];
        let sum = |list: &Value, name: &str| list.as_array().into_iter().flatten().map(|one| number(one, name)).sum();
        Self {
            phase: source["phase"].as_str().unwrap_or_default().to_owned(),
            reason: source["reason"].as_str().map(str::to_owned),
            confirmed: source["confirmed_lsn"].as_str().and_then(|lsn| lsn.parse().ok()).unwrap_or_default(),
            lag_bytes: number(source, "lag_bytes"),
            transactions: number(source, "transactions"),
            changes: number(source, "changes"),
            snapshot_rows: sum(&source["tables"], "snapshot_rows"),
            sink_rows: sum(&answer["sinks"], "rows"),
            rejected_rows: sum(&answer["sinks"], "rejected_rows"),
        }
    }

    /// Whether the existing rows have been copied.
    pub(super) fn is_streaming(&self) -> bool {
        self.phase == "streaming"
    }
}

/// The running child. It ends with the value.
pub(super) struct Pipeline {
    child: Child,
    http: reqwest::Client,
    url: String,
    log: PathBuf,
}

impl Pipeline {
    /// Starts the pipeline file of the folder.
    pub(super) fn start(folder: &Path, servers: &Servers) -> Result<Self, CodedError> {
        let log = folder.join("run.log");
        let file = fs::File::create(&log).map_err(|e| step(format!("{} was not made", log.display())).caused_by(e))?;
        let program = std::env::current_exe().map_err(|e| step("this program was not found").caused_by(e))?;
        let mut command = Command::new(program);
        command.arg("run").arg(folder.join(PIPELINE)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).kill_on_drop(true);
        let child = command.spawn().map_err(|e| step("etl-stream run shop.yaml was not started").caused_by(e))?;
        // The status is on this machine: a proxy has no part in it.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build();
        let http = http.map_err(|e| step("the demo did not get an HTTP client").caused_by(e))?;
        Ok(Self { child, http, url: format!("http://127.0.0.1:{}/api/v1/status", servers.listen()), log })
    }

    /// Waits until its status is as wanted, which it shows meanwhile.
    pub(super) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        progress: &mut Progress,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status, CodedError> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.look(progress).await?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let why = status.reason.map_or_else(String::new, |reason| format!(": {reason}"));
                let message = format!("the pipeline did not finish {what} within {} s, it is {}{why}", limit.as_secs(), status.phase);
                return Err(step(message).hint(format!("its log is {}", self.log.display())));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits for work beside it, whose result it gives; it shows its status meanwhile.
    pub(super) async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, CodedError>>,
        progress: &mut Progress,
    ) -> Result<T, CodedError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.look(progress).await?;
        }
    }

    /// Asks it to stop, and waits until it has written and merged what it had.
    pub(super) async fn stop(mut self) -> Result<(), CodedError> {
        if let Some(id) = self.child.id() {
            // SAFETY: the process is our own unreaped child, so its id is not another's.
            #[expect(unsafe_code, reason = "the only way to send a signal other than SIGKILL")]
            unsafe {
                libc::kill(id as i32, libc::SIGTERM);
            }
        }
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(&format!("{status} after SIGTERM"))),
            Ok(Err(error)) => Err(self.ended("unknown").caused_by(error)),
            Err(_) => {
                Err(step(format!("the pipeline did not stop within {} s", STOP.as_secs()))
                    .hint(format!("its log is {}", self.log.display())))
            }
        }
    }

    async fn look(&mut self, progress: &mut Progress) -> Result<Status, CodedError> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(self.ended(&status.to_string()));
        }
        // Before it listens, and while it is busy, there is no answer: the next look has one.
        let status = match self.http.get(&self.url).send().await {
            Ok(answer) => answer.json::<Value>().await.map(|answer| Status::read(&answer)).unwrap_or_default(),
            Err(_) => Status::default(),
        };
        progress.show(&status);
        Ok(status)
    }

    fn ended(&self, how: &str) -> CodedError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n    ");
        step(format!("etl-stream run shop.yaml ended: {how}")).hint(format!("its log is {} and ends so:\n    {last}", self.log.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_the_server_says() {
        let answer = json!({
            "pipeline": "shop",
            "sources": [{ "source": "shop", "phase": "streaming", "reason": null, "lag_bytes": 17, "confirmed_lsn": "1/A0", "changes": 5,
                          "transactions": 2, "tables": [{ "table": "public.a", "snapshot_rows": 3 }, { "table": "public.b", "snapshot_rows": 4 }] }],
            "sinks": [{ "sink": "warehouse", "rows": 12, "rejected_rows": 1 }],
        });
        let status = Status::read(&answer);
        assert!(status.is_streaming());
        assert_eq!((status.confirmed, status.lag_bytes), (Lsn(0x1_0000_00a0), 17));
        assert_eq!((status.transactions, status.changes, status.snapshot_rows), (2, 5, 7));
        assert_eq!((status.sink_rows, status.rejected_rows), (12, 1));
        let nothing = Status::read(&json!({}));
        assert!(!nothing.is_streaming() && nothing.confirmed == Lsn(0));
    }
}
