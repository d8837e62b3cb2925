//! What alerts and nodes that watch others name: that it is there, and that it can be told.

use super::nodes::Draft;
use super::pipeline::Settings;
use super::problem::Problems;
use super::read::spot;
use super::settings::PayloadFormat;
use super::tree::{Entry, Tree};
use super::when::{SubjectKind, Unit};
use super::{codes, join, suggest};
use crate::Kind;
use std::time::Duration;

/// The source that metrics of servers and slots come from.
const MONITOR: &str = "wal_monitor";

/// Checks them.
pub(super) fn check(tree: &Tree, settings: &Settings, drafts: &[Draft], problems: &mut Problems) {
    for draft in drafts {
        watched(draft, drafts, problems);
    }
    if let Some(entry) = tree.entry("alerts") {
        let names: Vec<&str> =
            tree.entry("notifiers").and_then(|e| e.value.map()).unwrap_or_default().iter().map(|e| e.key.as_str()).collect();
        for alert in entry.value.map().unwrap_or_default() {
            notifiers(alert, &names, settings, problems);
            condition(alert, settings, drafts, problems);
        }
    }
    if let Some(entry) = tree.entry("notifiers") {
        for (name, notifier) in &settings.notifiers {
            if notifier.queue == 0 || notifier.queue > 100_000 {
                let span = entry.value.entry(name).map_or(entry.key_span, |e| e.key_span);
                let message = format!("`queue` of notifier \"{name}\" is from 1 to 100000");
                problems.error(codes::VALUE, &format!("{}/queue", join("/notifiers", name)), span, message);
            }
        }
    }
}

/// What a node watches is there, and of the right type.
fn watched(draft: &Draft, drafts: &[Draft], problems: &mut Problems) {
    for watch in draft.parsed.as_ref().map(|parsed| parsed.watches()).unwrap_or_default() {
        let found = drafts.iter().find(|other| other.kind == Kind::Source && *other.name == *watch.source);
        let (span, opaque) = spot(&draft.settings, &watch.pointer, draft.key);
        let message = match found {
            _ if opaque => continue,
            Some(found) if found.type_name == watch.type_name || found.type_name.is_empty() => continue,
            Some(found) => format!("{} watches \"{}\", which is of type `{}`", draft.title(), watch.source, found.type_name),
            None => format!("{} watches \"{}\", which is not a source of this file", draft.title(), watch.source),
        };
        let fitting = drafts.iter().filter(|other| other.kind == Kind::Source && other.type_name == watch.type_name);
        let help = suggest::help(&watch.source, fitting.map(|other| &*other.name));
        problems.error(codes::WATCH, &format!("{}{}", draft.pointer, watch.pointer), span, message).help =
            help.or_else(|| Some(format!("only sources of type `{}` can be watched", watch.type_name)));
    }
}

/// Notifiers are there, and can tell the alert.
fn notifiers(alert: &Entry, names: &[&str], settings: &Settings, problems: &mut Problems) {
    let notify = alert.value.entry("notify").and_then(|n| n.value.list()).unwrap_or_default();
    for (at, item) in notify.iter().enumerate() {
        let Some(name) = item.scalar().filter(|s| !s.opaque) else { continue };
        let pointer = format!("{}/notify/{at}", join("/alerts", &alert.key));
        if !names.contains(&name.text.as_str()) {
            let message = format!("alert \"{}\" tells \"{}\", which is not a notifier", alert.key, name.text);
            let help = suggest::help(&name.text, names.iter().copied());
            problems.error(codes::UNKNOWN_NOTIFIER, &pointer, item.span, message).help = help.or(Some("add it under `notifiers:`".into()));
            continue;
        }
        let format = settings.notifiers.get(&name.text).map(|notifier| notifier.format);
        let metric = settings.alerts.get(&alert.key).map(|alert| alert.when.metric);
        if format == Some(PayloadFormat::Predecessor)
            && let Some(metric) = metric
            && !(metric.unit == Unit::Bytes && metric.name.ends_with("retained_wal"))
        {
            let message = format!("alert \"{}\" is on {}, which the predecessor's format has no place for", alert.key, metric.name);
            let help = "use the default format, or a notifier of its own".to_owned();
            problems.error(codes::ALERT, &pointer, item.span, message).help = Some(help);
        }
    }
}

/// The condition can be evaluated.
fn condition(alert: &Entry, settings: &Settings, drafts: &[Draft], problems: &mut Problems) {
    let Some(read) = settings.alerts.get(&alert.key) else { return };
    let metric = read.when.metric;
    let mut add = |field: &str, message: String, help: String| {
        let pointer = format!("/{field}");
        let (span, _) = spot(&alert.value, &pointer, alert.key_span);
        let message = format!("alert \"{}\": {message}", alert.key);
        problems.error(codes::ALERT, &format!("{}{pointer}", join("/alerts", &alert.key)), span, message).help = Some(help);
    };
    if metric.monitored && !drafts.iter().any(|draft| draft.type_name == MONITOR) {
        let message = format!("nothing gives {}", metric.name);
        add("when", message, format!("add a source of type {MONITOR}, such as `wal: {{ type: {MONITOR} }}`"));
    }
    if let Some(danger) = read.danger.as_ref().filter(|danger| danger.metric != metric) {
        let message = format!("`danger` is on {}, `when` on {}", danger.metric.name, metric.name);
        add("danger", message, "danger is the same metric beyond another value".into());
    }
    if read.repeat.is_some_and(|repeat| repeat.0 < Duration::from_secs(1)) {
        add("repeat", "it would be told several times a second".into(), "use 1s or more".into());
    }
    let kind = match metric.subject {
        SubjectKind::Source => Kind::Source,
        SubjectKind::Sink => Kind::Sink,
        // Servers and slots are known when they answer.
        SubjectKind::Server | SubjectKind::Slot => return,
    };
    for (at, name) in read.only.iter().flatten().enumerate() {
        let mut names = drafts.iter().filter(|draft| draft.kind == kind).map(|draft| &*draft.name);
        if !names.clone().any(|known| known == name) {
            let message = format!("\"{name}\" is not a {} of this file", kind.noun());
            let help = suggest::help(name, names.by_ref());
            add(&format!("only/{at}"), message, help.unwrap_or_else(|| format!("name a {}", kind.noun())));
        }
    }
}
