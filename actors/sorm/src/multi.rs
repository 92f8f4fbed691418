//! MultiSORM: one log-in that stands for many domains (manual, "Подсистема MultiSORM"). What it is told goes to each of them,
//! and one success is success.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use access::{Account, Accounts};
use arc_swap::ArcSwap;
use command::Grants;
use kit::{Sealed, journal::Fold, ledger::Book};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{
    protocol::{Command, Pair, Password, Refusal, Request, Subject, Told, Wanted},
    settings::Mediator,
    station::{Answer, Media, Station},
    stations::{StationCommand, Stations},
};

/// The ledger's name, and its stream's.
pub const NAME: &str = "sorm/aggregates";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultiError {
    #[error("ssh_port is from 1 to 65534 (MultiSORM takes the next one), not {0:?}")]
    Port(String),
    #[error("objects_limit is from 1 to 65535, not {0:?}")]
    Objects(String),
    #[error("{0:?} is no domain and no template: one asterisk at most, and a minus before what is left out")]
    Template(String),
    #[error("there is no user {0}; sorm/info shows all")]
    NoUser(String),
    #[error("domains are wanted: add <USER> <PASSWORD> <DOMAIN>…")]
    NoDomains,
}

/// Domains by name or template: `voip.local`, `*`, `*.city`, `-test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Templates(Vec<String>);

impl Templates {
    pub fn new(words: &[String]) -> Result<Self, MultiError> {
        let good = |w: &str| {
            let name = w.strip_prefix('-').unwrap_or(w);
            !name.is_empty()
                && name.matches('*').count() <= 1
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*'))
        };
        if let Some(bad) = words.iter().find(|w| !good(w)) {
            return Err(MultiError::Template(bad.clone()));
        }
        if words.iter().all(|w| w.starts_with('-')) {
            return Err(MultiError::NoDomains);
        }
        Ok(Self(words.to_vec()))
    }

    /// Domains named outright.
    fn named(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|t| !t.contains('*') && !t.starts_with('-'))
    }

    fn takes(&self, domain: &str) -> bool {
        let left_out = self.0.iter().filter_map(|t| t.strip_prefix('-')).any(|t| fits(t, domain));
        !left_out && self.0.iter().any(|t| !t.starts_with('-') && fits(t, domain))
    }
}

impl fmt::Display for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

fn fits(template: &str, domain: &str) -> bool {
    match template.split_once('*') {
        Some((first, last)) => {
            domain.len() >= first.len() + last.len() && domain.starts_with(first) && domain.ends_with(last)
        }
        None => template == domain,
    }
}

/// One log-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    pub password: Sealed,
    pub domains: Templates,
}

/// Settings of the whole node (`sorm/…`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregates {
    /// Instead of the configuration's.
    pub ssh_port: Option<u16>,
    /// Objects that each mediator may have in a domain; none is as many as the order numbers.
    #[serde(default)]
    pub objects_limit: Option<usize>,
    pub users: BTreeMap<String, Aggregate>,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum AggregateEvent {
    PortSet(u16),
    ObjectsLimited(usize),
    Added { user: String, aggregate: Aggregate },
    Removed { user: String },
}

impl Fold for Aggregates {
    type Event = AggregateEvent;

    fn apply(&mut self, event: &AggregateEvent) {
        match event {
            AggregateEvent::PortSet(port) => self.ssh_port = Some(*port),
            AggregateEvent::ObjectsLimited(most) => self.objects_limit = Some(*most),
            AggregateEvent::Added { user, aggregate } => {
                self.users.insert(user.clone(), aggregate.clone());
            }
            AggregateEvent::Removed { user } => drop(self.users.remove(user)),
        }
    }
}

/// The aggregates as sessions read them. Clones share it.
#[derive(Clone, Default)]
pub struct Multi {
    all: Arc<ArcSwap<Aggregates>>,
    accounts: Arc<ArcSwap<Accounts>>,
}

impl Multi {
    pub fn all(&self) -> Arc<Aggregates> {
        self.all.load_full()
    }

    /// Who may log in.
    pub fn accounts(&self) -> &Arc<ArcSwap<Accounts>> {
        &self.accounts
    }

    fn publish(&self, state: &Aggregates) {
        let account = |a: &Aggregate| Account {
            hash: a.password.0.clone(),
            grants: Grants::default(),
            keys: Vec::new(),
        };
        let all = state.users.iter().map(|(user, a)| (user.clone(), account(a))).collect();
        self.accounts.store(Arc::new(Accounts { all }));
        self.all.store(Arc::new(state.clone()));
    }

