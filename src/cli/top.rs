//! `etl-stream top`: the status of a running pipeline, drawn anew every second until `q` or Ctrl-C.
//!
//! With stdout not a terminal one frame is printed, without rates.

use super::running::Running;
use super::{Shell, describe, status, validate};
use crate::exit::{Failure, verdict};
use crate::server::client;
use crate::server::status::{Status, size};
use clap::Args;
use console::{Key, Term};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often it is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its first line (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The pipeline file.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    #[command(flatten)]
    running: Running,
}

impl TopArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(graph) = loaded.graph else { return Ok(()) };
        let address = self.running.address(Some(&graph));
        let ask = || address.and_then(|address| client::status(address, &graph.pipeline));
        let gone = || Failure::from(client::not_running(&graph.pipeline, address));
        let term = Term::stdout();
        let mut before = (Instant::now(), ask().ok_or_else(gone)?);
        if !term.is_term() {
            return Ok(shell.out.write_all(status::draw(&before.1).as_bytes())?);
        }
        let quits = quits(term);
        let mut rates = None;
        loop {
            let footer = "q or Ctrl-C ends";
            let frame = format!("{CLEAR}{}\n\n{}{}\n{footer}\n", before.1.pipeline, rates.unwrap_or_default(), status::draw(&before.1));
            shell.out.write_all(frame.as_bytes())?;
            shell.out.flush()?;
            if !matches!(quits.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout)) {
                return Ok(());
            }
            let now = (Instant::now(), ask().ok_or_else(gone)?);
            rates = Some(draw_rates(&before.1, &now.1, now.0.duration_since(before.0)));
            before = now;
        }
    }
}

/// Heard from when the user presses `q`, or when the terminal is gone.
fn quits(term: Term) -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while !matches!(term.read_key(), Ok(Key::Char('q' | 'Q') | Key::CtrlC | Key::Escape) | Err(_)) {}
        drop(sender);
    });
    receiver
}

/// What happened between two looks, for each second.
fn draw_rates(before: &Status, now: &Status, time: Duration) -> String {
    let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / time.as_secs_f64().max(0.001)) as u64;
    let sources = now.sources.iter().filter_map(|now| {
        let before = before.sources.iter().find(|before| before.source == now.source)?;
        let rows = rate(before.changes + before.copied().0, now.changes + now.copied().0);
        Some(vec![format!("from {}", now.source), format!("{rows} rows/s"), format!("{}/s", size(rate(before.bytes, now.bytes)))])
    });
    let sinks = now.sinks.iter().filter_map(|now| {
        let before = before.sinks.iter().find(|before| before.sink == now.sink)?;
        Some(vec![
            format!("to {}", now.sink),
            format!("{} rows/s", rate(before.rows, now.rows)),
            format!("{}/s", size(rate(before.bytes, now.bytes))),
        ])
    });
    format!("{}\n\n", describe::table(["RATES", "", ""], sources.chain(sinks)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::PipelineStatus;
    use std::sync::atomic::Ordering;

    #[test]
    fn rates_are_differences_over_time() {
        let status = PipelineStatus::default();
        let (source, sink) = (status.source("shop"), status.sink("out"));
        let before = Status::of("p", &status);
        source.changes.store(300, Ordering::Relaxed);
        source.table("t", |table| table.snapshot_rows = 100);
        sink.rows.store(50, Ordering::Relaxed);
        sink.bytes.store(4096, Ordering::Relaxed);
        let text = draw_rates(&before, &Status::of("p", &status), Duration::from_secs(2));
        for words in ["from shop", "200 rows/s", "to out", "25 rows/s", "2.0 KiB/s"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
