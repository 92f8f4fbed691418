//! Routing contexts: lists of rules, the first that fits decides.

use std::sync::Arc;

use chrono::{DateTime, Datelike, Local, Timelike, Utc};
use serde::{Deserialize, Serialize};

use super::{
    digitmap::Digitmap,
    index::Index,
    mask::{Mask, symbols},
    number::{Apri, Called, Calling, Inni, Nai, Ni, Npi, Screening, SormNumbers},
    template::Template,
};

/// A context as imported, with the index over its rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Plain", into = "Plain")]
pub struct Context {
    pub name: String,
    pub digitmap: Option<Digitmap>,
    /// Number plan its numbers are in; none is the domain's own short numbering.
    pub np: Option<String>,
    pub rules: Arc<Vec<Rule>>,
    /// The XML it was imported from.
    pub source: Arc<str>,
    pub(crate) index: Arc<Index>,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    name: String,
    digitmap: Option<Digitmap>,
    np: Option<String>,
    rules: Arc<Vec<Rule>>,
    source: Arc<str>,
}

impl From<Plain> for Context {
    fn from(p: Plain) -> Self {
        let index = Arc::new(Index::new(&p.rules));
        Self { name: p.name, digitmap: p.digitmap, np: p.np, rules: p.rules, source: p.source, index }
    }
}

impl From<Context> for Plain {
    fn from(c: Context) -> Self {
        Self { name: c.name, digitmap: c.digitmap, np: c.np, rules: c.rules, source: c.source }
    }
}

impl Context {
    pub fn new(
        name: String,
        digitmap: Option<Digitmap>,
        np: Option<String>,
        rules: Vec<Rule>,
        source: &str,
    ) -> Self {
        Plain { name, digitmap, np, rules: Arc::new(rules), source: source.into() }.into()
    }

