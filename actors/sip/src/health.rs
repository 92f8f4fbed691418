//! Whether the neighbours behind trunks answer: each is asked with OPTIONS, and what came of it may be read by anybody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use kit::alarm::{Alarms, Condition, Severity};
use parking_lot::Mutex;
use serde::Serialize;

/// Between two questions to a neighbour that answers, and to one that does not.
pub const EVERY: Duration = Duration::from_secs(30);
pub const DOWN: Duration = Duration::from_secs(5);

/// What is known of a trunk's neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Any answer is one: a neighbour that refuses OPTIONS lives.
    pub up: bool,
    pub since: DateTime<Utc>,
    pub asked: DateTime<Utc>,
    /// `200`, `no answer`, `unknown host`
    pub said: String,
    /// It could not take a call a moment ago: others are tried first until then.
    pub suspect: Option<DateTime<Utc>>,
}

/// How long a trunk that could not take a call is no first choice.
const SUSPECT: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Our registration with a trunk's neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// None: we are not registered now.
    pub until: Option<DateTime<Utc>>,
    /// What the neighbour said last: `200`, `403`, `no answer`.
    pub said: String,
}

/// By domain and trunk. Clones share it.
#[derive(Clone)]
pub struct TrunksHealth(Arc<Mutex<BTreeMap<(String, String), Health>>>, Arc<Mutex<Uplinks>>, Alarms);

/// Classes of alarms.
const NEIGHBOUR_DOWN: &str = "sip::trunk::down";
const NOT_REGISTERED: &str = "sip::trunk::unregistered";

type Uplinks = BTreeMap<(String, String), Uplink>;

impl TrunksHealth {
    pub fn new(alarms: Alarms) -> Self {
        Self(Arc::default(), Arc::default(), alarms)
    }

    pub fn of(&self, domain: &str, trunk: &str) -> Option<Health> {
        self.0.lock().get(&(domain.to_owned(), trunk.to_owned())).cloned()
    }

    /// Whether its neighbour does not answer.
    pub fn is_down(&self, domain: &str, trunk: &str) -> bool {
        self.of(domain, trunk).is_some_and(|h| !h.up)
    }

    /// Whether a call should not even be tried: where there is another way. The last one is always tried: some neighbours do
    /// not answer OPTIONS, and take calls.
    pub fn avoids(&self, domain: &str, trunk: &str, last: bool, now: DateTime<Utc>) -> bool {
        !last && self.of(domain, trunk).is_some_and(|h| !h.up || h.suspect.is_some_and(|until| now < until))
    }

    fn change(&self, domain: &str, trunk: &str, change: impl FnOnce(&mut Health)) {
        if let Some(health) = self.0.lock().get_mut(&(domain.to_owned(), trunk.to_owned())) {
            change(health);
        }
    }

    pub fn failed_a_call(&self, domain: &str, trunk: &str, now: DateTime<Utc>) {
        metrics::counter!("hypha_trunk_calls_failed_total").increment(1);
        self.change(domain, trunk, |h| h.suspect = Some(now + SUSPECT));
    }

    pub fn took_a_call(&self, domain: &str, trunk: &str) {
        self.change(domain, trunk, |h| h.suspect = None);
    }

    pub fn heard(&self, domain: &str, trunk: &str, now: DateTime<Utc>, up: bool, said: impl Into<String>) {
        let said = said.into();
        let mut all = self.0.lock();
        let health = all.entry((domain.to_owned(), trunk.to_owned())).or_insert_with(|| Health {
            up,
            since: now,
            asked: now,
            said: String::new(),
            suspect: None,
        });

        if health.up != up {
            health.since = now;
            tracing::info!(domain, trunk, up, %said, "a trunk's neighbour changed its state");
        }
        match up {
            true => self.2.clear(NEIGHBOUR_DOWN, Some(domain), trunk),
            false => {
                let down = Condition::new(NEIGHBOUR_DOWN, Severity::Major, trunk);
                self.2.raise(down.domain(domain).cause(&said));
            }
        }
        (health.up, health.asked, health.said) = (up, now, said);
    }