    /// The domains a log-in stands for, each with its mediator at this address; the named ones first, in their order. A
    /// domain that is named must be ready; one that only a template takes joins when it is switched on, and must know the
    /// mediator then.
    pub fn domains(
        &self,
        user: &str,
        stations: &Stations,
        ip: IpAddr,
    ) -> Result<Vec<(String, Mediator)>, String> {
        let all = self.all();
        let templates = &all.users.get(user).ok_or("there is no such user")?.domains;
        let ready = |domain: &str| {
            let station = stations.get(domain).ok_or_else(|| format!("there is no domain {domain}"))?;
            station.settings.ready().map_err(|why| format!("{domain}: {why}"))?;
            let mediator = station.settings.mediator_at(ip);
            mediator.ok_or_else(|| format!("{domain}: radius_servers does not hold the mediator's address"))
        };
        let mut found = Vec::new();
        for domain in templates.named() {
            found.push((domain.to_owned(), ready(domain)?));
        }
        for domain in stations.domains() {
            let on = stations.get(&domain).is_some_and(|s| s.settings.enabled);
            if on && templates.takes(&domain) && !found.iter().any(|(known, _)| *known == domain) {
                let mediator = ready(&domain)?;
                found.push((domain, mediator));
            }
        }
        if found.is_empty() { Err("no domain is ready".into()) } else { Ok(found) }
    }
}

/// The ledger `sorm/aggregates`.
pub struct MultiBook(pub Multi);

#[derive(IntoStaticStr)]
pub enum MultiCommand {
    Port(u16),
    Objects(usize),
    Add(String, Aggregate),
    Remove(String),
}

/// Shows nothing: traces are read by many.
impl fmt::Debug for MultiCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

impl Book for MultiBook {
    type State = Aggregates;
    type Command = MultiCommand;
    type Answer = ();
    type Error = MultiError;

    fn decide(
        &self,
        state: &Aggregates,
        command: MultiCommand,
    ) -> Result<(Vec<AggregateEvent>, ()), MultiError> {
        let event = match command {
            MultiCommand::Port(port) => AggregateEvent::PortSet(port),
            MultiCommand::Objects(most) => AggregateEvent::ObjectsLimited(most),
            MultiCommand::Add(user, aggregate) => AggregateEvent::Added { user, aggregate },
            MultiCommand::Remove(user) if !state.users.contains_key(&user) => {
                return Err(MultiError::NoUser(user));
            }
            MultiCommand::Remove(user) => AggregateEvent::Removed { user },
        };
        Ok((vec![event], ()))
    }

    fn publish(&self, state: &Aggregates) {
        self.0.publish(state);
    }

    const FORGETS: bool = true;

    fn summary(&self, _: &Aggregates) -> serde_json::Value {
        serde_json::Value::String(kit::MARK.into())
    }
}

/// One answer out of those of all domains: a success where there is one, else the refusal that says most.
pub fn merge(command: &Command, answers: Vec<Answer>) -> Answer {
    let good = |a: &&Answer| a.received.is_none() && a.done.is_none();
    let Some(first) = answers.iter().find(good).or_else(|| answers.iter().max_by_key(|a| weight(a))) else {
        return Answer { done: Some(Refusal::NothingFound), ..Answer::default() };
    };
    let mut merged = first.clone();
    // Objects are each domain's own; all else is the same everywhere.
    if matches!(command, Command::Objects(_)) {
        let good = answers.into_iter().filter(|a| good(&a));
        let rows = good.flat_map(|a| a.table).filter_map(|told| match told {
            Told::Object { object, .. } => Some((object, told)),
            _ => None,
        });
        merged.table = rows.collect::<BTreeMap<u16, Told>>().into_values().collect();
    }
    merged
}

/// "Not one of ours" says less than any other refusal.
fn weight(answer: &Answer) -> u8 {
    match answer.received.or(answer.done) {
        None => 3,
        Some(
            Refusal::NotLocal | Refusal::NothingFound | Refusal::LocalSignOfOther | Refusal::ConnectObject,
        ) => 1,
        Some(_) => 2,
    }
}

