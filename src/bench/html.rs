//! The report as one file of HTML: tables and plots, nothing from outside, no script.

use super::plot::{Axis, Line, bars, escape, linear, lines, logarithmic, short};
use super::report::{METRICS, Measured, Report, RunReport};
use super::resample::median;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2933;background:#fff}\
h1,h2,h3{font-weight:600}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #cbd2d9}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto;display:block}svg text{font:11px ui-monospace,monospace;fill:#52606d}\
svg .axis{font-size:12px}.grid{stroke:#e4e7eb;fill:none}.line{fill:none;stroke-width:1.5}.bar{fill:#1992d4}.bad{color:#ba2525;font-weight:600}\
.c0{stroke:#1992d4}.c1{stroke:#3f9142}.c2{stroke:#cb6e17}.c3{stroke:#8719e0}.c4{stroke:#ba2525}.c5{stroke:#627d98}del{color:#7b8794}\
@media(prefers-color-scheme:dark){body{color:#e4e7eb;background:#1f2933}svg text{fill:#9aa5b1}.grid{stroke:#323f4b}td,th{border-color:#3e4c59}}";

/// The page of a report.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>etl-stream bench</title><style>{STYLE}</style></head><body>\n<h1>etl-stream bench</h1>\n"
    );
    let machine = &report.machine;
    let _ = writeln!(
        out,
        "<p>Version {} ({} build) · {} · {} cores · {} MiB · Linux {}</p>",
        escape(&report.version),
        escape(&report.build),
        escape(&machine.cpu),
        machine.cores,
        machine.memory_bytes >> 20,
        escape(&machine.kernel)
    );
    for (wrong, says) in [
        (!report.valid, "INVALID: what arrived is not what was sent, or a run failed. These numbers say nothing."),
        (report.partial, "PARTIAL: it was ended before its time."),
        (report.build != "release", "A debug build: its numbers say nothing of a release."),
    ] {
        if wrong {
            let _ = writeln!(out, "<p class=\"bad\">{says}</p>");
        }
    }
    for result in &report.results {
        section(result, &mut out);
    }
    out.push_str("</body></html>\n");
    out
}

fn section(result: &Measured, out: &mut String) {
    let rows = result.rows.map_or_else(String::new, |rows| format!("{rows} changes a run, "));
    let _ = writeln!(
        out,
        "<h2>{}</h2>\n<p>{rows}seed {}, workers: {}, runs: {} after {} to warm up</p>",
        escape(&result.title()),
        result.seed,
        result.workers,
        result.runs.len(),
        result.warmup
    );
    for problem in result.runs.iter().flat_map(|run| &run.problems) {
        let _ = writeln!(out, "<p class=\"bad\">INVALID: {}</p>", escape(problem));
    }
    out.push_str("<table class=\"metrics\"><tr><th>metric</th><th>median</th><th>least</th><th>most</th></tr>\n");
    for metric in &METRICS {
        let values = result.values(metric);
        let Some(middle) = median(&values) else { continue };
        let (least, most) = (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max));
        let number = |value: f64| if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            metric.name,
            number(middle),
            number(least),
            number(most)
        );
    }
    out.push_str("</table>\n");
    timeline(result, out);
    if result.mode == "open" {
        latency(result, out);
    }
    // The parts of the run in the middle.
    let mut runs: Vec<&RunReport> = result.runs.iter().collect();
    runs.sort_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds));
    if let Some(run) = runs.get(runs.len() / 2) {
        out.push_str(
            "<h3>Time of each part</h3>\n<p>Operators: time on their workers; tasks: CPU. Of the run whose CPU is the median.</p>\n",
        );
        let rows: Vec<_> = run
            .nodes
            .iter()
            .filter(|node| node.seconds > 0.0)
            .map(|n| (n.name.clone(), n.seconds, format!("{:.3} s", n.seconds)))
            .collect();
        out.push_str(&bars("nodes", &rows));
    }
}

/// The runs as lines, each named.
fn of_runs(result: &Measured, points: impl Fn(&RunReport) -> Vec<(f64, f64)>) -> Vec<Line> {
    result.runs.iter().zip(1..).map(|(run, at)| Line { name: format!("run {at}"), points: points(run) }).collect()
}

fn timeline(result: &Measured, out: &mut String) {
    let rate = |run: &RunReport, rows: u64| rows as f64 / run.timeline.step_seconds.max(1e-9);
    let longest = result.runs.iter().map(|run| run.timeline.rows.len() as f64 * run.timeline.step_seconds).fold(0.0, f64::max);
    let highest = result.runs.iter().flat_map(|run| run.timeline.rows.iter().map(|rows| rate(run, *rows))).fold(0.0, f64::max);
    let (x, along) = linear("seconds", longest);
    let (y, up) = linear("rows/s acknowledged", highest);
    let points = |run: &RunReport| {
        let at = |(step, rows): (usize, &u64)| (along((step as f64 + 0.5) * run.timeline.step_seconds), up(rate(run, *rows)));
        run.timeline.rows.iter().enumerate().map(at).collect()
    };
    out.push_str("<h3>Rows over time</h3>\n");
    out.push_str(&lines("timeline", &x, &y, &of_runs(result, points)));
}

fn latency(result: &Measured, out: &mut String) {
    out.push_str("<h3>Latency</h3>\n<p>From the moment a change was to be sent until its sink acknowledged it.</p>\n");
    out.push_str("<table><tr><th>run</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>\n");
    let millis = |micros: u64| format!("{:.2} ms", micros as f64 / 1e3);
    for (at, run) in result.runs.iter().enumerate() {
        let Some(latency) = &run.latency else { continue };
        let values = [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.p99_99, latency.max].map(millis);
        // Behind its rate, a run measures how long its queue has become.
        let cells: String =
            values.iter().map(|v| if run.saturated { format!("<td><del>{v}</del></td>") } else { format!("<td>{v}</td>") }).collect();
        let _ = writeln!(out, "<tr><td>{}{}</td>{cells}</tr>", at + 1, if run.saturated { " (saturated)" } else { "" });
    }
    out.push_str("</table>\n");
    let curves = result.runs.iter().filter_map(|run| run.latency.as_ref());
    let values: Vec<u64> = curves.flat_map(|latency| latency.curve.iter().map(|(_, value)| *value)).collect();
    let (least, most) = (values.iter().copied().min().unwrap_or(1), values.iter().copied().max().unwrap_or(10));
    let label = |micros: f64| if micros < 1e3 { format!("{} µs", short(micros)) } else { format!("{} ms", short(micros / 1e3)) };
    let (y, up) = logarithmic("latency", least as f64, most as f64, label);
    // What is left above a percentile, on a logarithmic axis: 0, 90, 99, 99.9, 99.99.
    let along = |percent: f64| -(1.0 - percent / 100.0).max(1e-5).log10() / 4.5;
    let ticks = [0.0, 90.0, 99.0, 99.9, 99.99].map(|percent| (along(percent), format!("{percent} %")));
    let x = Axis { title: "percentile", ticks: ticks.into() };
    let points = |run: &RunReport| {
        let curve = run.latency.iter().flat_map(|latency| &latency.curve);
        curve.map(|(percent, value)| (along(*percent), up(*value as f64))).collect()
    };
    out.push_str(&lines("latency", &x, &y, &of_runs(result, points)));
}