    /// Whether a neighbour is to be asked now.
    pub fn is_due(&self, domain: &str, trunk: &str, now: DateTime<Utc>) -> bool {
        self.of(domain, trunk).is_none_or(|h| {
            let pause = if h.up { EVERY } else { DOWN };
            (now - h.asked).to_std().unwrap_or_default() + Duration::from_millis(500) >= pause
        })
    }

    /// Notes that a neighbour has been asked.
    pub fn ask(&self, domain: &str, trunk: &str, now: DateTime<Utc>) {
        if let Some(health) = self.0.lock().get_mut(&(domain.to_owned(), trunk.to_owned())) {
            health.asked = now;
        }
    }

    pub fn uplink(&self, domain: &str, trunk: &str) -> Option<Uplink> {
        self.1.lock().get(&(domain.to_owned(), trunk.to_owned())).cloned()
    }

    pub(crate) fn registered(&self, domain: &str, trunk: &str, uplink: Option<Uplink>) {
        let key = (domain.to_owned(), trunk.to_owned());
        let mut all = self.1.lock();
        let before = all.get(&key).is_some_and(|u| u.until.is_some());
        if let Some(u) = uplink.as_ref().filter(|u| u.until.is_some() != before) {
            let registered = u.until.is_some();
            tracing::info!(domain, trunk, registered, said = %u.said, "our registration with a neighbour changed");
        }
        match &uplink {
            Some(u) if u.until.is_none() => {
                let lost = Condition::new(NOT_REGISTERED, Severity::Major, trunk);
                self.2.raise(lost.domain(domain).cause(&u.said));
            }
            _ => self.2.clear(NOT_REGISTERED, Some(domain), trunk),
        }
        match uplink {
            Some(uplink) => drop(all.insert(key, uplink)),
            None => drop(all.remove(&key)),
        }
    }

    /// Forgets trunks that are no more.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        self.1.lock().retain(|(domain, trunk), _| {
            let kept = keep(domain, trunk);
            if !kept {
                self.2.clear(NOT_REGISTERED, Some(domain), trunk);
            }
            kept
        });
        self.0.lock().retain(|(domain, trunk), health| {
            let kept = keep(domain, trunk);
            metrics::gauge!("hypha_trunk_up", "domain" => domain.clone(), "trunk" => trunk.clone())
                .set(if kept && health.up { 1.0 } else { 0.0 });
            if !kept {
                self.2.clear(NEIGHBOUR_DOWN, Some(domain), trunk);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_down_since_its_first_silence() {
        let alarms = Alarms::new("n", kit::Clock::System);
        let (health, start) = (TrunksHealth::new(alarms.clone()), DateTime::UNIX_EPOCH);
        let at = |s: i64| start + chrono::TimeDelta::seconds(s);
        assert!(!health.is_down("d", "t"), "nobody has asked yet");
        health.heard("d", "mute", at(0), false, "no answer");
        assert!(health.avoids("d", "mute", false, at(1)) && !health.avoids("d", "mute", true, at(1)));
        health.heard("d", "full", at(0), true, "200");
        health.failed_a_call("d", "full", at(0));
        assert!(health.avoids("d", "full", false, at(29)) && !health.avoids("d", "full", true, at(1)));
        assert!(!health.avoids("d", "full", false, at(30)));
        for (second, up) in [(0, true), (30, false), (60, false)] {
            health.heard("d", "t", at(second), up, "");
        }
        assert!(
            !health.is_due("d", "t", at(62)) && health.is_due("d", "t", at(65)),
            "asked more often while down"
        );
        let known = health.of("d", "t").expect("known");
        assert_eq!((known.up, known.since, known.asked), (false, at(30), at(60)));
        let down = alarms.active();
        let of = |t: &str| down.iter().find(|a| a.instance == t).map(|a| (a.class, a.severity));
        assert_eq!(of("t"), Some((NEIGHBOUR_DOWN, Severity::Major)));
        assert!(of("mute").is_some() && of("full").is_none());
        health.retain(|_, _| false);
        assert!(alarms.active().is_empty(), "a trunk that is no more");
        assert_eq!(health.of("d", "t"), None);
    }
}
