//! Logs: on stderr, readable on a terminal, JSON otherwise.

use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `pretty` on a terminal, `json` otherwise.
    #[default]
    Auto,
    /// A line for people, with colours.
    Pretty,
    /// A short line for people.
    Compact,
    /// A JSON object a line.
    Json,
}

/// The filter for `-v` and `-q`, unless one is given.
#[must_use]
pub fn filter(verbose: u8, quiet: u8, given: Option<&str>) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    let level = match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "info,etl_stream=debug,etl_stream_operators=debug",
        2 => "debug,etl_stream=trace,etl_stream_operators=trace",
        _ => "trace",
    };
    level.into()
}

/// Starts logging. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(format: LogFormat, filter: &str, colour: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter \"{filter}\": {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_timer(SystemTime).with_ansi(colour);
    let pretty = stderr().is_terminal();
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Auto if !pretty => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Auto | LogFormat::Pretty => builder.with_target(false).try_init(),
        LogFormat::Compact => builder.with_target(false).without_time().compact().try_init(),
    };
    // Another subscriber is there already when the library is embedded or under test: it keeps the logs.
    let _ = started;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (verbose, quiet, given, expected) in [
            (0, 0, None, "info"),
            (0, 1, None, "warn"),
            (0, 9, None, "error"),
            (9, 0, None, "trace"),
            (1, 1, None, "info"),
            (2, 0, Some("warn"), "warn"),
        ] {
            assert_eq!(filter(verbose, quiet, given), expected);
        }
        assert!(start(LogFormat::Json, "not=a=filter", false).is_err());
    }
}
