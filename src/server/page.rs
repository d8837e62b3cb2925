//! The status page: one page of HTML without scripts, which the browser asks for again every two seconds.

use super::directory::{Directory, Member, Stage};
use super::status::{Status, age, size};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// What the page may load: nothing, but its own style.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"2\">\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:0 0 1.5rem}th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#c33;font-weight:600}.graph{overflow-x:auto}h1{font-size:1.3rem}h2{font-size:1.05rem}\
code{font-size:.9em}</style>";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table's row; cells that begin with a digit are numbers.
fn row(out: &mut String, tag: &str, cells: &[String], bad: bool) {
    out.push_str("<tr>");
    for (at, cell) in cells.iter().enumerate() {
        let number = if cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains('/') { " n" } else { "" };
        let bad = if bad && at == 1 { " bad" } else { "" };
        let _ = write!(out, "<{tag} class=\"{}\">{}</{tag}>", format!("{number}{bad}").trim(), escape(cell));
    }
    out.push_str("</tr>");
}

fn head(out: &mut String, cells: &[&str]) {
    row(out, "th", &cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>(), false);
}

/// The page; `graph` is a picture of the pipeline.
pub(crate) fn page(status: &Status, graph: &str) -> String {
    let mut out = String::from(HEAD);
    let name = escape(&status.pipeline);
    let _ = write!(out, "<title>{name} - etl-stream</title></head><body><h1>{name}</h1>");
    if let Some(remark) = status.remark() {
        let _ = write!(out, "<p class=\"bad\">{}</p>", escape(&remark));
    }
    let _ = write!(out, "<div class=\"graph\">{graph}</div><h2>Sources</h2><table>");
    head(&mut out, &["source", "phase", "behind", "for", "received", "durable", "confirmed", "changes"]);
    for s in &status.sources {
        let cells = [
            s.source.clone(),
            s.doing(),
            size(s.lag_bytes),
            age(s.lag_seconds),
            s.received_lsn.clone(),
            s.durable_lsn.clone(),
            s.confirmed_lsn.clone(),
            s.changes.to_string(),
        ];
        row(&mut out, "td", &cells, !matches!(s.phase.as_str(), "streaming" | "snapshot" | "starting"));
    }
    out.push_str("</table><h2>Sinks</h2><table>");
    head(&mut out, &["sink", "rows", "sent", "pending", "oldest pending", "refused", "dead letters", "retries"]);
    for s in &status.sinks {
        let numbers = [s.rows, s.pending_rows, s.rejected_rows, s.dead_letter_rows, s.retries].map(|n| n.to_string());
        let [rows, pending, rejected, letters, retries] = numbers;
        row(&mut out, "td", &[s.sink.clone(), rows, size(s.bytes), pending, age(s.freshness_seconds), rejected, letters, retries], false);
    }
    out.push_str("</table><h2>Tables</h2><table>");
    head(&mut out, &["table", "phase", "source", "rows copied", "rows estimated"]);
    for s in &status.sources {
        for t in &s.tables {
            let cells = [t.table.clone(), t.phase.clone(), s.source.clone(), t.snapshot_rows.to_string(), t.estimated_rows.to_string()];
            row(&mut out, "td", &cells, !matches!(t.phase.as_str(), "streaming" | "snapshot" | "starting"));
        }
    }
    out.push_str("</table>");
    for s in &status.sinks {
        for t in &s.stopped_tables {
            let text = format!("table {} is stopped in sink {} [{}]: {}", t.table, s.sink, t.code, t.reason);
            let _ = write!(out, "<p class=\"bad\">{}</p>", escape(&text));
        }
    }
    let _ = writeln!(
        out,
        "<p><a href=\"/metrics\">metrics</a> · <a href=\"/api/v1/status?pipeline={name}\">status as JSON</a> · <a href=\"/ready\">ready</a></p></body></html>"
    );
    out
}

/// The page of a process that runs several pipelines.
pub(super) fn list(members: &BTreeMap<Arc<str>, Member>) -> String {
    let mut out = String::from(HEAD);
    let _ = write!(out, "<title>etl-stream</title></head><body><h1>{} pipelines</h1><table>", members.len());
    head(&mut out, &["pipeline", "state", "behind", "rows", "file"]);
    for (name, member) in members {
        let status = Directory::status(name, member);
        let behind = size(status.sources.iter().map(|s| s.lag_bytes).sum());
        let rows = status.sinks.iter().map(|s| s.rows).sum::<u64>();
        let file = member.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let bad = if member.stage == Stage::Running && member.file_problem.is_none() { "" } else { " class=\"bad\"" };
        let said = status.remark().unwrap_or_else(|| status.state.clone());
        let _ = write!(
            out,
            "<tr><td><a href=\"/?pipeline={0}\">{0}</a></td><td{bad}>{1}</td><td class=\"n\">{behind}</td><td class=\"n\">{rows}</td><td>{2}</td></tr>",
            escape(name),
            escape(&said),
            escape(&file)
        );
    }
    out.push_str("</table><p><a href=\"/metrics\">metrics</a> · <a href=\"/api/v1/pipelines\">as JSON</a> · <a href=\"/ready\">ready</a></p></body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::{Phase, PipelineStatus};

    #[test]
    fn names_are_text_and_there_is_no_script() {
        let status = PipelineStatus::default();
        status.source("shop").set_phase(Phase::Retrying, Some("<script>alert(1)</script>".into()));
        status.source("shop").table("public.\"a&b", |table| table.phase = Phase::Streaming);
        let _ = status.sink("out");
        let page = page(&Status::of("p", &status), "<svg></svg>");
        assert!(!page.contains("<script") && page.contains("retrying: &lt;script&gt;") && page.contains("public.&quot;a&amp;b"), "{page}");
        let failed = Member { stage: Stage::Retrying, reason: Some("<b>".into()), ..Member::default() };
        let list = list(&BTreeMap::from([("p".into(), failed)]));
        assert!(list.contains("href=\"/?pipeline=p\"") && list.contains("pipeline p is retrying: &lt;b&gt;"), "{list}");
        assert!(page.contains("class=\"bad\"") && page.contains("http-equiv=\"refresh\"") && page.contains("<svg></svg>"));
    }
}
