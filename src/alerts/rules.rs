//! The alerts of a pipeline: each rule looked at for each of its subjects, and what is to be told.
//!
//! # Guarantees
//! Pure but for the state store: the time and the status are given. What fires is kept in the state, so that a restart
//! neither tells of it again nor forgets to say that it is over. A subject that is gone is taken as clear.

use super::Reach;
use super::hint::{hint, message};
use super::life::{Event, Fired, Level, Life, Terms, step};
use super::reading::{Found, Snapshot};
use crate::config::{AlertSettings, AlertSeverity, Metric, Reading, SubjectKind};
use crate::notify::Notification;
use etl_stream_operators::contract::{AlertStatus, CodedError, PipelineStatus, StateKey, StateStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The node that the state of alerts is kept under: no node of a file can have this name.
const NODE: &str = "/alerts";

/// Seconds after a start within which a server that has not been checked yet may still be.
const PATIENCE: f64 = 600.0;

/// What an episode is about.
struct Episode {
    name: String,
    slot: Option<String>,
    /// The slot and server behind the value, where the subject is a source.
    detail: Option<String>,
    server: Option<String>,
    reading: Option<Reading>,
    hint: String,
    life: Option<Life>,
    /// The look that saw it last.
    look: u64,
}

struct Rule {
    name: String,
    settings: AlertSettings,
    terms: Terms,
    /// By subject, such as `slot db:5432/orders`.
    episodes: BTreeMap<String, Episode>,
}

/// Every alert.
pub(super) struct Alerts {
    pipeline: Arc<str>,
    rules: Vec<Rule>,
    reach: Reach,
    state: Arc<dyn StateStore>,
    looks: u64,
    /// When it was first looked.
    began: Option<f64>,
}

/// Something to tell, and whom.
pub(super) struct Told {
    pub(super) notify: Vec<String>,
    pub(super) notification: Notification,
}

impl Rule {
    fn level(&self, reading: &Reading) -> Level {
        if self.settings.danger.as_ref().is_some_and(|danger| danger.holds(reading)) {
            Level::Danger
        } else if self.settings.when.holds(reading) {
            Level::Raised
        } else {
            Level::Clear
        }
    }

    /// Whether the alert is about this subject.
    fn covers(&self, found: &Found<'_>) -> bool {
        let only = self.settings.only.as_deref();
        only.is_none_or(|only| only.iter().any(|name| name == found.name || found.slot.is_some_and(|slot| name == slot)))
    }

    fn severity(&self, level: Level) -> AlertSeverity {
        if level == Level::Danger { AlertSeverity::Page } else { self.settings.severity }
    }
}

fn subject(text: &mut String, kind: SubjectKind, name: &str, slot: Option<&str>) {
    text.clear();
    let _ = write!(text, "{} {name}", kind.word());
    if let Some(slot) = slot {
        let _ = write!(text, "/{slot}");
    }
}

impl Alerts {
    /// The alerts of a file; those that fired when the process before this one ended go on.
    pub(super) fn new(
        pipeline: &Arc<str>,
        settings: &BTreeMap<String, AlertSettings>,
        reach: Reach,
        state: Arc<dyn StateStore>,
    ) -> Result<Self, CodedError> {
        let rule = |(name, settings): (&String, &AlertSettings)| Rule {
            name: name.clone(),
            terms: Terms {
                hold: settings.hold.map_or(0.0, |hold| hold.0.as_secs_f64()),
                repeat: settings.repeat.map(|repeat| repeat.0.as_secs_f64()),
            },
            settings: settings.clone(),
            episodes: BTreeMap::new(),
        };
        let mut alerts =
            Self { pipeline: Arc::clone(pipeline), rules: settings.iter().map(rule).collect(), reach, state, looks: 0, began: None };
        let mut stale = Vec::new();
        for (key, document) in alerts.state.list(pipeline, NODE)? {
            if !alerts.restore(&key.table, &document) {
                stale.push((key, None));
            }
        }
        if !stale.is_empty() {
            alerts.state.store(&stale)?;
        }
        Ok(alerts)
    }

    fn restore(&mut self, key: &str, document: &Value) -> bool {
        let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some((alert, subject)) = key.split_once('/') else { return false };
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.name == alert) else { return false };
        let life = document.get("life").and_then(|life| serde_json::from_value::<Life>(life.clone()).ok());
        let (Some(name), Some(life)) = (text("name"), life) else { return false };
        // An alert of that name about something else is another alert.
        if text("metric").as_deref() != Some(rule.settings.when.metric.name) {
            return false;
        }
        let episode = Episode {
            name,
            slot: text("slot"),
            detail: text("detail"),
            server: text("server"),
            reading: None,
            hint: text("hint").unwrap_or_default(),
            life: Some(life),
            look: 0,
        };
        rule.episodes.insert(subject.to_owned(), episode);
        true
    }

    /// Looks at everything at `now`, in seconds since 1970-01-01 00:00:00 UTC.
    pub(super) fn look(&mut self, status: &PipelineStatus, now: f64) -> Result<Vec<Told>, CodedError> {
        self.looks += 1;
        let began = *self.began.get_or_insert(now);
        let snapshot = Snapshot::of(status, now);
        let mut told = Vec::new();
        let mut changes = Vec::new();
        let mut text = String::new();
        for rule in &mut self.rules {
            let metric = rule.settings.when.metric;
            let mut found_episodes: Vec<(String, Option<Level>)> = Vec::new();
            snapshot.visit(metric, &self.reach, |found| {
                if !rule.covers(&found) {
                    return;
                }
                let level = found.reading.as_ref().map(|reading| rule.level(reading));
                subject(&mut text, metric.subject, found.name, found.slot);
                match rule.episodes.get_mut(&text) {
                    Some(episode) => {
                        episode.look = self.looks;
                        if found.reading.is_some() {
                            episode.reading.clone_from(&found.reading);
                        }
                        if level.is_some_and(|level| level > Level::Clear) {
                            episode.hint = hint(metric, &found);
                        }
                    }
                    None if level.is_none_or(|level| level == Level::Clear) => return,
                    None => {
                        let episode = Episode {
                            name: found.name.to_owned(),
                            slot: found.slot.map(str::to_owned),
                            detail: found.detail.map(|slot| slot.name.clone()),
                            server: found.server.map(|server| server.name.to_string()),
                            hint: hint(metric, &found),
                            reading: found.reading,
                            life: None,
                            look: self.looks,
                        };
                        rule.episodes.insert(text.clone(), episode);
                    }
                }
                found_episodes.push((text.clone(), level));
            });
            for (key, episode) in &mut rule.episodes {
                if episode.look != self.looks {
                    // Right after a start a server has not been checked yet: what it says is not known.
                    let awaited =
                        episode.look == 0 && now - began < PATIENCE && episode.server.as_deref().is_some_and(|s| !snapshot.has(s));
                    episode.reading = None;
                    found_episodes.push((key.clone(), if awaited { None } else { Some(Level::Clear) }));
                }
            }
            for (key, level) in found_episodes {
                let Some(episode) = rule.episodes.get_mut(&key) else { continue };
                let before = episode.life.clone();
                let event = step(&mut episode.life, rule.terms, level, now);
                let fired = |life: &Option<Life>| life.as_ref().and_then(|life| life.fired.clone());
                if fired(&before) != fired(&episode.life) {
                    let document = episode.life.as_ref().filter(|life| life.fired.is_some()).map(|life| document(metric, episode, life));
                    changes.push((StateKey::table(&self.pipeline, NODE, &format!("{}/{key}", rule.name)), document));
                }
                if let Some(event) = event {
                    let life = episode.life.clone().or(before).expect("what is over has been");
                    let notification = notification(&self.pipeline, rule, &key, &life, event, now);
                    told.extend(notification.map(|notification| Told { notify: rule.settings.notify.clone(), notification }));
                }
            }
            rule.episodes.retain(|_, episode| episode.life.is_some());
        }
        if !changes.is_empty() {
            self.state.store(&changes)?;
        }
        status.set_alerts(self.active());
        Ok(told)
    }

    /// The alerts that hold.
    fn active(&self) -> Vec<AlertStatus> {
        let of = |rule: &Rule| {
            rule.episodes
                .iter()
                .filter_map(|(key, episode)| {
                    let life = episode.life.as_ref()?;
                    let level = life.fired.as_ref().map_or(Level::Raised, |fired: &Fired| fired.level);
                    Some(AlertStatus {
                        alert: rule.name.clone(),
                        subject: key.clone(),
                        severity: rule.severity(level).word(),
                        firing: life.fired.is_some(),
                        since: life.since,
                        message: message(key, &rule.settings.when, episode.reading.as_ref()),
                        hint: episode.hint.clone(),
                    })
                })
                .collect::<Vec<_>>()
        };
        self.rules.iter().flat_map(of).collect()
    }
}