/// What brings a domain that joins to where the others are: their commands once more.
pub fn catch_up(stations: &[(Mediator, Arc<Station>)], sorm: u8) -> Vec<StationCommandOf> {
    let desks: Vec<_> = stations.iter().filter_map(|(m, s)| s.desks.get(m)).filter(|d| d.started).collect();
    let Some(first) = desks.first() else { return Vec::new() };
    let mut all = Vec::new();
    let mut password = Password::FIRST;
    let mut say = |password: &Password, command| {
        all.push(StationCommandOf::Request(Request { sorm, password: password.clone(), command }));
    };
    say(&password, Command::Start);
    if first.password != password {
        say(&password, Command::SetPassword(first.password.clone()));
        password = first.password.clone();
    }
    for (group, channels) in &first.groups {
        for pair in &channels.pairs {
            let (group, control, pair): (u8, u8, Pair) = (*group, channels.control.code(), *pair);
            say(&password, Command::AddChannel { group, control, pair });
        }
    }
    let objects: BTreeMap<u16, _> =
        desks.iter().flat_map(|d| d.objects.iter().map(|(n, o)| (*n, o))).collect();
    for (number, o) in objects {
        let subject = Subject {
            object: Some(number),
            kind: o.kind.code(),
            sign: o.sign.map_or(crate::protocol::NONE, |s| s.code()),
            number: o.number,
            trunk: o.trunk,
        };
        let wanted = Wanted {
            category: o.category.code(),
            group: o.group.unwrap_or(crate::protocol::NONE),
            priority: o.priority.code(),
        };
        // Bundles of trunks are numbered by each domain for itself.
        if o.trunk.is_none() {
            say(&password, Command::PutObject(subject, wanted));
        }
    }
    all.extend(first.media.map(StationCommandOf::Media));
    all
}

/// A command for whichever mediator's desk.
pub enum StationCommandOf {
    Request(Request),
    Media(Media),
}

impl StationCommandOf {
    pub fn of(self, mediator: Mediator) -> StationCommand {
        match self {
            Self::Request(request) => StationCommand::Execute(mediator, request),
            Self::Media(media) => StationCommand::Media(mediator, media),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Setting;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn stations(ready: &[&str], unset: &[&str]) -> Stations {
        let stations = Stations::default();
        for (domain, on) in ready.iter().map(|d| (d, true)).chain(unset.iter().map(|d| (d, false))) {
            let mut station = Station::default();
            let mediator: Mediator = "127.0.0.1".parse().expect("an address");
            if on {
                station.settings.apply(&Setting::Enabled(true));
                station.settings.apply(&Setting::AddServer(mediator, Sealed(String::new())));
            }
            stations.publish(domain, Some(&station));
        }
        stations
    }

    fn domains(templates: &str, stations: &Stations) -> Result<Vec<String>, String> {
        let multi = Multi::default();
        let domains = Templates::new(&words(templates)).expect("templates");
        let aggregate = Aggregate { password: Sealed(String::new()), domains };
        let mut state = Aggregates::default();
        state.apply(&AggregateEvent::Added { user: "multi".into(), aggregate });
        multi.publish(&state);
        let found = multi.domains("multi", stations, [127, 0, 0, 1].into())?;
        Ok(found.into_iter().map(|(domain, _)| domain).collect())
    }

    #[test]
    fn every_named_domain_has_to_be_ready() {
        let stations = stations(&["central_voip", "voip.local"], &["local.voip"]);
        let both = Ok(vec!["voip.local".to_owned(), "central_voip".to_owned()]);
        assert_eq!(domains("voip.local central_voip", &stations), both);
        assert!(domains("central_voip local.voip", &stations).is_err_and(|e| e.contains("enabled is false")));
        assert!(
            domains("central_voip elsewhere", &stations).is_err_and(|e| e.contains("no domain elsewhere"))
        );
    }

    #[test]
    fn templates_take_what_fits_and_is_ready() {
        let stations = stations(&["a.city", "b.city", "test"], &["c.city"]);
        assert_eq!(domains("*", &stations), Ok(words("a.city b.city test")));
        assert_eq!(domains("* -test", &stations), Ok(words("a.city b.city")));
        assert_eq!(domains("test *.city -b*", &stations), Ok(words("test a.city")));
        assert!(domains("*.town", &stations).is_err());
        for bad in ["**", "a*b*", "", "-", "a b;c"] {
            assert!(Templates::new(&words(bad)).is_err(), "{bad}");
        }
        assert_eq!(Templates::new(&words("-test")), Err(MultiError::NoDomains));
    }

    #[test]
    fn one_success_is_success_and_refusals_say_the_most_they_can() {
        let refused = |refusal| Answer { done: Some(refusal), ..Answer::default() };
        let (own, set) = (refused(Refusal::NotLocal), refused(Refusal::ObjectSet));
        let command = Command::Version;
        assert_eq!(merge(&command, vec![own.clone(), Answer::default()]), Answer::default());
        assert_eq!(merge(&command, vec![own.clone(), set.clone()]), set);
        assert_eq!(merge(&command, vec![own.clone(), own.clone()]), own);
    }
}
