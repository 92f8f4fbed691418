//! Alarms: conditions that an operator must act on, raised by any family and cleared when they are over. Their fields are those
//! of the original: class, severity, domain, instance, location, cause, times.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use tokio::sync::broadcast;

use crate::Clock;

/// Times of alarms are the wall clock's.
pub type Time = DateTime<Utc>;

/// Alarms at one time; one more is counted and dropped.
const ACTIVE: usize = 1000;
/// Alarms that are over, kept to be looked at.
const CLEARED: usize = 1000;
/// Characters of a cause.
const CAUSE: usize = 500;
/// The user of what the node does itself.
pub const SYSTEM: &str = "[system]";

/// How urgent it is (ITU-T X.733, 8.1.2.3), the least urgent first.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    /// Nothing is impaired yet.
    Warning,
    /// A part of a service is impaired.
    Minor,
    /// A service is impaired; act soon.
    Major,
    /// A service is down; act now.
    Critical,
}

impl Severity {
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One alarm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarm {
    /// Counts from 1 in each run of the node.
    pub id: u64,
    /// The kind of condition, `family::object::fault`.
    pub class: &'static str,
    pub severity: Severity,
    /// None where it is the node's.
    pub domain: Option<String>,
    /// The object it is about.
    pub instance: String,
    /// The node that raised it.
    pub location: String,
    pub cause: String,
    pub since: DateTime<Utc>,
    /// When it was raised last.
    pub last: DateTime<Utc>,
    pub count: u64,
    /// An operator wants to hear nothing of such alarms.
    pub masked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared: Option<DateTime<Utc>>,
    /// The operator that cleared it, or `[system]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared_by: Option<String>,
    #[serde(skip)]
    until: Option<DateTime<Utc>>,
}

/// A condition as its family tells it.
#[derive(Debug, Clone)]
pub struct Condition {
    class: &'static str,
    severity: Severity,
    domain: Option<String>,
    instance: String,
    cause: String,
    lasts: Option<Duration>,
}

impl Condition {
    /// ```
    /// use kit::alarm::{Condition, Severity};
    /// Condition::new("sip::trunk::down", Severity::Major, "city").domain("a.test").cause("no answer to OPTIONS");
    /// ```
    pub fn new(class: &'static str, severity: Severity, instance: impl Into<String>) -> Self {
        let (instance, cause) = (instance.into(), String::new());
        Self { class, severity, domain: None, instance, cause, lasts: None }
    }

    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    pub fn cause(mut self, cause: impl ToString) -> Self {
        self.cause = cause.to_string().chars().filter(|c| !c.is_control()).take(CAUSE).collect();
        self
    }

    /// Its end cannot be seen: it is over when it was not raised again for so long.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasts = Some(time);
        self
    }
}

/// Alarms that are meant; what is `None` may be anything. A class may end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl Selection {
    pub fn takes(&self, alarm: &Alarm) -> bool {
        let class = |wanted: &String| match wanted.strip_suffix('*') {
            Some(beginning) => alarm.class.starts_with(beginning),
            None => alarm.class == wanted,
        };
        self.class.as_ref().is_none_or(class)
            && self.domain.as_ref().is_none_or(|d| alarm.domain.as_ref() == Some(d))
            && self.instance.as_ref().is_none_or(|i| *i == alarm.instance)
            && self.location.as_ref().is_none_or(|l| *l == alarm.location)
    }
}