fn document(metric: &Metric, episode: &Episode, life: &Life) -> Value {
    serde_json::json!({
        "metric": metric.name, "name": episode.name, "slot": episode.slot, "detail": episode.detail, "server": episode.server,
        "hint": episode.hint, "life": life,
    })
}

fn notification(pipeline: &Arc<str>, rule: &Rule, key: &str, life: &Life, event: Event, now: f64) -> Option<Notification> {
    let episode = rule.episodes.get(key)?;
    let level = life.fired.as_ref().map_or(Level::Raised, |fired| fired.level);
    let when = match &rule.settings.danger {
        Some(danger) if level == Level::Danger => danger,
        _ => &rule.settings.when,
    };
    Some(Notification {
        id: format!("{pipeline}/{}/{key}/{:.0}/{}/{:.0}", rule.name, life.since * 1e3, event.word(), now * 1e3),
        pipeline: Arc::clone(pipeline),
        alert: rule.name.clone(),
        event,
        severity: rule.severity(level),
        kind: when.metric.subject,
        name: episode.name.clone(),
        slot: episode.slot.clone().or_else(|| episode.detail.clone()),
        server: episode.server.clone(),
        when: when.clone(),
        reading: episode.reading.clone(),
        since: life.since,
        at: now,
        message: message(key, when, episode.reading.as_ref()),
        hint: episode.hint.clone(),
    })
}
