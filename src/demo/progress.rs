//! How far the demo is: a live line on a terminal, else a plain line every couple of seconds.

use super::pipeline::Status;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Between plain lines.
const LINES: Duration = Duration::from_secs(2);

/// Shows steps and, within a step, the pipeline's status.
pub(super) struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
    step: Option<String>,
    shown: Instant,
    last: Option<(Instant, u64)>,
    rate: u64,
}

impl Progress {
    /// A live line if `live`.
    pub(super) fn new(live: bool) -> Self {
        let now = Instant::now();
        let bar = live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix}  {msg:.dim}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { started: now, bar, step: None, shown: now, last: None, rate: 0 }
    }

    /// Begins a step; the one before it is done.
    pub(super) fn step(&mut self, what: &str) {
        self.close();
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(what.to_owned());
                bar.set_message("");
            }
            None => eprintln!("{:>6.1} s  {what}", self.started.elapsed().as_secs_f64()),
        }
        self.step = Some(what.to_owned());
        self.shown = Instant::now();
        self.last = None;
    }

    /// Shows what the pipeline says.
    pub(super) fn show(&mut self, status: &Status) {
        let line = self.describe(status, Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_message(line);
        } else if self.shown.elapsed() >= LINES {
            self.shown = Instant::now();
            eprintln!("{:>6.1} s    {line}", self.started.elapsed().as_secs_f64());
        }
    }

    /// The last step is done.
    pub(super) fn finish(&mut self) {
        self.close();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn close(&mut self) {
        if let (Some(step), Some(bar)) = (self.step.take(), &self.bar) {
            bar.println(format!("{:>6.1} s  {step}", self.started.elapsed().as_secs_f64()));
        }
    }

    fn describe(&mut self, status: &Status, now: Instant) -> String {
        let total = if status.is_streaming() { status.changes } else { status.snapshot_rows };
        match self.last {
            Some((then, before)) if now.duration_since(then) >= Duration::from_secs(1) => {
                self.rate = (total.saturating_sub(before) as f64 / now.duration_since(then).as_secs_f64()) as u64;
                self.last = Some((now, total));
            }
            Some(_) => {}
            None => (self.last, self.rate) = (Some((now, total)), 0),
        }
        let reason = status.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        match status.phase.as_str() {
            "" => "the pipeline starts".to_owned(),
            "snapshot" => format!("snapshot: {total} rows read, {} in Snowflake, {} rows/s", status.sink_rows, self.rate),
            "streaming" => format!("streaming: {total} changes, {}/s, {} KiB behind", self.rate, status.lag_bytes.div_ceil(1024)),
            other => format!("{other}{reason}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // An error's report begins on a clean line.
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_pipeline_does() {
        let mut progress = Progress::new(false);
        let start = Instant::now();
        let status = |phase: &str, snapshot_rows, changes| Status {
            phase: phase.into(),
            snapshot_rows,
            changes,
            lag_bytes: 1025,
            ..Status::default()
        };
        assert_eq!(progress.describe(&Status::default(), start), "the pipeline starts");
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(progress.describe(&status("snapshot", 100, 0), later(2)), "snapshot: 100 rows read, 0 in Snowflake, 50 rows/s");
        progress.step("next");
        assert_eq!(progress.describe(&status("streaming", 100, 7), later(3)), "streaming: 7 changes, 0/s, 2 KiB behind");
        assert_eq!(progress.describe(&status("streaming", 100, 27), later(5)), "streaming: 27 changes, 10/s, 2 KiB behind");
        let retrying = Status { reason: Some("refused".into()), ..status("retrying", 0, 0) };
        assert_eq!(progress.describe(&retrying, later(6)), "retrying: refused");
    }
}