type Key = (&'static str, Option<String>, String);

#[derive(Default)]
struct Inner {
    raised: u64,
    active: BTreeMap<Key, Alarm>,
    cleared: VecDeque<Alarm>,
    masks: Vec<Selection>,
}

/// The alarms of a node; clones share them.
#[derive(Clone)]
pub struct Alarms(Arc<Shared>);

struct Shared {
    location: String,
    clock: Clock,
    inner: Mutex<Inner>,
    news: broadcast::Sender<Alarm>,
}

impl Alarms {
    pub fn new(location: impl Into<String>, clock: Clock) -> Self {
        let news = broadcast::channel(256).0;
        Self(Arc::new(Shared { location: location.into(), clock, inner: Mutex::default(), news }))
    }

    /// A condition is there. Raised again, it stays the alarm it is, counted, with its newest cause and severity.
    pub fn raise(&self, condition: Condition) {
        let now = self.0.clock.now();
        let Condition { class, severity, domain, instance, cause, lasts } = condition;
        let until = lasts.and_then(|l| chrono::TimeDelta::from_std(l).ok()).map(|l| now + l);
        let mut inner = self.0.inner.lock();
        let key = (class, domain, instance);
        if let Some(alarm) = inner.active.get_mut(&key) {
            let changed = alarm.severity != severity;
            if changed {
                count(alarm, -1.0);
            }
            (alarm.last, alarm.until, alarm.severity, alarm.cause) = (now, until, severity, cause);
            alarm.count += 1;
            let alarm = alarm.clone();
            drop(inner);
            if changed {
                count(&alarm, 1.0);
                self.tell(alarm);
            }
            return;
        }
        if inner.active.len() >= ACTIVE {
            metrics::counter!("hypha_alarms_dropped_total").increment(1);
            return;
        }
        inner.raised += 1;
        let (_, domain, instance) = key.clone();
        let mut alarm = Alarm {
            id: inner.raised,
            class,
            severity,
            domain,
            instance,
            location: self.0.location.clone(),
            cause,
            since: now,
            last: now,
            count: 1,
            masked: false,
            cleared: None,
            cleared_by: None,
            until,
        };
        alarm.masked = inner.masks.iter().any(|m| m.takes(&alarm));
        inner.active.insert(key, alarm.clone());
        drop(inner);
        count(&alarm, 1.0);
        metrics::counter!("hypha_alarms_raised_total", "class" => class).increment(1);
        self.tell(alarm);
    }

    /// A condition is over; nothing happens where it was not there.
    pub fn clear(&self, class: &'static str, domain: Option<&str>, instance: &str) {
        let key = (class, domain.map(str::to_owned), instance.to_owned());
        self.take(SYSTEM, |k, _| *k == key);
    }

    /// An operator clears alarms; the answer is how many.
    pub fn clear_selected(&self, by: &str, wanted: impl Fn(&Alarm) -> bool) -> usize {
        self.take(by, |_, alarm| wanted(alarm))
    }

    /// Clears what was to last for a time and was not raised again.
    pub fn settle(&self) {
        let now = self.0.clock.now();
        self.take(SYSTEM, |_, alarm| alarm.until.is_some_and(|until| until <= now));
    }

    fn take(&self, by: &str, wanted: impl Fn(&Key, &Alarm) -> bool) -> usize {
        let now = self.0.clock.now();
        let mut inner = self.0.inner.lock();
        let mut over: Vec<Alarm> =
            inner.active.extract_if(.., |key, alarm| wanted(key, alarm)).map(|(_, alarm)| alarm).collect();
        for alarm in &mut over {
            (alarm.cleared, alarm.cleared_by) = (Some(now), Some(by.to_owned()));
            if inner.cleared.len() == CLEARED {
                inner.cleared.pop_front();
            }
            inner.cleared.push_back(alarm.clone());
        }
        drop(inner);
        let taken = over.len();
        for alarm in over {
            count(&alarm, -1.0);
            self.tell(alarm);
        }
        taken
    }

    /// Alarms that an operator wants to hear nothing of: they are kept, but neither shown, counted nor passed on.
    pub fn set_masks(&self, masks: Vec<Selection>) {
        let mut inner = self.0.inner.lock();
        for alarm in inner.active.values_mut() {
            let masked = masks.iter().any(|m| m.takes(alarm));
            if alarm.masked != masked {
                count(alarm, -1.0);
                alarm.masked = masked;
                count(alarm, 1.0);
            }
        }
        inner.masks = masks;
    }

    /// Alarms that hold, the most urgent first, then the oldest.
    pub fn active(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> = self.0.inner.lock().active.values().cloned().collect();
        all.sort_by_key(|a| (std::cmp::Reverse(a.severity), a.id));
        all
    }

    /// Alarms that are over, the newest first.
    pub fn cleared(&self) -> Vec<Alarm> {
        self.0.inner.lock().cleared.iter().rev().cloned().collect()
    }

    /// Each alarm when it is raised, becomes more or less urgent, or is cleared.
    pub fn news(&self) -> broadcast::Receiver<Alarm> {
        self.0.news.subscribe()
    }

    fn tell(&self, alarm: Alarm) {
        let Alarm { class, severity, domain, instance, cause, .. } = &alarm;
        let (domain, severity_name) = (domain.as_deref().unwrap_or_default(), severity.name());
        match (&alarm.cleared_by, severity) {
            _ if alarm.masked => {}
            (Some(by), _) => tracing::info!(class, domain, instance, %by, "alarm cleared"),
            (None, Severity::Critical | Severity::Major) => {
                tracing::error!(class, domain, instance, severity = severity_name, cause, "alarm");
            }
            (None, _) => tracing::warn!(class, domain, instance, severity = severity_name, cause, "alarm"),
        }
        let _ = self.0.news.send(alarm);
    }
}

fn count(alarm: &Alarm, by: f64) {
    if !alarm.masked {
        metrics::gauge!("hypha_alarms", "class" => alarm.class, "severity" => alarm.severity.name())
            .increment(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn city(severity: Severity, cause: &str) -> Condition {
        Condition::new("sip::trunk::down", severity, "city").domain("a.test").cause(cause)
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_one_alarm_until_it_is_over() {
        let alarms = Alarms::new("ds1@ecss1", Clock::simulated(DateTime::UNIX_EPOCH));
        let mut news = alarms.news();
        alarms.raise(city(Severity::Major, "no answer"));
        alarms.raise(city(Severity::Major, "503\nforged"));
        alarms.raise(Condition::new("node::service::down", Severity::Critical, "web"));
        let all = alarms.active();
        assert_eq!((all.len(), all[0].class, all[1].count), (2, "node::service::down", 2));
        assert_eq!((all[1].cause.as_str(), all[1].id), ("503forged", 1), "no control characters");
        alarms.clear("sip::trunk::down", Some("b.test"), "city");
        assert_eq!(alarms.active().len(), 2, "another domain's");
        alarms.clear("sip::trunk::down", Some("a.test"), "city");
        let over = alarms.cleared();
        assert_eq!((over.len(), over[0].cleared_by.as_deref()), (1, Some(SYSTEM)));
        let told: Vec<_> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        assert_eq!(told.len(), 3, "raised, raised, cleared: {told:?}");
        alarms.raise(city(Severity::Minor, "again"));
        assert_eq!(alarms.active()[1].id, 3, "a new one");
        assert_eq!(alarms.clear_selected("admin", |a| a.domain.is_some()), 1);
        assert_eq!(alarms.cleared()[0].cleared_by.as_deref(), Some("admin"));
    }

    #[tokio::test(start_paused = true)]
    async fn conditions_without_an_end_are_over_when_they_are_not_raised_again() {
        let alarms = Alarms::new("n", Clock::simulated(DateTime::UNIX_EPOCH));
        let guessing =
            || Condition::new("sip::guessing", Severity::Warning, "100").lasting(Duration::from_secs(60));
        alarms.raise(guessing());
        tokio::time::advance(Duration::from_secs(50)).await;
        alarms.raise(guessing());
        tokio::time::advance(Duration::from_secs(50)).await;
        alarms.settle();
        assert_eq!(alarms.active().len(), 1);
        tokio::time::advance(Duration::from_secs(10)).await;
        alarms.settle();
        assert!(alarms.active().is_empty());
    }

    #[test]
    fn masks_hide_and_floods_are_bounded() {
        let alarms = Alarms::new("n", Clock::System);
        alarms.set_masks(vec![Selection { class: Some("sip::*".into()), ..Selection::default() }]);
        for i in 0..ACTIVE + 10 {
            alarms.raise(Condition::new("sip::trunk::down", Severity::Major, i.to_string()));
        }
        let all = alarms.active();
        assert!(all.len() == ACTIVE && all.iter().all(|a| a.masked));
        alarms.set_masks(Vec::new());
        assert!(alarms.active().iter().all(|a| !a.masked));
    }
}
