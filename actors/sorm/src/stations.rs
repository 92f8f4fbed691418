//! Stations of all domains as calls and sessions read them, and the ledger that changes one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use access::{Account, Accounts};
use arc_swap::ArcSwap;
use call::witness::{Seen, Witness, Written};
use chrono::{DateTime, Utc};
use command::Grants;
use domain::Estate;
use imbl::OrdMap;
use kit::{Address, Node, SealError, Sealed, Secret, Vault, ledger::Book};
use parking_lot::Mutex;
use strum::IntoStaticStr;

use crate::{
    intercept::{Claims, InterceptMsg, code_of},
    multi::{Aggregates, Multi},
    protocol::{Refusal, Request},
    settings::{Mediator, Property, Setting, SettingError},
    station::{Answer, Basis, Local, Media, Station, StationEvent, execute},
};

type Shared = Arc<Mutex<BTreeMap<String, Claims>>>;

/// Shared by clones.
#[derive(Clone, Default)]
pub struct Stations(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: ArcSwap<OrdMap<String, Arc<Station>>>,
    change: Mutex<()>,
    /// Who may log in: domains with their passwords.
    accounts: Arc<ArcSwap<Accounts>>,
    /// Taps that somebody has ordered, with their calls.
    taps: Mutex<BTreeMap<u64, String>>,
    /// What each domain uses at the mediator of this address.
    claims: Mutex<BTreeMap<IpAddr, Shared>>,
    /// Mediators that have an actor.
    running: Mutex<BTreeSet<(String, Mediator)>>,
}

impl Stations {
    pub fn get(&self, domain: &str) -> Option<Arc<Station>> {
        self.0.all.load().get(domain).cloned()
    }

    pub fn domains(&self) -> Vec<String> {
        self.0.all.load().keys().cloned().collect()
    }

    pub fn accounts(&self) -> &Arc<ArcSwap<Accounts>> {
        &self.0.accounts
    }

    pub(crate) fn publish(&self, domain: &str, station: Option<&Station>) {
        let _one = self.0.change.lock();
        let mut all = (**self.0.all.load()).clone();
        let mut accounts = (**self.0.accounts.load()).clone();
        let hash = station.and_then(|s| s.settings.password.clone());
        match station {
            Some(station) => drop(all.insert(domain.to_owned(), Arc::new(station.clone()))),
            None => drop(all.remove(domain)),
        }
        match hash {
            Some(hash) => {
                let account = Account { hash: hash.0, grants: Grants::default(), keys: Vec::new() };
                accounts.all.insert(domain.to_owned(), account);
            }
            None => drop(accounts.all.remove(domain)),
        }
        self.0.all.store(Arc::new(all));
        self.0.accounts.store(Arc::new(accounts));
    }

    /// What domains use at a mediator: held while one of them takes more.
    pub(crate) fn claims(&self, mediator: IpAddr) -> Shared {
        self.0.claims.lock().entry(mediator).or_default().clone()
    }

    /// Mediators of a domain that have an actor.
    pub(crate) fn running(&self, domain: &str) -> Vec<Mediator> {
        self.0.running.lock().iter().filter(|(d, _)| d == domain).map(|(_, m)| *m).collect()
    }

    pub(crate) fn runs(&self, domain: &str, mediator: Mediator, on: bool) {
        let (key, mut running) = ((domain.to_owned(), mediator), self.0.running.lock());
        match on {
            true => drop(running.insert(key)),
            false => drop(running.remove(&key)),
        }
    }

    /// Every log-in of several domains with every address a mediator works from.
    pub(crate) fn mediators(&self, aggregates: &Aggregates) -> Vec<(String, IpAddr)> {
        let all = self.0.all.load();
        let ips = all.values().flat_map(|s| s.settings.radius_servers.keys().map(Mediator::ip));
        let ips: BTreeSet<IpAddr> = ips.collect();
        aggregates.users.keys().flat_map(|u| ips.iter().map(|ip| (u.clone(), *ip))).collect()
    }

    /// Notes that a tap was ordered, or is no more.
    pub(crate) fn tapped(&self, call: &str, tap: u64, on: bool) {
        let mut taps = self.0.taps.lock();
        match on {
            true => drop(taps.insert(tap, call.to_owned())),
            false => drop(taps.remove(&tap)),
        }
    }