    /// The same with every way over the bridge `from` led over `to`.
    pub fn with_bridge(&self, from: &str, to: &str) -> Self {
        let (from, to) = (format!("bridge:{from}"), format!("bridge:{to}"));
        let mut rules = (*self.rules).clone();
        for rule in &mut rules {
            if rule.result == RuleResult::Trunk(from.clone()) {
                rule.result = RuleResult::Trunk(to.clone());
            }
        }
        let source = self.source.replace(&format!("\"{from}\""), &format!("\"{to}\""));
        Self::new(self.name.clone(), self.digitmap.clone(), self.np.clone(), rules, &source)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    #[serde(default)]
    pub conditions: Conditions,
    #[serde(default)]
    pub actions: Vec<Action>,
    pub result: RuleResult,
}

/// What a call must be; what is not said fits every call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub cdpn: Option<Mask>,
    pub cgpn: Option<Mask>,
    pub cdpn_ni: Option<Ni>,
    pub cdpn_nai: Option<Nai>,
    pub cgpn_ni: Option<Ni>,
    pub cgpn_nai: Option<Nai>,
    pub category: Option<u8>,
    /// Originating interface.
    pub iface: Option<String>,
    /// Minutes of the day, from inclusive to exclusive; may pass midnight.
    pub time: Option<(u16, u16)>,
    /// Bit n: weekday n, Monday is 0.
    pub weekdays: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// `<cdpn …/>`
    Cdpn(CdpnChange),
    /// `<cgpn …/>`
    Cgpn(CgpnChange),
    /// `<called …/>`
    SormCalled { digits: Option<Template>, ni: Option<Ni> },
    /// `<calling …/>`
    SormCalling { digits: Option<Template>, ni: Option<Ni> },
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CdpnChange {
    pub digits: Option<Template>,
    pub ni: Option<Ni>,
    pub nai: Option<Nai>,
    pub npi: Option<Npi>,
    pub inni: Option<Inni>,
    pub incomplete: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CgpnChange {
    pub digits: Option<Template>,
    pub ni: Option<Ni>,
    pub nai: Option<Nai>,
    pub npi: Option<Npi>,
    pub apri: Option<Apri>,
    pub screening: Option<Screening>,
    pub incomplete: Option<bool>,
    pub category: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleResult {
    /// The number is this domain's, or its number plan leads on.
    Local,
    /// `<trunk value="bridge:c2v"/>` or `<trunk value="trunk1"/>`
    Trunk(String),
    /// `<direction value="smg_trunk"/>`: the trunks of a group.
    Direction(String),
    /// `<continue context="to_city"/>`
    Continue(String),
}

/// A call as a context sees it.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub a: &'a Calling,
    pub b: &'a Called,
    pub iface: &'a str,
    pub at: DateTime<Utc>,
}

impl Conditions {
    /// The conditions that are not on digits: [`Index`] has seen to those.
    pub(crate) fn others_hold(&self, facts: &Facts) -> bool {
        self.first_failed_other(facts).is_none()
    }

    /// Why the rule does not fit, if it does not.
    pub(crate) fn first_failed(&self, facts: &Facts) -> Option<String> {
        let digits = |what: &str, mask: &Option<Mask>, number: &str| {
            let mask = mask.as_ref()?;
            let fits = symbols(number).is_some_and(|s| mask.matches(&s));
            (!fits).then(|| format!("{what} {number:?} does not match {mask}"))
        };
        digits("cdpn", &self.cdpn, &facts.b.digits)
            .or_else(|| digits("cgpn", &self.cgpn, &facts.a.digits))
            .or_else(|| self.first_failed_other(facts))
    }

    fn first_failed_other(&self, facts: &Facts) -> Option<String> {
        fn differs<T: PartialEq + std::fmt::Display>(what: &str, want: Option<T>, is: T) -> Option<String> {
            want.filter(|w| *w != is).map(|w| format!("{what} is {is}, not {w}"))
        }
        let local = facts.at.with_timezone(&Local);
        let minute = (local.hour() * 60 + local.minute()) as u16;
        let weekday = local.weekday().num_days_from_monday();
        differs("cdpn ni", self.cdpn_ni, facts.b.ni)
            .or_else(|| differs("cdpn nai", self.cdpn_nai, facts.b.nai))
            .or_else(|| differs("cgpn ni", self.cgpn_ni, facts.a.ni))
            .or_else(|| differs("cgpn nai", self.cgpn_nai, facts.a.nai))
            .or_else(|| differs("category", self.category, facts.a.category))
            .or_else(|| differs("iface", self.iface.as_deref(), facts.iface))
            .or_else(|| {
                let (from, to) = self.time?;
                let within =
                    if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to };
                (!within)
                    .then(|| format!("the time {} is outside {}-{}", clock(minute), clock(from), clock(to)))
            })
            .or_else(|| {
                let days = self.weekdays?;
                (days >> weekday & 1 == 0).then(|| format!("{} is not one of its weekdays", local.weekday()))
            })
    }
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

impl Rule {
    /// Changes the numbers. Every template reads the numbers as the rule found them.
    pub(crate) fn act(&self, a: &mut Calling, b: &mut Called, sorm: &mut SormNumbers) {
        let (found_a, found_b) = (a.digits.clone(), b.digits.clone());
        let from_a = |t: &Template| t.apply(&found_a, self.conditions.cgpn.as_ref());
        let from_b = |t: &Template| t.apply(&found_b, self.conditions.cdpn.as_ref());
        for action in &self.actions {
            match action {
                Action::Cdpn(c) => {
                    set(&mut b.digits, c.digits.as_ref().map(from_b));
                    set(&mut b.ni, c.ni);
                    set(&mut b.nai, c.nai);
                    set(&mut b.npi, c.npi);
                    set(&mut b.inni, c.inni);
                    set(&mut b.incomplete, c.incomplete);
                }
                Action::Cgpn(c) => {
                    set(&mut a.digits, c.digits.as_ref().map(from_a));
                    set(&mut a.ni, c.ni);
                    set(&mut a.nai, c.nai);
                    set(&mut a.npi, c.npi);
                    set(&mut a.apri, c.apri);
                    set(&mut a.screening, c.screening);
                    set(&mut a.incomplete, c.incomplete);
                    set(&mut a.category, c.category);
                }
                Action::SormCalled { digits, ni } => {
                    sorm.digits_b = digits.as_ref().map(from_b).or(sorm.digits_b.take());
                    sorm.ni_b = ni.or(sorm.ni_b);
                }
                Action::SormCalling { digits, ni } => {
                    sorm.digits_a = digits.as_ref().map(from_a).or(sorm.digits_a.take());
                    sorm.ni_a = ni.or(sorm.ni_a);
                }
            }
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(v) = value {
        *place = v;
    }
}
