//! The metrics page: what nodes counted, and gauges read from the status when the page is asked for.

use super::status::freshness;
use etl_stream_operators::contract::{Phase, PipelineStatus};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The process's recorder: there is one, however many pipelines there are.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The page of one pipeline.
#[derive(Clone)]
pub(crate) struct Page {
    pipeline: Arc<str>,
    recorder: PrometheusHandle,
}

impl Page {
    /// Installs the recorder if none is.
    pub(crate) fn install(pipeline: &Arc<str>) -> Self {
        let recorder = RECORDER.get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Another library's recorder stays; the page then shows only what is set below.
            let _ = metrics::set_global_recorder(recorder);
            handle
        });
        gauge!("etl_stream_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self { pipeline: Arc::clone(pipeline), recorder: recorder.clone() }
    }

    /// The text.
    pub(crate) fn render(&self, status: &PipelineStatus) -> String {
        for (name, source) in status.sources() {
            let labels = [("pipeline", self.pipeline.to_string()), ("source", name)];
            counter!("etl_stream_source_received_bytes_total", &labels).absolute(source.bytes.load(Ordering::Relaxed));
            counter!("etl_stream_source_changes_total", &labels).absolute(source.changes.load(Ordering::Relaxed));
            counter!("etl_stream_source_transactions_total", &labels).absolute(source.transactions.load(Ordering::Relaxed));
            counter!("etl_stream_source_streamed_transactions_total", &labels)
                .absolute(source.streamed_transactions.load(Ordering::Relaxed));
            counter!("etl_stream_source_spilled_bytes_total", &labels).absolute(source.spilled_bytes.load(Ordering::Relaxed));
            gauge!("etl_stream_source_open_transactions", &labels).set(source.open_transactions.load(Ordering::Relaxed) as f64);
            gauge!("etl_stream_source_held_bytes", &labels).set(source.held_bytes.load(Ordering::Relaxed) as f64);
            gauge!("etl_stream_source_lag_bytes", &labels).set(source.lag_bytes() as f64);
            gauge!("etl_stream_source_confirmed_flush_lsn", &labels).set(source.confirmed_lsn.load(Ordering::Relaxed) as f64);
            gauge!("etl_stream_source_streaming", &labels).set(f64::from(u8::from(source.phase().0 == Phase::Streaming)));
            gauge!("etl_stream_source_paused", &labels).set(f64::from(u8::from(source.paused().is_some())));
            gauge!("etl_stream_source_lag_seconds", &labels).set(source.lag().as_secs_f64());
            gauge!("etl_stream_source_joining_tables", &labels).set(source.joining.load(Ordering::Relaxed) as f64);
            let rows: u64 = source.tables().values().map(|table| table.snapshot_rows).sum();
            counter!("etl_stream_snapshot_rows_total", &labels).absolute(rows);
        }
        let stopped = status.stopped();
        for (name, sink) in status.sinks() {
            let labels = [("pipeline", self.pipeline.to_string()), ("sink", name)];
            counter!("etl_stream_sink_committed_rows_total", &labels).absolute(sink.rows.load(Ordering::Relaxed));
            counter!("etl_stream_sink_sent_bytes_total", &labels).absolute(sink.bytes.load(Ordering::Relaxed));
            counter!("etl_stream_sink_rejected_rows_total", &labels).absolute(sink.rejected_rows.load(Ordering::Relaxed));
            gauge!("etl_stream_sink_pending_rows", &labels).set(sink.pending_rows() as f64);
            gauge!("etl_stream_sink_freshness_seconds", &labels).set(freshness(&sink));
            gauge!("etl_stream_sink_stopped_tables", &labels).set(stopped.iter().filter(|(sink, ..)| *sink == labels[1].1).count() as f64);
            counter!("etl_stream_sink_retries_total", &labels).absolute(sink.retries.load(Ordering::Relaxed));
        }
        self.recorder.run_upkeep();
        let mut page = self.recorder.render();
        super::monitor::metrics(status, &self.pipeline, &mut page);
        page
    }
}