    /// Of these taps, those that nobody has ordered.
    pub(crate) fn strays(&self, taps: Vec<(Address, u64)>) -> Vec<(Address, u64)> {
        let known = self.0.taps.lock();
        taps.into_iter().filter(|(call, tap)| known.get(tap).is_none_or(|c| c != call.as_str())).collect()
    }
}

/// Tells every mediator of a domain of every call in it, so that a call under control is told of as any other.
pub struct Watch {
    pub stations: Stations,
    pub node: Node,
}

impl Witness for Watch {
    fn watches(&self, domain: &str) -> bool {
        self.stations.0.all.load().get(domain).is_some_and(|s| s.settings.enabled)
    }

    fn see(&self, seen: Seen) {
        let seen = Arc::new(seen);
        self.tell(seen.trail.domains().collect(), || InterceptMsg::Seen(seen.clone()));
    }

    fn read(&self, written: Written) {
        let written = Arc::new(written);
        let domains = written.way.iter().map(|s| s.domain.as_str()).collect();
        self.tell(domains, || InterceptMsg::Read(written.clone()));
    }
}

impl Watch {
    /// Tells every mediator of these domains.
    fn tell(&self, mut domains: Vec<&str>, message: impl Fn() -> InterceptMsg) {
        domains.sort_unstable();
        domains.dedup();
        let all = self.stations.0.all.load();
        for domain in domains {
            let Some(station) = all.get(domain).filter(|s| s.settings.enabled) else { continue };
            for mediator in station.settings.radius_servers.keys() {
                let name = interception(domain, *mediator);
                let Some(to) = name.and_then(|n| self.node.registry().lookup::<InterceptMsg>(&n).ok()) else {
                    // It is being started again, and looks at what it has missed.
                    continue;
                };
                if to.tell(message()).is_err() {
                    tracing::error!(%domain, %mediator, "an interception does not keep up");
                    metrics::counter!("hypha_sorm_overloaded_total").increment(1);
                }
            }
        }
    }
}

/// Name of the actor that tells a mediator of a domain's calls.
pub fn interception(domain: &str, mediator: Mediator) -> Option<Address> {
    Address::new(format!("domain/{domain}/sorm/{mediator}")).ok()
}

/// Name of a domain's ledger.
pub fn ledger(domain: &str) -> Option<Address> {
    Address::new(format!("domain/{domain}/sorm")).ok()
}

fn purpose(domain: &str, mediator: Mediator) -> String {
    format!("domain/{domain}/sorm/{mediator}")
}

/// Seals the secret shared with a mediator.
pub fn seal_secret(
    vault: &dyn Vault,
    domain: &str,
    mediator: Mediator,
    secret: &Secret<String>,
) -> Result<Sealed, SealError> {
    vault.seal(&purpose(domain, mediator), secret)
}

pub(crate) fn secret_of(
    vault: &dyn Vault,
    domain: &str,
    mediator: Mediator,
    sealed: &Sealed,
) -> Result<Secret<String>, SealError> {
    vault.open(&purpose(domain, mediator), sealed)
}

/// The ledger of a domain's station, `domain/<D>/sorm`.
pub struct StationBook {
    pub domain: String,
    pub estate: Estate,
    pub stations: Stations,
    pub sorm: u8,
    pub multi: Multi,
}

#[derive(IntoStaticStr)]
pub enum StationCommand {
    Set(Setting),
    Clean(Property),
    /// A command of a mediator's control point.
    Execute(Mediator, Request),
    Media(Mediator, Media),
    Basis(Mediator, u16, Basis),
    /// Objects whose time is over go.
    Expire(DateTime<Utc>),
}

/// Shows nothing: traces are read by many.
impl fmt::Debug for StationCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

/// What a command of the control point came to; a change of settings has none.
pub struct Executed(pub Answer);

impl fmt::Debug for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

impl Book for StationBook {
    type State = Station;
    type Command = StationCommand;
    type Answer = Executed;
    type Error = SettingError;

