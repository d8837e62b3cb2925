//! The metrics page: what nodes counted, and gauges read from the status of every pipeline when the page is asked for.
//!
//! Gauges are written here and not kept by the recorder: what a pipeline that is gone was doing is not on the next page.

use super::directory::{Directory, Stage};
use super::monitor::{self, escaped, family};
use super::status::freshness;
use etl_stream_operators::contract::{Phase, PipelineStatus, SinkStatus, SourceStatus};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The process's recorder: there is one, however many pipelines there are.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The page of the process.
#[derive(Clone)]
pub(crate) struct Page {
    recorder: PrometheusHandle,
}

fn number(value: &AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// A gauge: its name, what it says, and its value for one of `T`.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> f64);

const SOURCES: &[Gauge<SourceStatus>] = &[
    ("etl_stream_source_open_transactions", "Transactions that come while in progress.", |s| number(&s.open_transactions)),
    ("etl_stream_source_held_bytes", "Bytes held of transactions in progress.", |s| number(&s.held_bytes)),
    ("etl_stream_source_lag_bytes", "Log between the server's position and what is confirmed.", |s| s.lag_bytes() as f64),
    ("etl_stream_source_confirmed_flush_lsn", "The position confirmed to the server.", |s| number(&s.confirmed_lsn)),
    ("etl_stream_source_streaming", "Whether the source follows the log.", |s| flag(s.phase().0 == Phase::Streaming)),
    ("etl_stream_source_retrying", "Whether the source has failed and waits to try again.", |s| flag(s.phase().0 == Phase::Retrying)),
    ("etl_stream_source_paused", "Whether the source is not to read.", |s| flag(s.paused().is_some())),
    ("etl_stream_source_lag_seconds", "For how long there has been log past what is confirmed.", |s| s.lag().as_secs_f64()),
    ("etl_stream_source_joining_tables", "Tables still to be copied beside the stream.", |s| number(&s.joining)),
];

const SINKS: &[Gauge<SinkStatus>] = &[
    ("etl_stream_sink_pending_rows", "Rows given to the sink and not durable.", |s| s.pending_rows() as f64),
    ("etl_stream_sink_freshness_seconds", "Age of the oldest row that is not durable.", freshness),
];

impl Page {
    /// Installs the recorder if none is.
    pub(crate) fn install() -> Self {
        let recorder = RECORDER.get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Another library's recorder stays; the page then shows only what is set below.
            let _ = metrics::set_global_recorder(recorder);
            handle
        });
        gauge!("etl_stream_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self { recorder: recorder.clone() }
    }

    /// The text.
    pub(crate) fn render(&self, directory: &Directory) -> String {
        let served = directory.served();
        let all: Vec<(String, &PipelineStatus)> =
            served.iter().map(|served| (format!("pipeline=\"{}\"", escaped(&served.pipeline)), &*served.status)).collect();
        served.iter().for_each(|served| count(&served.pipeline, &served.status));
        self.recorder.run_upkeep();
        let mut page = self.recorder.render();
        if !page.is_empty() {
            page.push('\n');
        }
        let members = directory.members();
        let named = |name: &str| format!("pipeline=\"{}\"", escaped(name));
        let running = members.iter().map(|(name, member)| (named(name), flag(member.stage == Stage::Running)));
        family(&mut page, ("etl_stream_pipeline_running", "Whether the pipeline runs; its sources have phases of their own."), running);
        let refused = members.iter().map(|(name, member)| (named(name), flag(member.file_problem.is_some())));
        family(&mut page, ("etl_stream_pipeline_file_problem", "Whether the pipeline's file, as it stands, is not what runs."), refused);
        let failures = members.iter().map(|(name, member)| (named(name), member.failures as f64));
        family(&mut page, ("etl_stream_pipeline_failures", "How often the pipeline has failed and been started again."), failures);

        let sources: Vec<_> = all.iter().map(|(labels, status)| (labels, status.sources())).collect();
        for &(name, about, value) in SOURCES {
            let samples = sources.iter().flat_map(|(labels, sources)| {
                sources.iter().map(move |(source, status)| (format!("{labels},source=\"{}\"", escaped(source)), value(status)))
            });
            family(&mut page, (name, about), samples);
        }
        let sinks: Vec<_> = all.iter().map(|(labels, status)| (labels, status.sinks())).collect();
        for &(name, about, value) in SINKS {
            let samples = sinks.iter().flat_map(|(labels, sinks)| {
                sinks.iter().map(move |(sink, status)| (format!("{labels},sink=\"{}\"", escaped(sink)), value(status)))
            });
            family(&mut page, (name, about), samples);
        }
        let stopped = all.iter().flat_map(|(labels, status)| {
            let stopped = status.stopped();
            let count = move |sink: &str| stopped.iter().filter(|(name, ..)| name == sink).count() as f64;
            status.sinks().into_keys().map(move |sink| (format!("{labels},sink=\"{}\"", escaped(&sink)), count(&sink)))
        });
        family(&mut page, ("etl_stream_sink_stopped_tables", "Tables that the sink does not take any more."), stopped);
        monitor::metrics(&all, &mut page);
        if let Some(connections) = directory.connections() {
            monitor::connection_metrics(connections, &mut page);
        }
        page
    }
}

/// Counters that nodes keep in the status.
fn count(pipeline: &str, status: &PipelineStatus) {
    for (name, source) in status.sources() {
        let labels = [("pipeline", pipeline.to_owned()), ("source", name)];
        let rows = source.tables().values().map(|table| table.snapshot_rows).sum();
        counter!("etl_stream_source_received_bytes_total", &labels).absolute(source.bytes.load(Ordering::Relaxed));
        counter!("etl_stream_source_changes_total", &labels).absolute(source.changes.load(Ordering::Relaxed));
        counter!("etl_stream_source_transactions_total", &labels).absolute(source.transactions.load(Ordering::Relaxed));
        counter!("etl_stream_source_streamed_transactions_total", &labels).absolute(source.streamed_transactions.load(Ordering::Relaxed));
        counter!("etl_stream_source_spilled_bytes_total", &labels).absolute(source.spilled_bytes.load(Ordering::Relaxed));
        counter!("etl_stream_snapshot_rows_total", &labels).absolute(rows);
    }
    for (name, sink) in status.sinks() {
        let labels = [("pipeline", pipeline.to_owned()), ("sink", name)];
        counter!("etl_stream_sink_committed_rows_total", &labels).absolute(sink.rows.load(Ordering::Relaxed));
        counter!("etl_stream_sink_sent_bytes_total", &labels).absolute(sink.bytes.load(Ordering::Relaxed));
        counter!("etl_stream_sink_rejected_rows_total", &labels).absolute(sink.rejected_rows.load(Ordering::Relaxed));
        counter!("etl_stream_sink_retries_total", &labels).absolute(sink.retries.load(Ordering::Relaxed));
    }
}