    fn decide(
        &self,
        station: &Station,
        command: StationCommand,
    ) -> Result<(Vec<StationEvent>, Executed), SettingError> {
        let done = |event| Ok((vec![event], Executed(Answer::default())));
        match command {
            StationCommand::Set(Setting::RemoveServer(mediator))
                if !station.settings.radius_servers.contains_key(&mediator) =>
            {
                Err(SettingError::NoServer(mediator))
            }
            StationCommand::Set(setting) => done(StationEvent::Set(setting)),
            StationCommand::Clean(property) => done(StationEvent::Cleaned(property)),
            StationCommand::Media(mediator, media) => done(StationEvent::MediaSet(mediator, media)),
            StationCommand::Basis(mediator, number, basis) => {
                let known = station.desks.get(&mediator).is_some_and(|d| d.objects.contains_key(&number));
                if !known {
                    let answer = Answer { done: Some(Refusal::ObjectNumber), ..Answer::default() };
                    return Ok((Vec::new(), Executed(answer)));
                }
                done(StationEvent::ObjectBased { mediator, number, basis })
            }
            StationCommand::Expire(now) => {
                let times = station.times.iter().take_while(|(at, ..)| *at <= now);
                let over = times.filter(|(_, mediator, number)| {
                    let object = station.desks.get(mediator).and_then(|d| d.objects.get(number));
                    object.and_then(|o| o.basis.as_ref()?.until).is_some_and(|until| until <= now)
                });
                let gone: BTreeSet<(Mediator, u16)> = over.map(|(_, m, n)| (*m, *n)).collect();
                let gone = gone
                    .into_iter()
                    .map(|(mediator, number)| StationEvent::ObjectRemoved { mediator, number });
                Ok((gone.collect(), Executed(Answer::default())))
            }
            StationCommand::Execute(mediator, request) => {
                let most = self.multi.all().objects_limit;
                let local = OfDomain { estate: &self.estate, domain: &self.domain, most };
                let (events, answer) = execute(station, mediator, &request, self.sorm, &local);
                Ok((events, Executed(answer)))
            }
        }
    }

    fn publish(&self, station: &Station) {
        self.stations.publish(&self.domain, Some(station));
    }

    fn snapshot_every(&self, station: &Station) -> u64 {
        let objects: usize = station.desks.values().map(|d| d.objects.len()).sum();
        200 + u64::try_from(objects).unwrap_or_default()
    }

    // An object that was removed leaves nothing behind.
    const FORGETS: bool = true;

    fn summary(&self, _: &Station) -> serde_json::Value {
        serde_json::Value::String(kit::MARK.into())
    }
}

/// The estate as a station asks it.
struct OfDomain<'e> {
    estate: &'e Estate,
    domain: &'e str,
    most: Option<usize>,
}

impl Local for OfDomain<'_> {
    fn subscriber(&self, number: &str) -> bool {
        self.estate.picture().domains.get(self.domain).is_some_and(|d| {
            let taken = |p: &domain::state::Plan| {
                p.numbers
                    .get(number)
                    .and_then(|b| b.taker())
                    .is_some_and(|t| d.aliases.contains_key(&t.address))
            };
            d.aliases.contains_key(number) || d.plans.values().any(taken)
        })
    }

    fn trunks(&self) -> Vec<String> {
        let picture = self.estate.picture();
        picture.domains.get(self.domain).map(|d| d.trunks.keys().cloned().collect()).unwrap_or_default()
    }

    fn most_objects(&self) -> usize {
        self.most.unwrap_or(usize::MAX)
    }

    fn services(&self, number: Option<&str>) -> Vec<u8> {
        use strum::IntoEnumIterator;
        let Some(number) = number else {
            return call::service::Service::iter().filter_map(code_of).collect();
        };
        let picture = self.estate.picture();
        let Some(domain) = picture.domains.get(self.domain) else { return Vec::new() };
        let bound = domain.plans.values().find_map(|p| p.numbers.get(number)?.taker());
        let alias = bound.map_or(number, |t| t.address.as_str());
        let set = domain.services.get(alias).into_iter().flatten().filter(|(_, state)| state.active);
        set.filter_map(|(name, _)| code_of(name.parse().ok()?)).collect()
    }
}
